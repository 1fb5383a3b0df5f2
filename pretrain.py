"""Continue the pretraining of a model by a recipe.

    deepspeed pretrain.py --config recipes/llama7b_zh.json [section.name=value ...]
    python pretrain.py --config recipes/llama7b_zh.json --explain-resume
"""

import argparse
from pathlib import Path

from tp_ext.errors import end_at_once, run_command
from tp_ext.train.recipe import read_recipe


def main() -> None:
    """Parse the command line, read the recipe, train or say where training would go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--explain-resume", action="store_true", help="say where the run would go on, and do nothing")
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="settings to use instead")
    args = parser.parse_args()

    if args.explain_resume:
        from tp_ext.train.start import explain_resume

        for line in explain_resume(read_recipe(args.config, args.overrides)):
            print(line)
        return

    from tp_ext.train.loop import run

    run(lambda: read_recipe(args.config, args.overrides))


if __name__ == "__main__":
    end_at_once(lambda: run_command(main))
