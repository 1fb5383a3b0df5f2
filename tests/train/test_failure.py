"""What is left, and what is told, when a process or a disk fails."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, environment, metrics, pretrain
from driven import driven

from tp_ext.train.failure import is_lost
from tp_ext.train.launcher import Launcher

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


@pytest.mark.parametrize("what", ["raise ValueError('the own error')", "os.kill(os.getpid(), 9)",
                                  "from tp_ext.errors import DatasetError; raise DatasetError('the own error')"])
def test_a_process_that_fails_ends_the_others_and_its_error_is_told_last(recipe, tmp_path, what):
    values = recipe(train__total_steps=100000, evaluate__datasets={}, train__save_checkpoint_steps=2)
    done = driven(values, tmp_path, RAISES.format(what=what), processes=2)
    assert done.returncode != 0
    saved = tmp_path / "out" / "checkpoints" / "step_00000002" / "manifest.json"
    assert time.time() - saved.stat().st_mtime < 60  # it failed right after that
    assert "process 0 of 2: the connection to another process was lost" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if "ValueError" in what:
        assert lines[-1] == "[rank1]: ValueError: the own error"
    if "DatasetError" in what:
        assert lines[-1] == "error: process 1 of 2: the own error"
    assert done.stderr.count("Traceback") == ("ValueError" in what)
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step_00000002"]


BEFORE = """
import tp_ext.train.loop as loop
from tp_ext.errors import DatasetError
known = loop.open_inputs
def failing(recipe):
    if os.environ["RANK"] == "{rank}":
        raise DatasetError("/data/x: no dataset here")
    return known(recipe)
loop.open_inputs = failing
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_process_alone_does_not_find_is_told_and_ends_all(recipe, tmp_path, rank):
    done = driven(recipe(evaluate__datasets={}), tmp_path, BEFORE.format(rank=rank), processes=2, launcher="torchrun")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told == ["error: process 1 of 2: /data/x: no dataset here" if rank else "error: /data/x: no dataset here"]
    summary = done.stderr[done.stderr.index("Root Cause") :]  # torchrun's own, after all else
    assert f"rank      : {rank} " in summary
    assert not rank or "DatasetError: /data/x: no dataset here" in summary


@pytest.mark.slow
def test_torchrun_names_the_process_that_failed_first(recipe, tmp_path):
    patch = RAISES.format(what="raise ValueError('the own error')")
    done = driven(recipe(evaluate__datasets={}), tmp_path, patch, processes=2, launcher="torchrun")
    assert done.returncode == 1
    summary = done.stderr[done.stderr.index("Root Cause") :]
    assert "rank      : 1 " in summary and "ValueError: the own error" in summary


@pytest.mark.parametrize("by_torchrun", [True, False])
def test_a_process_knows_when_its_launcher_has_gone_and_outlives_a_shell(by_torchrun):
    """Grandparent, which waits; parent, which ends; and child, which looks at it."""
    read, write = os.pipe()
    end_read, end_write = os.pipe()
    parent = os.fork()
    if not parent:
        child = os.fork()
        if not child:
            os.environ.pop("TORCHELASTIC_RUN_ID", None)
            os.environ.update({"TORCHELASTIC_RUN_ID": "1"} if by_torchrun else {})
            parent, launcher = os.getppid(), Launcher()
            before = launcher.is_gone()
            os.write(end_write, b"x")
            until = time.monotonic() + 20
            while os.getppid() == parent and time.monotonic() < until:
                time.sleep(0.01)
            os.write(write, bytes([before, launcher.is_gone()]))
        else:
            os.read(end_read, 1)
        os._exit(0)
    os.waitpid(parent, 0)
    assert os.read(read, 2) == bytes([False, by_torchrun])


def processes_of(folder):
    """The processes of a run whose recipe is in `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{folder}/recipe.json" in (path / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                found.append(int(path.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("to", "code"), [("command", -15), ("process", 143)])
def test_sigterm_to_the_deepspeed_command_or_to_one_process_saves_and_the_run_goes_on_at_the_same_bits(
    recipe, tmp_path, to, code
):
    values = recipe(train__total_steps=24, train__scheduler="constant", train__save_checkpoint_steps=100,
                    evaluate__datasets={}, parallel__zero=2)  # fmt: skip
    values["model"]["config"]["dropout"] = 0.1
    (tmp_path / "whole").mkdir()
    whole = {**values, "train": {**values["train"], "output_model_path": str(tmp_path / "whole" / "out")}}
    assert pretrain(whole, tmp_path / "whole", processes=2).returncode == 0
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    words = ["deepspeed", "--num_gpus", "2", "--master_port", str(29500 + os.getpid() % 2000), "pretrain.py", "--config",
             str(tmp_path / "recipe.json")]  # fmt: skip
    with open(tmp_path / "told", "w") as told:
        running = subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=told, stderr=told)
    while "step 3/" not in (tmp_path / "told").read_text():
        time.sleep(0.05)
    first = running.pid if to == "command" else max(processes_of(tmp_path))  # the last one that was started
    os.kill(first, signal.SIGTERM)
    assert running.wait(timeout=120) == code
    while processes_of(tmp_path):
        time.sleep(0.2)
    assert "the same command goes on from there" in (tmp_path / "told").read_text()
    done = pretrain(values, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert "resuming at step " in done.stdout
    assert metrics(tmp_path / "out", "loss", "steps") == metrics(tmp_path / "whole" / "out", "loss", "steps")
    assert weights(tmp_path / "out") == weights(tmp_path / "whole" / "out")


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


LIMITED = """
import resource
if os.environ["RANK"] == "{rank}":
    resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
"""


@pytest.mark.parametrize(
    ("rank", "zero"), [(1, 1), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(0, 1), (0, 3), (1, 3)])]
)
def test_a_disk_that_is_full_for_one_process_ends_all_with_one_line(recipe, tmp_path, rank, zero):
    values = recipe(evaluate__datasets={}, parallel__zero=zero)
    done = driven(values, tmp_path, LIMITED.format(rank=rank), processes=2)
    assert done.returncode == 2, done.stderr
    assert "no checkpoint could be written" in done.stderr and "there is none yet" in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert not list((tmp_path / "out" / "checkpoints").iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a disk cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 3])
def test_a_full_disk_leaves_the_checkpoint_before_and_the_run_goes_on_when_there_is_room(recipe, tmp_path, small_disk, zero):
    values = recipe(evaluate__datasets={}, parallel__zero=zero, train__output_model_path=str(small_disk / "out"))
    done = pretrain(values, tmp_path, processes=2)
    assert done.returncode == 2, done.stderr
    assert "0.0 GiB are free there); the last whole one is step_00000004" in done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert [path.name for path in (small_disk / "out" / "checkpoints").iterdir()] == ["step_00000004"]
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    done = pretrain(values, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert "resuming at step 4," in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_in_a_save_leaves_the_checkpoint_before(recipe, tmp_path, rank):
    killed = f"""
import tp_ext.train.resume as resume
known, saves = resume._random_state, []
def killed(processes):
    saves.append(processes.rank)
    if saves == [{rank}] * 2:
        os.kill(os.getpid(), 9)
    return known(processes)
resume._random_state = killed
"""
    values = recipe(evaluate__datasets={})
    done = driven(values, tmp_path, killed, processes=2)
    assert done.returncode != 0 and "the connection to another process was lost" in done.stderr
    assert {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()} == {"step_00000004", ".step_00000008.part"}
    done = pretrain(values, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert "removed .step_00000008.part, a checkpoint that a run left half" in done.stdout
    assert "resuming at step 4," in done.stdout


def test_two_runs_do_not_write_to_one_folder(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    folder = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    done = pretrain(recipe(evaluate__datasets={}), tmp_path)
    os.close(folder)
    assert done.returncode == 2
    assert f"{tmp_path / 'out'}: another run is at work here" in done.stderr
    assert not list((tmp_path / "out").iterdir())
