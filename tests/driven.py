"""A run of pretrain.py in which something is replaced."""

import json
import os
import subprocess
import sys

from conftest import ROOT, environment, training

DRIVER = """
import os, sys, runpy
{patch}
sys.argv = ["pretrain.py", *[word for word in sys.argv[1:] if not word.startswith("--local_rank")]]
runpy.run_path("pretrain.py", run_name="__main__")
"""


def driven(values, folder, patch, processes=0, limit=None, launcher="deepspeed"):
    """Run pretrain.py with something in it replaced; with `limit` no file can be larger than so many bytes."""
    (folder / "recipe.json").write_text(json.dumps(values))
    (folder / "driver.py").write_text(DRIVER.format(patch=patch))
    if not (processes or limit):
        return training(folder / "driver.py", "--config", folder / "recipe.json")
    words = [sys.executable, str(folder / "driver.py"), "--config", str(folder / "recipe.json")]
    if processes:
        port = str(29500 + os.getpid() % 2000)
        count = {"deepspeed": "--num_gpus", "torchrun": "--nproc_per_node"}[launcher]
        words[:1] = [launcher, count, str(processes), "--master_port", port]
    if limit:
        words = ["prlimit", f"--fsize={limit}", *words]
    return subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
