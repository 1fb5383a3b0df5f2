"""What a cleaning took out, put back for some of its reasons."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tp_ext.clean.duplicates import KINDS, SUBSTRING
from tp_ext.clean.earlier import DROPPED as DROPPED_FOLDER
from tp_ext.clean.earlier import DUPLICATES, Earlier, opened, records_of
from tp_ext.clean.finish import json_line, opened_for_writing
from tp_ext.clean.tally import CHANGED, DROPPED, DUPLICATE, LINES
from tp_ext.errors import ConfigError, CorpusError, suggest
from tp_ext.output import whole_folder, write_manifest

KIND = "clean text with some put back"
CUT = KINDS[SUBSTRING]
Record = dict[str, Any]


def put_back(folder: Path, reasons: Collection[str], output: Path) -> Counter[str]:
    """Write the documents of an output of cleaning with what was dropped for some `reasons`; how many by reason.

    Documents are where they were, lines and stretches too. What rules for characters changed stays changed. A document
    with stretches cut out gets its lines back only together with these. Raises CorpusError when what was dropped was not
    kept, ConfigError for a reason that nothing was dropped for and an `output`
    inside an output of cleaning.
    """
    earlier = opened(folder, whole=True)
    if not earlier.ledger["settings"]["keep_dropped"]:
        raise CorpusError(f'{folder}: was cleaned with "keep_dropped": false; what was dropped is not there')
    counts = earlier.ledger["all"]
    known = {*counts[DROPPED], *counts[DUPLICATE], *counts[LINES], *({CUT} & set(counts[CHANGED]))} - {"empty"}
    if wrong := sorted(set(reasons) - known):
        raise ConfigError(f"nothing was dropped for '{wrong[0]}'.{suggest(wrong[0], known)}")
    done: Counter[str] = Counter()
    with whole_folder(output, KIND, CorpusError) as target:
        for file in earlier.files:
            with opened_for_writing(target / file["output"]) as kept:
                for document in _documents(earlier, file["output"], reasons, done):
                    kept.write(json_line(document))
        write_manifest(target, KIND, {"run": earlier.ledger["run"], "put_back": dict(sorted(done.items()))})
    return done


def _documents(earlier: Earlier, name: str, reasons: Collection[str], done: Counter[str]) -> Iterator[Record]:
    """The documents of a file in their order."""
    paths = [earlier.folder / place / name for place in (".", DROPPED_FOLDER, DUPLICATES)]
    streams = list(map(records_of, paths))
    for _, records in groupby(heapq.merge(*streams, key=_place), _place):
        if (document := _document(list(records), reasons, done)) is not None:
            yield document


def _place(record: Record) -> int:
    return int(record["offset"])


def _document(records: Sequence[Record], reasons: Collection[str], done: Counter[str]) -> Record | None:
    """A document of what is told of it: itself, that it was dropped, its lines, its stretches."""
    merged: Record = {}
    for record in records:
        merged |= record
    reason = merged.pop("reason", None)
    lines, removed, cuts = (merged.pop(name, []) for name in ("lines", "removed", "cuts"))
    if reason is not None and reason not in reasons:
        return None
    text = merged["text"]
    if reason is not None:
        done[reason] += 1
        text = _without_lines(text, removed, reasons)
    if cuts and CUT in reasons:
        done[CUT] += 1
        text = _with_stretches(text, cuts)
        cuts = []
    if lines and not cuts:
        done.update(each[1] for each in lines if each[1] in reasons)
        text = _with_lines(text, lines, reasons)
    return merged | {"text": text}


def _with_lines(text: str, lines: Sequence[tuple[int, str, str]], reasons: Collection[str]) -> str:
    """The text with those of its lines that went for `reasons` in their places."""
    gone = {number: (reason, line) for number, reason, line in lines}
    rest = iter(text.split("\n"))
    found = []
    for number in range(text.count("\n") + 1 + len(gone)):
        if number not in gone:
            found.append(next(rest))
        elif gone[number][0] in reasons:
            found.append(gone[number][1])
    return "\n".join(found)


def _without_lines(text: str, removed: Sequence[tuple[int, str]], reasons: Collection[str]) -> str:
    """A whole text without those of its lines that did not go for `reasons`."""
    gone: Mapping[int, str] = dict(removed)
    return "\n".join(line for number, line in enumerate(text.split("\n")) if gone.get(number) in (None, *reasons))


def _with_stretches(text: str, cuts: Sequence[tuple[int, str]]) -> str:
    for start, stretch in cuts:
        text = text[:start] + stretch + text[start:]
    return text
