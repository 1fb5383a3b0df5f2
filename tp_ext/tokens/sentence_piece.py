"""SentencePiece tokenizers, as the sentencepiece library reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece

from tp_ext.errors import TokenizerError
from tp_ext.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

SPACE = "▁"
"""How a space is written inside a piece."""


class SentencePieceTokenizer(Tokenizer):
    """A sentencepiece model file: BPE or unigram."""

    file_name = "tokenizer.model"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._processor = self._open()
        self.vocab_size: int = self._processor.vocab_size()
        self.unk_id: int = self._processor.unk_id()
        self.bos_id = self._special(self._processor.bos_id())
        self.eos_id = self._special(self._processor.eos_id())
        self.pad_id = self._special(self._processor.pad_id())

    def _open(self) -> sentencepiece.SentencePieceProcessor:
        try:
            if not self.content:  # which sentencepiece takes for "no model yet"
                raise ValueError
            return sentencepiece.SentencePieceProcessor(model_proto=self.content)
        except (RuntimeError, ValueError):
            raise TokenizerError(f"{self.path}: is not a sentencepiece model") from None

    @staticmethod
    def _special(index: int) -> int | None:
        return index if index >= 0 else None

    @cached_property
    def is_bpe(self) -> bool:
        """Whether the model is of sentencepiece's type BPE."""
        spec = parsed(self.content).trainer_spec
        return bool(spec.model_type == spec.BPE)

    @cached_property
    def _inside(self) -> sentencepiece.SentencePieceProcessor:
        return without_prefix(self.content)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without bos and eos."""
        ids: list[list[int]] = self._processor.encode(texts, num_threads=1)
        return ids

    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text without the dummy prefix."""
        ids: list[list[int]] = self._inside.encode(texts, num_threads=1)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special ids give nothing."""
        text: str = self._processor.decode([int(i) for i in ids])
        return text

    def piece(self, index: int) -> str:
        """The piece of an id, as it stands in the vocabulary."""
        piece: str = self._processor.id_to_piece(index)
        return piece

    def score(self, index: int) -> float:
        """The score of a piece: of BPE its place in the order of joining, of unigram the logarithm of its probability."""
        return float(self._processor.get_score(index))

    def text(self, index: int) -> str | None:
        """The piece with spaces as spaces; None for special ids and for bytes."""
        if index in self.special_ids or self._processor.is_byte(index):
            return None
        return self.piece(index).replace(SPACE, " ")

    def token_bytes(self, index: int) -> bytes | None:
        """The piece in UTF-8, with spaces as sentencepiece marks them."""
        piece = self.piece(index)
        if self._processor.is_byte(index):
            return bytes([int(piece[3:5], 16)])
        return None if index in self.special_ids else piece.encode()

    def spellings(self, text: str) -> list[str]:
        """Each token of `text` as it is written in the vocabulary; an unknown one as the characters it stands for."""
        pieces: list[str] = self._processor.encode(text, out_type=str)
        return pieces

    def normalize(self, text: str) -> str:
        """`text` inside a longer one as the model's rules change it before it is cut."""
        normalized: str = self._inside.normalize(text)
        return normalized.replace(SPACE, " ")

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids whose pieces are control, unknown or unused."""
        found = self._processor
        return frozenset(
            index for index in range(self.vocab_size)
            if found.is_control(index) or found.is_unknown(index) or found.is_unused(index)
        )  # fmt: skip


def parsed(content: bytes) -> ModelProto:
    """The fields of a model file."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # protobuf, which reading text does not need

    return ModelProto.FromString(content)


def without_prefix(content: bytes) -> sentencepiece.SentencePieceProcessor:
    """A processor of a model file that puts no space before a text."""
    model = parsed(content)
    model.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
