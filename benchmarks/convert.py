"""Conversion beside a plain copy of the same files on the same disk in the same run: seconds, ratio, peak memory.

    python benchmarks/convert.py [--layers_num 32] [--to huggingface 3d] [--folder outputs/bench]

A model of LLaMA-7B's shapes with random bfloat16 weights is written (13.5 GB with all 32 layers; four times that much disk
is needed). A copy reads and writes once and waits for the disk, as a conversion does, which also reads back and hashes.
Of several rounds, copy and conversion in turn, the fastest of each counts: others on the machine only make it slower.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from tp_ext.checkpoint.formats import write_weights
from tp_ext.checkpoint.source import Source, shapes_of, whole
from tp_ext.models import config_of, families

WANTED = [
    ["huggingface"], ["tencentpretrain"], ["tencentpretrain-blocks"], ["tensor-parallel", "--tensor", "8"],
    ["3d", "--tensor", "4", "--pipeline", "2"], ["meta", "--tensor", "2"], ["native", "--dtype", "fp16"],
]  # fmt: skip
CHUNK = 16 << 20


def make_model(folder: Path, layers_num: int) -> None:
    """A native folder of LLaMA-7B's shapes."""
    config, family = config_of("llama-7b").replace(layers_num=layers_num), families.get("llama")
    shapes = shapes_of(family, config)
    noise = torch.randn(1 << 26).bfloat16()

    def read():
        for name, shape in shapes.items():
            count = math.prod(shape)
            yield name, noise.repeat(-(-count // len(noise)))[:count].view(shape)

    folder.mkdir(parents=True)
    source = Source(folder, "training", family, config, shapes, torch.bfloat16, whole(read))
    write_weights(folder, source, "native", torch.bfloat16)


def copy(source: Path, target: Path) -> float:
    """Seconds to copy the files of a folder and have them on the disk."""
    begin = time.perf_counter()
    target.mkdir()
    for file in source.iterdir():
        with open(file, "rb") as old, open(target / file.name, "wb") as new:
            while block := old.read(CHUNK):
                new.write(block)
            os.fsync(new.fileno())
    seconds = time.perf_counter() - begin
    shutil.rmtree(target)
    return seconds


def convert(source: Path, target: Path, words: list[str]) -> tuple[float, float]:
    """Seconds of the whole command, and its peak resident memory in GiB."""
    script = Path(__file__).resolve().parents[1] / "scripts" / "convert_weights.py"
    line = [sys.executable, script, "--input", source, "--output", target, "--verify", "hashes", "--to", *words]
    begin = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        sys.exit(f"failed: {words}")
    return seconds, usage.ru_maxrss / (1 << 20)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers_num", type=int, default=32)
    parser.add_argument("--to", nargs="+", default=[words[0] for words in WANTED], choices=[words[0] for words in WANTED])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("outputs/bench"))
    args = parser.parse_args()
    source, target = args.folder / "model", args.folder / "out"
    make_model(source, args.layers_num)
    size = sum(file.stat().st_size for file in source.iterdir()) / 1e9
    print(f"{size:.1f} GB of bfloat16, {os.cpu_count()} cores\n\n| to | s | copy s | throughput of a copy's | peak GiB |")
    print("|---|---|---|---|---|", flush=True)
    for words in (words for words in WANTED if words[0] in args.to):
        copied, seconds, peak = float("inf"), float("inf"), 0.0
        for _ in range(args.rounds):
            copied = min(copied, copy(source, target))
            taken, held = convert(source, target, words)
            seconds, peak = min(seconds, taken), max(peak, held)
            shutil.rmtree(target)
        print(f"| {' '.join(words)} | {seconds:.0f} | {copied:.0f} | {copied / seconds:.0%} | {peak:.2f} |", flush=True)
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
