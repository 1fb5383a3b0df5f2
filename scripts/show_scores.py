"""Show what a run learned and what it forgot: bits per byte on held-out text before and after.

    python scripts/show_scores.py outputs/llama_tiny_zh
"""

import argparse
from pathlib import Path

from tp_ext.errors import run_command
from tp_ext.study.scores import changes, table


def main() -> None:
    """Parse the command line, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the recipe's train.output_model_path")
    print(table(changes(parser.parse_args().run)))


if __name__ == "__main__":
    run_command(main)
