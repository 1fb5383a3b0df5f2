"""What can be asked of a run when it is over: the page of it, and what a step learned from."""

import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from conftest import command, pretrain

from tp_ext.data.store import Store
from tp_ext.errors import DatasetError
from tp_ext.study.explain import explain, told
from tp_ext.study.run_report import MOST, make_page
from tp_ext.tokens.tokenizer import open_tokenizer


@pytest.fixture(scope="module")
def run(dataset, held_out, spm_path, tmp_path_factory):
    """A run on two datasets, of 12 steps and, after it was resumed with larger batches, 2 more; some were skipped."""
    from conftest import LLAMA

    folder = tmp_path_factory.mktemp("explained")
    values = {
        "model": {"spm_model_path": str(spm_path), "config": {**LLAMA, "local_kv_heads_num": 2}},
        "data": {"seq_length": 32, "packing": "best_fit", "sources": {
            "many": {"dataset_path": str(dataset), "weight": 3}, "few": {"dataset_path": str(held_out), "weight": 1}}},
        "train": {"output_model_path": str(folder / "out"), "global_batch_size": 8, "micro_batch_size": 2, "total_steps": 12,
                  "learning_rate": 1e-3, "dtype": "fp32", "warmup": 2, "save_checkpoint_steps": 12},
        "evaluate": {"datasets": {"text": str(held_out)}, "steps": 3},
        "guard": {"spike": "skip", "spike_window": 2, "spike_deviation": 0.0},
        "log": {"report_steps": 2, "wandb_project": "tests"},
    }  # fmt: skip
    for steps, batch in ((12, 8), (14, 12)):
        done = pretrain(values, folder, f"train.total_steps={steps}", f"train.global_batch_size={batch}")
        assert done.returncode == 0, done.stderr
    return folder / "out"


def test_the_page_has_every_curve_and_setting_and_needs_nothing_else(run):
    page = make_page(run).html()
    tree = ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))
    captions = {node.text for node in tree.iter("strong")}
    assert captions == {"Loss", "Held-out text", "Learning rate", "Norm of the gradients", "Throughput",
                        "Use of the machine", "Memory", "Imbalance"}  # fmt: skip
    text = " ".join(node.strip() for node in tree.itertext())
    for expected in ("train.global_batch_size", "optimizer", "standard deviations above the mean", "trained.step",
                     "resumed: tensor 1, pipeline 1, ZeRO 1, offload none, 1 process", "global_batch_size: was 8, is 12"):
        assert expected in text
    assert "null" in text and "None" not in text and "linear_layers.0.weight" not in text  # hashes of every tensor
    assert not re.search(r"https?://|<script|src=|@import|url\(", page)
    losses = next(node for node in tree.iter("svg") if node.findtext("title") == "Loss")
    assert losses.findtext("desc").startswith("loss: from 1.000, ")
    assert len(list(losses.iter("circle"))) == 14


def test_a_long_run_is_drawn_by_the_means_of_stretches(run, tmp_path):
    rows = [{"step": step + 1, "loss": float(step % 2), "grad_norm": None, "learning_rate": 0.1, "skipped": False,
             "reason": "", "seconds": {"forward": 1.0}} for step in range(10 * MOST)]  # fmt: skip
    (tmp_path / "steps.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = make_page(tmp_path).html()
    points = re.search(r'<polyline class="l1" points="([^"]*)"', page)[1].split()
    assert len(points) == MOST
    assert len({point.split(",")[1] for point in points}) == 1  # every mean is a half


def test_a_folder_without_steps_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no steps here"):
        make_page(tmp_path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
def test_a_browser_shows_the_page_without_a_network(run, tmp_path):
    done = command("scripts/report.py", "--run", run, "--output", tmp_path / "page.html")
    assert done.stdout == f"wrote {tmp_path / 'page.html'}\n", done.stderr
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
             "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'page.html'}"]  # fmt: skip
    shown = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Norm of the gradients" in shown and shown.count("<polyline") == 8


@pytest.mark.parametrize("step", [1, 12, 13, 14])
def test_a_step_is_explained_by_the_documents_it_saw(run, step, dataset, held_out, spm_path):
    found = explain(run, step)
    assert len(found.instances) == (8 if step < 13 else 12)
    assert found.instances[0].position == (8 * (step - 1) if step < 13 else 96 + 12 * (step - 13))
    stores, tokenizer = {"many": Store(dataset), "few": Store(held_out)}, open_tokenizer(spm_path)
    for each in found.instances:
        for passage, origin in each.passages:
            line = open(origin.path, "rb").read()[origin.offset :].split(b"\n")[0].decode()  # noqa: SIM115
            assert passage.text.strip() in line
            start = int(stores[each.source].documents[passage.document]) + passage.first
            ids = stores[each.source].tokens[start : start + passage.tokens]
            assert tokenizer.decode(ids) == passage.text.removeprefix(" ")  # of the first piece sentencepiece drops it
    assert sum(found.sources.values()) == pytest.approx(1)
    assert found.sources["many"] == pytest.approx(0.75, abs=0.2)


def test_what_is_told_of_a_step(run):
    rows = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    odd = next(row for row in rows if row["skipped"])
    for row in (rows[0], odd):
        done = command("scripts/explain.py", "--run", run, "--step", row["step"], "--characters", 10)
        assert done.returncode == 0, done.stderr
        assert f"step {row['step']}: {'skipped: the loss' if row['skipped'] else 'made'}" in done.stdout
        assert f"loss {row['loss']:.6g}" in done.stdout and "% of the targets" in done.stdout
        assert "text.txt, byte " in done.stdout
    assert max(len(line) for line in told(explain(run, 1), 10) if line.startswith("    ")) <= 4 + 10 + 1


def test_a_step_that_was_not_made_or_data_that_changed_are_refused(run, tmp_path):
    with pytest.raises(DatasetError, match="is not the folder of a run, which has a steps.jsonl"):
        explain(run.parent, 1)
    with pytest.raises(DatasetError, match="no step 15; its last is 14"):
        explain(run, 15)
    for name in ("recipe.json", "steps.jsonl", "run.json"):
        shutil.copy(run / name, tmp_path)
    known = json.loads((tmp_path / "run.json").read_text())
    known["sources"]["few"]["sha256"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(known))
    with pytest.raises(DatasetError, match="has been made anew"):
        explain(tmp_path, 1)


def test_the_wandb_run_is_the_same_after_a_resume(run):
    ids = {path.name.rsplit("-", 1)[1] for path in (run / "wandb").glob("offline-run-*")}
    assert len(list((run / "wandb").glob("offline-run-*"))) == 2
    assert ids == {(run / "wandb_id").read_text()}
