"""Cleaning by Slurm on one node gives what the local command gives."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from slurm_node import marks, slurm, until  # noqa: F401 (a fixture)
from test_pipeline import chinese, files_of, records

pytestmark = marks


def test_slurm_gives_what_the_local_command_gives(slurm, tmp_path):  # noqa: F811
    pytest.importorskip("datatrove")
    (tmp_path / "a.jsonl").write_bytes(records(chinese(300, 1)))
    (tmp_path / "b.jsonl").write_bytes(records([*chinese(30, 1), *chinese(200, 2)]))
    given = ["--input", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--config", ROOT / "recipes" / "clean_zh.json"]
    scripts = ROOT / "scripts"
    subprocess.run([sys.executable, scripts / "clean.py", *given, "--output", tmp_path / "local"], env=slurm, check=True)
    cluster = ["--executor", "slurm", "--tasks", "2", "--partition", "cpu", "--time", "00:05:00"]
    folders = ["--work", tmp_path / "work", "--output", tmp_path / "slurm"]
    command = [sys.executable, scripts / "clean_cluster.py", *given, *cluster, *folders]
    subprocess.run(command, env=slurm, check=True)
    until(lambda: not subprocess.run(["squeue", "-h"], env=slurm, capture_output=True, text=True, check=True).stdout)
    outputs = [files_of(tmp_path / name) for name in ("local", "slurm")]
    assert json.loads(outputs[1].pop("manifest.json"))["run"] == json.loads(outputs[0].pop("manifest.json"))["run"]
    assert outputs[0] == outputs[1]
