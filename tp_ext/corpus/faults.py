"""What is wrong with a record of a corpus: its kind, its place, how it begins."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.errors import CorpusError

NOT_UTF8 = "not UTF-8"
WRONG_ENCODING = "wrong encoding"
NUL = "NUL"
TOO_LONG = "too long"
NOT_JSON = "not JSON"
NO_OBJECT = "no object"
NO_TEXT = "no text key"
NO_STRING = "text not a string"
SURROGATE = "lone surrogate"
DAMAGED = "damaged"
MEANING: Mapping[str, str] = {
    NOT_UTF8: "convert the file to UTF-8 first, for instance iconv -f GB18030 -t UTF-8; clean.py has --encoding gb18030",
    WRONG_ENCODING: "bytes that --encoding does not allow",
    NUL: "a zero byte, which no text has: a damaged file, or UTF-16",
    TOO_LONG: "longer than --longest_line",
    NOT_JSON: "a line is to be an object",
    NO_OBJECT: 'a line is to be an object with a string under "text"',
    NO_TEXT: 'a line is to be an object with a string under "text"; clean.py has --text_key for another key',
    NO_STRING: 'a line is to be an object with a string under "text"',
    SURROGATE: "half of a surrogate pair, which no encoding of text allows",
    DAMAGED: "the compressed data is damaged or cut short here; where a checksum failed, some before it may be wrong",
}
"""Every kind of fault, with what it means or what would be right."""
EXCERPT_BYTES = 60
FAULTS = "faults.jsonl"
"""The list of faults beside what was made of a corpus."""
FAULT_LIMIT = 0.001
SHOWN = 20


@dataclass(frozen=True)
class Fault:
    """A record that is no document. `offset` is the byte its line begins at, in a compressed file of what it holds."""

    kind: str
    path: Path
    offset: int
    excerpt: str

    def __str__(self) -> str:
        return f"{self.path}: byte {self.offset}: {self.kind}: {self.excerpt} ({MEANING[self.kind]})"

    def as_json(self) -> dict[str, Any]:
        """As a list of faults has it."""
        return {"path": str(self.path), "offset": self.offset, "kind": self.kind, "excerpt": self.excerpt}


def excerpt(line: bytes, at: int = 0) -> str:
    """Some of a line from its byte `at` on, as printable text."""
    part = line[at : at + EXCERPT_BYTES]
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")  # which leaves out half of a last character
    shown = decoder.decode(part, final=at + len(part) == len(line))
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in shown)


def listing(faults: Sequence[Fault], more: int) -> str:
    """A line for each fault, then how many `more` there are."""
    return "\n".join([*(f"  {fault}" for fault in faults), *([f"  and {more:,} more"] if more else [])])


def check_faults(path: Path, faults: int, records: int, limit: float) -> None:
    """Raise CorpusError with the first faults of the list `path` when they are more than `limit` of all records."""
    if faults <= limit * records:
        return
    kinds: Counter[str] = Counter()
    shown: list[str] = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            fault = json.loads(line)
            kinds[fault["kind"]] += 1
            if len(shown) < SHOWN:
                shown.append("  {path}: byte {offset}: {kind}: {excerpt}".format_map(fault))
    told = "; ".join(f"{times:,} {kind} ({MEANING[kind]})" for kind, times in kinds.most_common())
    raise CorpusError(
        f"{faults:,} of {records:,} records are no text, more than --fault_limit {limit:g}: {told}\n"
        + "\n".join(shown + ([f"  and {faults - len(shown):,} more"] if faults > len(shown) else []))
        + f"\nall are listed in {path}; with a higher --fault_limit the same command leaves them out and is done at once"
    )
