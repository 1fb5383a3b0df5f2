"""Say what a checkpoint is, without loading it, and what is wrong with it.

    python scripts/inspect_checkpoint.py PATH [--hashes]
"""

import argparse
import sys
from pathlib import Path

from tp_ext.checkpoint.formats import FORMATS
from tp_ext.checkpoint.inspect import inspect
from tp_ext.errors import run_command
from tp_ext.models import families


def main() -> None:
    """Parse the command line, look, print; exit code 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a model's folder or file, or a checkpoint of a training")
    parser.add_argument("--from", dest="expected", choices=FORMATS.names(), help="the format, where a folder holds several")
    parser.add_argument("--config_path", type=Path, help="model JSON, for weights that have no config.json beside them")
    parser.add_argument("--hashes", action="store_true", help="read the files and compare their SHA-256 with the manifest")
    args = parser.parse_args()
    found = inspect(args.path, families, args.config_path, args.expected, args.hashes)
    for about, fact in found.facts.items():
        print(f"{about:<12}{fact}")
    for problem in found.problems:
        print(f"{'wrong':<12}{problem}")
    print(f"{len(found.problems)} problem{'s' * (len(found.problems) != 1)}")
    sys.exit(1 if found.problems else 0)


if __name__ == "__main__":
    run_command(main)
