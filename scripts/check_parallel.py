"""Make a few steps on one process and at a recipe's degree of parallelism, and compare losses, norms and weights.

    python scripts/check_parallel.py --config recipes/llama7b_zh.json --shrink parallel.tensor=2 parallel.pipeline=2

It starts the processes itself, on CPUs, with random weights and ids: neither weights nor data of the recipe are read. It
ends with 1 when the two runs differ by more than rounding.
"""

import argparse
import sys
from pathlib import Path

from tp_ext.errors import run_command
from tp_ext.train.recipe import read_recipe


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--shrink", action="store_true", help="fewer layers, heads and rows, as awkward to cut as before")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="settings to use instead")
    args = parser.parse_args()
    recipe = read_recipe(args.config, args.overrides)

    from tp_ext.train.parallel.parity import OF_WEIGHTS, TOLERANCE, compare

    found = compare(recipe, args.shrink, args.steps)
    print(f"step  loss alone  {recipe.parallel.described()}   norm alone  {recipe.parallel.described()}")
    pairs = zip(found.alone.losses, found.spread.losses, found.alone.norms, found.spread.norms, strict=True)
    for number, (loss, other_loss, norm, other_norm) in enumerate(pairs, 1):
        print(f"{number:>4}  {loss:.8f}  {other_loss:.8f}   {norm:.8f}  {other_norm:.8f}")
    name, apart = found.apart
    print(f"largest difference: losses and norms {found.worst:.2e} of their size (allowed {TOLERANCE:.0e}); weights "
          f"{apart:.2e}, in {name} (allowed {OF_WEIGHTS * found.learning_rate:.0e})")  # fmt: skip
    print("equal but for rounding" if found.is_equal else "DIFFERENT")
    sys.exit(0 if found.is_equal else 1)


if __name__ == "__main__":
    run_command(main)
