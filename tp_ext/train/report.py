"""What a run says while it runs: a console line, a line of metrics.jsonl, and wandb."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import torch

from tp_ext.config import ModelConfig
from tp_ext.progress import clock, short
from tp_ext.train import records
from tp_ext.train.records import METRICS, STEPS


def flops_per_token(parameters_num: int, config: ModelConfig, seq_length: int, frozen_num: int = 0) -> float:
    """Floating-point operations of a training step per token (PaLM, arXiv 2204.02311, appendix B).

    Six for every weight a token is multiplied with, four where it is one of the `frozen_num` that get no gradient, and
    the two products of attention under a causal mask, forward and twice backward. The embedding's look-up costs nothing;
    recomputed activations are not counted.
    """
    looked_up = 0 if config.tie_weights else config.rows * config.emb_size
    attention = 6 * config.layers_num * config.heads_num * config.head_size * seq_length
    return 6 * (parameters_num - looked_up) - 2 * frozen_num + attention


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second this device reaches on a large matrix product, measured for half a second.

    In `dtype`, or in float32 where that is faster (a processor without half-precision units).
    """
    return max(_matmul_speed(device, kind) for kind in {dtype, torch.float32})


def _matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 1024
    generator = torch.Generator(device).manual_seed(0)  # the run's own random numbers must not move
    left, right = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    output = torch.empty_like(left)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < 0.25:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        torch.mm(left, right, out=output)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def memory_used(device: torch.device) -> float:
    """The most memory this process has used so far, in GiB: the GPU's, or without one the host's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def say(text: str) -> None:
    """A line on the console, from the first process only; a run goes on when nobody is there to read it."""
    if os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(OSError):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


class Report:
    """Writes metrics of the first process; in the others every call does nothing."""

    def __init__(self, folder: Path, is_first: bool, total_steps: int) -> None:
        self._folder = folder if is_first else None
        self._total_steps = total_steps
        self._wandb: Any = None
        self.wandb_folder: Path | None = None

    def rewind(self, step: int) -> None:
        """Forget what was written of steps after `step`: they will be made again."""
        if self._folder is not None:
            for name in (METRICS, STEPS):
                records.rewind(self._folder / name, step)

    def start_wandb(self, project: str | None, name: str | None, folder: Path, recipe: dict[str, Any]) -> None:
        """Begin a wandb run, offline unless the user is logged in. Whatever fails there is told and changes nothing."""
        if project is None or self._folder is None:
            return
        try:
            import wandb

            id_file = folder / "wandb_id"
            if not id_file.is_file():
                id_file.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
            mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
            self._wandb = wandb.init(
                project=project, name=name, dir=str(folder), id=id_file.read_text(encoding="utf-8"), resume="allow",
                mode=mode, config=recipe, settings=wandb.Settings(init_timeout=60, silent=True),
            )  # fmt: skip
            self.wandb_folder = Path(self._wandb.dir).parent
        except Exception as error:
            say(f"wandb is left out: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            self._wandb = None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add values of a step to metrics.jsonl and wandb."""
        if self._folder is None:
            return
        records.append(self._folder / METRICS, {"step": step, **values})
        if self._wandb is not None:
            try:
                self._wandb.log(values, step=step)
            except Exception as error:
                say(f"wandb is left out from here: {type(error).__name__}: {error}")
                self._wandb = None

    def step(self, step: int, values: dict[str, Any]) -> None:
        """Add what happened in a step to steps.jsonl."""
        if self._folder is not None:
            records.append(self._folder / STEPS, {"step": step, **values})

    def line(self, step: int, values: dict[str, float], steps_per_second: float) -> None:
        """Print the console line of a step and write its values."""
        left = clock((self._total_steps - step) / steps_per_second)
        say(
            f"step {step}/{self._total_steps}  loss {values['loss']:.4f}  lr {values['learning_rate']:.3g}  "
            f"grad norm {values['grad_norm']:.3g}  {short(values['tokens_per_second'])} tokens/s  "
            f"MFU {values['mfu']:.1%}  {values['memory_gib']:.2f} GiB  {left} left"
            + (f"  ({values['skipped_steps']:.0f} steps skipped)" if values["skipped_steps"] else "")
        )
        self.write(step, values)

    def close(self) -> None:
        """End the wandb run."""
        if self._wandb is not None:
            try:
                self._wandb.finish()
            except Exception as error:
                say(f"wandb could not end its run: {type(error).__name__}: {error}")
