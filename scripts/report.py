"""Write what happened in a run as one HTML page that needs no network: curves, where the time went, odd steps, settings.

    python scripts/report.py --run outputs/llama_tiny_zh
"""

import argparse
from pathlib import Path

from tp_ext.errors import run_command
from tp_ext.study.run_report import PAGE, write_report


def main() -> None:
    """Parse the command line, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="the recipe's train.output_model_path")
    parser.add_argument("--output", type=Path, help=f"the page ({PAGE} in the run's folder)")
    args = parser.parse_args()
    print(f"wrote {write_report(args.run, args.output)}")


if __name__ == "__main__":
    run_command(main)
