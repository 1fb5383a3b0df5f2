"""Whole runs through pretrain.py, as a user starts them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import LLAMA, ROOT, command, environment, metrics, pretrain

from tp_ext.checkpoint.formats import open_model
from tp_ext.data.preprocess import preprocess
from tp_ext.infer import load
from tp_ext.models import families
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.tokens.train import train_tokenizer


def weights(folder) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def first_run(dataset, held_out, spm_path, tmp_path_factory):
    """A run of 8 steps of a tiny LLaMA, and its recipe."""
    folder = tmp_path_factory.mktemp("run")
    values = {
        "model": {"spm_model_path": str(spm_path), "config": {**LLAMA, "local_kv_heads_num": 2, "dropout": 0.1}},
        "data": {"dataset_path": str(dataset), "seq_length": 32},
        "train": {
            "output_model_path": str(folder / "out"), "global_batch_size": 8, "micro_batch_size": 2, "total_steps": 8,
            "learning_rate": 1e-2, "dtype": "fp32", "warmup": 2, "save_checkpoint_steps": 4,
        },
        "evaluate": {"datasets": {"text": str(held_out)}, "steps": 4},
        "log": {"report_steps": 1, "wandb_project": "tests"},
    }  # fmt: skip
    done = pretrain(values, folder)
    assert done.returncode == 0, done.stderr
    return folder, values, done.stdout


def test_a_run_learns_and_names_what_it_wrote(first_run):
    folder, _, output = first_run
    losses = metrics(folder / "out", "loss")
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.3
    scores = metrics(folder / "out", "text_bits_per_byte")
    assert len(scores) == 3
    assert scores[-1] < scores[0]
    line = next(line for line in output.splitlines() if line.startswith("step 8/8"))
    for part in ("loss", "lr", "grad norm", "tokens/s", "MFU", "GiB", "left"):
        assert part in line
    written = re.findall(r"(?:wrote|     ) (/\S+)", output)
    assert [path.removeprefix(f"{folder}/out/").split("/offline")[0] for path in written] == [
        "recipe.json", "run.json", "metrics.jsonl", "steps.jsonl", "checkpoints/step_00000004", "checkpoints/step_00000008",
        "model", "wandb",
    ]  # fmt: skip
    assert all(os.path.exists(path) for path in written)
    assert all(0 < value <= 1.2 for value in metrics(folder / "out", "mfu"))


def test_bits_per_byte_are_nats_over_bytes(first_run, held_out):
    folder, _, _ = first_run
    manifest = json.loads((held_out / "manifest.json").read_text())
    rows = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    row = [row for row in rows if "text_loss" in row][-1]
    nats = row["text_loss"] * (manifest["tokens"] - 1)
    assert row["text_bits_per_byte"] == pytest.approx(nats / 0.6931471805599453 / manifest["text_bytes"])


def test_the_trained_model_is_ready_to_use(first_run, spm_path):
    folder, _, _ = first_run
    model = load(folder / "out" / "model")
    assert model.tokenizer.sha256 == open_tokenizer(spm_path).sha256
    assert len(model.generate(["第一条"], max_new_tokens=5)[0]) > 0
    assert open_model(folder / "out" / "model", families).config.local_kv_heads_num == 2


def test_going_on_from_a_checkpoint_is_as_if_it_had_never_stopped(first_run, tmp_path):
    folder, values, _ = first_run
    shutil.copytree(folder / "out" / "checkpoints" / "step_00000004", tmp_path / "out" / "checkpoints" / "step_00000004")
    shutil.copy(folder / "out" / "steps.jsonl", tmp_path / "out")
    # metrics of steps after the checkpoint, and a line a killed run left half, are made again
    shutil.copy(folder / "out" / "metrics.jsonl", tmp_path / "out")
    with open(tmp_path / "out" / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "lo')
    done = pretrain(values, tmp_path, f"train.output_model_path={tmp_path}/out", "log.wandb_project=null")
    assert done.returncode == 0, done.stderr
    assert "resuming at step 4, instance 32, " in done.stdout
    assert weights(tmp_path / "out") == weights(folder / "out")
    assert metrics(tmp_path / "out", "loss") == metrics(folder / "out", "loss")
    assert metrics(tmp_path / "out", "text_loss") == metrics(folder / "out", "text_loss")
    assert metrics(tmp_path / "out", "learning_rate") == metrics(folder / "out", "learning_rate")
    assert metrics(tmp_path / "out", "position", "steps") == list(range(0, 64, 8))


def test_where_a_run_would_go_on_is_told_and_nothing_done(first_run, tmp_path):
    folder, values, _ = first_run
    done = pretrain(values, tmp_path, "--explain-resume", f"train.output_model_path={tmp_path}/out")
    assert done.stdout == "no checkpoint: the run would begin at step 1\n"
    assert not (tmp_path / "out").exists()
    path = folder / "out" / "checkpoints" / "step_00000004"
    shutil.copytree(path, tmp_path / "out" / "checkpoints" / "step_00000004")
    changes = (f"train.output_model_path={tmp_path}/out", "train.save_checkpoint_steps=2")
    done = pretrain(values, tmp_path, "--explain-resume", *changes)
    assert done.returncode == 0, done.stderr
    assert "step_00000004: step 4 of 8, " in done.stdout
    assert "recipe.train.save_checkpoint_steps: was 4, is 2" in done.stdout
    rate = metrics(folder / "out", "learning_rate", "steps")[4]
    assert f"next: step 5, learning rate {rate:.6g}, from position 32 on" in done.stdout
    explained = command("scripts/explain.py", "--run", folder / "out", "--step", 5).stdout
    expected = re.findall(r"=== position \d+: instance (\d+)", explained)[:4]
    assert re.findall(r"  instance (\d+): document \d+ \(", done.stdout) == expected
    assert not (tmp_path / "out" / "recipe.json").exists()
    assert done.stdout.endswith("converted: nothing; tensor 1, pipeline 1, ZeRO 1, offload none, 1 process, as before\n")
    done = pretrain(values, tmp_path, "--explain-resume", *changes, "parallel.tensor=2", "parallel.zero=3")
    assert done.stdout.endswith("converted: weights and optimizer state, from tensor 1, pipeline 1, ZeRO 1, offload none, "
                                "1 process to tensor 2, pipeline 1, ZeRO 3\n")  # fmt: skip
    refused(pretrain(values, tmp_path, "--explain-resume", *changes, "train.seed=8"), "seed 7 there, 8 here")


def test_a_finished_run_is_not_trained_again(first_run):
    folder, values, _ = first_run
    before = weights(folder / "out")
    done = pretrain(values, folder, "log.wandb_project=null")
    assert done.returncode == 0
    assert "the run is complete: 8 of 8 steps" in done.stdout
    assert weights(folder / "out") == before
    assert len(metrics(folder / "out", "loss")) == 8


def refused(done, *expected):
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert all(part in errors[0] for part in expected)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.resume=never", "'never', but"),
        ("train.seed=8", "belongs to another run: seed 7 there, 8 here"),
        ("model.config.layers_num=3", "model.layers_num 2 there, 3 here"),
        ("data.seq_length=16", "seq_length 32 there, 16 here"),
        ("train.resume={out}/checkpoints/step_00000004", "is at step 4, but"),
        ("evaluate.datasets={{\"x\": \"{out}/model/x\"}}", "which the run would write over"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(first_run, override, expected):
    folder, values, _ = first_run
    before = (folder / "out" / "metrics.jsonl").read_bytes()
    refused(pretrain(values, folder, override.format(out=folder / "out")), expected)
    assert (folder / "out" / "metrics.jsonl").read_bytes() == before


def test_a_dataset_that_changed_is_refused_before_training(recipe, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    content = bytearray((tmp_path / "data" / "tokens.bin").read_bytes())
    content[100] ^= 1
    (tmp_path / "data" / "tokens.bin").write_bytes(content)
    done = pretrain(recipe(data__dataset_path=str(tmp_path / "data")), tmp_path)
    refused(done, "tokens.bin has changed since it was written")
    assert not (tmp_path / "out").exists()


def test_other_weights_to_begin_with_are_another_run(first_run, tmp_path):
    folder, values, _ = first_run
    done = pretrain(values, tmp_path, f"train.output_model_path={tmp_path}/out", "train.total_steps=4",
                    f"model.pretrained_model_path={folder}/out/model", "log.wandb_project=null")  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused(pretrain(values, tmp_path, f"train.output_model_path={tmp_path}/out"), "pretrained ")


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_checkpoint_is_refused(first_run, tmp_path, damage):
    folder, values, _ = first_run
    shutil.copytree(folder / "out" / "checkpoints", tmp_path / "out" / "checkpoints")
    file = tmp_path / "out" / "checkpoints" / "step_00000008" / "engine" / "mp_rank_00_model_states.pt"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:1000])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    done = pretrain(values, tmp_path, f"train.output_model_path={tmp_path}/out")
    refused(done, "mp_rank_00_model_states.pt")


def test_inputs_that_do_not_fit_together_are_refused_before_training(recipe, tmp_path, corpus, first_run):
    folder, _, _ = first_run
    other = tmp_path / "other.model"
    train_tokenizer(corpus.read_text(encoding="utf-8").splitlines(), 450, other)
    preprocess([corpus], open_tokenizer(other), tmp_path / "other", 32)
    # a missing file, a tokenizer that did not make the dataset, rows that do not match, a batch that does not divide
    for changes, expected in [
        ({"data__dataset_path": "nowhere"}, "nowhere: no dataset here"),
        ({"model__spm_model_path": "nowhere.model"}, "nowhere.model: no such tokenizer file"),
        ({"model__pretrained_model_path": "nowhere"}, "nowhere: no such model"),
        ({"model__spm_model_path": str(other)}, "was made by another tokenizer"),
        ({"model__config": {**LLAMA, "vocab_size": 600}}, "the embedding has 600 rows"),
        ({"model__config": None, "model__pretrained_model_path": str(folder / "out" / "model"),
          "model__spm_model_path": str(other), "data__dataset_path": str(tmp_path / "other"),
          "evaluate__datasets": {}}, "is another tokenizer than"),
        ({"train__output_model_path": str(corpus)}, "is a file; name a folder"),
        ({"data__seq_length": 512}, "512 is longer than the model's max_seq_length 256"),
        ({"model__config": {**LLAMA, "layers_num": 3}, "model__pretrained_model_path": str(folder / "out" / "model")},
         "is another model: "),
    ]:  # fmt: skip
        refused(pretrain(recipe(**changes), tmp_path), expected)
    assert not (tmp_path / "out").exists()


def test_sigterm_saves_and_the_same_command_goes_on(recipe, tmp_path):
    values = recipe(train__total_steps=100000, train__save_checkpoint_steps=100000, evaluate__datasets={})
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    words = [sys.executable, "pretrain.py", "--config", str(tmp_path / "recipe.json")]
    running = subprocess.Popen(words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in running.stdout:
        if line.startswith("step 3/"):
            running.send_signal(signal.SIGTERM)
            break
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 143  # 0 is a run that is complete
    stopped = int(re.search(r"stopped by SIGTERM at step (\d+)", output)[1])
    values["train"]["total_steps"] = stopped + 2
    done = pretrain(values, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {stopped}," in done.stdout


def test_old_checkpoints_are_removed(recipe, tmp_path):
    done = pretrain(recipe(train__save_checkpoint_steps=2, train__keep_checkpoints=1, evaluate__datasets={}), tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step_00000008"]


def test_a_broken_wandb_never_stops_training(recipe, tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise RuntimeError('broken')")
    monkeypatch.setenv("PYTHONSTARTUP", "")
    values = recipe(log__wandb_project="x", train__total_steps=3, evaluate__datasets={})
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    known = environment()
    known["PYTHONPATH"] = f"{tmp_path}:{known['PYTHONPATH']}"
    words = [sys.executable, "pretrain.py", "--config", str(tmp_path / "recipe.json")]
    done = subprocess.run(words, env=known, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "wandb is left out: RuntimeError: broken" in done.stdout
    assert len(metrics(tmp_path / "out", "loss")) == 3


def test_a_loss_that_is_no_number_stops_the_run(recipe, tmp_path):
    done = pretrain(recipe(train__learning_rate=1e30, train__max_grad_norm=0.0, evaluate__datasets={}), tmp_path)
    refused(done, "step 6: the gradients are no finite numbers (loss ", "norm inf); 5 steps skipped in a row")
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_the_tiny_recipes_train_resume_and_generate(name, dataset, held_out, spm_path, tmp_path):
    """The smoke test: a base model, then the Chinese recipe from it; 20 steps, a resume, a text."""

    def run(recipe_name, steps, *more):
        recipe = json.loads((ROOT / "recipes" / f"{recipe_name}.json").read_text())
        recipe["log"]["wandb_project"] = None
        overrides = [
            f"model.spm_model_path={spm_path}", f"data.dataset_path={dataset}", f"train.total_steps={steps}",
            f"train.output_model_path={tmp_path}/{recipe_name}", "train.save_checkpoint_steps=10", "data.seq_length=64",
            f'evaluate.datasets={{"text": "{held_out}"}}', "log.report_steps=1", *more,
        ]  # fmt: skip
        done = pretrain(recipe, tmp_path, *overrides)
        assert done.returncode == 0, done.stderr
        return done.stdout

    start = []
    if name == "llama":
        run("llama_tiny_en", 10)
        start = [f"model.pretrained_model_path={tmp_path}/llama_tiny_en/model"]
    run(f"{name}_tiny_zh", 20, *start)
    folder = tmp_path / f"{name}_tiny_zh"
    losses = metrics(folder, "loss")
    assert len(losses) == 20
    assert sum(losses[-3:]) < sum(losses[:3])
    output = run(f"{name}_tiny_zh", 22, *start, "train.warmup=3")
    assert "resuming at step 20" in output
    assert len(metrics(folder, "loss")) == 22
    assert load(folder / "model").generate(["第二条 国务院"], max_new_tokens=5, temperature=1.0)[0]


