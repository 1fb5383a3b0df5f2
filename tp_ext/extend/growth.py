"""A model written with rows for a longer vocabulary, and the proof that it still is the model it was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.files import compare_shapes
from tp_ext.checkpoint.formats import open_model, write_weights
from tp_ext.checkpoint.grow import METHODS, grow
from tp_ext.checkpoint.source import EMBEDDING, HEAD, Source, whole
from tp_ext.checkpoint.tensors import BLOCK
from tp_ext.errors import CheckpointError, ConfigError, raise_all
from tp_ext.infer.layerwise import Windows, bits_per_byte, leading_text, windows
from tp_ext.models import families
from tp_ext.output import sha256_of
from tp_ext.tokens.characters import has_chinese
from tp_ext.tokens.tokenizer import FILE_NAMES, Tokenizer, open_tokenizer

Tensor = torch.Tensor

ENGLISH_BOUND = 0.01
"""Bits per byte by which text without the new pieces may come out otherwise than under the base."""
WORSE_THAN_GUESSING = 1.2
"""By how much a model may be worse than one that knows nothing, as models that were never trained are by little."""
MOST_PADDING = 1 << 16
SEQ_LENGTH = 256
"""Tokens that are predicted from one another in the proof."""


@dataclass(frozen=True, kw_only=True)
class GrowthSettings:
    """How the new rows of a model are made, and how much text the proof reads."""

    method: str = "mean_of_pieces"
    """One of METHODS."""
    head_method: str | None = None
    """The same for the head; None means `method`. A tied head has none."""
    seed: int = 0
    """Of the methods that draw."""
    pad_rows_to: int = 1
    """The rows are filled up to a number this divides (native folders only)."""
    proof_tokens: int | None = None
    """Tokens of each of the two texts, counted by the base tokenizer; None: 2048, or 256 above a billion parameters."""

    def __post_init__(self) -> None:
        problems = []
        if self.proof_tokens is not None and self.proof_tokens < 1:
            problems.append(f"proof_tokens is {self.proof_tokens}; it must be at least 1")
        if not 1 <= self.pad_rows_to <= MOST_PADDING:
            problems.append(f"pad_rows_to is {self.pad_rows_to}; it must be from 1 to {MOST_PADDING}")
        raise_all(ConfigError, problems)


@dataclass(frozen=True)
class Norms:
    """The Euclidean lengths of some rows."""

    mean: float
    least: float
    greatest: float


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What was grown, and what the proof measured; losses are in bits per UTF-8 byte, before any training."""

    method: str
    head_method: str
    rows_before: int
    rows_after: int
    vocab_padding: int
    """Of the rows after, those that stand for no piece."""
    parameters_added: int
    english_bound: float
    english_before: float
    english_after: float
    chinese_before: float
    chinese_after: float
    chinese_methods: dict[str, float]
    """Under each method, used for embedding and head alike."""
    embedding_old: Norms
    embedding_new: Norms | None
    """None where there is no new row."""
    head_old: Norms | None
    """None where the head is the embedding."""
    head_new: Norms | None
    doubts: list[str]
    """What looks wrong though it can be written."""

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return dataclasses.asdict(self)


def manifest_of(source: Source, base: Tokenizer, merged: Tokenizer, settings: GrowthSettings) -> dict[str, Any]:
    """What the manifest of the grown model says of its parents, for write_manifest once all files are in the folder."""
    return {
        "format": source.format,
        "family": source.family.name,
        "source": {"path": str(source.path), "format": source.format, "fingerprint": source.fingerprint()},
        "tokenizer": {"base_sha256": base.sha256, "sha256": merged.sha256},
        "growth": dataclasses.asdict(settings),
    }


def grow_model(
    folder: Path, source: Source, base: Tokenizer, merged: Tokenizer, settings: GrowthSettings, english: Iterable[str],
    chinese: Iterable[str], progress: Callable[[int, int], None],
) -> Growth:  # fmt: skip
    """Write `source`, grown from `base` to `merged`, in its own format into `folder`, and prove what was written.

    `folder` holds the files of the merged tokenizer already; only configuration and weights are added, no tokenizer is
    copied, and no manifest is written: see manifest_of. Proved is that every old number is there bit for bit, and that
    `english` costs the same as under the base within ENGLISH_BOUND; measured is what `chinese` costs. Raises
    CheckpointError when that does not hold, when a number is not finite, or when `folder` has another tokenizer.
    """
    _check_tokenizer(folder, source, merged)
    grown = grow(source, base, merged, settings.method, settings.head_method, settings.seed, settings.pad_rows_to)
    if grown.config.vocab_padding:
        check_padding(source)
    tokens = settings.proof_tokens or (2048 if count_parameters(source) < 1e9 else 256)
    english_text, chinese_text = (leading_text(texts, base, tokens) for texts in (english, chinese))
    if not has_chinese(chinese_text):
        raise ConfigError(f"the Chinese text, on which methods are compared, has no Chinese in it: {chinese_text[:40]!r}")
    others = _others(settings)
    tell = _Steps(progress, len(source.shapes) * (4 + len(others)))
    write_weights(folder, tell.of(grown), source.format, source.dtype)
    written = open_model(folder, families)
    expected = grown if source.format == "native" else grown.without_padding()
    norms = _compare(tell.of(source), written, expected, base.vocab_size)
    seq_length = min(SEQ_LENGTH, source.config.max_seq_length)

    def cut(tokenizer: Tokenizer) -> list[Windows]:
        return [windows(text, tokenizer, seq_length) for text in (english_text, chinese_text)]

    before, after = cut(base), cut(merged)
    english_before, chinese_before = bits_per_byte(tell.of(source), before)
    english_after, chinese_after = bits_per_byte(tell.of(written), after)
    _check_english(english_before, english_after, before[0].ids == after[0].ids)
    measured = {} if len(others) == len(METHODS) else {settings.method: chinese_after}
    for name in others:
        other = grow(source, base, merged, name, seed=settings.seed)
        (measured[name],) = bits_per_byte(tell.of(other), after[1:])
    return Growth(
        method=settings.method,
        head_method=settings.head_method or settings.method,
        rows_before=source.config.rows,
        rows_after=written.config.rows,
        vocab_padding=written.config.vocab_padding,
        parameters_added=count_parameters(written) - count_parameters(source),
        english_bound=ENGLISH_BOUND,
        english_before=english_before,
        english_after=english_after,
        chinese_before=chinese_before,
        chinese_after=chinese_after,
        chinese_methods={name: measured[name] for name in METHODS},
        embedding_old=norms[EMBEDDING][0],
        embedding_new=norms[EMBEDDING][1],
        head_old=norms[HEAD][0] if HEAD in norms else None,
        head_new=norms[HEAD][1] if HEAD in norms else None,
        doubts=_doubts(english_before, before[0], source, base),
    )


def check_padding(source: Source) -> None:
    """Raise CheckpointError when the format of `source` cannot hold rows that stand for no piece."""
    if source.format != "native":
        raise CheckpointError(
            f"pad_rows_to: {source.path} is {source.format}, which has no padding rows; convert it to native first, or "
            "merge the vocabulary to the size wanted"
        )


def _check_tokenizer(folder: Path, source: Source, merged: Tokenizer) -> None:
    """Raise CheckpointError unless the tokenizer in `folder` is the merged one, and no file of the old one is there."""
    found = open_tokenizer(folder)
    if found.sha256 != merged.sha256:
        raise CheckpointError(f"{found.path}: is not {merged.path}, to which the new rows belong")
    for name in FILE_NAMES:
        old, new = source.folder / name, folder / name
        if old.is_file() and new.is_file() and sha256_of(old) == sha256_of(new) != merged.sha256:
            raise CheckpointError(f"{new}: is the old tokenizer of {source.folder}; leave it out")


def _others(settings: GrowthSettings) -> list[str]:
    """The methods that what is written does not measure itself."""
    chosen = settings.head_method in (None, settings.method)
    return [name for name in METHODS if not (chosen and name == settings.method)]


class _Steps:
    """Tells the progress of several readings of a model, tensor by tensor."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def of(self, source: Source) -> Source:
        """`source`, each tensor of which counts when it is read."""

        def read() -> Iterator[tuple[str, Tensor]]:
            for named in source.read():
                self._done += 1
                self._progress(self._done, self._total)
                yield named

        return replace(source, read=whole(read))


def _compare(source: Source, written: Source, expected: Source, pieces: int) -> dict[str, tuple[Norms, Norms | None]]:
    """Lengths of old and new rows of each table. Raises CheckpointError unless all that was in `source` is in `written`."""
    compare_shapes(written.shapes, expected.shapes, str(written.path), "the growth")
    if (written.dtype, written.config.vocab_padding) != (source.dtype, expected.config.vocab_padding):
        raise CheckpointError(f"{written.path}: its type or padding reads back differently from what was written")
    norms = {}
    for (name, before), (same, after) in zip(source.read(), written.read(), strict=True):
        for where, tensor in ((source, before), (written, after)):
            if not all(bool(torch.isfinite(part).all()) for part in tensor.split(BLOCK)):
                raise CheckpointError(f"{where.path}: {name} holds values that are no finite numbers")
        is_table = name in (EMBEDDING, HEAD)
        old = before[:pieces] if is_table else before
        if name != same or not _same_bits(old, after[: len(old)]):
            raise CheckpointError(f"{name} reads back differently from {source.path}; nothing was kept")
        if is_table:
            norms[name] = _norms(old), _norms(after[pieces:]) if len(after) > pieces else None
            if (new := norms[name][1]) and not new.least:
                raise CheckpointError(f"{written.path}: {name} has a new row that is all zero; take another method")
    return norms


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def _norms(rows: Tensor) -> Norms:
    lengths = torch.cat([part.float().norm(dim=1) for part in rows.split(BLOCK)])
    return Norms(mean=float(lengths.mean()), least=float(lengths.min()), greatest=float(lengths.max()))


def _check_english(before: float, after: float, cut_alike: bool) -> None:
    if abs(after - before) <= ENGLISH_BOUND:
        return
    advice = (
        "the merged tokenizer cuts this text otherwise than the base, so take text without the new pieces"
        if not cut_alike
        else "the new rows draw too much probability; fewer of them draw less (a smaller --size), and of the methods for "
        "--head_method mean_of_pieces mostly does"
        if after > before
        else "rows beyond the tokenizer's pieces, which were taken for padding, had drawn probability"
    )
    raise CheckpointError(
        f"the English text costs {after:.4f} bits per byte under the grown model and {before:.4f} under its base; at most "
        f"{ENGLISH_BOUND} between them is right: {advice}"
    )


def _doubts(english: float, text: Windows, source: Source, base: Tokenizer) -> list[str]:
    """Whether the base model knows less of English than nothing, as it does when read with another tokenizer."""
    predicted = sum(len(ids) - 1 for ids in text.ids)
    guessing = predicted * math.log2(source.config.pieces) / text.text_bytes
    if english < WORSE_THAN_GUESSING * guessing:
        return []
    return [
        f"the base model costs {english:.2f} bits per byte of English, and guessing every token alike {guessing:.2f}: is "
        f"{base.path} the tokenizer of {source.path}?"
    ]


def count_parameters(source: Source) -> int:
    """Numbers in all tensors, a tied head not twice."""
    return sum(map(math.prod, source.shapes.values()))
