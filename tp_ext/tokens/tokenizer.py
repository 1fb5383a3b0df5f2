"""What every tokenizer can do, and opening one by its file."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from tp_ext.errors import TokenizerError

FILE_NAMES = ("tokenizer.model", "tokenizer.json")
"""The names a tokenizer has inside a model folder; the first that is there is the one."""


class Tokenizer(ABC):
    """Text to ids and back; ids are those of the file's own library, special ids the file's own.

    `bos_id`, `eos_id` and `pad_id` are None where the file names none. `content` is the file; by its `sha256` datasets
    and checkpoints know their tokenizer. `beside` are other files that name its special pieces, which go where it goes.
    """

    file_name: ClassVar[str]
    """What its file is called inside a model folder."""
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    beside: Mapping[str, bytes]

    def __init__(self, path: Path) -> None:
        """Read the file. Raises TokenizerError."""
        self.path = path
        self.beside = {}
        try:
            self.content = path.read_bytes()
        except FileNotFoundError:
            raise TokenizerError(f"{path}: no such tokenizer file") from None
        except OSError as error:
            raise TokenizerError(f"{path}: cannot be read ({error.strerror})") from None
        self.sha256 = hashlib.sha256(self.content).hexdigest()

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without bos and eos."""

    @abstractmethod
    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as if it stood inside a longer one: without the space some tokenizers put before a text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special ids give nothing."""

    @abstractmethod
    def piece(self, index: int) -> str:
        """The piece of an id, as it stands in the vocabulary."""

    @abstractmethod
    def text(self, index: int) -> str | None:
        """The text an id stands for; None for special ids and for bytes that are no whole characters."""

    def token_bytes(self, index: int) -> bytes | None:
        """The bytes an id stands for in the text as the tokenizer sees it; None where the id does not tell (unknown)."""
        raise NotImplementedError

    def spellings(self, text: str) -> list[str]:
        """Each token of `text` as it is written in the vocabulary; an unknown one as the characters it stands for."""
        return [self.piece(index) for index in self.encode(text)]

    def score(self, index: int) -> float:
        """The score by which the piece of an id is chosen, where the tokenizer has scores."""
        raise NotImplementedError

    @property
    @abstractmethod
    def is_bpe(self) -> bool:
        """Whether it joins pairs in a fixed order, so that pairs of a later order never undo what earlier ones did."""

    @property
    @abstractmethod
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text: unknown, begin and end of text, padding, reserved rows."""

    @cached_property
    def single_byte_ids(self) -> frozenset[int]:
        """Ids that stand for one byte of a longer character."""
        alone = (index for index in range(self.vocab_size) if index not in self.special_ids and self.text(index) is None)
        return frozenset(index for index in alone if len(self.token_bytes(index) or b"") == 1)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without bos and eos."""
        return self.encode_batch([text])[0]


def find_tokenizer(folder: Path) -> Path | None:
    """The tokenizer file in a model folder, or None."""
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a file, or in a model folder: a sentencepiece model, or a byte-level `tokenizer.json`.

    Raises TokenizerError when it is neither.
    """
    path = Path(path)
    if path.is_dir():
        path = find_tokenizer(path) or path / FILE_NAMES[0]
    if path.suffix == ".json":
        from tp_ext.tokens.byte_level import ByteLevelTokenizer

        return ByteLevelTokenizer(path)
    from tp_ext.tokens.sentence_piece import SentencePieceTokenizer

    return SentencePieceTokenizer(path)
