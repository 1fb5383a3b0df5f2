"""The Slurm script trains on one node as the launcher does, and the run goes on in the next job."""

import json
import subprocess
import sys

from conftest import ROOT, metrics, pretrain
from slurm_node import marks, slurm  # noqa: F401 (a fixture)

pytestmark = marks


def test_the_slurm_script_gives_the_losses_of_the_launcher(slurm, recipe, tmp_path):  # noqa: F811
    (tmp_path / "beside").mkdir()
    values = recipe(train__output_model_path=str(tmp_path / "beside" / "out"))
    assert pretrain(values, tmp_path / "beside", processes=2).returncode == 0
    (tmp_path / "recipe.json").write_text(json.dumps(recipe()))
    words = ["sbatch", "--wait", "--parsable", "--output", tmp_path / "job.txt", "--nodes", 1, "--ntasks-per-node", 2,
             "scripts/pretrain.slurm", "--config", tmp_path / "recipe.json"]  # fmt: skip
    known = {**slurm, "PYTHON": sys.executable, "MASTER_ADDR": "127.0.0.1"}

    def submit():
        line = list(map(str, words))
        return subprocess.run(line, env=known, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    done = submit()
    told = (tmp_path / "job.txt").read_text()
    assert done.returncode == 0, told + done.stderr
    assert "on 2 processes" in told and told.count("step 8/8") == 1
    for name in ("loss", "grad_norm", "text_loss"):
        assert metrics(tmp_path / "out", name) == metrics(tmp_path / "beside" / "out", name)
    submit()
    assert "the run is complete: 8 of 8 steps" in (tmp_path / "job.txt").read_text()
