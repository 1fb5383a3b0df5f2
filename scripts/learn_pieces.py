"""Learn Chinese pieces from a corpus and write them as a list that merge_vocab.py takes with --pieces.

    python scripts/learn_pieces.py --corpus zh.jsonl --learn 8000 --output vocab/my_pieces
"""

import argparse
from pathlib import Path

from tp_ext.corpus import readers
from tp_ext.errors import TokenizerError, run_command
from tp_ext.output import size_and_hash, whole_folder, write_manifest
from tp_ext.tokens.candidates import KIND
from tp_ext.tokens.learn import LEARNERS, check_limits, sample


def main() -> None:
    """Parse the command line, learn, print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", action="extend", type=Path, required=True,
                        help=".txt or .jsonl, plain, .gz or .zst")
    parser.add_argument("--learn", type=int, default=20000, help="pieces, single characters among them")
    parser.add_argument("--learn_type", choices=LEARNERS, default="bpe")
    parser.add_argument("--min_count", type=int, default=5, help="least occurrences of a piece")
    parser.add_argument("--character_coverage", type=float, default=0.9995)
    parser.add_argument("--mixed", action="store_true", help="also pieces that join characters with Chinese punctuation")
    parser.add_argument("--sample_bytes", type=int, default=64 << 20, help="text held in memory, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--source", default="", help="what the text is, for the manifest")
    parser.add_argument("--licence", default="", help="the text's licence, for the manifest")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    numbers = ("learn", "min_count", "character_coverage", "sample_bytes")
    check_limits({name: getattr(args, name) for name in numbers})
    with whole_folder(args.output, KIND, TokenizerError) as folder:
        texts = sample(readers.texts(args.corpus), args.sample_bytes, args.seed)
        learned = LEARNERS[args.learn_type](texts, args.learn, args.min_count, args.character_coverage, args.mixed)
        lines = [f"{piece}\t{learned.scores.get(piece, -place)}" for place, piece in enumerate(learned.worth)]
        (folder / "pieces.vocab").write_text("\n".join(lines) + "\n", encoding="utf-8")
        corpus = [{"path": path.name, **size_and_hash(path)} for path in args.corpus]
        counts = {reason: len(pieces) for reason, pieces in learned.refused.items()}
        write_manifest(folder, KIND, {"pieces": len(lines), "learned": learned.origin, "refused": counts, "corpus": corpus,
                                      "source": args.source, "licence": args.licence})  # fmt: skip
    print(f"wrote {args.output}: {len(lines):,} pieces")


if __name__ == "__main__":
    run_command(main)
