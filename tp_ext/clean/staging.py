"""The first step of a cleaning: all files through all rules, part by part, to where the next steps find it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.clean.stage import FILES, Staged
from tp_ext.clean.tally import FAULT, READ, Tally, read_tally
from tp_ext.corpus.files import Corpus
from tp_ext.data.journal import Journal


@dataclass
class FileWork:
    """How far a file is."""

    corpus: Corpus
    tally: Tally
    passed: int = 0
    dropped: int = 0
    """Records in the list of what was dropped."""


class Staging:
    """What passed the rules, in files of a folder, and how far it is."""

    def __init__(self, notes: Path, corpora: Sequence[Corpus], run: str) -> None:
        """Go on where an earlier run of the same id on the same files stopped."""
        self.folder = notes / "staged"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files = [FileWork(corpus, Tally()) for corpus in corpora]
        self.file, self.start = 0, 0
        plan = {"run": run, "corpus": [each.identity for each in corpora]}
        self.journal = Journal([self.folder / name for name in FILES], self.folder, plan, self._count)

    def add(self, file: int, stop: int, staged: Staged) -> None:
        """Write what became of the next part, the one before the byte `stop` of the file of this number."""
        values = {"file": file, "stop": stop, "passed": staged.passed, "dropped": staged.contents[3].count(b"\n"),
                  "tally": staged.tally.write()}  # fmt: skip
        self.journal.append(staged.contents, values)
        self._count(values)

    def _count(self, values: dict[str, Any]) -> None:
        file = self.files[values["file"]]
        file.tally.add(read_tally(values["tally"]))
        file.passed += values["passed"]
        file.dropped += values["dropped"]
        self.file, self.start = values["file"], values["stop"]

    def bytes_done(self) -> int:
        """Bytes of the files that were read; of one that can only be read from its beginning, when it is done."""
        here = self.files[self.file].corpus
        before = sum(each.corpus.size for each in self.files[: self.file])
        return before + (0 if here.is_stream else min(self.start, here.size))

    def faults_and_records(self) -> tuple[int, int]:
        """Of all files."""
        return (sum(each.tally.sum_of(FAULT) for each in self.files), sum(each.tally.totals[READ] for each in self.files))

    def passed(self) -> Iterator[tuple[FileWork, Iterator[bytes]]]:
        """Each file with the JSON lines of its documents that passed; they are to be taken before the next file."""
        yield from self._lines(FILES[0], "passed")

    def dropped(self) -> Iterator[tuple[FileWork, Iterator[bytes]]]:
        """The same for what was dropped."""
        yield from self._lines(FILES[3], "dropped")

    def _lines(self, name: str, count: str) -> Iterator[tuple[FileWork, Iterator[bytes]]]:
        with open(self.folder / name, "rb") as lines:
            for file in self.files:
                yield file, (next(lines) for _ in range(getattr(file, count)))

    def size_passed(self) -> int:
        """Bytes of what passed."""
        return (self.folder / FILES[0]).stat().st_size

    def texts(self) -> Iterator[str]:
        """The text of every document that passed."""
        for _, lines in self.passed():
            for line in lines:
                yield json.loads(line)["text"]
