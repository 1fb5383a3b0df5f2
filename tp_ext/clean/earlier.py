"""What was cleaned earlier: to be gone on with, or to be compared with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.clean.duplicates import Index
from tp_ext.clean.tally import Tally, read_tally
from tp_ext.corpus.faults import FAULTS
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
        uncut = list(map(json.loads, lines_of(self.folder / INDEX / UNCUT)))
        cut = {(each["source"], each["offset"]) for each in uncut}
        yield from (each["text"] for each in uncut)
        for file in self.files:
            for line in lines_of(self.folder / file["output"]):
                value = json.loads(line)
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


def opened(folder: Path) -> Earlier:
    """The output of an earlier cleaning. Raises CorpusError when it is none or damaged."""
    manifest = read_json(folder / MANIFEST, CorpusError)
    if manifest.get("kind") != KIND:
        raise CorpusError(f"{folder}: is no output of scripts/clean.py")
    check_files(folder, manifest, hashes=False, kind=CorpusError)
    return Earlier(folder, read_json(folder / LEDGER, CorpusError))


def extended(folder: Path, run: str, corpora: Sequence[Corpus]) -> Earlier | None:
    """What is at `folder` already, if it is a whole output of the same run id for the first of these files."""
    try:
        found = opened(folder)
    except CorpusError:
        return None
    done = [(each["path"], each["bytes"], each["modified"]) for each in found.files]
    wanted = [(str(each.path), each.size, each.modified) for each in corpora[: len(done)]]
    return found if found.ledger["run"] == run and done == wanted else None


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a plain or compressed file of ours."""
    with look_at(path).open() as read:
        for piece in Lines(read, 0, _MOST).until(None):
            yield from piece.content.splitlines()
