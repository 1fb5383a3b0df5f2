"""Tokenize a corpus into a dataset of fixed-length instances.

    python scripts/preprocess.py --corpus_path a.txt b.jsonl.zst --spm_model_path tokenizer.model \
        --dataset_path data/zh --seq_length 2048 [--processes_num 8]
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from tp_ext.corpus.blocks import LONGEST_LINE
from tp_ext.corpus.faults import FAULT_LIMIT, FAULTS
from tp_ext.data.exchange import read_tencentpretrain, write_tencentpretrain
from tp_ext.data.preprocess import made_before, preprocess
from tp_ext.data.store import Store
from tp_ext.errors import DatasetError, run_command
from tp_ext.output import kept_file
from tp_ext.progress import Progress
from tp_ext.tokens.tokenizer import Tokenizer, open_tokenizer


def main() -> None:
    """Parse the command line, preprocess, print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus_path", nargs="+", action="extend", type=Path, required=True,
                        help=".txt (a document a line) or .jsonl (an object with \"text\" a line), plain, .gz or .zst")
    parser.add_argument("--spm_model_path", type=Path, required=True,
                        help="sentencepiece model, or tokenizer.json of a byte-level BPE tokenizer (BLOOM, LLaMA-3)")
    parser.add_argument("--dataset_path", type=Path, required=True, help="folder to write")
    parser.add_argument("--seq_length", type=int, default=2048, help="tokens of an instance; training may use another")
    parser.add_argument("--processes_num", type=int, default=1)
    parser.add_argument("--fault_limit", type=float, default=FAULT_LIMIT, metavar="SHARE",
                        help="records that are no text are left out and listed; more than this share is an error (0.001)")
    parser.add_argument("--longest_line", type=int, default=LONGEST_LINE, metavar="BYTES",
                        help="a line that is longer is such a record (67108864)")
    parser.add_argument("--from", dest="source", choices=["text", "tencentpretrain"], default="text",
                        help="what --corpus_path is: text, or TencentPretrain's dataset files")
    parser.add_argument("--format", choices=["tp_ext", "tencentpretrain"], default="tp_ext",
                        help="what is written: a dataset folder, or the file of TencentPretrain's --data_processor lm")
    parser.add_argument("--packing", choices=["contiguous", "document"],
                        help="of TencentPretrain's file: contiguous is its --full_sentences")
    args = parser.parse_args()
    tokenizer = open_tokenizer(args.spm_model_path)
    if args.packing and args.format == "tp_ext":
        raise DatasetError("--packing is for --format tencentpretrain; a dataset is packed when it is read (data.packing)")
    if args.format == "tp_ext":
        _tell(args.dataset_path, _make(args, tokenizer, args.dataset_path))
        return
    with kept_file(args.dataset_path, DatasetError) as (part, notes):
        made = notes / "dataset"  # kept until the file is whole
        if not made_before(args.corpus_path, tokenizer, made, args.longest_line):  # an earlier run was killed while it wrote
            _make(args, tokenizer, made)
        store = Store(made)
        count = write_tencentpretrain(store, part, args.seq_length, args.packing or "contiguous")
        if left_out := store.manifest.get("faults"):
            faults = args.dataset_path.with_name(f"{args.dataset_path.name}.{FAULTS}")
            shutil.copyfile(made / FAULTS, faults)
            print(f"left out {left_out:,} records that are no text; see {faults}")
    print(f"wrote {args.dataset_path}: {count:,} instances for TencentPretrain")


def _make(args: argparse.Namespace, tokenizer: Tokenizer, path: Path) -> dict[str, Any]:
    if args.source == "tencentpretrain":
        return read_tencentpretrain(args.corpus_path, tokenizer, path, args.seq_length)
    with Progress("preprocess", "B") as progress:
        return preprocess(args.corpus_path, tokenizer, path, args.seq_length, args.processes_num, progress,
                          fault_limit=args.fault_limit, longest_line=args.longest_line)  # fmt: skip


def _tell(path: Path, counts: dict[str, Any]) -> None:
    empty = f" ({counts['empty_documents']:,} empty lines left out)" if "empty_documents" in counts else ""
    print(f"wrote {path}: {counts['documents']:,} documents{empty}, {counts['text_bytes']:,} bytes of text, "
          f"{counts['tokens']:,} tokens, {counts['instances']:,} instances of {counts['seq_length']} (the last has "
          f"{counts['targets_of_last_instance']} targets)")  # fmt: skip
    if counts.get("faults"):
        print(f"left out {counts['faults']:,} records that are no text; see {path / FAULTS}")
    if counts.get("damaged"):
        print(f"warning: {counts['damaged']:,} compressed files are damaged: not all of them was read, or not right")


if __name__ == "__main__":
    run_command(main)
