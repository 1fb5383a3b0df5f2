"""Look into a dataset: its counts, the text of an instance, where a text came from.

    python scripts/inspect_data.py data/zh
    python scripts/inspect_data.py data/zh --instance 1234 --seq_length 2048
    python scripts/inspect_data.py data/zh --search "人民法院"
"""

import argparse
import typing
from itertools import chain, islice
from pathlib import Path

import numpy as np

from tp_ext.data.pack import Packing, pack, seq_length_problems
from tp_ext.data.store import Store
from tp_ext.data.texts import passages, search, tokenizer_of
from tp_ext.errors import DatasetError, raise_all, run_command

BAR = 40


def main() -> None:
    """Parse the command line, print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder that scripts/preprocess.py wrote")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--instance", type=int, metavar="N", help="show the text of an instance, document by document")
    what.add_argument("--search", metavar="TEXT", help="show where a text is, and the file and byte it came from")
    parser.add_argument("--seq_length", type=int, help="of the instances (that of preprocessing)")
    parser.add_argument("--packing", choices=typing.get_args(Packing), default="contiguous", help="how they are packed")
    parser.add_argument("--most", type=int, default=20, help="places to show at most")
    parser.add_argument("--spm_model_path", type=Path, help="the tokenizer, where the dataset has none in it")
    args = parser.parse_args()
    if args.most < 1:
        raise DatasetError(f"--most is {args.most}; it must be at least 1")
    store = Store(args.dataset)
    seq_length = store.seq_length if args.seq_length is None else args.seq_length
    raise_all(DatasetError, seq_length_problems(seq_length))
    if args.search is not None:
        _search(store, args.search, args.most, args.spm_model_path)
    elif args.instance is not None:
        _instance(store, args.instance, seq_length, args.packing, args.spm_model_path)
    else:
        _summary(store, seq_length)


def _summary(store: Store, seq_length: int) -> None:
    manifest = store.manifest
    lengths = np.diff(store.documents).astype(np.int64)
    windows = pack(store, seq_length)
    print(f"{store.path}: {manifest['documents']:,} documents, {manifest['tokens']:,} tokens of {store.tokens.dtype.name}, "
          f"{store.text_bytes:,} bytes of text\n{store.text_bytes / max(manifest['tokens'], 1):.3f} bytes a token; "
          f"{len(windows):,} instances of {seq_length} when packed one after the other\n\nfrom")  # fmt: skip
    for source in manifest["sources"]:
        print(f"  {source['documents']:>12,} documents  {source['path']}")
    print("\ntokens of a document")
    powers = np.floor(np.log2(np.maximum(lengths, 1))).astype(int)
    counts = np.bincount(powers)
    for power, count in enumerate(counts.tolist()):
        if count:
            bar = "#" * max(1, round(BAR * count / counts.max()))
            print(f"  {2**power:>9,} to {2 ** (power + 1) - 1:>9,}  {count:>12,}  {bar}")
    print(f"  median {int(np.median(lengths)):,}, mean {lengths.mean():,.1f}, longest {lengths.max():,}; "
          f"{(lengths > seq_length + 1).mean():.1%} longer than an instance")  # fmt: skip


def _instance(store: Store, index: int, seq_length: int, packing: Packing, path: Path | None) -> None:
    for passage in passages(pack(store, seq_length, packing), store, tokenizer_of(store, path), index):
        origin = store.origin(passage.document)
        where = "whole" if passage.tokens == passage.of else f"from token {passage.first}"
        print(f"--- document {passage.document}, {passage.tokens} of {passage.of} tokens, {where}; "
              f"{origin.path}, byte {origin.offset}\n{passage.text}")  # fmt: skip


def _search(store: Store, text: str, most: int, path: Path | None) -> None:
    places = search(store, tokenizer_of(store, path), text)
    first = next(places, None)
    if first is None:
        print("not found; characters that the tokenizer does not know cannot be searched for")
        return
    for found in chain([first], islice(places, most - 1)):
        origin = store.origin(found.document)
        print(f"--- document {found.document}, token {found.token}; {origin.path}, byte {origin.offset}\n{found.around}")
    if next(places, None):
        print(f"and more; the first {most} are shown (--most)")


if __name__ == "__main__":
    run_command(main)
