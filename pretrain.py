"""Continue the pretraining of a model by a recipe.

    deepspeed pretrain.py --config recipes/llama7b_zh.json [section.name=value ...]
"""

import argparse
from pathlib import Path

from tp_ext.errors import run_command
from tp_ext.train.recipe import read_recipe


def main() -> None:
    """Parse the command line, read the recipe, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="settings to use instead")
    args = parser.parse_args()
    recipe = read_recipe(args.config, args.overrides)

    from tp_ext.train.loop import run

    run(recipe)


if __name__ == "__main__":
    run_command(main)
