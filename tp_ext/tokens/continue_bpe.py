"""BPE that starts from another tokenizer's tokens instead of from characters."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.errors import TokenizerError

BORDER = -1
"""Stands between two runs of tokens; nothing is joined across it."""
_FIRST_PRIVATE = [(0xE000, 0x1900), (0xF0000, 0xFFFD), (0x100000, 0xFFFD)]
_PRIVATE = np.concatenate([np.arange(start, start + size, dtype=np.uint32) for start, size in _FIRST_PRIVATE])
"""Private-use characters, each of which can stand for a token."""

_BLOCK = 1 << 20
Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Merged:
    """Tokens that BPE joins."""

    tokens: tuple[int, ...]
    frequency: int
    """How often they were joined."""


def continue_bpe(tokens: Tokens, count: int, least: int = 2, longest: int = 16) -> list[Merged]:
    """The first `count` merges of BPE over `tokens`, in the order of merging.

    `tokens` are runs with a BORDER between two. A merge of more than `longest` tokens is not made, nor one made less
    than `least` times: then fewer than `count` come back. Raises TokenizerError when there are no tokens.

    Each token becomes a private-use character, and sentencepiece's own trainer (BPE: Sennrich et al. 2016, arXiv
    1508.07909) runs on those. A run is first cut where its neighbours are together so rarely that they cannot be joined:
    a merge is as frequent as its rarest pair of neighbours at most. What is left are words that repeat, so that the
    memory needed is a small part of the text's. Whether the cuts were harmless shows in the result: the last merge must
    be no rarer than the rarest pair left together.
    """
    used, tokens = _number(tokens)
    if count < 1:
        return []
    pairs, counts = _count_pairs(tokens, len(used))
    rare = max(least, _first_guess(counts, count))
    while True:
        words, occurrences = _words(tokens, pairs[counts >= rare], len(used))
        model = _train(words, occurrences, len(used), count, longest)
        merges = _frequencies(model, words, occurrences)
        if rare <= least or (len(merges) >= count and merges[-1][1] >= rare):
            break
        rare = max(least, rare // 2)
    names = {chr(private): int(token) for private, token in zip(_PRIVATE[: len(used)], used, strict=True)}
    found = [Merged(tuple(map(names.__getitem__, characters)), frequency) for characters, frequency in merges[:count]]
    return list(takewhile(lambda merge: merge.frequency >= least, found))


def _number(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """The tokens used, most frequent first, and `tokens` numbered in that order."""
    counts = np.bincount(tokens[tokens != BORDER])
    used = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())].astype(np.int32)
    if not len(used):
        raise TokenizerError("there is no text to learn pieces from")
    if len(used) > len(_PRIVATE):
        raise TokenizerError(f"the text uses {len(used)} different tokens; at most {len(_PRIVATE)} can be joined")
    rank = np.full(len(counts) + 1, BORDER, np.int32)  # the last entry is the border's
    rank[used] = np.arange(len(used), dtype=np.int32)
    return used, rank[tokens]


def _keys(tokens: Tokens, used: int) -> NDArray[Any]:
    """A number for each pair of neighbours; the largest of all where one of them is a border."""
    kind = np.uint32 if used < 1 << 16 else np.uint64
    keys: NDArray[Any] = tokens[:-1].astype(kind) * kind(used) + tokens[1:].astype(kind)
    keys[(tokens[:-1] == BORDER) | (tokens[1:] == BORDER)] = np.iinfo(kind).max
    return keys


def _count_pairs(tokens: Tokens, used: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The pairs of neighbours that occur at least twice, in the order of their numbers, and how often each does."""
    keys = _keys(tokens, used)
    keys.sort()
    keys = keys[: int(np.searchsorted(keys, np.iinfo(keys.dtype).max))]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    counts = np.diff(np.append(starts, len(keys)))
    return keys[starts[counts > 1]], counts[counts > 1]


def _first_guess(counts: NDArray[np.int64], count: int) -> int:
    """The frequency below which pairs are cut at first: half of that of the pair of rank `count`."""
    if len(counts) <= count:
        return 2
    return max(2, int(np.partition(counts, -count)[-count]) // 2)


def _words(tokens: Tokens, pairs: NDArray[Any], used: int) -> tuple[list[str], NDArray[np.int64]]:
    """The different words, a private-use character a token, that are left when only `pairs` stay together."""
    together = []
    for start in range(0, len(tokens) - 1, _BLOCK):
        keys = _keys(tokens[start : start + _BLOCK + 1], used)
        place = np.searchsorted(pairs, keys)
        together.append(pairs[np.minimum(place, len(pairs) - 1)] == keys if len(pairs) else np.zeros(len(keys), bool))
    joined = np.concatenate([[False], *together, [False]])
    starts = np.flatnonzero(joined[1:] & ~joined[:-1])
    lengths = np.flatnonzero(joined[:-1] & ~joined[1:]) + 1 - starts
    words: list[str] = []
    frequencies: list[NDArray[np.int64]] = []
    for length in np.unique(lengths):
        first = starts[lengths == length]
        rows = tokens[first[:, None] + np.arange(length)]
        rows, counts = np.unique(rows, axis=0, return_counts=True) if length < 32 else (rows, np.ones(len(rows), np.int64))
        text = _PRIVATE[rows].tobytes().decode("utf-32-le")
        words += [text[place : place + length] for place in range(0, len(text), int(length))]
        frequencies.append(counts)
    return words, np.concatenate(frequencies or [np.zeros(0, np.int64)])


def _train(words: list[str], frequencies: NDArray[np.int64], used: int, count: int, longest: int) -> ModelProto:
    """Sentencepiece's trainer over words with their frequencies; every token is in its alphabet."""

    def lines() -> Iterator[str]:
        for word, frequency in zip(words, frequencies, strict=True):
            yield f"{word}\t{frequency}"
        for private in _PRIVATE[:used]:
            yield f"{chr(private)}\t1"

    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines(), input_format="tsv", model_writer=output,
        vocab_size=used + 1 + count, hard_vocab_limit=False, model_type="bpe", character_coverage=1.0,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        split_by_unicode_script=False, split_by_number=False, split_by_whitespace=False,
        max_sentencepiece_length=longest, max_sentence_length=1 << 30, bos_id=-1, eos_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return ModelProto.FromString(output.getvalue())


def _frequencies(model: ModelProto, words: list[str], occurrences: NDArray[np.int64]) -> list[tuple[str, int]]:
    """Every merge with how often it was made: what is left of it in the end, and what later merges took of it."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    left: Counter[int] = Counter()
    for start in range(0, len(words), 10000):
        block = processor.encode(words[start : start + 10000], num_threads=1)
        for ids, times in zip(block, occurrences[start : start + 10000].tolist(), strict=True):
            for index in ids:
                left[index] += times
    merges = [piece.piece for piece in model.pieces if len(piece.piece) > 1 and piece.piece != "<unk>"]
    rank = {merge: number for number, merge in enumerate(merges)}
    made = {merge: left[processor.piece_to_id(merge)] for merge in merges}
    for merge in reversed(merges):
        for part in _parts(merge, rank):
            if len(part) > 1:
                made[part] += made[merge]
    return list(made.items())


def _parts(merge: str, rank: dict[str, int]) -> tuple[str, str]:
    """The two that the last step of a merge joins."""
    parts = list(merge)
    while len(parts) > 2:
        pairs = [rank.get(first + second, len(rank)) for first, second in pairwise(parts)]
        place = pairs.index(min(pairs))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]
