"""A part of a corpus after all rules: what passed them, what did not, and what finding duplicates needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tp_ext.clean.cleaner import EMPTY, Cleaned, Cleaner
from tp_ext.clean.exact import digest_of
from tp_ext.clean.hosts import BLOCKED, Hosts
from tp_ext.clean.minhash import signatures
from tp_ext.clean.quality import Gate
from tp_ext.clean.settings import CleanSettings
from tp_ext.clean.tally import CHANGED, CHARACTERS_READ, DROPPED, FAULT, LINES, READ, Tally
from tp_ext.corpus.blocks import Block
from tp_ext.data.parts import Part, blocks_of
from tp_ext.output import json_bytes

FILES = ("passed.jsonl", "digests.bin", "signatures.bin", "dropped.jsonl", "faults.jsonl")


@dataclass(frozen=True)
class Staged:
    """A part after all rules."""

    contents: tuple[bytes, ...]
    """What is added to each of FILES."""
    passed: int
    """Documents."""
    tally: Tally


class Stage:
    """The rules of some settings for parts of a corpus."""

    def __init__(self, settings: CleanSettings) -> None:
        self._cleaner, self._settings = Cleaner(settings), settings
        self._hosts = Hosts(settings.documents.blocked_hosts)
        self._gate = Gate(settings.quality)
        self._names = [*settings.fields, *(["url"] if self._hosts and "url" not in settings.fields else [])]

    def __call__(self, part: Part, longest_line: int) -> Staged:
        """What the rules leave of a part."""
        tally = Tally()
        contents = [self._block(block, str(part.corpus.path), tally) for block in blocks_of(part, longest_line)]
        joined = tuple(b"".join(each[place] for each in contents) for place in range(len(FILES)))
        return Staged(joined, joined[0].count(b"\n"), tally)

    def _block(self, block: Block, path: str, tally: Tally) -> Sequence[bytes]:
        texts, offsets = block.texts(), block.documents.offsets.tolist()
        values = block.values(self._names)
        tally.totals[READ] += len(texts) + block.empty + len(block.faults)
        tally.totals[CHARACTERS_READ] += sum(map(len, texts))
        if block.empty:
            tally.count(DROPPED, EMPTY, block.empty)
        for fault in block.faults:
            tally.count(FAULT, fault.kind)
            tally.sample(FAULT, fault.kind, path, fault.offset, fault.excerpt)
        cleaned = self._cleaner.many(texts)
        passed, dropped = [], []
        for found, offset, value in zip(cleaned, offsets, values, strict=True):
            found = self._judged(found, value)
            _tell(tally, found, path, offset)
            if found.text is None:
                lines = [[each.line, each.reason] for each in found.removed]
                dropped.append({"text": found.whole, "source": path, "offset": offset, **self._kept(value),
                                "reason": found.reason, **({"removed": lines} if lines else {})})  # fmt: skip
            else:
                passed.append((found.text, {"text": found.text, "source": path, "offset": offset, **self._kept(value)}))
                if found.removed:
                    lines = [[each.line, each.reason, each.text] for each in found.removed]
                    dropped.append({"source": path, "offset": offset, "lines": lines})
        kept_texts = [text for text, _ in passed]
        return (
            _json_lines([record for _, record in passed]),
            b"".join(map(digest_of, kept_texts)),
            self._signatures(kept_texts),
            _json_lines(dropped) if self._settings.keep_dropped else b"",
            _json_lines([fault.as_json() for fault in block.faults]),
        )

    def _judged(self, found: Cleaned, value: dict[str, Any]) -> Cleaned:
        """What became of a document after those rules too that need more than its text."""
        if found.text is None:
            return found
        if self._hosts and self._hosts.block(value.get("url")):
            return found.dropped(BLOCKED)
        reason = self._gate.reason(found.text)
        return found.dropped(reason) if reason else found

    def _kept(self, value: dict[str, Any]) -> dict[str, Any]:
        return {name: value[name] for name in self._settings.fields if name in value}

    def _signatures(self, texts: Sequence[str]) -> bytes:
        if self._settings.duplicates.fuzzy is None:
            return b""
        return np.ascontiguousarray(signatures(texts), dtype="<u2").tobytes()


def _tell(tally: Tally, found: Cleaned, path: str, offset: int) -> None:
    if found.text is None:
        tally.count(DROPPED, found.reason)
        tally.sample(DROPPED, found.reason, path, offset, found.whole)
    for name in found.changed:
        tally.count(CHANGED, name)
    for each in found.removed:
        tally.count(LINES, each.reason)
        tally.sample(LINES, each.reason, path, offset, each.text)


def _json_lines(values: Sequence[Any]) -> bytes:
    return b"".join(_json(value) + b"\n" for value in values)


def _json(value: Any) -> bytes:
    """The value as JSON, null for the numbers that Python reads and JSON does not have."""
    line = json_bytes(value)
    if b"NaN" not in line and b"Infinity" not in line:
        return line
    return json_bytes(json.loads(line, parse_constant=lambda _: None))


def make_stage(settings: CleanSettings, longest_line: int) -> Callable[[Part], Staged]:
    """The rules as a function of a part. Raises ConfigError when one needs what is not there."""
    return partial(Stage(settings), longest_line=longest_line)
