"""Put back what scripts/clean.py dropped for some reasons.

    python scripts/put_back.py --input data/clean --reasons contact "short lines" --output data/clean_more
"""

import argparse
from pathlib import Path

from tp_ext.clean.put_back import put_back
from tp_ext.errors import run_command


def main() -> None:
    """Parse the command line, put back, print how much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="output of scripts/clean.py")
    parser.add_argument("--reasons", nargs="+", required=True, help="as the ledger names them")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    done = put_back(args.input, args.reasons, args.output)
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(done.items()))
    print(f"wrote {args.output}; put back: {told or 'nothing'}")


if __name__ == "__main__":
    run_command(main)
