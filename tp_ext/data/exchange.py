"""TencentPretrain's dataset file: a run of pickled instances `((ids, pad_num), [targets])`, each `ids` of seq_length + 1.

Format: https://github.com/Tencent/TencentPretrain, LmDataset and LmDataloader, at commit ed79843.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.data.pack import Packing, instances_num, seq_length_problems
from tp_ext.data.store import KIND, Store, StoreWriter
from tp_ext.errors import CorpusError, DatasetError, raise_all
from tp_ext.output import size_and_hash, whole_file, whole_folder
from tp_ext.tokens.tokenizer import Tokenizer

_WRONG = (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError,
          MemoryError, RecursionError)  # fmt: skip
"""What a pickle that is damaged, or made to do harm, may raise."""
BLOCK = 1 << 20
"""Ids that are written at once."""


def write_tencentpretrain(store: Store, path: Path, seq_length: int, packing: Packing = "contiguous") -> int:
    """Write a dataset for TencentPretrain's `--data_processor lm`; gives how many instances that are.

    Instances are as its own preprocess.py makes them: runs of seq_length + 1 ids that share none, so that the first id
    of each is no target; `contiguous` is its `--full_sentences`, `document` is without. Where its own is wrong this
    differs: what is left at the end is there too, and padding is no target. A rest of one id, which has no target, is
    left out: the host's loss would be no number. Raises DatasetError when nothing is left.
    """
    raise_all(DatasetError, seq_length_problems(seq_length))
    if packing == "best_fit":
        raise DatasetError("TencentPretrain packs contiguous or document; best_fit is for this library's own datasets")
    bounds = np.array([0, len(store.tokens)]) if packing == "contiguous" else store.documents.astype(np.int64)
    count = 0
    with whole_file(path) as part, open(part, "wb") as file:
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            for ids in _cut(store, start, stop, seq_length + 1):
                if len(ids) > 1:
                    pickle.dump(((ids, seq_length + 1 - len(ids)), [len(ids) - 1]), file)
                    count += 1
        if not count:
            raise DatasetError(f"{store.path}: has no target, and gives no instance")
    return count


def _cut(store: Store, start: int, stop: int, size: int) -> Iterator[list[int]]:
    block = max(BLOCK // size, 1) * size
    for first in range(start, stop, block):
        ids = store.tokens[first : min(first + block, stop)].tolist()
        yield from (ids[place : place + size] for place in range(0, len(ids), size))


def read_tencentpretrain(
    paths: Sequence[Path], tokenizer: Tokenizer, dataset_path: Path, seq_length: int
) -> dict[str, Any]:
    """Write the ids of TencentPretrain's dataset files as a dataset of ours; gives its counts.

    Documents begin at bos, or behind eos where the tokenizer has no bos. The files are pickles, but nothing in them is
    run. Raises CorpusError on one that holds anything but instances of this tokenizer's ids.
    """
    raise_all(DatasetError, seq_length_problems(seq_length))
    if len({path.resolve() for path in paths}) < len(paths):
        raise CorpusError("a file is given twice; name it once")
    with whole_folder(dataset_path, KIND, DatasetError) as folder:
        writer = StoreWriter(folder, tokenizer.vocab_size)
        sources, text_bytes = [], 0
        for path in paths:
            before = writer.documents_num
            for place, ids in _documents(path, tokenizer):
                writer.append(np.array(ids), np.array([len(ids)]), np.array([place]))
                text_bytes += len(tokenizer.decode(ids).encode())
            found = writer.documents_num - before
            sources.append({"path": str(path), **size_and_hash(path), "documents": found, "faults": 0})
        if not writer.tokens_num:
            raise DatasetError(f"{', '.join(map(str, paths))}: no instance in it")
        for name, content in {tokenizer.file_name: tokenizer.content, **tokenizer.beside}.items():
            (folder / name).write_bytes(content)
        instances, last = instances_num(writer.tokens_num, seq_length)
        counts = {"documents": writer.documents_num, "tokens": writer.tokens_num, "text_bytes": text_bytes,
                  "seq_length": seq_length, "instances": instances, "targets_of_last_instance": last}  # fmt: skip
        writer.finish({**counts, "bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id,
                       "tokenizer_sha256": tokenizer.sha256, "sources": sources})  # fmt: skip
    return counts


def _documents(path: Path, tokenizer: Tokenizer) -> Iterator[tuple[int, list[int]]]:
    """Every document of a file, with the byte at which the instance begins that its first id is in."""
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    place, document = 0, list[int]()
    for start, ids in _instances(path, tokenizer):
        for index in ids:
            if document and (index == bos or (bos is None and document[-1] == eos)):
                yield place, document
                document = []
            if not document:
                place = start
            document.append(index)
    if document:
        yield place, document


def _instances(path: Path, tokenizer: Tokenizer) -> Iterator[tuple[int, list[int]]]:
    """The ids of every instance without padding, with the byte it begins at."""
    if not path.is_file():
        raise CorpusError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
    size = path.stat().st_size
    with open(path, "rb") as file:
        while (start := file.tell()) < size:
            try:
                instance = _Plain(file).load()
            except _WRONG as error:
                told = str(error).replace("\n", " ")[:100] or type(error).__name__
                raise CorpusError(f"{path}: byte {start}: no instance, or one cut short ({told})") from None
            if (ids := _ids(instance)) is None:
                raise CorpusError(
                    f"{path}: byte {start}: {_shown(instance)} is no instance of --data_processor lm, "
                    "((ids, pad_num), [targets])"
                )
            wrong = next((index for index in ids if not 0 <= index < tokenizer.vocab_size), None)
            if wrong is not None:
                raise CorpusError(f"{path}: byte {start}: holds the id {_shown(wrong)}, and {tokenizer.path} has "
                                  f"{tokenizer.vocab_size} pieces")  # fmt: skip
            yield start, ids


class _Plain(pickle.Unpickler):
    """Reads numbers, strings and what holds them; a pickle can name any function to call, and that is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which such a file has no need of")


def _shown(instance: Any) -> str:
    try:
        return repr(instance)[:60]
    except (ValueError, RecursionError):  # a number too long to be written, lists too deep
        return f"something ({type(instance).__name__})"


def _ids(instance: Any) -> list[int] | None:
    """The ids of an instance; None when it is none."""
    match instance:
        case ((list() as ids, int() as padding), [int() as targets]) if all(type(index) is int for index in ids):
            return ids if padding >= 0 and 0 <= targets <= len(ids) else None
    return None
