"""Where a text can be cut so that the ids of its parts, one after the other, are its ids.

Why it is so for a sentencepiece BPE model (sentencepiece 0.2.3, src/bpe_model.cc, Model::SampleEncode). It starts from
single characters and user-defined symbols, and joins two neighbours only if the two together are a piece; the pair with
the best score goes first and of equal ones the leftmost. Take a border between two characters that stand side by side
in no piece. No symbol and no join spans it, so what is on its two sides has no symbol in common. A join changes the
choices only next to it, and which of two joins on the same side goes first depends on their scores and order alone,
equal scores included: each side is joined as if it were alone. What follows works symbol by symbol, with two
exceptions: UNUSED pieces are taken apart by a table that all of the text writes to, so a model with one is not cut, and
neighbouring unknown symbols share an id if there is no byte fallback, so these are not cut apart. What comes before BPE
must change nothing but write spaces as their mark, and put one before the text at most.

A unigram model has no such borders: it adds up scores over all the text before in single precision, and rounding
decides between equally good ways.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tp_ext.tokens.sentence_piece import SPACE, SentencePieceTokenizer, parsed
from tp_ext.tokens.table import Ints
from tp_ext.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

CHARACTERS = 0x110000
_OTHER = 0
"""Stands for every character that is in no piece; sentencepiece refuses pieces with a NUL."""
_EXACT = 1 << 20
_HASHED = 1 << 21


class Cuts:
    """Borders between two characters that stand side by side in no piece; space and the mark for it are one character.

    They are read from the table `free` by the sum of two numbers, which characters with the same neighbours share: of
    `left` for the character on the left and of `right` for the other, whose last entries are for all higher code points.
    """

    def __init__(self, pieces: Sequence[str], unknown: Set[str] | None = None) -> None:
        """`pieces` are all that can be joined.

        `unknown` are those of their characters that have no id, where neighbours without one share the unknown id: they
        and all characters in no piece are then kept together. None where every character has ids.
        """
        codes = code_points(chr(_OTHER).join(pieces).replace(" ", SPACE))
        characters = _distinct(np.append(codes, [_OTHER, ord(SPACE)]))
        firsts, seconds = _neighbours(codes, None if unknown is None else [_OTHER, *map(ord, unknown)])
        left, lefts = _classes(characters, firsts, seconds)
        right, rights = _classes(characters, seconds, firsts)
        if lefts * rights <= _EXACT:
            rows, columns = np.arange(lefts) * rights, np.arange(rights)
        else:  # two borders may share a place, so that a text is cut a little less often
            random = np.random.default_rng(0)
            rows, columns = (random.integers(_HASHED // 2, size=count) for count in (lefts, rights))
        self.left = _by_code(characters, rows[left])
        self.right = _by_code(characters, columns[right])
        self.free = np.ones(rows.max() + columns.max() + 1, np.bool_)
        self.free[self.left[firsts] + self.right[seconds]] = False
        self.free_bits = np.packbits(self.free, bitorder="little")

    def between(self, codes: Ints) -> NDArray[np.bool_]:
        """Whether the text of these code points [n] can be cut behind each but the last [n - 1]."""
        places = self.left.take(codes[:-1], mode="clip")
        places += self.right.take(codes[1:], mode="clip")
        free: NDArray[np.bool_] = self.free.take(places)
        return free


def cuts_of(tokenizer: Tokenizer) -> tuple[Cuts, bool] | None:
    """The cuts of a tokenizer, and whether it puts a space before a text; None where they are not proved."""
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return None
    model = parsed(tokenizer.content)
    if not _can_be_cut(model):
        return None
    kinds = model.SentencePiece
    pieces = [each.piece for each in model.pieces if each.type in (kinds.NORMAL, kinds.USER_DEFINED)]
    unknown = None if model.trainer_spec.byte_fallback else _unknown(tokenizer, model, {SPACE, *chain.from_iterable(pieces)})
    return Cuts(pieces, unknown), model.normalizer_spec.add_dummy_prefix


def _can_be_cut(model: ModelProto) -> bool:
    rules, trainer = model.normalizer_spec, model.trainer_spec
    changes = rules.precompiled_charsmap or rules.remove_extra_whitespaces or not rules.escape_whitespaces
    unused = any(each.type == each.UNUSED for each in model.pieces)
    return trainer.model_type == trainer.BPE and not (changes or unused or trainer.treat_whitespace_as_suffix)


def _unknown(tokenizer: Tokenizer, model: ModelProto, characters: Set[str]) -> set[str]:
    """Those of the characters that have no id of their own."""
    found = sorted(characters)
    unknown = next(index for index, each in enumerate(model.pieces) if each.type == each.UNKNOWN)
    return {each for each, ids in zip(found, tokenizer.encode_inside(found), strict=True) if ids == [unknown]}


def _neighbours(codes: Ints, alike: list[int] | None) -> tuple[Ints, Ints]:
    """All pairs that stand side by side in `codes`, where _OTHER is between pieces, and all of those that are `alike`."""
    inside = (codes[:-1] != _OTHER) & (codes[1:] != _OTHER)
    pairs = codes[:-1][inside] * CHARACTERS + codes[1:][inside]
    if alike is not None:
        pairs = np.append(pairs, np.add.outer(np.array(alike) * CHARACTERS, np.array(alike)))
    firsts, seconds = np.divmod(_distinct(pairs), CHARACTERS)
    return firsts, seconds


def _distinct(values: Ints) -> Ints:
    """The values in order, each once; numpy's own function imports a fifth of numpy for it, every time a program starts."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _classes(characters: Ints, own: Ints, other: Ints) -> tuple[Ints, int]:
    """A number for each character, equal for those with equal neighbours, and how many numbers there are.

    The pairs of neighbours are `own[i]`, `other[i]`.
    """
    order = np.lexsort((other, own))
    own, other = own[order], other[order]
    begins, ends = np.searchsorted(own, characters), np.searchsorted(own, characters, "right")
    numbers: dict[bytes, int] = {}
    found = [
        numbers.setdefault(other[begin:end].tobytes(), len(numbers))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]
    return np.array(found, np.int64), len(numbers)


def _by_code(characters: Ints, values: Ints) -> NDArray[np.int32]:
    """The values by code point; the first is that of _OTHER and, as the last of the table, of all higher ones."""
    table = np.full(characters[-1] + 2, values[0], np.int32)
    table[characters] = values
    table[ord(" ")] = table[ord(SPACE)]
    return table


def code_points(text: str) -> Ints:
    """The code points of a text, one a character."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)
