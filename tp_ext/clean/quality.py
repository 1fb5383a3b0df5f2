"""A classifier of text on hashed character n-grams, and the rule that keeps by its score."""

# n documents, f features of all of them

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.clean.exact import digest_of
from tp_ext.clean.grams import codes_of, hashes_of
from tp_ext.clean.settings import Quality
from tp_ext.errors import ConfigError
from tp_ext.output import whole_file

Array = np.ndarray[Any, np.dtype[Any]]
REASON = "quality"
BITS, WIDTHS, MOST_CHARACTERS = 18, (1, 2, 3), 4000
"""Of a document its first characters are looked at, in stretches of so many, each hashed to one of 2 ** BITS weights."""
_BATCH, _RATE, _DECAY = 128, 0.5, 1e-6
_SPREAD = np.uint64(0xD1342543DE82EF95)


@dataclass(frozen=True)
class Classifier:
    """Logistic regression: the probability that a text is like the good ones."""

    weights: Array
    """float32 [2 ** BITS]."""
    bias: float

    def scores(self, texts: Sequence[str]) -> Array:
        """From 0 to 1 for each text; float64 [n]."""
        return _probability(np.array([self._sum(features_of(text)) for text in texts]) + self.bias)

    def _sum(self, features: Array) -> float:
        return float(self.weights[features].sum(dtype=np.float64) / math.sqrt(max(len(features), 1)))

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with whole_file(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, weights=self.weights, bias=np.float64(self.bias), widths=np.array(WIDTHS))


def read_classifier(path: Path) -> Classifier:
    """What `write` wrote. Raises ConfigError when it is something else."""
    try:
        with np.load(path, allow_pickle=False) as values:
            found = Classifier(values["weights"], float(values["bias"]))
            if found.weights.shape != (1 << BITS,) or tuple(values["widths"].tolist()) != WIDTHS:
                raise ValueError("other features")
            if found.weights.dtype.kind != "f" or not np.isfinite([found.weights.sum(), found.bias]).all():
                raise ValueError("weights that are no finite numbers")
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"quality.model: {path}: is no file of scripts/train_quality.py ({error})") from None
    return found


def features_of(text: str) -> Array:
    """The features of a text, one for each of its stretches; int64 [f]."""
    codes = codes_of(text[:MOST_CHARACTERS])
    found = [hashes_of(codes, width) * (_SPREAD + np.uint64(2 * width)) >> np.uint64(64 - BITS) for width in WIDTHS]
    return np.concatenate(found).astype(np.int64)


def train(good: Sequence[str], bad: Sequence[str], epochs: int = 5, seed: int = 0) -> Classifier:
    """A classifier that tells good texts from bad ones, by Adagrad; good and bad count alike whatever their numbers."""
    features = [features_of(text) for text in (*good, *bad)]
    labels = np.array([1.0] * len(good) + [0.0] * len(bad))
    balance = np.where(labels > 0, len(labels) / (2 * max(len(good), 1)), len(labels) / (2 * max(len(bad), 1)))
    weights, squares = np.zeros(1 << BITS), np.full(1 << BITS, 1e-6)
    bias, bias_square = 0.0, 1e-6
    for batch in _batches(len(labels), epochs, seed):
        joined = np.concatenate([features[index] for index in batch])
        lengths = np.array([len(features[index]) for index in batch])
        owner = np.repeat(np.arange(len(batch)), lengths)
        scale = 1 / np.sqrt(np.maximum(lengths, 1))
        sums = np.bincount(owner, weights[joined], len(batch)) * scale
        wrong = (_probability(sums + bias) - labels[batch]) * balance[batch] / len(batch)
        gradient = np.bincount(joined, (wrong * scale)[owner], 1 << BITS) + _DECAY * weights
        squares += gradient**2
        weights -= _RATE * gradient / np.sqrt(squares)
        bias_square += wrong.sum() ** 2
        bias -= _RATE * wrong.sum() / math.sqrt(bias_square)
    return Classifier(weights.astype(np.float32), float(bias))


def _batches(count: int, epochs: int, seed: int) -> Iterator[Array]:
    draw = np.random.default_rng(seed)
    for _ in range(epochs):
        order = draw.permutation(count)
        yield from (order[start : start + _BATCH] for start in range(0, count, _BATCH))


def _probability(values: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-np.clip(values, -40, 40)))
    return found


def draw_of(seed: int, text: str) -> float:
    """A number from 0 to 1 that depends on the seed and the text alone, so that it is the same in any process."""
    number = int.from_bytes(digest_of(f"{seed}\0{text}")[:8], "little")
    return (number + 0.5) / 2**64


def is_kept(score: float, draw: float, alpha: float) -> bool:
    """Whether a document with that score stays: a Pareto variable of shape `alpha` is greater than 1 - score.

    That is so with probability (2 - score) ** -alpha (Brown et al. 2020, appendix A, with alpha = 9).
    """
    return bool(draw < (2 - score) ** -alpha)


class Gate:
    """Which documents the classifier lets through."""

    def __init__(self, settings: Quality) -> None:
        """Raises ConfigError when the model cannot be read."""
        self._settings = settings
        self._classifier = read_classifier(Path(settings.model)) if settings.model is not None else None

    def reason(self, text: str) -> str:
        """Why a text is not kept, or nothing."""
        if self._classifier is None:
            return ""
        score = float(self._classifier.scores([text])[0])
        return "" if is_kept(score, draw_of(self._settings.seed, text), self._settings.alpha) else REASON
