"""Host memory of loading: four processes take a random LLaMA of 1.1 billion parameters from the disk, each its own part.

    python benchmarks/loading.py [--layers 22] [--vocabulary 32000] [--format native huggingface tencentpretrain]

A line for each way to share the model between the processes: what the shards take, and the highest resident memory of the
processes from before the engine makes the model until all weights are in it and before there is an optimizer: all of it,
and what it is above that of the same processes before. Pages of files count as long as they are mapped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tp_ext.checkpoint.formats import open_model, write_weights
from tp_ext.checkpoint.source import Named, Source, shapes_of, whole
from tp_ext.models import config_of, families
from tp_ext.train import engine
from tp_ext.train.processes import join, leave
from tp_ext.train.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
SIZES: dict[str, Any] = {"emb_size": 2048, "hidden_size": 2048, "feedforward_size": 5632, "heads_num": 32,
                         "local_kv_heads_num": 4}  # fmt: skip
SHAPES = {"tensor 4": (4, 1, 1), "tensor 2, pipeline 2": (2, 2, 1), "pipeline 4": (1, 4, 1), "ZeRO 3": (1, 1, 3)}
PROCESSES = 4


class Loaded(Exception):
    """All weights are there; what comes next is the optimizer."""


def make_model(folder: Path, to: str, layers_num: int, rows: int) -> None:
    """A folder of a format, in bfloat16."""
    config, family = config_of("llama-7b").replace(**SIZES, layers_num=layers_num, vocab_size=rows), families.get("llama")
    shapes = shapes_of(family, config)
    noise = torch.randn(rows * 2048).bfloat16()

    def read() -> Named:
        for name, shape in shapes.items():
            yield name, noise[: math.prod(shape)].view(shape)

    folder.mkdir()
    source = Source(folder, "training", family, config, shapes, torch.bfloat16, whole(read))
    write_weights(folder, source, to, torch.bfloat16)


def memory(of: str) -> int:
    """Resident bytes of this process: `VmRSS` now, `VmHWM` at most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{of}:"))


def forget_peak() -> None:
    """Let the highest resident memory be that of now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def load(model: Path, shape: tuple[int, int, int]) -> dict[str, int]:
    """What one process of a run takes to get its weights, by the engine that trains."""
    tensor, pipeline, zero = shape
    recipe = parse_recipe({
        "model": {"pretrained_model_path": str(model), "spm_model_path": "unused"},
        "data": {"dataset_path": "unused", "seq_length": 32},
        "train": {"output_model_path": "unused", "global_batch_size": 4, "micro_batch_size": 1, "total_steps": 1,
                  "learning_rate": 1e-4, "dtype": "bf16"},
        "parallel": {"tensor": tensor, "pipeline": pipeline, "zero": zero},
    })  # fmt: skip
    found: dict[str, int] = {}

    def stop(module: torch.nn.Module, _: Any) -> None:
        own = [getattr(parameter, "ds_tensor", parameter) for parameter in module.parameters()]
        found.update(peak=memory("VmHWM"), shard=sum(each.numel() * each.element_size() for each in own))
        raise Loaded

    engine.make_optimizer = stop  # type: ignore[assignment]
    processes = join()
    source = open_model(model, families)
    found["before"] = memory("VmRSS")
    forget_peak()
    try:
        engine.Engine(recipe, source.config, source, processes)
    except Loaded:
        processes.wait()
        leave()
    return found


def measure(folder: Path, to: str, name: str) -> None:
    """Load in four processes, and print what they took."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    subprocess.run([*start, __file__, "--load", folder / to, name], env=known, cwd=folder, check=True)
    found = [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(PROCESSES)]
    shards, before, peak = (sum(each[key] for each in found) / 2**20 for key in ("shard", "before", "peak"))
    each = ", ".join(f"{(one['peak'] - one['before']) / 2**20:.0f}" for one in found)
    print(f"{to:<16} {name:<22} shards {shards:.0f} MiB; peak {peak:.0f} ({peak / shards:.2f} of the shards), {before:.0f} "
          f"of it before; above that {peak - before:.0f} ({(peak - before) / shards:.2f}): {each}", flush=True)  # fmt: skip


def main() -> None:
    """Print a line for each format and way to share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--format", nargs="+", default=["native"])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--load", nargs=2, metavar=("MODEL", "SHAPE"), help="be one of the processes")
    args = parser.parse_args()
    if args.load:
        found = load(Path(args.load[0]), SHAPES[args.load[1]])
        Path(f"{os.environ['RANK']}.json").write_text(json.dumps(found), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as name:
        for to in args.format:
            make_model(Path(name) / to, to, args.layers, args.vocabulary)
            for shape in args.shape:
                measure(Path(name), to, shape)
            shutil.rmtree(Path(name) / to)


if __name__ == "__main__":
    main()
