"""The whole preprocessing command beside a plain sentencepiece loop that writes the same array.

    python benchmarks/preprocessing.py --tokenizer tokenizer.model --text zh.txt [--rounds 3] [--peers]

The text has a document a line. Runs take turns, each in its own process; with one process on one core. Printed for
each: the best wall and CPU seconds of the rounds, children included, and the most memory a process took. All must have
written the same ids. With `--peers`, those that are there run in the same turns, on one core: TencentPretrain
(TENCENTPRETRAIN points to a checkout), Megatron-LM (MEGATRON points to one; MEGATRON_PYTHON to the interpreter that runs
it, as it wants a newer one), datasets, datatrove and litdata (where they are installed, as is tokenizers), and a flat loop
around fastokens, which also runs on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.data.store import TOKENS
from tp_ext.output import sha256_of

ROOT = Path(__file__).resolve().parents[1]
LINES = 2000
"""Of a batch of the plain loop."""


def lines_of(text: Path) -> Iterator[str]:
    """The documents of the text; blank lines are none."""
    with open(text, encoding="utf-8", newline="\n") as source:
        yield from (line.rstrip("\n") for line in source if line.strip())


def plain_loop(tokenizer: Path, text: Path, output: Path) -> None:
    """What one writes first: batches of lines to a file of uint16."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    bos, eos = processor.bos_id(), processor.eos_id()

    def write(lines: list[str]) -> None:
        encoded = processor.encode(lines, num_threads=1)
        np.fromiter(chain.from_iterable((bos, *ids, eos) for ids in encoded), np.uint16).tofile(file)

    lines: list[str] = []
    with open(output / TOKENS, "wb") as file:
        for line in lines_of(text):
            lines.append(line)
            if len(lines) == LINES:
                write(lines)
                lines = []
        write(lines)


def tencentpretrain(tokenizer: Path, text: Path, output: Path) -> None:
    """Its own preprocess.py, whole sentences."""
    tokens = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<unk>"}
    (output / "models").mkdir(parents=True)
    (output / "models" / "special_tokens_map.json").write_text(json.dumps(tokens))
    os.chdir(output)
    checkout = os.environ["TENCENTPRETRAIN"]
    sys.path.insert(0, checkout)
    sys.argv = ["preprocess.py", "--corpus_path", str(text), "--dataset_path", "dataset.pt", "--spm_model_path",
                str(tokenizer), "--tokenizer", "bert", "--data_processor", "lm", "--seq_length", "2048",
                "--full_sentences"]  # fmt: skip
    runpy.run_path(f"{checkout}/preprocess.py", run_name="__main__")


def fastokens(tokenizer: Path, text: Path, output: Path) -> None:
    """A flat loop around the fastest exact encoder there is, on as many cores as it is given."""
    import fastokens as library

    found = library.Tokenizer.from_file(str(_fast(tokenizer, output)))

    def write(lines: list[str]) -> None:
        ids, offsets = found.encode_batch_flat(lines, split_special_tokens=True)
        bounds = np.frombuffer(offsets, np.uint64).astype(np.int64)
        around = np.empty(bounds[-1] + 2 * len(lines), np.uint16)
        starts = bounds[:-1] + 2 * np.arange(len(lines))
        ends = bounds[1:] + 2 * np.arange(len(lines)) + 1
        inside = np.ones(len(around), np.bool_)
        inside[starts] = inside[ends] = False
        around[starts], around[ends] = 1, 2
        around[inside] = np.frombuffer(ids, np.uint32)
        around.tofile(file)

    with open(output / TOKENS, "wb") as file:
        lines = iter(lines_of(text))
        while batch := list(islice(lines, LINES)):
            write(batch)


def megatron(tokenizer: Path, text: Path, output: Path) -> list[str | Path]:
    """The command line of its tools/preprocess_data.py, whose input is jsonl: that is written before time is taken."""
    rows = output.parent / "text.jsonl"
    if not rows.exists():
        with open(rows, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines_of(text))
    python, checkout = os.environ.get("MEGATRON_PYTHON", sys.executable), Path(os.environ["MEGATRON"])
    return [python, checkout / "tools" / "preprocess_data.py", "--input", rows, "--output-prefix", output,
            "--tokenizer-type", "Llama2Tokenizer", "--tokenizer-model", tokenizer, "--workers", "1",
            "--append-eod"]  # fmt: skip


def datasets(tokenizer: Path, text: Path, output: Path) -> None:
    """datasets.map over the tokenizers library, as in transformers' run_clm.py."""
    import tokenizers
    from datasets import Dataset, Features, Value

    library = tokenizers.Tokenizer.from_file(str(_fast(tokenizer, output)))

    def rows() -> Iterator[dict[str, str]]:
        return ({"text": line} for line in lines_of(text))

    made = Dataset.from_generator(rows, features=Features({"text": Value("string")}), cache_dir=str(output / "cache"))

    def cut(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": [found.ids for found in library.encode_batch_fast(batch["text"])]}

    made.map(cut, batched=True, remove_columns=["text"]).save_to_disk(str(output / "made"))


def datatrove(tokenizer: Path, text: Path, output: Path) -> None:
    """Its DocumentTokenizer behind a reader of lines."""
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    documents = (Document(text=line, id=str(number)) for number, line in enumerate(lines_of(text)))
    step = DocumentTokenizer(str(output / "made"), tokenizer_name_or_path=str(_fast(tokenizer, output)), eos_token="</s>",
                             shuffle_documents=False)  # fmt: skip
    step.run(documents, 0, 1)


def litdata(tokenizer: Path, text: Path, output: Path) -> None:
    """Its optimize over batches of lines."""
    from litdata import TokensLoader, optimize

    lines = list(lines_of(text))
    cut = partial(_cut_for_litdata, str(_fast(tokenizer, output)), lines)
    optimize(fn=cut, inputs=list(range(0, len(lines), LINES)), output_dir=str(output / "made"), chunk_bytes="64MB",
             num_workers=1, item_loader=TokensLoader(), start_method="fork")  # fmt: skip


def _cut_for_litdata(path: str, lines: list[str], start: int) -> Iterator[Any]:
    import tokenizers
    import torch

    library = tokenizers.Tokenizer.from_file(path)
    for found in library.encode_batch_fast(lines[start : start + LINES]):
        yield torch.tensor(found.ids, dtype=torch.int32)


def _fast(tokenizer: Path, output: Path) -> Path:
    """The same vocabulary for the tokenizers library."""
    from tp_ext.tokens.fast import write_fast
    from tp_ext.tokens.sentence_piece import SentencePieceTokenizer

    output.mkdir(exist_ok=True)
    write_fast(SentencePieceTokenizer(tokenizer), output)
    return output / FAST


EXACT = {"plain loop": plain_loop, "fastokens": fastokens}
PEERS = {"tencentpretrain": tencentpretrain, "datasets": datasets, "datatrove": datatrove, "litdata": litdata}
MEGATRON, FASTEST, TWO = "megatron-lm", "fastokens", ", 2 cores"
CHECKOUTS = {"tencentpretrain": "TENCENTPRETRAIN", MEGATRON: "MEGATRON"}
FAST = "tokenizer.json"


def present(peer: str) -> bool:
    """Whether a peer can be run here."""
    return bool(os.environ.get(CHECKOUTS[peer])) if peer in CHECKOUTS else find_spec(peer) is not None


def command(way: str, tokenizer: Path, text: Path, output: Path) -> list[str | Path]:
    """The command line of a way."""
    if way == MEGATRON:
        return ["taskset", "-c", "0", *megatron(tokenizer.resolve(), text, output)]
    if (name := way.removesuffix(TWO)) in EXACT or way in PEERS:
        line = [sys.executable, __file__, "--one", name, output, "--tokenizer", tokenizer, "--text", text]
        return line if way.endswith(TWO) else ["taskset", "-c", "0", *line]
    processes = way.split()[0]
    line = [sys.executable, ROOT / "scripts" / "preprocess.py", "--corpus_path", text, "--spm_model_path", tokenizer,
            "--dataset_path", output, "--processes_num", processes]  # fmt: skip
    return ["taskset", "-c", "0", *line] if processes == "1" else line


def measure(line: list[str | Path]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and megabytes of the largest process of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    child = subprocess.Popen([str(word) for word in line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert status == 0, line
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, used.ru_maxrss / 1e3


def main() -> None:
    """Measure every way, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        way, output = args.one[0], Path(args.one[1])
        output.mkdir()
        {**EXACT, **PEERS}[way](args.tokenizer.resolve(), args.text.resolve(), output)
        return
    fastest = [FASTEST, FASTEST + TWO] if args.peers and present(FASTEST) else []
    exact = ["plain loop", "1 process", "2 processes", *fastest]
    ways = [*exact, *(filter(present, [*PEERS, MEGATRON]) if args.peers else [])]
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for way in ways:
                found[way].append(measure(command(way, args.tokenizer, args.text, Path(folder) / way)))
            assert len({sha256_of(Path(folder) / way / TOKENS) for way in exact}) == 1, "the ids differ"
    for way, runs in found.items():
        wall, cpu, memory = (pick(run[place] for run in runs) for place, pick in enumerate((min, min, max)))
        print(f"{way:16} wall {wall:6.2f} s   CPU {cpu:6.2f} s   {memory:5.0f} MB")


if __name__ == "__main__":
    main()
