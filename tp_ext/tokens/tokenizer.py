"""SentencePiece tokenizers: ids are sentencepiece's own, special ids the model file's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from tp_ext.errors import TokenizerError

FILE_NAME = "tokenizer.model"
"""The name of a tokenizer inside a model folder."""


class Tokenizer:
    """A sentencepiece model.

    `bos_id`, `eos_id` and `pad_id` are None where the model has none. `sha256` is that of the model file, by which
    datasets and checkpoints know their tokenizer.
    """

    def __init__(self, path: Path) -> None:
        """Read the model file at `path`, or `tokenizer.model` in the folder `path`. Raises TokenizerError."""
        path = Path(path)
        if path.is_dir():
            path = path / FILE_NAME
        try:
            self.proto = path.read_bytes()
        except FileNotFoundError:
            raise TokenizerError(f"{path}: no such tokenizer file") from None
        except OSError as error:
            raise TokenizerError(f"{path}: cannot be read ({error.strerror})") from None
        try:
            if not self.proto:  # which sentencepiece takes for "no model yet"
                raise ValueError
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.proto)
        except (RuntimeError, ValueError):
            raise TokenizerError(f"{path}: is not a sentencepiece model") from None
        self.path = path
        self.sha256 = hashlib.sha256(self.proto).hexdigest()
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id = self._special(self._processor.bos_id())
        self.eos_id = self._special(self._processor.eos_id())
        self.pad_id = self._special(self._processor.pad_id())

    @staticmethod
    def _special(index: int) -> int | None:
        return index if index >= 0 else None

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without bos and eos."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without bos and eos."""
        ids: list[list[int]] = self._processor.encode(texts, num_threads=1)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special ids give nothing."""
        text: str = self._processor.decode([int(i) for i in ids])
        return text

    def piece(self, index: int) -> str:
        """The piece of an id, as it stands in the vocabulary."""
        piece: str = self._processor.id_to_piece(index)
        return piece
