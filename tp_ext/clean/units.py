"""The first step of a cleaning cut into units of work for many machines, by a manifest that all of them read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.clean.pipeline import Results
from tp_ext.clean.run import run_id
from tp_ext.clean.settings import CleanSettings, as_json, read_settings
from tp_ext.clean.stage import Staged, make_stage
from tp_ext.clean.tally import read_tally
from tp_ext.corpus.files import Corpus, Form, look_at, look_at_all
from tp_ext.data.parts import PART_BYTES, Part, parts_of
from tp_ext.errors import CorpusError
from tp_ext.output import whole_file, write_json
from tp_ext.settings import read_json

PLAN, SETTINGS = "plan.json", "recipe.json"


@dataclass(frozen=True)
class Unit:
    """A range of a plain file, or the whole of one that can only be read from its beginning."""

    number: int
    file: int
    start: int


class Units:
    """A plan in a folder that all machines see, and what was done of it."""

    def __init__(self, folder: Path) -> None:
        """Raises CorpusError when there is no plan or a file has changed since it was made."""
        self.folder = folder
        plan = read_json(folder / PLAN, CorpusError)
        self.settings = read_settings(folder / SETTINGS)
        self.form, self.longest_line = Form(**plan["form"]), int(plan["longest_line"])
        self.corpora = [look_at(Path(path), self.form) for path, _, _ in plan["corpus"]]
        for corpus, (path, size, modified) in zip(self.corpora, plan["corpus"], strict=True):
            if (corpus.size, corpus.modified) != (size, modified):
                raise CorpusError(f"{path}: has changed since the run was planned; start it anew")

    def units(self) -> Iterator[Unit]:
        """All units, numbered through."""
        number = 0
        for file, corpus in enumerate(self.corpora):
            starts = [0] if corpus.is_stream else range(0, corpus.size, PART_BYTES)
            for start in starts:
                yield Unit(number, file, start)
                number += 1

    def work(self, rank: int, world_size: int) -> Iterator[Unit]:
        """Do those units of one of so many tasks that were not done yet, and name them."""
        stage = None
        for unit in self.units():
            if unit.number % world_size == rank and not self._path(unit).is_file():
                stage = stage or make_stage(self.settings, self.longest_line)
                with whole_file(self._path(unit)) as path, open(path, "wb") as file:
                    for part in self._parts(unit):
                        file.writelines(_packed(part, stage(part)))
                yield unit

    def results(self) -> Results:
        """What the units left, for `clean`. Raises CorpusError when one has not been done."""

        def results(corpora: Sequence[Corpus], file: int, start: int) -> Iterator[tuple[int, int, Staged]]:
            first = len(self.corpora) - len(corpora)
            for unit in self.units():
                for found in self._unpacked(unit) if unit.file >= first else ():
                    number, stop, staged = found
                    if (number - first, stop) > (file, start):
                        yield number - first, stop, staged

        return results

    def _parts(self, unit: Unit) -> Iterator[Part]:
        corpus = self.corpora[unit.file]
        for part in parts_of([corpus], 0, unit.start, self.longest_line):
            yield dataclasses.replace(part, file=unit.file)
            if not corpus.is_stream:
                return

    def _path(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.number:07}"

    def _unpacked(self, unit: Unit) -> Iterator[tuple[int, int, Staged]]:
        try:
            file = open(self._path(unit), "rb")  # noqa: SIM115 (closed below)
        except FileNotFoundError:
            path = self._path(unit)
            raise CorpusError(f"{path}: is missing; not all tasks have ended well, see the logs beside") from None
        with file:
            while line := file.readline():
                try:
                    told = json.loads(line)
                    contents = tuple(map(file.read, told["bytes"]))
                    if [len(content) for content in contents] != told["bytes"]:
                        raise ValueError
                    staged = Staged(contents, told["passed"], read_tally(told["tally"]))
                except (ValueError, TypeError, KeyError):
                    raise CorpusError(f"{self._path(unit)}: damaged; remove it and run the same command again") from None
                yield unit.file, told["stop"], staged


def _packed(part: Part, staged: Staged) -> Sequence[bytes]:
    told = {"stop": part.stop, "passed": staged.passed, "tally": staged.tally.write(),
            "bytes": list(map(len, staged.contents))}  # fmt: skip
    return [json.dumps(told).encode() + b"\n", *staged.contents]


def plan(
    corpus_paths: Sequence[Path], settings: CleanSettings, folder: Path, *, against: Sequence[Path], longest_line: int,
    form: Form,
) -> Units:  # fmt: skip
    """The plan of a run, in a folder below `folder` that no run of other settings, versions or files has."""
    corpora = look_at_all([path.resolve() for path in corpus_paths], form)
    files: list[list[Any]] = [[str(each.path), each.size, each.modified] for each in corpora]
    place = folder / run_id(settings, longest_line, against, form, files)
    write_json(place / SETTINGS, as_json(settings))
    write_json(place / PLAN, {"corpus": files, "form": dataclasses.asdict(form), "longest_line": longest_line})
    return Units(place)
