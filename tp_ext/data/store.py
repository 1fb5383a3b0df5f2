"""A tokenized corpus: one flat memory-mapped array of ids, with the place where each document begins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.errors import DatasetError
from tp_ext.output import MANIFEST, check_files, write_manifest
from tp_ext.settings import read_json

Array = np.ndarray[Any, np.dtype[Any]]

KIND = "tp_ext dataset 2"
TOKENS, DOCUMENTS, ORIGINS = "tokens.bin", "documents.bin", "origins.bin"


def id_type(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id: uint16 up to 65,536 pieces, else uint32; little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class Origin:
    """Where a document came from."""

    path: str
    """The file, as it was named to preprocessing."""
    offset: int
    """The byte its line begins at; of a compressed file, of what it holds."""


class Store:
    """A dataset on disk.

    `tokens` holds bos, ids and eos of every document one after the other; `documents` the index of each document's
    first token and, last, the number of tokens; `origins` the byte of its file that each document's line began at.
    Documents of one file follow each other; the manifest's `sources` are the files in order, with how many each gave.
    """

    def __init__(self, path: Path) -> None:
        """Open the dataset at `path` without reading it. Raises DatasetError when it is missing, damaged or no dataset."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise DatasetError(f"{path}: no dataset here; make one with scripts/preprocess.py --dataset_path {path}")
        manifest = read_json(path / MANIFEST, DatasetError)
        if manifest.get("kind") != KIND:
            raise DatasetError(f"{path}: is '{manifest.get('kind')}' and not '{KIND}'; make it again with preprocess.py")
        check_files(path, manifest, hashes=False, kind=DatasetError)
        _check_manifest(path / MANIFEST, manifest)
        self.path = path
        self.manifest: Mapping[str, Any] = manifest
        dtype = id_type(manifest["vocab_size"])
        self.tokens: Array = np.memmap(path / TOKENS, dtype=dtype, mode="r")
        self.documents: Array = np.memmap(path / DOCUMENTS, dtype="<u8", mode="r")
        if (len(self.tokens), len(self.documents)) != (manifest["tokens"], manifest["documents"] + 1):
            raise DatasetError(f"{path / MANIFEST}: damaged: its counts are not those of the files")
        self.origins: Array = np.memmap(path / ORIGINS, dtype="<u8", mode="r")
        self._first_after = list(accumulate(source["documents"] for source in manifest["sources"]))

    def origin(self, document: int) -> Origin:
        """Where a document came from."""
        source = self.manifest["sources"][bisect_right(self._first_after, document)]
        return Origin(source["path"], int(self.origins[document]))

    def document_of(self, token: int) -> int:
        """The number of the document that the token at this place of `tokens` belongs to."""
        return int(np.searchsorted(self.documents, np.uint64(token), "right")) - 1

    def verify(self) -> None:
        """Read everything and compare hashes. Raises DatasetError on what has changed since it was written."""
        check_files(self.path, self.manifest, hashes=True, kind=DatasetError)

    @property
    def tokenizer_sha256(self) -> str:
        """The hash of the tokenizer that made it."""
        return str(self.manifest["tokenizer_sha256"])

    @property
    def seq_length(self) -> int:
        """The length of instances that it was made with a view to; any other can be read from it too."""
        return int(self.manifest["seq_length"])

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the documents' text."""
        return int(self.manifest["text_bytes"])

    @property
    def sha256(self) -> str:
        """The hash of its tokens, by which a training run knows its data."""
        return str(self.manifest["files"][TOKENS]["sha256"])


def _check_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raise DatasetError when a manifest lacks something, or something in it is of another kind than it should be."""
    numbers, sources = ("vocab_size", "tokens", "documents", "text_bytes", "seq_length"), manifest.get("sources")
    files = [manifest["files"].get(name) for name in (TOKENS, DOCUMENTS, ORIGINS)]
    wrong = [name for name in numbers if not _is_count(manifest.get(name))]
    if not isinstance(manifest.get("tokenizer_sha256"), str):
        wrong.append("tokenizer_sha256")
    if not (isinstance(sources, list) and all(isinstance(each, dict) for each in sources)
            and all(isinstance(each.get("path"), str) and _is_count(each.get("documents")) for each in sources)
            and sum(each["documents"] for each in sources) == manifest.get("documents")):  # fmt: skip
        wrong.append("sources")
    if not all(isinstance(each, dict) and isinstance(each.get("sha256"), str) for each in files):
        wrong.append("files")
    if wrong:
        raise DatasetError(f"{path}: damaged: {', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} missing or wrong")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class StoreWriter:
    """Writes a dataset of documents that come as ids into an empty folder."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._folder, self._vocab_size, self._dtype = folder, vocab_size, id_type(vocab_size)
        self._files = [open(folder / name, "wb") for name in (TOKENS, DOCUMENTS, ORIGINS)]  # noqa: SIM115
        self.tokens_num = 0
        self.documents_num = 0

    def append(self, ids: Array, lengths: Array, origins: Array) -> None:
        """Add documents: their `ids` one after the other, the length of each in tokens, and where each came from."""
        starts = self.tokens_num + np.cumsum(lengths) - lengths
        arrays = (ids.astype(self._dtype, copy=False), starts.astype("<u8"), origins.astype("<u8"))
        for file, array in zip(self._files, arrays, strict=True):
            file.write(array.tobytes())
        self.tokens_num += len(ids)
        self.documents_num += len(lengths)

    def finish(self, values: Mapping[str, Any]) -> None:
        """Close the files and write the manifest with `values`."""
        self._files[1].write(np.array([self.tokens_num], dtype="<u8").tobytes())
        for file in self._files:
            file.close()
        counts = {"vocab_size": self._vocab_size, "tokens": self.tokens_num, "documents": self.documents_num}
        write_manifest(self._folder, KIND, {**counts, **values})
