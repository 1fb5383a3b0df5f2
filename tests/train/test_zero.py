"""ZeRO on two processes gives the losses of one process with the same global batch."""

import pytest
from conftest import metrics, pretrain

STEPS = 20


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return tmp_path_factory.mktemp("alone")


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_two_processes_give_the_losses_of_one(recipe, tmp_path, alone, zero):
    changes = {"train__total_steps": STEPS, "parallel__zero": zero, "train__save_checkpoint_steps": 10}
    if not (alone / "out").exists():
        done = pretrain(recipe(**changes, train__output_model_path=str(alone / "out")), alone)
        assert done.returncode == 0, done.stderr
    done = pretrain(recipe(**changes), tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    for name in ("loss", "grad_norm", "text_loss"):
        expected, found = metrics(alone / "out", name), metrics(tmp_path / "out", name)
        assert len(found) == len(expected)
        assert max(abs(one - other) for one, other in zip(expected, found, strict=True)) <= 1e-4, name
    assert metrics(tmp_path / "out", "tokens") == metrics(alone / "out", "tokens")
    # and going on from its own checkpoint on two processes ends at the same bits
    before = (tmp_path / "out" / "model" / "model.safetensors").read_bytes()
    for path in (tmp_path / "out" / "checkpoints" / "step_00000020", tmp_path / "out" / "model"):
        path.rename(path.with_name(f"old_{path.name}"))
    done = pretrain(recipe(**changes), tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    assert "resuming at step 10" in done.stdout
    assert (tmp_path / "out" / "model" / "model.safetensors").read_bytes() == before


def test_a_users_mistake_is_told_once_by_all_processes(recipe, tmp_path):
    done = pretrain(recipe(train__global_batch_size=6), tmp_path, processes=2, cold=True)
    assert done.returncode == 2
    assert done.stderr.count("error: recipe.train: global_batch_size 6 is not a multiple") == 1
    assert not (tmp_path / "out").exists()
