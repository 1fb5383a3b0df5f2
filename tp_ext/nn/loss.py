"""The output layer, and its loss without the logits of all tokens."""

# N tokens, C tokens of a chunk, E model size, V vocabulary

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100
"""The target that is no target."""

CHUNK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 27}
"""Logits that exist at once, at most, in float32: what the caches of a processor like, and what keeps a GPU busy."""


class OutputLayer(nn.Linear):
    """Logits of the vocabulary, or the loss of targets computed chunk by chunk of tokens.

    The last `padding` rows stand for nothing: their logits are -inf, and the loss does not know them.
    """

    def __init__(self, hidden_size: int, vocab_size: int, padding: int = 0) -> None:
        super().__init__(hidden_size, vocab_size, bias=False)
        self.padding = padding

    def forward(self, hidden: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits [..., V] of `hidden` [..., E]; with `targets` [...], the mean cross entropy in nats, a float32 scalar.

        Targets equal to IGNORED count neither in the sum nor in the mean; without any other the loss is 0.
        """
        if targets is None:
            logits: Tensor = super().forward(hidden)
            if self.padding:
                logits[..., -self.padding :] = float("-inf")
            return logits
        hidden, targets = hidden.flatten(0, -2), targets.flatten()
        counted = targets != IGNORED
        if not bool(counted.all()):
            hidden, targets = hidden[counted], targets[counted]
        weight = self.weight[: -self.padding] if self.padding else self.weight
        nats = linear_cross_entropy(hidden, weight, targets)
        return nats / max(len(targets), 1)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum over tokens of the cross entropy in nats of `hidden` [N, E] @ `weight` [V, E]^T to `targets` [N].

    The result and all that leads to it from the logits on are float32 whatever the inputs are. The gradients are made
    with the loss, from the same chunk of logits, so that nothing is computed twice; a second backward is refused. A
    weight that is not trained gets none.
    """
    nats: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return nats


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool) -> Tensor:
        vocab_size = weight.shape[0]
        rows = max(1, CHUNK_ELEMENTS.get(hidden.device.type, CHUNK_ELEMENTS["cuda"]) // vocab_size)
        nats = torch.zeros((), dtype=torch.float32, device=hidden.device)
        of_hidden = torch.empty_like(hidden) if with_gradients else None
        trains = with_gradients and ctx.needs_input_grad[1]
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if trains else None
        buffer = hidden.new_empty(min(rows, len(hidden)), vocab_size)
        for start in range(0, len(hidden), rows):
            part, target = hidden[start : start + rows], targets[start : start + rows, None]
            logits = torch.mm(part, weight.t(), out=buffer[: len(part)]).float()  # [C, V]
            highest, wanted = logits.amax(1, keepdim=True), logits.gather(1, target)
            probability = torch.softmax(logits, 1, out=logits)
            # log of the sum of exponentials, from the largest probability: it cannot underflow
            nats += (highest - probability.amax(1, keepdim=True).log() - wanted).sum()
            if of_hidden is None:
                continue
            of_logits = probability.scatter_add_(1, target, probability.new_full((1, 1), -1.0).expand_as(target))
            of_logits = of_logits.to(hidden.dtype)
            torch.mm(of_logits, weight, out=of_hidden[start : start + rows])
            if of_weight is None:
                continue
            if of_weight.dtype == hidden.dtype:
                of_weight.addmm_(of_logits.t(), part)
            else:
                of_weight += of_logits.t() @ part
        if of_hidden is not None:
            ctx.gradients = of_hidden, of_weight
        return nats

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        of_hidden, of_weight = ctx.gradients
        del ctx.gradients
        if of_weight is not None:
            of_weight = of_weight.mul_(gradient).to(of_hidden.dtype)
        return of_hidden.mul_(gradient.to(of_hidden.dtype)), of_weight, None, None
