"""Compare a recipe's shape with one process, as check_parallel.py does, in processes that are copies of this one.

    python tests/compared.py RECIPE.json
"""

import json
import os
import sys
from pathlib import Path

from torch import multiprocessing

from tp_ext.train.parallel import parity
from tp_ext.train.recipe import read_recipe


class Forking:
    """torch.multiprocessing, whose processes need not import everything anew."""

    @staticmethod
    def start_processes(*given, start_method):
        return multiprocessing.start_processes(*given, start_method="fork")


def end_at_once(command):
    """As tp_ext.errors has it, but for what is to be done at the end, which is the parent's."""
    command()
    os._exit(0)


if __name__ == "__main__":
    parity.end_at_once = end_at_once
    parity.multiprocessing = Forking
    found = parity.compare(read_recipe(Path(sys.argv[1]), []), shrink=True, steps=3)
    weights = list(found.alone.weights)
    print(json.dumps({"is_equal": found.is_equal, "worst": found.worst, "apart": found.apart, "weights": weights}))
