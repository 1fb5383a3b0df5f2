"""The rules for documents that repeat themselves."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tp_ext.clean.grams import codes_of, hashes_of
from tp_ext.clean.rule import Judge, Rule, Verdict, kept

WIDTH, LEAST = 10, 100
_WORD = re.compile(r"\w")
_SYMBOLS = re.compile(r"[^\w\n]{4,}")
_PARAGRAPH_END = re.compile(r"\n\s*\n")


def _share_repeated(pieces: list[str]) -> float:
    """The share of characters in pieces that came before; those of symbols alone, as the rules of a table, do not count."""
    seen: set[str] = set()
    total = repeated = 0
    for piece in map(str.strip, pieces):
        if not _WORD.search(piece):
            continue
        total += len(piece)
        repeated += len(piece) if piece in seen else 0
        seen.add(piece)
    return repeated / total if total else 0.0


def _pieces(cut: Callable[[str], list[str]], reason: str) -> Callable[[float], Judge]:
    def make(share: float) -> Judge:
        def judge(text: str) -> Verdict:
            if "\n" not in text or _share_repeated(cut(text)) <= share:
                return kept(text)
            return None, reason

        return judge

    return make


def _ngrams(share: float) -> Judge:
    def judge(text: str) -> Verdict:
        if len(text) < LEAST:
            return kept(text)
        grams = hashes_of(codes_of(text), WIDTH)
        ordered = np.sort(grams)
        again = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
        if again * WIDTH <= share * len(text):
            return kept(text)
        short = _SYMBOLS.sub("…", text)
        if _covered(hashes_of(codes_of(short), WIDTH)) <= share * len(short):
            return kept(text)
        return None, "repeated n-grams"

    return judge


def _covered(grams: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> int:
    """How many characters are in grams that came before."""
    _, first, index = np.unique(grams, return_index=True, return_inverse=True)
    changes = np.zeros(len(grams) + WIDTH, dtype=np.int64)
    again = np.flatnonzero(first[index] < np.arange(len(grams)))
    np.add.at(changes, again, 1)
    np.add.at(changes, again + WIDTH, -1)
    return int(np.count_nonzero(np.cumsum(changes)))


def _line_list(text: str) -> list[str]:
    return text.split("\n")


_SENTENCE = "春天来了，公园里的花都开了。"
REPETITION: tuple[Rule, ...] = (
    Rule(name="repeated_lines", make=_pieces(_line_list, "repeated lines"), example_value=0.3,
         drops=("\n".join([_SENTENCE] * 3), "甲\n乙丙丁\n乙丙丁"),
         spares=("甲\n乙\n甲乙丙丁", _SENTENCE * 2, "\n\n\n", "甲\n+-----+\n乙\n+-----+\n丙\n+-----+")),
    Rule(name="repeated_paragraphs", make=_pieces(_PARAGRAPH_END.split, "repeated paragraphs"), example_value=0.3,
         drops=(f"{_SENTENCE}\n第二行\n\n{_SENTENCE}\n第二行",),
         spares=(f"{_SENTENCE}\n第二行\n\n{_SENTENCE}\n另外一行文字",)),
    Rule(name="repeated_ngrams", make=_ngrams, example_value=0.4, drops=(_SENTENCE * 10, "哈" * 120),
         spares=("".join(map(chr, range(0x4E00, 0x4E00 + 300))), "哈" * 50, _SENTENCE * 2)),
)  # fmt: skip
