"""Show what a recipe will need and take before anything is spent: memory, disk, operations, hours, what fits.

    python scripts/plan.py --config recipes/llama7b_zh.json --gpus 8 --gpu-memory 80G --tokens 2e9
    python scripts/plan.py --config recipes/llama13b_zh.json --gpus 16 --machines 2 parallel.tensor=4 parallel.zero=1
    python scripts/plan.py --config recipes/llama_tiny_zh.json --gpus 0 --gpu-memory 16G --tflops 0.05

It ends with 1 when there is a problem: something does not fit or is not there. A recipe that contradicts itself is refused
with a line for each contradiction.
"""

import argparse
import sys
from pathlib import Path

from tp_ext.errors import RecipeError, raise_all, run_command
from tp_ext.train.recipe import read_recipe


def main() -> None:
    """Parse the command line, print the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--gpus", type=int, default=1, help="in all machines together; 0 is one process on a CPU")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--gpu-memory", default="80G", help="of each GPU, or of the host with --gpus 0")
    parser.add_argument("--host-memory", help="of each machine")
    parser.add_argument("--tflops", type=float, default=312, help="of each GPU as its maker says, in the run's type (312)")
    parser.add_argument("--utilisation", type=float, default=0.4, help="the MFU of a run like this one (0.4)")
    parser.add_argument("--gpu-link", type=float, default=200, help="GB/s from a GPU to the others of its machine (200)")
    parser.add_argument("--network", type=float, default=25, help="GB/s from a machine to the others (25)")
    parser.add_argument("--tokens", type=float, help="of the dataset, where it is not here and train.epochs counts in it")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="settings to use instead")
    args = parser.parse_args()
    recipe = read_recipe(args.config, args.overrides)

    from tp_ext.train.pace import Machines, parse_bytes
    from tp_ext.train.plan import plan
    from tp_ext.train.plan_lines import told

    machines = Machines(
        gpus=args.gpus, machines=args.machines, memory=parse_bytes(args.gpu_memory),
        host_memory=parse_bytes(args.host_memory) if args.host_memory else None, flops=args.tflops * 1e12,
        utilisation=args.utilisation, link=args.gpu_link * 1e9, network=args.network * 1e9,
    )  # fmt: skip
    problems = machines.problems()
    if args.tokens is not None and not 1 <= args.tokens < 1e18:
        problems.append(f"--tokens {args.tokens}: must be at least 1 and below 1e18")
    raise_all(RecipeError, problems)
    made = plan(recipe, machines, int(args.tokens) if args.tokens else None)
    for line in told(recipe, machines, made):
        print(line)
    sys.exit(1 if made.problems else 0)


if __name__ == "__main__":
    run_command(main)
