"""The proof that the first steps of a run change what is to be trained, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tp_ext.checkpoint.source import EMBEDDING
from tp_ext.errors import RecipeError
from tp_ext.nn.lora import FIRST, SECOND
from tp_ext.train.processes import Processes

STEPS = 2
"""Steps that are looked at. In the first B of LoRA is 0, so A has no gradient; in the second everything has one."""
WITHOUT, STILL = "should be trained, but got no gradient", "should be trained, but did not move"
CHANGED = "should stay as in the base, but changed"
_WIDE = 1024
_BITS = {2: torch.int16, 4: torch.int32}


@dataclass(frozen=True)
class _Before:
    """A parameter before a step."""

    sums: Tensor
    is_zero: bool


class Moved:
    """Looks at the parameters of a model before and after its first steps.

    Of what is trained the float32 value must have changed, and the first moment of its gradients must not be 0, as decay
    alone changes values too. A factor A whose B was 0 before the step is let off. Of what is frozen no bit may change.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes) -> None:
        self._module, self._optimizer, self._processes = module, optimizer, processes
        self._left = STEPS
        self._frozen = {name: _sums(_held(each)) for name, each in module.named_parameters() if not each.requires_grad}
        self._before: dict[str, _Before] = {}

    def begin(self) -> None:
        """Remember what is trained; every process calls it before a step."""
        if self._left:
            self._before = {name: _Before(_sums(value), not value.any()) for name, value in self._values()}

    def end(self, step: int, was_made: bool) -> None:
        """Compare after a step, if it `was_made` at all. Raises RecipeError, in all processes, with the names."""
        if not self._left or not was_made:
            return
        self._left -= 1
        told = self._processes.gathered((EMBEDDING in self._before, self._problems()))
        self._before = {}
        problems = list(_told_by_all([found for _, found in told], sum(is_trained for is_trained, _ in told)))
        if problems:
            raise RecipeError(f"step {step}: recipe.lora: {'; '.join(problems)}")

    def _problems(self) -> list[tuple[str, str]]:
        """Names of parameters, each with what is wrong with it in this process."""
        problems = []
        parameters = dict(self._module.named_parameters())
        for name, value in self._values():
            if self._is_let_off(name):
                continue
            if not bool(self._moment(parameters[name]).any()):
                problems.append((name, WITHOUT))
            elif torch.equal(_sums(value), self._before[name].sums):
                problems.append((name, STILL))
        problems += [(name, CHANGED) for name, before in self._frozen.items()
                     if not torch.equal(_sums(_held(parameters[name])), before)]  # fmt: skip
        return problems

    def _is_let_off(self, name: str) -> bool:
        other = f"{name.removesuffix(FIRST)}{SECOND}"
        return name.endswith(f".{FIRST}") and self._before[other].is_zero

    def _values(self) -> Iterator[tuple[str, Tensor]]:
        """What is trained, whole and in float32, one parameter at a time."""
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self._module.named_parameters():
            if parameter.requires_grad:
                value = safe_get_full_fp32_param(parameter)  # None where it is float32 itself
                yield name, parameter.detach() if value is None else value

    def _moment(self, parameter: Tensor) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        moment: Tensor | None = safe_get_full_optimizer_state(parameter, "exp_avg")
        if moment is None:
            moment = self._optimizer.state.get(parameter, {}).get("exp_avg", torch.zeros(1))
        return moment


def _told_by_all(told: list[list[tuple[str, str]]], embeddings: int) -> Iterator[str]:
    """A line for each thing that is wrong, with the names, from what each process found.

    A part of the embedding has no gradient where the batch has none of its rows: that is wrong only when all that have
    a part of it, so many as `embeddings`, found it.
    """
    counts = Counter(problem for found in told for problem in found)
    if counts[EMBEDDING, WITHOUT] < embeddings:
        del counts[EMBEDDING, WITHOUT]
    for what in (WITHOUT, STILL, CHANGED):
        names = [name for name, wrong in counts if wrong == what]
        if names:
            yield f"{', '.join(names[:8])}{' and more' * (len(names) > 8)} {what}"


def _held(parameter: Tensor) -> Tensor:
    """What this process holds of a parameter: all of it, or its part under ZeRO 3."""
    held: Tensor = getattr(parameter, "ds_tensor", parameter).detach()
    return held


def _sums(tensor: Tensor) -> Tensor:
    """Sums of the bits of a tensor, int64, of every 1,024 values: where they differ so does the tensor."""
    bits = tensor.contiguous().view(-1).view(_BITS[tensor.element_size()])
    cut = len(bits) // _WIDE * _WIDE
    return torch.cat([bits[:cut].view(-1, _WIDE).sum(1, dtype=torch.int64), bits[cut:].to(torch.int64)])
