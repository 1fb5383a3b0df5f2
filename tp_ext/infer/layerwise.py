"""Logits, and bits per byte of text, under a model of which one layer at a time is in memory."""

# T tokens of a window, E model size

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from tp_ext.checkpoint.source import EMBEDDING, HEAD, Source
from tp_ext.errors import CheckpointError, ConfigError, TokenizerError
from tp_ext.models import build
from tp_ext.nn.loss import linear_cross_entropy
from tp_ext.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Windows:
    """A text as runs of ids; each but a run's first is predicted from those before it in the run."""

    ids: list[list[int]]
    """A run begins with the last token of the one before, the first with bos: every token of the text is predicted once."""
    text_bytes: int
    """UTF-8 bytes of the text, which are those of the predicted tokens."""


def leading_text(texts: Iterable[str], tokenizer: Tokenizer, tokens: int) -> str:
    """The first lines of `texts`, whole, with about `tokens` tokens at most; of a first line that has more a part.

    No more is read than is taken. Raises ConfigError when there is no text.
    """
    taken: list[str] = []
    used = 0
    for line in (line for text in texts for line in text.split("\n") if line.strip()):
        found = len(tokenizer.encode(line)) + 1
        if taken and used + found > tokens:
            break
        while found > tokens and len(line) > 1:
            line = line[: max(1, min(len(line) - 1, len(line) * tokens // found))]
            found = len(tokenizer.encode(line)) + 1
        taken.append(line)
        used += found
    if not taken:
        raise ConfigError("there is no line of text to measure the model with")
    return "\n".join(taken)


def windows(text: str, tokenizer: Tokenizer, seq_length: int = 256) -> Windows:
    """`text` as runs that predict `seq_length` tokens each, the last one those that are left.

    Raises TokenizerError when no special piece can stand before the first token.
    """
    before = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if before is None:
        raise TokenizerError(f"{tokenizer.path}: has neither bos nor eos, one of which must stand before a text")
    ids = [before, *tokenizer.encode(text)]
    runs = [ids[start : start + seq_length + 1] for start in range(0, len(ids) - 1, seq_length)]
    return Windows(runs, len(text.encode("utf-8")))


@torch.no_grad()
def bits_per_byte(source: Source, texts: Sequence[Windows], device: str | None = None) -> list[float]:
    """Bits per UTF-8 byte of each text, in float32 whatever the type of the weights.

    All texts go through a layer while it is in memory, so the weights are read once. `device` is by default the GPU
    where there is one. Raises CheckpointError where the result is no finite number.
    """
    runs = [torch.tensor(ids) for text in texts for ids in text.ids]
    hidden, head = _run(source, [run[:-1] for run in runs], device)
    nats = _nats(hidden, runs, head)
    results = []
    for text in texts:
        results.append(sum(nats[: len(text.ids)]) / math.log(2) / text.text_bytes)
        nats = nats[len(text.ids) :]
    if not all(map(math.isfinite, results)):
        raise CheckpointError(f"{source.path}: the bits per byte of a text are no finite number; its weights are damaged")
    return results


@torch.no_grad()
def logits(source: Source, ids: Tensor, device: str | None = None) -> Tensor:
    """Logits [B, T, V], float32, of `ids` [B, T]; V are the rows that stand for a piece."""
    hidden, head = _run(source, list(ids), device)
    return torch.cat([each @ head.t() for each in hidden])


def _run(source: Source, runs: Sequence[Tensor], device: str | None) -> tuple[list[Tensor], Tensor]:
    """The last hidden states [1, T, E] of each run of ids, and the head [V, E], float32; a layer at a time is read."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with torch.device("meta"):
        model = build(source.config).eval()
    hidden: list[Tensor] = []
    head = None
    for name, weights in groupby(source.read(), lambda named: _part_of(named[0])):
        if name in (EMBEDDING, HEAD):
            ((_, table),) = weights
            if name == EMBEDDING:
                hidden = [table[run].float()[None].to(place) for run in runs]
            if name == HEAD or source.config.tie_weights:
                head = table
            del table
            continue
        part = model.get_submodule(name)
        values = {own.removeprefix(f"{name}."): tensor.to(place, torch.float32) for own, tensor in weights}
        part.load_state_dict(values, assign=True)
        del values
        hidden = [part(each) for each in hidden]
        part.to("meta")
    assert head is not None
    return hidden, head[: source.config.pieces].to(place, torch.float32)


def _part_of(name: str) -> str:
    """What a weight is read together with: its layer, its norm, or for a table nothing."""
    if name in (EMBEDDING, HEAD):
        return name
    words = name.split(".")
    return ".".join(words[:3] if words[1] == "transformer" else words[:-1])


def _nats(hidden: Sequence[Tensor], runs: Sequence[Tensor], head: Tensor) -> list[float]:
    return [
        float(linear_cross_entropy(each[0], head, run[1:].to(head.device)))
        for each, run in zip(hidden, runs, strict=True)
    ]
