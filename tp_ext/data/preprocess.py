"""A corpus into a tokenized dataset: bos + ids + eos of every document, no token lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.corpus.blocks import LONGEST_LINE
from tp_ext.corpus.faults import FAULT_LIMIT, FAULTS, check_faults
from tp_ext.corpus.files import Corpus, hashes_of, look_at_all
from tp_ext.data import parts
from tp_ext.data.journal import Journal
from tp_ext.data.pack import instances_num, seq_length_problems
from tp_ext.data.parts import Encoded, Part, parts_of
from tp_ext.data.store import DOCUMENTS, KIND, ORIGINS, TOKENS, Store, id_type
from tp_ext.data.workers import encode_all
from tp_ext.errors import DatasetError, raise_all
from tp_ext.output import json_bytes, kept_folder, sha256_of, write_manifest
from tp_ext.tokens.tokenizer import Tokenizer

Progress = Callable[[int, int, int], None]


def preprocess(
    corpus_paths: Sequence[Path], tokenizer: Tokenizer, dataset_path: Path, seq_length: int, processes_num: int = 1,
    progress: Progress = lambda done, total, tokens: None, *, fault_limit: float = FAULT_LIMIT,
    longest_line: int = LONGEST_LINE,
) -> dict[str, Any]:  # fmt: skip
    """Write the dataset and return its counts, those of instances of `seq_length` among them.

    `progress` is told bytes done, bytes in all, and tokens written. The result does not depend on `processes_num`. A run
    that was interrupted leaves a hidden folder beside the dataset, from which the same call goes on. A record that is no
    text, or longer than `longest_line` bytes, is left out and listed in the dataset's `faults.jsonl`; when these are more
    than `fault_limit` of all, CorpusError lists them instead. Raises CorpusError on files that cannot be read,
    DatasetError when no text is left, the folder is taken, or another process is writing it.
    """
    _check(seq_length, processes_num, fault_limit, longest_line)
    corpora = look_at_all(corpus_paths)
    with kept_folder(dataset_path, KIND, DatasetError) as (folder, notes), hashes_of(corpora) as hashes:
        work = _Work(folder, notes, corpora, tokenizer, longest_line)
        with work.journal:
            left, size = parts_of(corpora, work.file, work.start, longest_line), sum(corpus.size for corpus in corpora)
            progress(work.bytes_done(), size, work.tokens)
            for part, encoded in encode_all(left, tokenizer, processes_num, longest_line):
                work.add(part, encoded)
                progress(work.bytes_done(), size, work.tokens)
            for corpus in corpora:
                corpus.check_unchanged()
            counts = _sum(work.counts)
            records = counts["documents"] + counts["empty_documents"] + counts["faults"]
            check_faults(folder / FAULTS, counts["faults"], records, fault_limit)
            if not counts["documents"]:
                raise DatasetError(f"{', '.join(map(str, corpus_paths))}: no document with text")
            work.finish()
        for name, content in {tokenizer.file_name: tokenizer.content, **tokenizer.beside}.items():
            (folder / name).write_bytes(content)
        sources = [
            {"path": str(corpus.path), **found, "documents": count["documents"], "faults": count["faults"]}
            for corpus, found, count in zip(corpora, hashes(), work.counts, strict=True)
        ]
        instances, last = instances_num(work.tokens, seq_length)
        found = {**counts, "tokens": work.tokens, "seq_length": seq_length, "instances": instances,
                 "targets_of_last_instance": last}  # fmt: skip
        write_manifest(folder, KIND, {**found, "vocab_size": tokenizer.vocab_size, "bos_id": tokenizer.bos_id,
                                      "eos_id": tokenizer.eos_id, "tokenizer_sha256": tokenizer.sha256,
                                      "longest_line": longest_line, "sources": sources})  # fmt: skip
    return found


def made_before(corpus_paths: Sequence[Path], tokenizer: Tokenizer, dataset_path: Path, longest_line: int) -> bool:
    """Whether `dataset_path` is what `preprocess` would make of the same files; all of them are read and compared."""
    try:
        store = Store(dataset_path)
        store.verify()
    except DatasetError:
        return False
    known = [(source["path"], source.get("sha256")) for source in store.manifest["sources"]]
    settings = (tokenizer.sha256, tokenizer.bos_id, tokenizer.eos_id, longest_line)
    return settings == (
        store.tokenizer_sha256, *(store.manifest.get(name) for name in ("bos_id", "eos_id", "longest_line"))
    ) and known == [(str(path), sha256_of(path) if path.is_file() else None) for path in corpus_paths]  # fmt: skip


class _Work:
    """A dataset in the making, and how far it is."""

    def __init__(
        self, folder: Path, notes: Path, corpora: Sequence[Corpus], tokenizer: Tokenizer, longest_line: int
    ) -> None:
        self.counts: list[Counter[str]] = [Counter() for _ in corpora]
        """Of each file."""
        self.file, self.start, self.tokens = 0, 0, 0
        self._folder, self._corpora, self._dtype = folder, corpora, id_type(tokenizer.vocab_size)
        plan = {
            "kind": KIND, "tokenizer_sha256": tokenizer.sha256, "bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id,
            "longest_line": longest_line, "part_bytes": parts.PART_BYTES,
            "corpus": [each.identity for each in corpora],
        }  # fmt: skip
        paths = [folder / name for name in (TOKENS, DOCUMENTS, ORIGINS, FAULTS)]
        for path in set(folder.iterdir()) - set(paths):  # what an earlier run was about to finish with
            path.unlink()
        self.journal = Journal(paths, notes, plan, self._count)

    def add(self, part: Part, encoded: Encoded) -> None:
        """Write the documents of the next part."""
        starts = self.tokens + np.cumsum(encoded.lengths) - encoded.lengths
        faults = b"".join(json_bytes(fault.as_json()) + b"\n" for fault in encoded.faults)
        values = {"file": part.file, "stop": part.stop, "tokens": len(encoded.ids), "counts": encoded.counts}
        arrays = (encoded.ids.astype(self._dtype, copy=False), starts.astype("<u8"), encoded.offsets.astype("<u8"))
        self.journal.append([*(array.tobytes() for array in arrays), faults], values)
        self._count(values)

    def _count(self, values: dict[str, Any]) -> None:
        self.counts[values["file"]].update(values["counts"])
        self.tokens += values["tokens"]
        self.file, self.start = values["file"], values["stop"]

    def bytes_done(self) -> int:
        """Bytes of the files that were read; of one that can only be read from its beginning, when it is done."""
        here = self._corpora[self.file]
        before = sum(corpus.size for corpus in self._corpora[: self.file])
        return before + (0 if here.is_stream else min(self.start, here.size))

    def finish(self) -> None:
        """Write the end of the last document, and close the files."""
        self.journal.finish([b"", np.array([self.tokens], "<u8").tobytes(), b"", b""])
        if not _sum(self.counts)["faults"]:
            (self._folder / FAULTS).unlink()


def _check(seq_length: int, processes_num: int, fault_limit: float, longest_line: int) -> None:
    problems = seq_length_problems(seq_length)
    if processes_num < 1:
        problems.append(f"processes_num is {processes_num}; it must be at least 1")
    if not 0 <= fault_limit <= 1:
        problems.append(f"fault_limit is {fault_limit}; it must be from 0 to 1")
    if longest_line < 1:
        problems.append(f"longest_line is {longest_line}; it must be at least 1 byte")
    raise_all(DatasetError, problems)


def _sum(counts: Sequence[Counter[str]]) -> Counter[str]:
    names = ("documents", "text_bytes", "empty_documents", "faults", "damaged")
    return Counter({name: sum(each[name] for each in counts) for name in names})
