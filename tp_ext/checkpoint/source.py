"""A model on disk, whatever its format, and the way between its tensors and ours through a table of names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import xxhash

from tp_ext.checkpoint.files import Weights, compare_shapes
from tp_ext.checkpoint.names import SAME, Row
from tp_ext.checkpoint.tensors import Shape, Span, Tensor, mean_row
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, ConfigError
from tp_ext.registry import Family

Shapes = dict[str, Shape]
Named = Iterator[tuple[str, Tensor]]
Wanted = Mapping[str, Span | None]
"""What is asked of a model: names of tensors, and which span of each; None stands for all of it."""


class Reader(Protocol):
    """Reads the tensors of a model."""

    def __call__(self, wanted: Wanted | None = None) -> Named:
        """Those that are wanted, in the order of the model, one at a time; without an argument all, whole."""


EMBEDDING, HEAD = "embedding.word.embedding.weight", "target.lm.output_layer.weight"
_OF_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True)
class Degree:
    """Into how many parts a model is cut."""

    tensor: int = 1
    pipeline: int = 1


WHOLE = Degree()


@dataclass(frozen=True)
class Source:
    """A model on disk, whatever its format: its configuration, and its tensors under our names."""

    path: Path
    format: str
    family: Family
    config: ModelConfig
    shapes: Shapes
    """Ours, the tied head not among them."""
    dtype: torch.dtype
    """That of its matrices; GGUF keeps norms and biases in float32 beside matrices of another type."""
    read: Reader
    """Its tensors in the order of `shapes`, one at a time. Of what is not wanted no byte is read, as far as the format
    can tell it apart."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What a Hugging Face config.json says of the model that `config` has no word for, such as its `eos_token_id`."""
    degree: Degree = WHOLE
    beside: Path | None = None
    """Where its tokenizer and the like are; None where they are beside the weights."""

    carried: Mapping[str, bytes] = field(default_factory=dict)
    """Files of its tokenizer, by name, where that is in the file of the weights and not beside it."""

    @property
    def weights_folder(self) -> Path:
        """Where its weights are."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def folder(self) -> Path:
        """Where its tokenizer and the like are."""
        return self.beside or self.weights_folder

    def without_padding(self) -> Source:
        """The same model with the rows left out that stand for no piece, which other libraries know nothing of."""
        pieces = self.config.pieces
        cut = {name for name in (EMBEDDING, HEAD) if name in self.shapes} if self.config.vocab_padding else set()
        shapes = {name: (pieces, *shape[1:]) if name in cut else shape for name, shape in self.shapes.items()}

        def read(wanted: Wanted | None = None) -> Named:
            asked = _asked(wanted, shapes)
            return self.read({name: span or (Span(0, 0, pieces) if name in cut else None) for name, span in asked.items()})

        config = self.config.replace(vocab_size=pieces, vocab_padding=0)
        return replace(self, config=config, shapes=shapes, read=read if cut else self.read)

    def padded(self, multiple: int) -> Source:
        """The same model with rows added that stand for no piece, up to a number divisible by `multiple`."""
        before = self.config.rows
        rows = -(-before // multiple) * multiple
        added = rows - before
        grown = {name for name in (EMBEDDING, HEAD) if name in self.shapes} if added else set()
        shapes = {name: (rows, *shape[1:]) if name in grown else shape for name, shape in self.shapes.items()}

        def read(wanted: Wanted | None = None) -> Named:
            asked = _asked(wanted, shapes)
            tables = {name: asked[name] or Span(0, 0, rows) for name in grown if name in asked}
            assert all(span.axis == 0 for span in tables.values()), "tables are cut by rows"
            filled = {name: span for name, span in tables.items() if span.stop > before}
            for name, tensor in self.read({**asked, **dict.fromkeys(filled)}):  # of all rows a mean is made
                if name in filled:
                    span = filled[name]
                    more = span.stop - max(span.start, before)
                    tensor = with_rows(tensor[span.start : before], tensor[: self.config.pieces], more)
                yield name, tensor
                del tensor

        config = self.config.replace(vocab_size=rows, vocab_padding=self.config.vocab_padding + added)
        return replace(self, config=config, shapes=shapes, read=read if grown else self.read)

    def fingerprint(self, whole: bool = False) -> str:
        """By which the weights are known again: a hash of names, sizes, beginnings and ends of their files.

        With `whole` of all that is in them; XXH3, as fast as the disk.
        """
        folder = [] if self.path.is_file() else self.path.rglob("*")
        files = sorted(file for file in folder if file.suffix in _OF_WEIGHTS) or [self.path]
        digest = hashlib.sha256()
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.name} {size} ".encode())
            if whole:
                digest.update(_xxh3_of(file))
                continue
            with open(file, "rb") as content:
                digest.update(content.read(1 << 20))
                content.seek(max(0, size - (1 << 20)))
                digest.update(content.read())
        return digest.hexdigest()


def _xxh3_of(file: Path) -> bytes:
    digest = xxhash.xxh3_128()
    with open(file, "rb") as content:
        while block := content.read(1 << 22):
            digest.update(block)
    return digest.digest()


def with_rows(table: Tensor, pieces: Tensor, added: int) -> Tensor:
    """A table [rows, E] with so many rows more that stand for no piece.

    They are the mean of those of the `pieces` [V, E]: a row of zeros would have a logit of its own.
    """
    return torch.cat([table, mean_row(pieces).to(table.dtype).expand(added, -1)])


def whole(read: Callable[[], Named]) -> Reader:
    """What reads spans too, from what can only give all tensors whole."""

    def reader(wanted: Wanted | None = None) -> Named:
        return read() if wanted is None else _spans(read(), wanted)

    return reader


def _spans(tensors: Named, wanted: Wanted) -> Named:
    for name, tensor in tensors:
        if name in wanted:
            span = wanted[name]
            yield name, span.of(tensor) if span else tensor


def _asked(wanted: Wanted | None, shapes: Shapes) -> Wanted:
    return dict.fromkeys(shapes) if wanted is None else wanted


def shapes_of(family: Family, config: ModelConfig) -> Shapes:
    """Shapes of all parameters of a model, each once (a tied head is the embedding). Raises ConfigError on absurd ones."""
    try:
        with torch.device("meta"):
            return {name: tuple(parameter.shape) for name, parameter in family.build(config).named_parameters()}
    except RuntimeError as error:
        raise ConfigError(f"model: its sizes are beyond all measure ({str(error)[:100]})") from None


def check_layers(path: Path, config: ModelConfig, weights: Weights) -> None:
    """Raise CheckpointError when a configuration has more layers than there are tensors, before any is built."""
    if config.layers_num > len(weights.shapes):
        raise CheckpointError(
            f"{path}: its configuration says {config.layers_num} layers, but it holds {len(weights.shapes)} tensors"
        )


def our_rows(shapes: Shapes) -> list[Row]:
    """The table of a format whose names are ours."""
    return [Row((name,), name, SAME) for name in shapes]


def from_table(
    path: Path, kind: str, family: Family, config: ModelConfig, weights: Weights, rows: Sequence[Row],
    head: str | None = None, by: str = "the configuration", dtype: torch.dtype | None = None, **more: Any,
) -> Source:  # fmt: skip
    """A model of `weights` whose names and layouts `rows` explain.

    `head` is what the output layer is called there: where it is tied it may be stored too, and must then be equal to
    the embedding. `dtype` is that of the matrices, where other tensors may have another. `more` are further fields of
    Source. Raises CheckpointError listing every missing, unexpected and misshapen tensor in one message, and on weights
    of several types.
    """
    shapes = shapes_of(family, config)
    found = dict(weights.shapes)
    tied = head if config.tie_weights and head in found else None
    if tied is not None:
        del found[tied]
    compare_shapes(found, their_shapes(rows, shapes, config), str(path), by)

    def read(wanted: Wanted | None = None) -> Named:
        asked = _asked(wanted, shapes)
        by_ours = {name: row for row in rows for name in row.ours}
        held: dict[str, Tensor] = {}  # the other parts of a fused tensor, until their turn
        for name in shapes:
            if name not in asked:
                continue
            if name not in held:
                held.update(_read_row(weights, by_ours[name], asked, config))
            if tied and name == EMBEDDING:
                _check_tied(weights, tied, by_ours[name].theirs, held[name], asked[name])
            yield name, held.pop(name)

    return Source(path, kind, family, config, shapes, dtype or _dtype_of(weights), read, **more)


def _read_row(weights: Weights, row: Row, asked: Wanted, config: ModelConfig) -> Named:
    """What is asked of our tensors in one of theirs, which is read whole where the same span of it is not enough."""
    spans = {asked.get(name) for name in row.ours}
    span = spans.pop() if len(spans) == 1 else None
    if span and row.move.can_cut(span, config):
        scale = 1 if span.axis else len(row.ours)
        theirs = weights.read(row.theirs, Span(span.axis, span.start * scale, span.stop * scale))
        return zip(row.ours, row.move.to_ours(theirs, config), strict=True)
    return _spans(zip(row.ours, row.move.to_ours(weights.read(row.theirs), config), strict=True), asked)


def their_shapes(rows: Sequence[Row], shapes: Shapes, config: ModelConfig) -> Shapes:
    """The shapes of their tensors, from ours and the table."""
    with torch.device("meta"):
        return {
            row.theirs: tuple(row.move.to_theirs([torch.empty(shapes[name]) for name in row.ours], config).shape)
            for row in rows
        }


def to_table(source: Source, rows: Sequence[Row]) -> tuple[Shapes, Callable[[], Named]]:
    """Their tensors of a model of ours: shapes, in the order in which they come, and the tensors, one at a time."""
    by_ours = {name: row for row in rows for name in row.ours}
    last = {name for name in source.shapes if name == by_ours[name].ours[-1]}
    shapes = their_shapes([by_ours[name] for name in source.shapes if name in last], source.shapes, source.config)

    def read() -> Named:
        held: dict[str, Tensor] = {}
        for name, tensor in source.read():
            held[name] = tensor
            del tensor
            if name in last:
                row = by_ours[name]
                yield row.theirs, row.move.to_theirs([held.pop(part) for part in row.ours], source.config)

    return shapes, read


def _check_tied(weights: Weights, head: str, table: str, found: Tensor, span: Span | None) -> None:
    """Raise CheckpointError when a span of a head differs from what was `found` in the embedding it is tied to."""
    if not torch.equal(weights.read(head, span), found):
        raise CheckpointError(
            f"{weights.path}: {head} differs from {table}, but the configuration ties them; "
            "set tie_weights (tie_word_embeddings) to false to keep both"
        )


def _dtype_of(weights: Weights) -> torch.dtype:
    """The one dtype of the weights. Raises CheckpointError when they are of several."""
    kinds = sorted({str(dtype) for dtype in weights.dtypes.values()})
    if len(kinds) > 1:
        raise CheckpointError(f"{weights.path}: weights of several types ({', '.join(kinds)}); expected one")
    return next(iter(weights.dtypes.values()))
