"""What was cleaned earlier: to be gone on with, or to be compared with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.clean.duplicates import DIGESTS, SIGNATURES, Index
from tp_ext.clean.tally import Tally, read_tally
from tp_ext.corpus.faults import FAULTS, excerpt
from tp_ext.corpus.files import Corpus, look_at
from tp_ext.corpus.lines import Lines
from tp_ext.errors import CorpusError
from tp_ext.output import MANIFEST, check_files
from tp_ext.settings import read_json

KIND = "clean text"
INDEX, LEDGER, DROPPED, DUPLICATES = "index", "ledger.json", "dropped", "duplicates"
UNCUT = "uncut.jsonl"
"""In the index: whole documents of which later ones lost stretches or which went for that."""
_MOST = 1 << 40


@dataclass(frozen=True)
class Earlier:
    """The output of an earlier cleaning."""

    folder: Path
    ledger: dict[str, Any]

    @property
    def index(self) -> Index:
        """What finds documents like its own."""
        return Index(self.folder / INDEX)

    @property
    def files(self) -> list[dict[str, Any]]:
        """What its ledger says of each input file."""
        return list(self.ledger["files"])

    @property
    def tally(self) -> Tally:
        """Its counts and samples."""
        return read_tally({"counts": self.ledger["all"], "samples": self.ledger["samples"]})

    def check_comparable(self, fuzzy: bool, versions: Mapping[str, str]) -> None:
        """Raise CorpusError when near copies are looked for and its signatures are not there, or others."""
        if not fuzzy:
            return
        if self.ledger["settings"]["duplicates"]["fuzzy"] is None:
            raise CorpusError(f'{self.folder}: was cleaned with "fuzzy": null, so near copies of its documents cannot be '
                              "found; clean it again, or switch it off here too")  # fmt: skip
        theirs = {name: self.ledger["versions"].get(name) for name in ("rensa", "algorithm")}
        if theirs != (ours := {name: versions.get(name) for name in theirs}):
            raise CorpusError(f"{self.folder}: its signatures were made with {theirs}, here is {ours}; clean it again")

    def texts(self) -> Iterator[str]:
        """The documents it kept, as they were before stretches were cut out, and those that went for that."""
        uncut = list(records_of(self.folder / INDEX / UNCUT))
        cut = {(each["source"], each["offset"]) for each in uncut}
        yield from (each["text"] for each in uncut)
        for file in self.files:
            for value in records_of(self.folder / file["output"]):
                if (value["source"], value["offset"]) not in cut:
                    yield value["text"]

    def carry_over(self, folder: Path) -> None:
        """Put its documents, kept and dropped, into another folder, and those in its index that were cut."""
        shutil.copyfile(self.folder / INDEX / UNCUT, folder / INDEX / UNCUT)
        for path in sorted(self.folder.rglob("*.jsonl*")):
            place = path.relative_to(self.folder)
            if place.parts[0] != INDEX and path.name != FAULTS:
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(path, folder / place)
                except OSError:  # a file system without links
                    shutil.copyfile(path, folder / place)


def opened(folder: Path, whole: bool = False) -> Earlier:
    """The output of an earlier cleaning. Raises CorpusError when it is none or damaged.

    Its ledger and its index are compared by content, its documents by size, as they may be many; by content if `whole`.
    """
    manifest = read_json(folder / MANIFEST, CorpusError)
    if manifest.get("kind") != KIND:
        raise CorpusError(f"{folder}: is no output of scripts/clean.py")
    check_files(folder, manifest, hashes=whole, kind=CorpusError)
    files = manifest["files"]
    small = {name: files[name] for name in files if name == LEDGER or name.startswith(f"{INDEX}/")}
    check_files(folder, {"files": small}, hashes=True, kind=CorpusError)
    return Earlier(folder, _checked(folder, read_json(folder / LEDGER, CorpusError), files))


def _checked(folder: Path, ledger: dict[str, Any], listed: Collection[str]) -> dict[str, Any]:
    """The ledger. Raises CorpusError when it is none, or names files that the manifest does not list."""
    try:
        read_tally({"counts": ledger["all"], "samples": ledger["samples"]})
        right = isinstance(ledger["run"], str) and isinstance(ledger["versions"], dict)
        right = right and {"fuzzy"} <= ledger["settings"]["duplicates"].keys() and "keep_dropped" in ledger["settings"]
        names = [each["output"] for each in ledger["files"] if {"path", "bytes", "modified"} <= each.keys()]
        right = right and len(names) == len(ledger["files"]) and all(Path(name).name == name for name in names)
    except (KeyError, TypeError, ValueError, AttributeError):
        right = False
    if not right:
        raise CorpusError(f"{folder / LEDGER}: damaged: is no ledger of scripts/clean.py")
    places = [LEDGER, *(f"{INDEX}/{name}" for name in (DIGESTS, SIGNATURES, UNCUT)), *names]
    if missing := sorted(set(places) - set(listed)):
        raise CorpusError(f"{folder / MANIFEST}: damaged: does not list {missing[0]}")
    return ledger


def extended(folder: Path, run: str, corpora: Sequence[Corpus]) -> Earlier | None:
    """What is at `folder` already, if it is a whole output of the same run id for the first of these files."""
    try:
        found = opened(folder)
        done = [(each["path"], each["bytes"], each["modified"]) for each in found.files]
        wanted = [(str(each.path), each.size, each.modified) for each in corpora[: len(done)]]
        if found.ledger["run"] != run or done != wanted:
            return None
        return opened(folder, whole=True) if corpora[len(done) :] else found  # what is carried over gets new hashes
    except CorpusError:
        return None


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a plain or compressed file of ours. Raises CorpusError where it is damaged."""
    with look_at(path).open() as read:
        for piece in Lines(read, 0, _MOST).until(None):
            if piece.fault:
                raise CorpusError(f"{path}: damaged: {piece.excerpt}")
            for line in piece.content.splitlines():
                yield _record(line, path)


def _record(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
        if value["source"] is None or value["offset"] < 0 or not isinstance(value.get("text", ""), str):
            raise ValueError
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise CorpusError(f"{path}: damaged: {excerpt(line)} is no record of scripts/clean.py") from None
    return dict(value)
