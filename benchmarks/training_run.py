"""What a whole run costs beside its products: two processes against one, a checkpoint against the disk, going on, memory.

    python benchmarks/training_run.py [--steps 12] [--part scaling bubble saving seeking memory]

Every line is a run of pretrain.py on a CPU, a LLaMA from scratch on text made here. `scaling`: the same global batch on one
process and on two, one thread each. `bubble`: a pipeline of two stages, one thread each, beside one stage. `saving`: bytes
of a checkpoint over the seconds of the step that wrote it, beside writing as many bytes into one file and fsync, before and
after, in the same folder. `seeking`: the first global batch at a position. `memory`: the peak of a run with and without
activations computed again, and with the logits of a step whole, by the run and by its plan.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.data.loader import Loader
from tp_ext.data.preprocess import preprocess
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.tokens.train import train_tokenizer
from tp_ext.train.inputs import open_inputs
from tp_ext.train.memory import PROCESS, memory_of
from tp_ext.train.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
MODEL = {
    "emb_size": 512, "hidden_size": 512, "feedforward_size": 1376, "heads_num": 8, "layers_num": 8, "hidden_act": "silu",
    "feed_forward": "gated", "layernorm": "rms", "rotary_position_embedding": True, "remove_transformer_bias": True,
    "remove_embedding_layernorm": True, "max_seq_length": 2048, "encoder": "llama",
}  # fmt: skip
MICRO_BATCHES = (2, 4, 8)
PIECES, MORE = 1000, 31000
"""Pieces that are learned from the text, and others that make the output layer as wide as a real one."""


def prepare(folder: Path) -> None:
    """A text of a hundred thousand words, its tokenizer and its dataset."""
    draw = random.Random(1)
    words = ["".join(draw.choices("的一是在不了有和人这中大为上个国我以要他", k=draw.randint(1, 4))) for _ in range(3000)]
    lines = ["".join(draw.choices(words, k=40)) for _ in range(2500)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    train_tokenizer(lines, PIECES, folder / "tokenizer.model")
    model = ModelProto.FromString((folder / "tokenizer.model").read_bytes())
    for number in range(MORE):
        model.pieces.add(piece=f"unused{number}", score=-1e6 - number, type=1)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    preprocess([folder / "text.txt"], open_tokenizer(folder / "tokenizer.model"), folder / "dataset", 32)


def recipe(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """A recipe; `section__setting` changes one of its settings."""
    values: dict[str, Any] = {
        "model": {"spm_model_path": str(folder / "tokenizer.model"), "config": MODEL},
        "data": {"dataset_path": str(folder / "dataset"), "seq_length": 256},
        "train": {"output_model_path": str(folder / name), "global_batch_size": 8, "micro_batch_size": 4, "total_steps": 12,
                  "learning_rate": 1e-4, "dtype": "fp32", "save_checkpoint_steps": 10000},
        "parallel": {"zero": 1}, "log": {"report_steps": 1},
    }  # fmt: skip
    for key, value in changes.items():
        section, setting = key.split("__")
        values[section][setting] = value
    return values


def train(folder: Path, name: str, processes: int = 1, threads: int = 1, **changes: Any) -> dict[str, list[Any]]:
    """Run pretrain.py; the columns of its metrics.jsonl and steps.jsonl."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(recipe(folder, name, **changes)), encoding="utf-8")
    start = [sys.executable]
    if processes > 1:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    subprocess.run([*start, "pretrain.py", "--config", path], env=known, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    columns: dict[str, list[Any]] = {}
    for file in ("metrics", "steps"):
        for line in (folder / name / f"{file}.jsonl").read_text(encoding="utf-8").splitlines():
            for key, value in json.loads(line).items():
                columns.setdefault(key, []).append(value)
    return columns


def scaling(folder: Path, steps: int) -> None:
    """Tokens a second of the same global batch."""
    found = {}
    for name, processes, threads in (("one", 1, 1), ("two", 2, 1), ("threads", 1, 2), ("again", 1, 1)):
        done = train(folder, name, processes, threads, train__total_steps=steps, train__save_checkpoint_steps=10**6)
        found[name] = statistics.median(done["tokens_per_second"][2:])
        print(f"scaling  {processes} x {threads} threads  {found[name]:8.0f} tokens/s")
    alone = (found["one"] + found["again"]) / 2
    print(f"scaling  2 processes over 1: {found['two'] / alone:.2f}; 2 threads over 1: {found['threads'] / alone:.2f}")


def bubble(folder: Path, steps: int) -> None:
    """Time that two stages wait, by micro-batches: of the time of a step, and as the steps with fewer tell it."""
    seconds = {}
    for stages in (1, 2):
        for count in MICRO_BATCHES:
            done = train(
                folder, f"stages_{stages}_{count}", stages, parallel__pipeline=stages, train__micro_batch_size=1,
                train__global_batch_size=count, train__total_steps=steps, train__save_checkpoint_steps=10**6,
            )  # fmt: skip
            tokens = count * 256
            seconds[stages, count] = tokens / statistics.median(done["tokens_per_second"][2:])
    last = MICRO_BATCHES[-1]
    for count in MICRO_BATCHES:
        alone, together = seconds[1, count], seconds[2, count]
        print(f"bubble   {count} micro-batches: {alone:.2f} s in one stage, {together:.2f} s in two; waiting "
              f"{1 - alone / 2 / together:.0%}, (p-1)/(m+p-1) is {1 / (count + 1):.0%}; of {last} micro-batches' time "
              f"{together / seconds[2, last]:.2f}, by m+p-1 {(count + 1) / (last + 1):.2f}")  # fmt: skip


def saving(folder: Path, steps: int) -> None:
    """Speed of a checkpoint beside that of the disk."""
    done = train(folder, "saved", train__total_steps=4, train__save_checkpoint_steps=1, train__keep_checkpoints=1)
    (last,) = (folder / "saved" / "checkpoints").glob("step_*")
    size = sum(file.stat().st_size for file in last.rglob("*") if file.is_file())
    seconds = [row["save"] for row in done["seconds"]]
    disk = [write_plainly(folder / "plain", size) for _ in range(4)]
    for name, each in (("checkpoint", seconds), ("plain file", disk)):
        print(f"saving   {name}: {size / 2**20:.0f} MiB, {size / 2**20 / statistics.median(each):.0f} MiB/s "
              f"({', '.join(f'{one:.2f}' for one in each)} s)")  # fmt: skip
    print(f"saving   share of the disk's speed: {statistics.median(disk) / statistics.median(seconds):.0%}")


def write_plainly(path: Path, size: int) -> float:
    """Seconds to write `size` bytes into one file, a megabyte at a time, and have them on the disk."""
    block = os.urandom(2**20)
    start = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(-(-size // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def seeking(folder: Path, steps: int) -> None:
    """Seconds to the first global batch at a position."""
    given = parse_recipe(recipe(folder, "sought"))
    for position in (0, 10**3, 10**6, 10**9, 10**12):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            Loader(open_inputs(given).stream, 8, 4).global_batch(position)
            seconds.append(time.perf_counter() - start)
        print(f"seeking  position {position:>17,}: {statistics.median(seconds) * 1e3:.2f} ms, with opening the data")


def memory(folder: Path, steps: int) -> None:
    """Peak memory beside the plan's."""
    long = {"data__seq_length": 1024, "train__micro_batch_size": 4, "train__global_batch_size": 4, "train__total_steps": 2}
    for name, changes in (
        ("kept", {}), ("again", {"model__checkpoint_activations": True}),
        ("again by 4", {"model__checkpoint_activations": True, "model__checkpoint_every": 4}),
    ):  # fmt: skip
        values = recipe(folder, "m", **long, **changes)
        given = parse_recipe(values)
        config = open_inputs(given).config
        plan = memory_of(given, config, 1, on_gpu=False)
        found = max(train(folder, name.replace(" ", "_"), **long, **changes)["memory_gib"])
        planned = (plan.device + PROCESS) / 2**30
        print(f"memory   activations {name:<10} measured {found:.2f} GiB, planned {planned:.2f} "
              f"({planned / found - 1:+.0%}), of it loss {plan.loss / 2**30:.2f}; "
              f"its logits whole: {whole(given, config.pieces):.2f}")  # fmt: skip


def whole(given: Any, pieces: int) -> float:
    """GiB of the logits of a micro-batch, their softmax and their gradient in float32."""
    return float((4 + 2 * 4) * given.train.micro_batch_size * given.data.seq_length * pieces / 2**30)


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"scaling": scaling, "bubble": bubble, "saving": saving, "seeking": seeking, "memory": memory}
    parser.add_argument("--steps", type=int, default=12, help="of the runs whose speed is compared")
    parser.add_argument("--part", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--folder", type=Path, help="where the disk is measured; the default is the temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        prepare(Path(name))
        for part in args.part:
            parts[part](Path(name), args.steps)


if __name__ == "__main__":
    main()
