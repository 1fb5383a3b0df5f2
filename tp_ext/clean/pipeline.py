"""Files of text to clean documents and a ledger of all that went, the same whatever the processes and interruptions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tp_ext.clean.duplicates import Index, find
from tp_ext.clean.earlier import INDEX, KIND, LEDGER, Earlier, extended, opened
from tp_ext.clean.finish import write_documents
from tp_ext.clean.ledger import file_entry, ledger_of
from tp_ext.clean.ledger_page import PAGE, write_ledger_page
from tp_ext.clean.run import run_id, versions
from tp_ext.clean.settings import CleanSettings, as_json
from tp_ext.clean.stage import Staged, make_stage
from tp_ext.clean.staging import Staging
from tp_ext.clean.tally import Tally
from tp_ext.corpus.blocks import LONGEST_LINE
from tp_ext.corpus.faults import FAULT_LIMIT, FAULTS, check_faults
from tp_ext.corpus.files import UTF8, Corpus, Form, hashes_of, look_at_all
from tp_ext.data.parts import parts_of
from tp_ext.errors import ConfigError, CorpusError, raise_all
from tp_ext.output import kept_folder, write_json, write_manifest
from tp_ext.workers import in_order

Progress = Callable[[int, int], None]
Results = Callable[[Sequence[Corpus], int, int], Iterator[tuple[int, int, Staged]]]
"""What the rules leave of some files from a byte of one of them on: file, where the part ends, what is left of it."""


def clean(
    corpus_paths: Sequence[Path], settings: CleanSettings, output_path: Path, processes_num: int = 1,
    progress: Progress = lambda done, total: None, *, against: Sequence[Path] = (), fault_limit: float = FAULT_LIMIT,
    longest_line: int = LONGEST_LINE, form: Form = UTF8, results: Results | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the documents that are kept, those that are not, and the ledger, which is returned.

    `progress` is told bytes done and bytes in all. The result does not depend on `processes_num`. A run that was
    interrupted goes on when it is called again. Where the output of the first of these files is there already, made with
    the same settings and versions, only the files behind them are read. Documents like those of the outputs `against`
    are duplicates. `results` gives what the rules leave of the parts when that is not to be done here. Raises CorpusError
    on files that cannot be read, on more faults than `fault_limit` of all records, and when the folder is taken,
    ConfigError on settings that cannot be followed.
    """
    _check(corpus_paths, output_path, processes_num, fault_limit, longest_line)
    run = run_id(settings, longest_line, against, form)
    corpora = look_at_all(corpus_paths, form)
    before = extended(output_path, run, corpora)
    new = corpora[len(before.files) if before else 0 :]
    earlier = [*(opened(path) for path in against), *([before] if before else [])]
    for each in earlier:
        each.check_comparable(settings.duplicates.fuzzy is not None, versions(settings))
    if before and not new:
        return before.ledger
    with kept_folder(output_path, KIND, CorpusError) as (folder, notes), hashes_of(new) as hashes:
        staging = _staged(notes, new, run, results or _local(settings, longest_line, processes_num), progress)
        check_faults(staging.folder / FAULTS, *staging.faults_and_records(), fault_limit)
        index = Index(notes / INDEX)
        kinds = find(settings.duplicates, [each.index for each in earlier], Index(staging.folder), index, notes)
        names = write_documents(folder, notes, staging, kinds, settings, before, earlier)
        _write_index(Index(folder / INDEX), [*([before.index] if before else []), index])
        sources = [{"path": str(each.path), **found, "modified": each.modified}
                   for each, found in zip(new, hashes(), strict=True)]  # fmt: skip
        ledger = _ledger(run, settings, staging, sources, names, before)
        write_json(folder / LEDGER, ledger)
        write_ledger_page(folder / PAGE, ledger)
        write_manifest(folder, KIND, {"run": run})
    return ledger


def _local(settings: CleanSettings, longest_line: int, processes_num: int) -> Results:
    """What the rules leave, found out by local processes."""
    work, make_work = make_stage(settings, longest_line), partial(make_stage, settings, longest_line)

    def results(corpora: Sequence[Corpus], file: int, start: int) -> Iterator[tuple[int, int, Staged]]:
        parts = parts_of(corpora, file, start, longest_line)
        for part, staged in in_order(parts, work, make_work, processes_num, CorpusError):
            yield part.file, part.stop, staged

    return results


def _staged(notes: Path, corpora: Sequence[Corpus], run: str, results: Results, progress: Progress) -> Staging:
    """All files through all rules. Raises CorpusError when one has changed meanwhile."""
    staging = Staging(notes, corpora, run)
    size = sum(corpus.size for corpus in corpora)
    with staging.journal:
        for file, stop, staged in results(corpora, staging.file, staging.start):
            staging.add(file, stop, staged)
            progress(staging.bytes_done(), size)
        for corpus in corpora:
            corpus.check_unchanged()
    return staging


def _write_index(target: Index, sources: Sequence[Index]) -> None:
    """One index of several."""
    for name in ("digests", "signatures"):
        with open(getattr(target, name), "wb") as file:
            for source in sources:
                with open(getattr(source, name), "rb") as content:
                    shutil.copyfileobj(content, file)


def _ledger(
    run: str, settings: CleanSettings, staging: Staging, sources: Sequence[dict[str, Any]], names: Sequence[str],
    before: Earlier | None,
) -> dict[str, Any]:  # fmt: skip
    total = before.tally if before else Tally()
    entries = before.files if before else []
    for source, name, file in zip(sources, names, staging.files, strict=True):
        total.add(file.tally)
        entries.append(file_entry(source, name, file.tally))
    return ledger_of(run, as_json(settings), versions(settings), total, entries)


def _check(paths: Sequence[Path], output: Path, processes_num: int, fault_limit: float, longest_line: int) -> None:
    problems = []
    if processes_num < 1:
        problems.append(f"processes_num is {processes_num}; it must be at least 1")
    if not 0 <= fault_limit <= 1:
        problems.append(f"fault_limit is {fault_limit}; it must be from 0 to 1")
    if longest_line < 1:
        problems.append(f"longest_line is {longest_line}; it must be at least 1 byte")
    folder = Path(os.path.realpath(output))
    inside = [path for path in paths if folder in Path(os.path.realpath(path)).parents]
    problems += [f"{path}: is in the output folder {output}, which is replaced; name another one" for path in inside]
    raise_all(ConfigError, problems)
