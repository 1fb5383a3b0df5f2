"""A tokenized corpus: one flat memory-mapped array of ids, with the place where each document begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.errors import DatasetError
from tp_ext.output import MANIFEST, check_files, write_manifest
from tp_ext.settings import read_json

KIND = "tp_ext dataset 1"
TOKENS, DOCUMENTS = "tokens.bin", "documents.bin"


def id_type(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id: uint16 up to 65,536 pieces, else uint32; little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class Store:
    """A dataset on disk.

    `tokens` holds bos, ids and eos of every document one after the other; `documents` the index of each document's
    first token and, last, the number of tokens.
    """

    def __init__(self, path: Path) -> None:
        """Open the dataset at `path` without reading it. Raises DatasetError when it is missing, damaged or no dataset."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise DatasetError(f"{path}: no dataset here; make one with scripts/preprocess.py --dataset_path {path}")
        manifest = read_json(path / MANIFEST, DatasetError)
        if manifest.get("kind") != KIND:
            raise DatasetError(f"{path}: is not a dataset but '{manifest.get('kind')}'")
        check_files(path, manifest, hashes=False, kind=DatasetError)
        missing = [name for name in ("vocab_size", "tokens", "text_bytes", "tokenizer_sha256") if name not in manifest]
        if missing or not {TOKENS, DOCUMENTS} <= set(manifest["files"]):
            raise DatasetError(f"{path / MANIFEST}: damaged: {', '.join(missing) or 'a file'} is missing from it")
        self.path = path
        self.manifest: Mapping[str, Any] = manifest
        dtype = id_type(manifest["vocab_size"])
        self.tokens: np.ndarray[Any, np.dtype[Any]] = np.memmap(path / TOKENS, dtype=dtype, mode="r")
        self.documents: np.ndarray[Any, np.dtype[Any]] = np.memmap(path / DOCUMENTS, dtype="<u8", mode="r")

    def verify(self) -> None:
        """Read everything and compare hashes. Raises DatasetError on what has changed since it was written."""
        check_files(self.path, self.manifest, hashes=True, kind=DatasetError)

    @property
    def tokenizer_sha256(self) -> str:
        """The hash of the tokenizer that made it."""
        return str(self.manifest["tokenizer_sha256"])

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the documents' text."""
        return int(self.manifest["text_bytes"])

    @property
    def sha256(self) -> str:
        """The hash of its tokens, by which a training run knows its data."""
        return str(self.manifest["files"][TOKENS]["sha256"])


class StoreWriter:
    """Writes a dataset into an empty folder, document after document."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._folder, self._vocab_size = folder, vocab_size
        self._tokens = open(folder / TOKENS, "wb")  # noqa: SIM115
        self._documents = open(folder / DOCUMENTS, "wb")  # noqa: SIM115
        self.tokens_num = 0
        self.documents_num = 0

    def append(self, ids: np.ndarray[Any, np.dtype[Any]], lengths: np.ndarray[Any, np.dtype[Any]]) -> None:
        """Add documents: their `ids` one after the other, and the length of each in tokens."""
        starts = self.tokens_num + np.cumsum(lengths, dtype="<u8") - lengths.astype("<u8")
        ids.astype(id_type(self._vocab_size), copy=False).tofile(self._tokens)
        starts.astype("<u8", copy=False).tofile(self._documents)
        self.tokens_num += len(ids)
        self.documents_num += len(lengths)

    def finish(self, values: Mapping[str, Any]) -> None:
        """Close the arrays and write the manifest with `values`."""
        np.array([self.tokens_num], dtype="<u8").tofile(self._documents)
        self._tokens.close()
        self._documents.close()
        counts = {"vocab_size": self._vocab_size, "tokens": self.tokens_num, "documents": self.documents_num}
        write_manifest(self._folder, KIND, {**counts, **values})
