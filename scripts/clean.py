"""Clean text: rules that know Chinese, then duplicates; a ledger of everything that goes.

    python scripts/clean.py --input a.txt b.jsonl.zst --output data/clean --config recipes/clean_zh.json \
        [--against data/clean_2023] [--processes_num 8]
"""

import argparse
from pathlib import Path

from tp_ext.clean.pipeline import clean
from tp_ext.clean.settings import read_settings
from tp_ext.corpus.blocks import LONGEST_LINE
from tp_ext.corpus.faults import FAULT_LIMIT
from tp_ext.corpus.files import ENCODINGS, Form
from tp_ext.errors import run_command
from tp_ext.progress import Progress


def main() -> None:
    """Parse the command line, clean, print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", action="extend", type=Path, required=True,
                        help=".txt, .jsonl (an object a line), .json (also an array), .parquet, .warc, .html; .gz or .zst")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--config", type=Path, required=True, help="recipe, as recipes/clean_zh.json")
    parser.add_argument("--against", nargs="+", action="extend", type=Path, default=[], metavar="DIR",
                        help="outputs of earlier runs: documents like theirs are duplicates")
    parser.add_argument("--encoding", choices=ENCODINGS, default="utf-8", help="of the input (utf-8)")
    parser.add_argument("--text_key", default="text", help="of the objects in JSON (text); \"content\" for WuDao")
    parser.add_argument("--documents", choices=["line", "file"], default="line", help="what is a document in .txt (line)")
    parser.add_argument("--processes_num", type=int, default=1)
    parser.add_argument("--fault_limit", type=float, default=FAULT_LIMIT, metavar="SHARE",
                        help="records that are no text are left out and listed; more than this share is an error (0.001)")
    parser.add_argument("--longest_line", type=int, default=LONGEST_LINE, metavar="BYTES",
                        help="a line that is longer is such a record (67108864)")
    args = parser.parse_args()
    form = Form(encoding=args.encoding, text_key=args.text_key, whole=args.documents == "file")
    with Progress("clean", "B") as progress:
        ledger = clean(args.input, read_settings(args.config), args.output, args.processes_num, progress,
                       against=args.against, fault_limit=args.fault_limit, longest_line=args.longest_line,
                       form=form)  # fmt: skip
    counts = ledger["all"]
    print(f"wrote {args.output}: {counts['kept']:,} of {counts['read']:,} documents kept, "
          f"{sum(counts['dropped'].values()):,} dropped, {sum(counts['duplicate'].values()):,} duplicates, "
          f"{sum(counts['fault'].values()):,} no text; see ledger.json there")  # fmt: skip


if __name__ == "__main__":
    run_command(main)
