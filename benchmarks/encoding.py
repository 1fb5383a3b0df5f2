"""How fast text becomes an array of ids on one core: FlatEncoder, a plain sentencepiece loop, and other encoders.

    python benchmarks/encoding.py --data DATA [--chinese zh.txt] [--english en.txt] [--merged tokenizer.model] [--rounds 3]

DATA has tokenizers/llama.model, tokenizers/chinese_sp_ymcui.model and text/{zh_train,en}.txt; other text is given a
document a line. Without --merged, LLaMA is extended to 49,952 pieces first. Each encoder turns blocks of a megabyte of
bytes into arrays of ids. They take turns, a new one each round, so that what it learns on the way is counted and
loading it is not. Printed for each: megabytes of text a CPU second, the best of the rounds; how many times the speed of
the sentencepiece loop that is; and in how many documents its ids are others. fastokens and tokie are left out where
they are not installed; they read the tokenizer.json that tp_ext writes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tp_ext.tokens.fast import write_fast
from tp_ext.tokens.flat import FlatEncoder
from tp_ext.tokens.tokenizer import Tokenizer, open_tokenizer

ROOT = Path(__file__).resolve().parents[1]
BLOCK_BYTES = 1 << 20
JOINED = 50
"""Lines in a long document."""

Encode = Callable[[bytes], tuple[Any, Any]]
"""A block of documents, each with a line end behind it, to all its ids and how many each document has."""


def flat_encoder(tokenizer: Tokenizer, _: Path) -> Encode:
    """Ours."""
    encoder = FlatEncoder(tokenizer)

    def encode(block: bytes) -> tuple[Any, Any]:
        stops = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
        return encoder.encode(block, np.append(0, stops[:-1] + 1), stops)

    return encode


def sentencepiece_loop(tokenizer: Tokenizer, _: Path) -> Encode:
    """What one writes first."""

    def encode(block: bytes) -> tuple[Any, Any]:
        encoded = tokenizer.encode_batch(documents(block))
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return np.fromiter(chain.from_iterable(encoded), np.uint16, lengths.sum()), lengths

    return encode


def fastokens(_: Tokenizer, file: Path) -> Encode:
    """https://pypi.org/project/fastokens"""
    import fastokens

    tokenizer = fastokens.Tokenizer.from_file(str(file))

    def encode(block: bytes) -> tuple[Any, Any]:
        ids, offsets = tokenizer.encode_batch_flat(documents(block), split_special_tokens=True)
        return np.frombuffer(ids, np.uint32).astype(np.uint16), np.diff(np.frombuffer(offsets, np.uint64))

    return encode


def tokie(_: Tokenizer, file: Path) -> Encode:
    """https://pypi.org/project/tokie"""
    import tokie

    tokenizer = tokie.Tokenizer.from_json(str(file))

    def encode(block: bytes) -> tuple[Any, Any]:
        ids, lengths = tokenizer.encode_batch_flat(documents(block), add_special_tokens=False)
        return ids.astype(np.uint16), lengths

    return encode


ENCODERS = {"sentencepiece loop": sentencepiece_loop, "FlatEncoder": flat_encoder, "fastokens": fastokens, "tokie": tokie}


def documents(block: bytes) -> list[str]:
    """The texts of a block."""
    return block.decode().split("\n")[:-1]


def blocks(text: bytes) -> Iterator[bytes]:
    """A text in blocks of whole lines."""
    start = 0
    while start < len(text):
        stop = text.find(b"\n", min(start + BLOCK_BYTES, len(text)) - 1) + 1
        yield text[start:stop]
        start = stop


def long_documents(text: bytes) -> bytes:
    """The text with JOINED lines a document."""
    lines = text.splitlines()
    return b"".join(b" ".join(lines[first : first + JOINED]) + b"\n" for first in range(0, len(lines), JOINED))


def encode_all(encode: Encode, text: bytes) -> tuple[float, Any, Any]:
    """CPU seconds, all ids and all lengths."""
    start = time.process_time()
    found = [encode(block) for block in blocks(text)]
    ids, lengths = (np.concatenate(each) for each in zip(*found, strict=True))
    return time.process_time() - start, ids, lengths


def different(ids: Any, lengths: Any, wanted: Any, wanted_lengths: Any) -> int:
    """In how many documents the ids are others."""
    if np.array_equal(lengths, wanted_lengths) and np.array_equal(ids, wanted):
        return 0
    ends, wanted_ends = np.cumsum(lengths, dtype=np.int64)[:-1], np.cumsum(wanted_lengths)[:-1]
    pairs = zip(np.split(ids, ends), np.split(wanted, wanted_ends), strict=True)
    return sum(not np.array_equal(one, other) for one, other in pairs)


def compare(name: str, tokenizer: Tokenizer, text: bytes, rounds: int) -> None:
    """Run all encoders on a text and print a table."""
    print(f"\n{name}: {len(text) / 1e6:.1f} MB, {text.count(10):,} documents")
    best: dict[str, float] = {}
    differs: dict[str, int] = {}
    _, *wanted = encode_all(sentencepiece_loop(tokenizer, Path()), text)
    with tempfile.TemporaryDirectory() as folder:
        write_fast(tokenizer, Path(folder))
        for encoder, make in list(ENCODERS.items()) * rounds:
            with suppress(ImportError):
                seconds, *found = encode_all(make(tokenizer, Path(folder) / "tokenizer.json"), text)
                best[encoder] = min(seconds, best.get(encoder, seconds))
                differs[encoder] = different(*found, *wanted)
    for encoder, seconds in best.items():
        times = best["sentencepiece loop"] / seconds
        print(f"  {encoder:20}{len(text) / 1e6 / seconds:8.1f} MB/s {times:6.2f} x   {differs[encoder]:,} documents differ")


def merge(data: Path, folder: Path) -> Path:
    """LLaMA with Chinese pieces, 49,952 in all."""
    line = [sys.executable, ROOT / "scripts" / "merge_vocab.py", "--base", data / "tokenizers" / "llama.model",
            "--pieces", data / "tokenizers" / "chinese_sp_ymcui.model", "--fill", data / "text" / "zh_train.txt",
            "--size", "49952", "--output", folder / "merged"]  # fmt: skip
    subprocess.run([str(word) for word in line], stdout=subprocess.DEVNULL, check=True)
    return folder / "merged" / "tokenizer.model"


def whole_lines(path: Path) -> bytes:
    """A file's lines, each with a line end."""
    return path.read_bytes().rstrip(b"\n") + b"\n"


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--chinese", type=Path)
    parser.add_argument("--english", type=Path)
    parser.add_argument("--merged", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    chinese = whole_lines(args.chinese or args.data / "text" / "zh_train.txt")
    english = whole_lines(args.english or args.data / "text" / "en.txt")
    with tempfile.TemporaryDirectory() as folder:
        llama = open_tokenizer(args.data / "tokenizers" / "llama.model")
        merged = open_tokenizer(args.merged or merge(args.data, Path(folder)))
        for name, tokenizer in (("LLaMA", llama), ("merged", merged)):
            compare(f"{name}, Chinese lines", tokenizer, chinese, args.rounds)
            compare(f"{name}, Chinese, {JOINED} lines a document", tokenizer, long_documents(chinese), args.rounds)
            compare(f"{name}, English lines", tokenizer, english, args.rounds)


if __name__ == "__main__":
    main()
