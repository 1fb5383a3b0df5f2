"""Cleaning as blocks of datatrove, for its local, Slurm and Ray executors; needs the extra `cluster`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from tp_ext.clean.cleaner import Cleaner
from tp_ext.clean.pipeline import clean
from tp_ext.clean.settings import CleanSettings
from tp_ext.clean.units import Units

BATCH = 200
"""Documents that are looked at together."""


class Rules(PipelineStep):  # type: ignore[misc]
    """All rules for text as a block that stands between any others; what is dropped is counted by reason."""

    name, type = "rules that know Chinese", "tp_ext"

    def __init__(self, settings: CleanSettings) -> None:
        super().__init__()
        self._settings = settings

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents that are kept, with what the rules leave of their text."""
        cleaner, batch = Cleaner(self._settings), []
        for document in data or ():
            batch.append(document)
            if len(batch) == BATCH:
                yield from self._cleaned(cleaner, batch)
                batch = []
        yield from self._cleaned(cleaner, batch)

    def _cleaned(self, cleaner: Cleaner, batch: Sequence[Document]) -> Iterator[Document]:
        all_found = cleaner.many([document.text for document in batch])
        for document, found in zip(batch, all_found, strict=True):
            self.stat_update("read", "kept" if found.text is not None else f"dropped_{found.reason.replace(' ', '_')}")
            if found.text is not None:
                document.text = found.text
                yield document


class Stage(PipelineStep):  # type: ignore[misc]
    """The first step of `clean` for one of many tasks: its units of the plan in a folder that all machines see."""

    name, type = "files through the rules", "tp_ext"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = str(folder)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Nothing; what the rules leave is in the folder."""
        for _ in Units(Path(self._folder)).work(rank, world_size):
            self.stat_update("units")
        yield from ()


class Finish(PipelineStep):  # type: ignore[misc]
    """The other steps of `clean`, for one task, when all of the first have ended."""

    name, type = "duplicates and ledger", "tp_ext"

    def __init__(self, folder: Path, output: Path, against: Sequence[Path], fault_limit: float) -> None:
        super().__init__()
        self._arguments = (str(folder), str(output), [str(path) for path in against], fault_limit)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Nothing; the output is what `clean` writes, byte for byte."""
        folder, output, against, fault_limit = self._arguments
        units = Units(Path(folder))
        paths = [corpus.path for corpus in units.corpora]
        ledger = clean(paths, units.settings, Path(output), against=list(map(Path, against)), fault_limit=fault_limit,
                       longest_line=units.longest_line, form=units.form, results=units.results())  # fmt: skip
        counts = ledger["all"]
        self.stat_update("read", value=counts["read"])
        self.stat_update("kept", value=counts["kept"])
        yield from ()


def executors(
    kind: str, units: Units, output: Path, tasks: int, workers: int, against: Sequence[Path], fault_limit: float, **more: Any
) -> tuple[Any, Any]:
    """The executor of the first step and the one that waits for it; `more` is handed to those of Slurm and Ray."""
    logs = units.folder / "logs"
    first, last = [Stage(units.folder)], [Finish(units.folder, output, against, fault_limit)]
    if kind == "local":
        from datatrove.executor import LocalPipelineExecutor as Executor
    elif kind == "slurm":
        from datatrove.executor.slurm import SlurmPipelineExecutor as Executor
    else:
        from datatrove.executor.ray import RayPipelineExecutor as Executor
    stage = Executor(pipeline=first, tasks=tasks, workers=workers, logging_dir=str(logs / "rules"), **more)
    more |= {"depends": stage, "skip_completed": False}
    return stage, Executor(pipeline=last, tasks=1, workers=1, logging_dir=str(logs / "finish"), **more)
