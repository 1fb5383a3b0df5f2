"""A model whose vocabulary was extended: its embedding and head with rows for the new pieces."""

# V old rows, N new rows, M old rows that new ones are mixed from, E model size

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from tp_ext.checkpoint.source import EMBEDDING, HEAD, Source, whole
from tp_ext.checkpoint.tensors import BLOCK, mean_row
from tp_ext.errors import CheckpointError, suggest
from tp_ext.tokens.rows import check_added, check_beside, check_rows
from tp_ext.tokens.tokenizer import Tokenizer

Tensor = torch.Tensor

NEIGHBOURS, TEMPERATURE = 10, 0.1
"""Of `weighted`: how many old rows make a new one, and by what their cosines are divided before the softmax."""
RIDGE = 1e-6
"""Of `gaussian`: what is added to each variance, as a part of their mean, so that the covariance is positive."""


@dataclass(frozen=True)
class Mixture:
    """New rows as weighted sums of old ones."""

    ids: Tensor
    """[M] old rows, those of the first new row first."""
    weights: Tensor
    """[M] float32, of each old row."""
    counts: Tensor
    """[N] how many old rows a new one is made of; 0 where it stands for no text."""

    def blocks(self) -> Iterator[Mixture]:
        """The mixture in runs of at most BLOCK new rows."""
        for start in range(0, len(self.counts), BLOCK):
            counts = self.counts[start : start + BLOCK]
            first = int(self.counts[:start].sum())
            stop = first + int(counts.sum())
            yield Mixture(self.ids[first:stop], self.weights[first:stop], counts)

    def rows(self, old: Tensor) -> Tensor:
        """The new rows [N, E], float32, from `old` [V, E]; 0 where a row is made of none."""
        owner = torch.arange(len(self.counts)).repeat_interleave(self.counts)
        rows = torch.zeros(len(self.counts), old.shape[1])
        for part, ids, weights in zip(owner.split(BLOCK), self.ids.split(BLOCK), self.weights.split(BLOCK), strict=True):
            rows.index_add_(0, part, old[ids].float() * weights[:, None])
        return rows


@dataclass(frozen=True)
class Wanted:
    """What a method may know to make the new rows of one table."""

    pieces: Mixture
    """The mean of the rows of the base's pieces for the text."""
    neighbours: Mixture | None
    """Old rows near to that mean in the embedding; None where no method asks for it."""
    seed: int


Method = Callable[[Tensor, Wanted], Iterator[Tensor]]
"""From the old rows [V, E] to the new ones in order, float32, at most BLOCK at once; rows without text are replaced."""


def _mean_of_pieces(old: Tensor, wanted: Wanted) -> Iterator[Tensor]:
    return (block.rows(old) for block in wanted.pieces.blocks())


def _mean(old: Tensor, wanted: Wanted) -> Iterator[Tensor]:
    mean = mean_row(old)
    return (mean.expand(len(block.counts), -1) for block in wanted.pieces.blocks())


def _gaussian(old: Tensor, wanted: Wanted) -> Iterator[Tensor]:
    """Draws with the mean and covariance of the old rows (Hewitt 2021), in float64."""
    mean = mean_row(old).double()
    covariance = torch.zeros(old.shape[1], old.shape[1], dtype=torch.float64)
    for part in old.split(BLOCK):
        centred = part.double() - mean
        covariance.addmm_(centred.t(), centred)
    variances = covariance.div_(len(old)).diagonal()
    variances += RIDGE * variances.mean() + torch.finfo(torch.float64).tiny
    factor: Tensor = torch.linalg.cholesky(covariance)
    for drawn in _draws(wanted, old.shape[1], torch.float64):
        yield (mean + drawn @ factor.t()).float()


def _weighted(old: Tensor, wanted: Wanted) -> Iterator[Tensor]:
    assert wanted.neighbours is not None
    return (block.rows(old) for block in wanted.neighbours.blocks())


def _random(old: Tensor, wanted: Wanted) -> Iterator[Tensor]:
    return (0.02 * drawn for drawn in _draws(wanted, old.shape[1], torch.float32))


METHODS: dict[str, Method] = {
    "mean_of_pieces": _mean_of_pieces,
    "mean": _mean,
    "gaussian": _gaussian,
    "weighted": _weighted,
    "random": _random,
}
"""How a new row begins: as the mean of the rows of the base's pieces for its text, the mean of all rows, a draw with
the mean and covariance of all rows, a mean of the NEIGHBOURS rows nearest to the first, weighted by the softmax of
their cosines, or drawn from N(0, 0.02)."""


def check_methods(method: str, head_method: str | None, tied: bool) -> None:
    """Raise CheckpointError on a method that is none, or one for a head that is the embedding."""
    for name in filter(None, (method, head_method)):
        if name not in METHODS:
            raise CheckpointError(f"no method named '{name}' to begin new rows with.{suggest(name, METHODS)}")
    if tied and head_method is not None:
        raise CheckpointError("head_method: this model's head is its embedding (tie_weights); leave it out")


def grow(
    source: Source, base: Tokenizer, merged: Tokenizer, method: str = "mean_of_pieces", head_method: str | None = None,
    seed: int = 0, multiple_of: int = 1,
) -> Source:  # fmt: skip
    """`source` with a row for each piece that `merged` has beyond `base`, in the embedding and in the head.

    Old rows stay bit for bit; new ones are made by METHODS[method] (`head_method` in the head) when the tensor is read,
    in float32, then cast; special pieces begin as the mean of the old rows. `vocab_padding` rows, which are a mean too,
    fill the number up to one divisible by `multiple_of`; padding that `source` had is dropped. Raises CheckpointError
    when `base` is not the tokenizer of `source`, or `merged` does not begin with its pieces.
    """
    check_methods(method, head_method, source.config.tie_weights)
    if multiple_of < 1:
        raise CheckpointError(f"multiple_of is {multiple_of}; it must be at least 1")
    check_base(source, base)
    check_begins_with(merged, base)
    rows = -(-merged.vocab_size // multiple_of) * multiple_of
    config = source.config.replace(vocab_size=rows, vocab_padding=rows - merged.vocab_size)
    tables = {EMBEDDING: method, HEAD: head_method or method}
    shapes = {name: (rows, *shape[1:]) if name in tables else shape for name, shape in source.shapes.items()}
    pieces = _pieces(base, merged, rows)

    def read() -> Iterator[tuple[str, Tensor]]:
        neighbours = None
        for name, tensor in source.read():
            if name not in tables:
                yield name, tensor
                continue
            old = tensor[: base.vocab_size]
            del tensor
            if name == EMBEDDING and "weighted" in tables.values():
                neighbours = nearest(old, pieces)
            yield name, _grown(old, METHODS[tables[name]], Wanted(pieces, neighbours, _seed_of(name, seed)), source, name)

    return replace(source, config=config, shapes=shapes, read=whole(read))


def check_base(source: Source, base: Tokenizer) -> None:
    """Raise CheckpointError unless the rows of `source` stand for the pieces of `base`, and for nothing else."""
    check_added(source.folder, source.config.rows, base)
    check_rows(source.config, base)
    check_beside(source.folder, base)


def check_begins_with(merged: Tokenizer, base: Tokenizer) -> None:
    """Raise CheckpointError unless the pieces of `base` are the first of `merged`, in the same order."""
    for index in range(base.vocab_size):
        if index >= merged.vocab_size:
            raise CheckpointError(
                f"{merged.path} has {merged.vocab_size} pieces, fewer than the {base.vocab_size} of {base.path}; is it "
                "the merged one?"
            )
        one, other = (base.piece(index), base.text(index)), (merged.piece(index), merged.text(index))
        if one != other:
            raise CheckpointError(
                f"{merged.path} does not begin with the pieces of {base.path}: piece {index} is {other[0]!r} instead of "
                f"{one[0]!r}{' (of another kind)' if one[0] == other[0] else ''}; merge it from this base"
            )


def nearest(old: Tensor, pieces: Mixture) -> Mixture:
    """For each new row the NEIGHBOURS old rows nearest by cosine to the mean of its pieces, softmax-weighted."""
    count = min(NEIGHBOURS, len(old))
    ids, weights = [], []
    for block in pieces.blocks():
        wanted = _unit(block.rows(old)[block.counts > 0])
        best, places = torch.zeros(len(wanted), 0), torch.zeros(len(wanted), 0, dtype=torch.int64)
        for start in range(0, len(old), BLOCK):
            near = wanted @ _unit(old[start : start + BLOCK].float()).t()
            here = torch.arange(start, start + near.shape[1]).expand(len(wanted), -1)
            best, order = torch.cat([best, near], 1).topk(min(count, best.shape[1] + near.shape[1]), 1)
            places = torch.cat([places, here], 1).gather(1, order)
        ids.append(places.flatten())
        weights.append((best / TEMPERATURE).softmax(1).flatten())
    counts = (pieces.counts > 0) * count
    return Mixture(torch.cat(ids) if ids else pieces.ids, torch.cat(weights) if weights else pieces.weights, counts)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _pieces(base: Tokenizer, merged: Tokenizer, rows: int) -> Mixture:
    """Each new row as the mean of the base's pieces for its text; special pieces and padding are made of none."""
    texts = [merged.text(index) for index in range(base.vocab_size, merged.vocab_size)]
    encoded = iter(base.encode_inside([text for text in texts if text is not None]))
    split = [[] if text is None else [i for i in next(encoded) if i not in base.special_ids] for text in texts]
    split += [[]] * (rows - merged.vocab_size)
    counts = torch.tensor([len(ids) for ids in split], dtype=torch.int64)
    flat = torch.tensor([i for ids in split for i in ids], dtype=torch.int64)
    return Mixture(flat, (1.0 / counts).repeat_interleave(counts), counts)


def _grown(old: Tensor, method: Method, wanted: Wanted, source: Source, name: str) -> Tensor:
    """`old` [V, E] and below it the new rows, in its dtype. Raises CheckpointError on new rows that are not finite."""
    count = len(wanted.pieces.counts)
    grown = torch.empty(len(old) + count, old.shape[1], dtype=old.dtype)
    grown[: len(old)] = old
    without_text = wanted.pieces.counts == 0
    mean = mean_row(old)
    start = len(old)
    for rows in method(old, wanted):
        new = grown[start : start + len(rows)]
        new.copy_(rows)
        new[without_text[start - len(old) :][: len(rows)]] = mean.to(old.dtype)
        if not bool(torch.isfinite(new).all()):
            raise CheckpointError(
                f"{source.path}: new rows of {name} are no finite numbers in {str(old.dtype)[6:]}; look for such numbers "
                "among its old rows, or take another method"
            )
        start += len(rows)
    assert start == len(grown)
    return grown


def _draws(wanted: Wanted, width: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Standard normal rows of all blocks, from the seed."""
    generator = torch.Generator().manual_seed(wanted.seed)
    return (torch.randn(len(block.counts), width, generator=generator, dtype=dtype) for block in wanted.pieces.blocks())


def _seed_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")
