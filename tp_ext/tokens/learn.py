"""Chinese pieces learned from a corpus."""

from __future__ import annotations

import heapq
import io
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.errors import TokenizerError, raise_all
from tp_ext.tokens.candidates import Candidates, longest_first
from tp_ext.tokens.characters import chinese_runs, han_runs, is_chinese
from tp_ext.tokens.continue_bpe import BORDER, Tokens, continue_bpe

MOST = 1 << 24
"""Pieces that a vocabulary may have at most; no published one has a tenth of it."""
LIMITS: dict[str, tuple[float, float]] = {
    "learn": (1, MOST), "jieba": (1, MOST), "size": (1, MOST), "multiple_of": (1, 1 << 16), "min_count": (1, 1 << 62),
    "sample_bytes": (1, 1 << 62), "character_coverage": (1e-9, 1),
}  # fmt: skip
"""The least and the greatest that each number may be."""
LONGEST = 1 << 16
"""Characters of a text that are looked at as one."""
RARE = "rarer than --min_count"
UNCOVERED = "a character beyond --character_coverage"


def check_limits(numbers: Mapping[str, float | None]) -> None:
    """Raise TokenizerError with every one of the `numbers` that is beyond its LIMITS; None is none."""
    problems = []
    for name, value in numbers.items():
        least, most = LIMITS[name]
        if value is not None and not least <= value <= most:
            right = "above 0 and at most 1" if most == 1 else f"at least {least}" if value < least else f"at most {most}"
            problems.append(f"{name} is {value}; it must be {right}")
    raise_all(TokenizerError, problems)


def parts(texts: Iterable[str]) -> Iterator[str]:
    """Texts, those longer than LONGEST in parts, so that of a file without line ends little is worked on at once."""
    for text in texts:
        yield from (text[start : start + LONGEST] for start in range(0, max(len(text), 1), LONGEST))


def sample(texts: Iterable[str], most_bytes: int, seed: int) -> list[str]:
    """Texts drawn from a stream of any length, every one as likely as another, of `most_bytes` bytes of UTF-8.

    Each text gets a random number, and those with the smallest stay. In the order of the stream. Raises TokenizerError
    when there is nothing Chinese among them.
    """
    draw = random.Random(seed)
    kept: list[tuple[float, int, str, int]] = []
    held = 0
    for place, text in enumerate(parts(texts)):
        size = len(text.encode())
        heapq.heappush(kept, (-draw.random(), place, text, size))
        held += size
        while held > most_bytes and len(kept) > 1:
            held -= heapq.heappop(kept)[3]
    chosen = [text for _, _, text, _ in sorted(kept, key=lambda each: each[1])]
    if not any(map(han_runs, chosen)):
        raise TokenizerError(f"the corpus has no Chinese text ({len(chosen)} texts were read)")
    return chosen


def learn_bpe(texts: Iterable[str], count: int, least: int, coverage: float, mixed: bool = False) -> Candidates:
    """The characters and the longer pieces, `count` in all, that BPE makes of the Chinese in `texts`.

    Longer pieces are of Han, with `mixed` of all that is Chinese. Single characters, the most frequent first, are taken
    until they are the share `coverage` of the text. Nothing that occurs less than `least` times is taken. Pieces are in the
    order of merging.
    """
    counts, letters = _characters(texts, mixed)
    covered, refused = _cover(counts, least, coverage)
    kept = np.zeros(int(letters.max()) + 2, bool)  # the last place is the border's
    kept[[ord(character) for character in covered]] = True
    letters = np.where(kept[letters], letters, BORDER)
    merges = continue_bpe(letters, max(count - len(covered), 0), least)
    found = [(character, counts[character]) for character in covered]
    found += [("".join(map(chr, merge.tokens)), merge.frequency) for merge in merges]
    pieces = [piece for piece, _ in sorted(found, key=lambda each: -each[1])]  # stable: merges stay in their order
    return Candidates(pieces[:count], pieces[:count], "learned by BPE", refused)


def learn_unigram(texts: Iterable[str], count: int, least: int, coverage: float, mixed: bool = False) -> Candidates:
    """As `learn_bpe`, by the unigram model of Kudo 2018 (arXiv 1804.10959), as sentencepiece trains it."""
    runs = Counter(run for text in texts for run in chinese_runs(text, mixed))
    covered, refused = _cover(_count(runs), least, coverage)
    if count < len(covered):
        raise TokenizerError(f"cannot learn {count} pieces by the unigram model, to which each of the {len(covered)} "
                             f"characters is one; learn {len(covered)} or more, or lower --character_coverage")  # fmt: skip
    words = _cut_at(runs, [character for characters in refused.values() for character in characters])
    output = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{times}" for word, times in words.items()),
            input_format="tsv", model_writer=output, vocab_size=count + 1, hard_vocab_limit=False, model_type="unigram",
            character_coverage=1.0, normalization_rule_name="identity", add_dummy_prefix=False,
            remove_extra_whitespaces=False, split_by_unicode_script=False, max_sentence_length=1 << 30,
            bos_id=-1, eos_id=-1, num_threads=2, minloglevel=2,
        )  # fmt: skip
    except RuntimeError:
        raise TokenizerError(f"the unigram model cannot learn {count} pieces from {sum(map(len, words))} characters; take "
                             "more text, or --learn_type bpe") from None  # fmt: skip
    pieces = sorted(ModelProto.FromString(output.getvalue()).pieces, key=lambda piece: -piece.score)
    worth = [piece.piece for piece in pieces if piece.type == piece.NORMAL and is_chinese(piece.piece)][:count]
    scores = {piece.piece: piece.score for piece in pieces}
    return Candidates(longest_first(worth), worth, "learned by the unigram model", refused, scores)


LEARNERS = {"bpe": learn_bpe, "unigram": learn_unigram}


def jieba_words(
    texts: Iterable[str], count: int, least: int, progress: Callable[[int], None] = lambda characters: None
) -> Candidates:
    """The `count` most frequent words of `texts` as jieba cuts them, of two Han characters and more."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    words: Counter[str] = Counter()
    for text in texts:
        for run in han_runs(text):
            words.update(word for word in jieba.cut(run) if len(word) > 1)
        progress(len(text))
    worth = [word for word, times in words.most_common(count) if times >= least]
    rare = [word for word, times in words.most_common(count) if times < least]
    if not worth:
        raise TokenizerError(f"the corpus has no word that occurs {least} times; lower --min_count")
    return Candidates(longest_first(worth), worth, "words as jieba cuts them", {RARE: rare} if rare else {})


def _characters(texts: Iterable[str], mixed: bool) -> tuple[Counter[str], Tokens]:
    """How often each Chinese character occurs, and all of them as numbers, with a border after each run."""
    blocks = []
    for text in texts:
        letters = np.frombuffer("\0".join([*chinese_runs(text, mixed), ""]).encode("utf-32-le"), "<u4").astype(np.int32)
        blocks.append(np.where(letters == 0, BORDER, letters).astype(np.int32))
    letters = np.concatenate(blocks)
    times = np.bincount(letters[letters != BORDER])
    return Counter({chr(letter): int(times[letter]) for letter in np.flatnonzero(times)}), letters


def _count(runs: Counter[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for run, times in runs.items():
        for character in run:
            counts[character] += times
    return counts


def _cut_at(runs: Counter[str], letters: Iterable[str]) -> Counter[str]:
    """What is left of runs when some letters are taken out."""
    borders = dict.fromkeys(map(ord, letters), " ")
    words: Counter[str] = Counter()
    for run, times in runs.items():
        for word in run.translate(borders).split():
            words[word] += times
    return words


def _cover(counts: Counter[str], least: int, coverage: float) -> tuple[list[str], dict[str, list[str]]]:
    """Characters, most frequent first, until they are the share `coverage` of the text; and those left out.

    Raises TokenizerError when all are rarer than `least`.
    """
    [(first, most)] = counts.most_common(1)
    if most < least:
        raise TokenizerError(f"no character of the corpus occurs {least:,} times; the most frequent, {first!r}, occurs "
                             f"{most:,} times: lower --min_count")  # fmt: skip
    wanted, seen = coverage * sum(counts.values()), 0
    covered: list[str] = []
    refused: dict[str, list[str]] = {}
    for character, times in counts.most_common():
        reason = RARE if times < least else UNCOVERED if seen >= wanted else None
        if reason:
            refused.setdefault(reason, []).append(character)
        else:
            covered.append(character)
            seen += times
    return covered, refused
