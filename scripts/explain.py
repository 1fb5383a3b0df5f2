"""Show what a step of a run learned from: its documents with file and byte, its sources, its loss and its rate.

    python scripts/explain.py --run outputs/llama_tiny_zh --step 120
"""

import argparse
from pathlib import Path

from tp_ext.errors import run_command
from tp_ext.study.explain import explain, told


def main() -> None:
    """Parse the command line, print the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="the recipe's train.output_model_path")
    parser.add_argument("--step", type=int, required=True, help="counted from 1")
    parser.add_argument("--characters", type=int, default=60, help="of each document's text")
    args = parser.parse_args()
    for line in told(explain(args.run, args.step), args.characters):
        print(line)


if __name__ == "__main__":
    run_command(main)
