"""Train a classifier that tells good text from bad, for "quality": {"model": ...} in a recipe of cleaning.

    python scripts/train_quality.py --good encyclopedia.jsonl news.txt --bad crawl.jsonl.zst --output quality.npz
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

from tp_ext.clean.quality import train
from tp_ext.corpus.files import ENCODINGS, Form
from tp_ext.corpus.readers import texts
from tp_ext.errors import CorpusError, run_command


def main() -> None:
    """Parse the command line, train, tell how well texts are told apart that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", nargs="+", action="extend", type=Path, required=True, help="files of text as wanted")
    parser.add_argument("--bad", nargs="+", action="extend", type=Path, required=True, help="files of text as found")
    parser.add_argument("--output", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--encoding", choices=ENCODINGS, default="utf-8", help="of all these files (utf-8)")
    parser.add_argument("--text_key", default="text", help="of the objects in JSON (text); \"content\" for WuDao")
    parser.add_argument("--documents", type=int, default=50_000, help="of each kind, at most (50000)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.output.exists():
        raise CorpusError(f"{args.output}: exists; name another file, or remove it")
    if args.documents < 1 or args.epochs < 1 or args.seed < 0:
        raise CorpusError("--documents and --epochs must be at least 1, and --seed not negative")
    form = Form(encoding=args.encoding, text_key=args.text_key)
    kinds = [list(islice(texts(paths, form=form), args.documents)) for paths in (args.good, args.bad)]
    if min(map(len, kinds)) < 20:
        raise CorpusError("at least 20 documents of each kind are needed")
    learned = [[text for place, text in enumerate(each) if place % 10] for each in kinds]
    classifier = train(*learned, args.epochs, args.seed)
    classifier.write(args.output)
    good, bad = (classifier.scores(each[::10]) for each in kinds)
    right = (np.mean(good > 0.5) + np.mean(bad <= 0.5)) / 2
    print(f"wrote {args.output}: of every tenth document, which was not trained on, {right:.1%} are told right "
          f"(mean score {good.mean():.3f} of good, {bad.mean():.3f} of bad ones)")  # fmt: skip


if __name__ == "__main__":
    run_command(main)
