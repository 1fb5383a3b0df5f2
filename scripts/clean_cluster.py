"""What scripts/clean.py does, as tasks of datatrove: in local processes, on Slurm or on Ray. Needs tp_ext[cluster].

    python scripts/clean_cluster.py --executor slurm --tasks 500 --partition cpu --time 12:00:00 \
        --input crawl/*.jsonl.zst --output data/clean --config recipes/clean_zh.json --work /shared/clean_work
"""

import argparse
import shlex
import sys
from pathlib import Path

from tp_ext.clean.settings import read_settings
from tp_ext.clean.units import plan
from tp_ext.corpus.blocks import LONGEST_LINE
from tp_ext.corpus.faults import FAULT_LIMIT
from tp_ext.corpus.files import ENCODINGS, Form
from tp_ext.errors import ConfigError, run_command


def main() -> None:
    """Parse the command line, plan, hand the plan to the executor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=["local", "slurm", "ray"], default="local")
    parser.add_argument("--tasks", type=int, default=1, help="into how many the first step is cut")
    parser.add_argument("--workers", type=int, default=-1, help="tasks at the same time (all)")
    parser.add_argument("--work", type=Path, required=True, help="folder that all machines see, for what is in between")
    parser.add_argument("--partition", help="of Slurm")
    parser.add_argument("--time", help="of Slurm: the longest a task may take")
    parser.add_argument("--input", nargs="+", action="extend", type=Path, required=True, help="as scripts/clean.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--config", type=Path, required=True, help="recipe, as recipes/clean_zh.json")
    parser.add_argument("--against", nargs="+", action="extend", type=Path, default=[], metavar="DIR")
    parser.add_argument("--encoding", choices=ENCODINGS, default="utf-8")
    parser.add_argument("--text_key", default="text")
    parser.add_argument("--documents", choices=["line", "file"], default="line")
    parser.add_argument("--fault_limit", type=float, default=FAULT_LIMIT, metavar="SHARE")
    parser.add_argument("--longest_line", type=int, default=LONGEST_LINE, metavar="BYTES")
    args = parser.parse_args()
    if args.tasks < 1:
        raise ConfigError(f"--tasks is {args.tasks}; it must be at least 1")
    try:
        from tp_ext.clean.cluster import executors
    except ImportError as error:
        raise ConfigError(f"needs the extra: pip install 'tp_ext[cluster]' ({error})") from None
    form = Form(encoding=args.encoding, text_key=args.text_key, whole=args.documents == "file")
    units = plan(args.input, read_settings(args.config), args.work.resolve(), against=args.against,
                 longest_line=args.longest_line, form=form)  # fmt: skip
    more = {}
    if args.executor == "slurm":
        packages = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"  # tasks run with these packages
        more = {"partition": args.partition, "time": args.time, "env_command": packages, "job_name": "clean"}
    stage, finish = executors(args.executor, units, args.output.resolve(), args.tasks, args.workers,
                              [path.resolve() for path in args.against], args.fault_limit, **more)  # fmt: skip
    if args.executor != "slurm":
        stage.run()
    finish.run()
    print(f"{'submitted' if args.executor == 'slurm' else 'wrote'} {args.output}; logs are in {units.folder / 'logs'}")


if __name__ == "__main__":
    run_command(main)
