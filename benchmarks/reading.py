"""Reading shuffled instances of a tokenized dataset, beside torch's DataLoader and TencentPretrain's, on one core.

    python benchmarks/reading.py [--tokens 100000000] [--seq_length 2048] [--rounds 3]

A dataset of random ids (uint16, documents of about 500 tokens) is written into a temporary folder and has been read once,
so that it lies in the page cache. Every line runs in its own process on one core, in turn, `rounds` times; medians are
printed, and the ratio to our first line with int64 tensors. `tokens/s` is of global batches of 512 instances in
micro-batches of 8; torch's DataLoader (num_workers=0, a Dataset that slices a memmap, its own random sampler) and
TencentPretrain's, which cannot shuffle, give batches of 8. `instance` is the time to read any one instance by its number,
`position` that to find which one is at a position of the shuffled run and to read it, `resume` that of opening the dataset
and reading the first instance of the last epoch of ten; TencentPretrain would have to read its file ten times for that. It
takes part when TENCENTPRETRAIN points to a checkout, on a tenth of the tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

VOCABULARY, BATCH = 32000, 8
OURS = {
    "contiguous, uint16": ("contiguous", False, False),
    "contiguous, int64 tensors": ("contiguous", False, True),
    "contiguous, document mask": ("contiguous", True, True),
    "best_fit, document mask": ("best_fit", True, True),
    "document": ("document", False, True),
    "mixture of 3": ("mixture", False, True),
}
PEERS = ("torch DataLoader", "TencentPretrain")


def write(folder: Path, tokens: int) -> None:
    """A dataset of random ids, and the same ids as TencentPretrain keeps them."""
    from tp_ext.data.store import KIND, StoreWriter
    from tp_ext.errors import DatasetError
    from tp_ext.output import whole_folder

    draw = np.random.default_rng(0)
    with whole_folder(folder / "dataset", KIND, DatasetError) as part:
        writer = StoreWriter(part, VOCABULARY)
        while writer.tokens_num < tokens:
            lengths = draw.lognormal(np.log(350), 0.8, 10_000).astype(np.int64) + 2
            writer.append(draw.integers(0, VOCABULARY, lengths.sum(), dtype=np.uint32), lengths, lengths)
        writer.finish({"text_bytes": 1, "tokenizer_sha256": "0" * 64,
                       "sources": [{"path": "made up", "documents": writer.documents_num}]})  # fmt: skip


def write_pickles(folder: Path, seq_length: int) -> None:
    """A tenth of the ids as TencentPretrain's preprocess.py writes them."""
    tokens = np.memmap(folder / "dataset" / "tokens.bin", dtype="<u2", mode="r")
    with open(folder / "dataset.pt", "wb") as file:
        for start in range(0, len(tokens) // 10, seq_length):
            pickle.dump(((tokens[start : start + seq_length + 1].tolist(), 0), [seq_length]), file)


Readers = dict[str, Callable[[int], object]]


def ours(folder: Path, line: str, seq_length: int) -> tuple[Iterator[int], Readers, int]:
    """Tokens of each batch, readers of one instance, and the number of instances."""
    import torch

    from tp_ext.data.batch import Instances
    from tp_ext.data.loader import Loader
    from tp_ext.data.mixture import Epochs, Mixture
    from tp_ext.data.pack import pack
    from tp_ext.data.store import Store
    from tp_ext.train.feed import steps, to_host

    packing, mask, tensors = OURS[line]
    instances = pack(Store(folder / "dataset"), seq_length, "contiguous" if packing == "mixture" else packing, mask)
    stream = Epochs(instances, seed=1)
    if packing == "mixture":
        names = {"a": 0.5, "b": 0.3, "c": 0.2}
        stream = Mixture(dict.fromkeys(names, instances), names, seed=1)
    loader = Loader(stream, 512, BATCH)
    device = torch.device("cpu")

    def batches() -> Iterator[int]:
        if tensors:
            for step in steps(loader, 0, device):
                yield len(step.micro_batches) * BATCH * seq_length
        for position in range(0, 1 << 62, 512):
            yield len(loader.global_batch(position).micro_batches) * BATCH * seq_length

    def reader(source: Epochs | Mixture | Instances) -> Callable[[int], object]:
        def read(number: int) -> object:
            batch = source.read(np.array([number]))
            return to_host(batch, device) if tensors else batch

        return read

    return batches(), {"instance": reader(instances), "position": reader(stream)}, len(instances)


def torch_loader(folder: Path, line: str, seq_length: int) -> tuple[Iterator[int], Readers, int]:
    """torch's DataLoader over a memmap."""
    import torch

    tokens = np.memmap(folder / "dataset" / "tokens.bin", dtype="<u2", mode="r")

    class Windows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return (len(tokens) - 1) // seq_length

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            window = torch.from_numpy(tokens[index * seq_length : (index + 1) * seq_length + 1].astype(np.int64))
            return window[:-1], window[1:]

    windows = Windows()

    def batches() -> Iterator[int]:
        while True:
            yield from (src.numel() for src, _ in torch.utils.data.DataLoader(windows, BATCH, shuffle=True))

    return batches(), {"instance": lambda number: windows[number]}, len(windows)


def tencentpretrain(folder: Path, line: str, seq_length: int) -> tuple[Iterator[int], Readers, int]:
    """TencentPretrain's own dataloader."""
    checkout = os.environ["TENCENTPRETRAIN"]
    sys.path.insert(0, checkout)
    os.chdir(checkout)
    from tencentpretrain.utils.dataloader import LmDataloader

    args = argparse.Namespace(
        tokenizer=None, vocab={"[PAD]": 0, "<pad>": 0}, instances_buffer_size=25600, whole_word_masking=False,
        span_masking=False, span_geo_prob=0.2, span_max_length=10, pipeline_model_parallel_size=1,
    )  # fmt: skip
    loader = LmDataloader(args, str(folder / "dataset.pt"), BATCH, 0, 1, 0)
    return (src.numel() for src, _, _ in loader), {}, 0


def measure(folder: Path, line: str, seq_length: int, tokens: int) -> dict[str, float]:
    """Tokens a second, microseconds of an access and of a resume, and peak memory, in this process."""
    import torch

    torch.set_num_threads(1)
    make = ours if line in OURS else torch_loader if line == PEERS[0] else tencentpretrain
    batches, _, _ = make(folder, line, seq_length)
    if line != PEERS[1]:
        next(batches)
    read, start = 0, time.perf_counter()
    while read < tokens:
        read += next(batches)
    found = {"rate": read / (time.perf_counter() - start)}
    start = time.perf_counter()
    _, readers, count = make(folder, line, seq_length)
    if "position" in readers:
        readers["position"](9 * count)
        found["resume"] = (time.perf_counter() - start) * 1e6
    places = np.random.default_rng(1).integers(0, max(count, 1), 2000).tolist()
    for name, one in readers.items():
        start = time.perf_counter()
        for place in places:
            one(place)
        found[name] = (time.perf_counter() - start) / len(places) * 1e6
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def main() -> None:
    """Parse the command line, write the dataset, run every line in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--seq_length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        line, folder = args.one
        share = 10 if line == PEERS[1] else 1
        print(json.dumps(measure(Path(folder), line, args.seq_length, args.tokens // share)))
        return
    lines = [*OURS, PEERS[0], *([PEERS[1]] if os.environ.get("TENCENTPRETRAIN") else [])]
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    results: dict[str, list[dict[str, float]]] = {line: [] for line in lines}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, args.tokens)
        if PEERS[1] in lines:
            write_pickles(folder, args.seq_length)
        for _ in range(args.rounds):
            for line in lines:
                command = [sys.executable, str(Path(__file__).resolve()), "--one", line, name]
                command += ["--tokens", str(args.tokens), "--seq_length", str(args.seq_length)]
                output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                results[line].append(json.loads(output.stdout.splitlines()[-1]))
    report(results)


def report(results: dict[str, list[dict[str, float]]]) -> None:
    """Print the table."""
    columns = ("instance", "position", "resume")
    print(f"{'':26} {'M tokens/s':>10} {'ratio':>7}" + "".join(f" {name + ', us':>12}" for name in columns) + "  peak GB")
    reference = results["contiguous, int64 tensors"]
    for line, rounds in results.items():
        middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        ratio = statistics.median(each["rate"] / mine["rate"] for each, mine in zip(rounds, reference, strict=True))
        times = "".join(f" {middle[name]:12.0f}" if name in middle else f" {'':12}" for name in columns)
        print(f"{line:26} {middle['rate'] / 1e6:10.1f} {ratio:7.3f}{times} {middle['peak']:8.2f}")


if __name__ == "__main__":
    main()
