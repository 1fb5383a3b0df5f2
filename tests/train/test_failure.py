"""What is left, and what is told, when a process or a disk fails."""

import json
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT, environment, metrics, pretrain

from tp_ext.train.failure import is_lost

DRIVER = """
import os, sys, runpy
{patch}
sys.argv = ["pretrain.py", *[word for word in sys.argv[1:] if not word.startswith("--local_rank")]]
runpy.run_path("pretrain.py", run_name="__main__")
"""
RAISES = """
import tp_ext.train.step as step
known = step.make_step
def failing(engine, *rest):
    if os.environ["RANK"] == "1" and engine._engine.global_steps == 2:
        {what}
    return known(engine, *rest)
import tp_ext.train.loop as loop
loop.make_step = failing
"""


def driven(values, folder, patch, processes=0, limit=None):
    """Run pretrain.py with something in it replaced; with `limit` no file can be larger than so many bytes."""
    (folder / "recipe.json").write_text(json.dumps(values))
    (folder / "driver.py").write_text(DRIVER.format(patch=patch))
    words = [sys.executable, str(folder / "driver.py"), "--config", str(folder / "recipe.json")]
    if processes:
        port = str(29500 + os.getpid() % 2000)
        words[:1] = ["deepspeed", "--num_gpus", str(processes), "--master_port", port]
    if limit:
        words = ["prlimit", f"--fsize={limit}", *words]
    return subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("what", ["raise ValueError('the own error')", "os.kill(os.getpid(), 9)"])
def test_a_process_that_fails_ends_the_others_and_its_error_is_told_last(recipe, tmp_path, what):
    began = time.monotonic()
    values = recipe(train__total_steps=100000, evaluate__datasets={}, train__save_checkpoint_steps=2)
    done = driven(values, tmp_path, RAISES.format(what=what), processes=2)
    assert done.returncode != 0
    assert time.monotonic() - began < 100  # of which the start takes a part
    assert "process 0 of 2: the connection to another process was lost" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if "raise" in what:
        assert lines[-1] == "[rank1]: ValueError: the own error"
    assert done.stderr.count("Traceback") == ("raise" in what)
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step_00000002"]


def test_only_a_lost_connection_is_one():
    assert is_lost(RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"))
    assert not is_lost(RuntimeError("size mismatch"))
    assert not is_lost(ValueError("Connection closed by peer"))


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("patch", "limit", "code"),
    [("import tp_ext.train.resume as r\nr.write_manifest = lambda *a: os.kill(os.getpid(), 9)", None, -9), ("", 40000, 2)],
    ids=["killed", "disk full"],
)
def test_what_fails_in_a_save_leaves_the_checkpoint_before(recipe, tmp_path, patch, limit, code):
    values = recipe(evaluate__datasets={})
    (tmp_path / "whole").mkdir()
    assert pretrain({**values, "train": {**values["train"], "output_model_path": str(tmp_path / "whole" / "out")}},
                    tmp_path / "whole").returncode == 0  # fmt: skip
    values["train"]["total_steps"] = 4
    values["train"]["scheduler"] = "constant"
    assert pretrain(values, tmp_path).returncode == 0
    before = (tmp_path / "out" / "checkpoints" / "step_00000004" / "manifest.json").read_bytes()
    values["train"]["total_steps"] = 8
    done = driven(values, tmp_path, patch, limit=limit)
    assert done.returncode == code, done.stderr
    if limit:
        assert done.stderr.count("error: ") == 1 and "no checkpoint could be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step_00000004"]
    assert (tmp_path / "out" / "checkpoints" / "step_00000004" / "manifest.json").read_bytes() == before
    done = pretrain(values, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming at step 4," in done.stdout
    assert {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()} == {"step_00000004", "step_00000008"}
    assert metrics(tmp_path / "out", "position", "steps") == list(range(0, 64, 8))
