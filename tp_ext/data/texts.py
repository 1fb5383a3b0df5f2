"""The text that ids stand for, and where a text is in a dataset."""

# n ids

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tp_ext.data.batch import Array, Instances, ranges
from tp_ext.data.store import Store
from tp_ext.errors import DatasetError
from tp_ext.tokens.byte_level import ByteLevelTokenizer
from tp_ext.tokens.sentence_piece import SPACE, SentencePieceTokenizer
from tp_ext.tokens.tokenizer import Tokenizer, find_tokenizer, open_tokenizer

BLOCK = 1 << 20
"""Ids that are searched at once."""
AROUND = 24
"""Ids that are shown before and behind what was found."""


@dataclass(frozen=True)
class Found:
    """A place where a text is."""

    document: int
    token: int
    """Where in the dataset's tokens it begins."""
    around: str
    """Some text around it."""


@dataclass(frozen=True)
class Passage:
    """What one document gives to an instance."""

    document: int
    first: int
    """The place of its first token within the document."""
    tokens: int
    of: int
    """How many tokens the document has."""
    text: str


def tokenizer_of(store: Store, path: Path | None = None) -> Tokenizer:
    """The tokenizer that made a dataset, by default the one in it. Raises DatasetError when there is none or another."""
    path = path or find_tokenizer(store.path)
    if path is None:
        raise DatasetError(f"{store.path}: has no tokenizer in it; name the one that made it with --spm_model_path")
    tokenizer = open_tokenizer(path)
    if tokenizer.sha256 != store.tokenizer_sha256:
        raise DatasetError(f"{store.path}: was made with another tokenizer than {path}")
    return tokenizer


class _Bytes:
    """The bytes of ids, for many at once; a zero byte for special ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = [tokenizer.token_bytes(index) or b"\0" for index in range(tokenizer.vocab_size)]
        self._lengths = np.array([len(piece) for piece in pieces], np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._table = np.frombuffer(b"".join(pieces), np.uint8)

    def of(self, ids: Array) -> tuple[bytes, Array]:
        """The bytes of `ids` [n], and where each id's end [n]."""
        lengths = self._lengths[ids]
        return self._table[ranges(self._starts[ids], lengths)].tobytes(), np.cumsum(lengths)


def search(store: Store, tokenizer: Tokenizer, text: str) -> Iterator[Found]:
    """Every place where `text` is, as the tokenizer sees it, in the order of the dataset.

    Raises DatasetError when there is nothing to look for, or what is looked for is no text.
    """
    if not text.strip():
        raise DatasetError("the text to search for is empty")
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line that its encoding has no characters for
        raise DatasetError("the text to search for is not UTF-8") from None
    if isinstance(tokenizer, SentencePieceTokenizer):
        text = tokenizer.normalize(text).replace(" ", SPACE)
    elif isinstance(tokenizer, ByteLevelTokenizer) and (normalizer := tokenizer.inside.normalizer) is not None:
        text = normalizer.normalize_str(text)
    wanted = text.encode()
    table = _Bytes(tokenizer)
    before, after = 0, 0  # bytes of the blocks before, and those up to the end of what was found last
    for start in range(0, len(store.tokens), BLOCK):
        ids = store.tokens[start : start + BLOCK + len(wanted)]  # what begins in the block may end behind it
        content, ends = table.of(ids)
        place = content.find(wanted, max(after - before, 0))
        while place >= 0:
            index = int(np.searchsorted(ends, place, "right"))
            if index >= BLOCK:
                break
            token = start + index
            document = store.document_of(token)
            if document != store.document_of(start + int(np.searchsorted(ends, place + len(wanted) - 1, "right"))):
                place = content.find(wanted, place + 1)  # the end of one document and the beginning of the next
                continue
            first, stop = (int(each) for each in store.documents[document : document + 2])
            last = start + int(np.searchsorted(ends, place + len(wanted) - 1, "right"))
            shown = store.tokens[max(first, token - AROUND) : min(stop, last + 1 + AROUND)]
            yield Found(document, token, tokenizer.decode(shown).strip("\ufffd"))  # characters that were cut in two
            after = before + place + len(wanted)
            place = content.find(wanted, after - before)
        before += int(ends[min(BLOCK, len(ids)) - 1])


def passages(instances: Instances, store: Store, tokenizer: Tokenizer, index: int) -> list[Passage]:
    """What each document gives to the instance numbered `index`. Raises DatasetError when there is no such instance."""
    if not 0 <= index < len(instances):
        raise DatasetError(f"{store.path}: no instance {index}; they are numbered from 0 to {len(instances) - 1}")
    found = []
    for start, length in instances.spans(index):
        stop = start + length
        while start < stop:
            document = store.document_of(start)
            begin, end = (int(each) for each in store.documents[document : document + 2])
            here = min(stop, end)
            text = tokenizer.decode(store.tokens[start:here])
            if start > begin and tokenizer.piece(int(store.tokens[start])).startswith(SPACE) and not text.startswith(" "):
                text = f" {text}"  # which decoding takes for the one that is put before a text
            found.append(Passage(document, start - begin, here - start, end - begin, text))
            start = here
    return found
