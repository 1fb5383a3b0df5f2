"""Runs on packed documents and on mixtures."""

import shutil

import pytest
from conftest import metrics, pretrain

from tp_ext.data.pack import pack
from tp_ext.data.store import Store


def losses(folder):
    return metrics(folder / "out", "loss")


def trained(values, folder, *overrides, processes=0):
    done = pretrain(values, folder, *overrides, processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done, *expected):
    assert done.returncode == 2, done.stdout + done.stderr
    for part in expected:
        assert part in done.stderr


PACKED = {"data__packing": "best_fit", "data__document_mask": True, "data__seq_length": 64}


def test_packed_documents_train_alike_on_two_processes_with_zero_3(recipe, dataset, tmp_path):
    (tmp_path / "one").mkdir()
    one = {**PACKED, "train__output_model_path": str(tmp_path / "one" / "out")}
    output = trained(recipe(**one), tmp_path / "one")
    instances = pack(Store(dataset), 64, "best_fit")
    share = instances.targets_num / (len(instances) * 64)
    assert f"data: {len(instances):,} instances of 64, {share:.1%} of them targets" in output
    alone = losses(tmp_path / "one")
    assert alone[-1] < alone[0] - 0.3
    values = recipe(**PACKED, parallel__zero=3)
    values["model"]["checkpoint_activations"] = True
    output = trained(values, tmp_path, processes=2)
    assert "unknown inputs" not in output
    assert losses(tmp_path) == pytest.approx(alone, abs=1e-4)
    assert metrics(tmp_path / "out", "tokens") == metrics(tmp_path / "one" / "out", "tokens")
    assert metrics(tmp_path / "out", "text_loss") == pytest.approx(metrics(tmp_path / "one" / "out", "text_loss"), abs=1e-4)


def test_the_document_mask_changes_the_loss_and_belongs_to_the_run(recipe, tmp_path):
    values = recipe(**PACKED, train__total_steps=4, evaluate__datasets={})
    trained(values, tmp_path)
    masked = losses(tmp_path)
    refused(pretrain(values, tmp_path, "data.document_mask=false"), "document_mask True there, False here")
    refused(pretrain(values, tmp_path, "data.packing=document"), "packing best_fit there, document here")
    shutil.rmtree(tmp_path / "out")
    trained(values, tmp_path, "data.document_mask=false")
    unmasked = losses(tmp_path)
    assert masked[0] != unmasked[0] and masked[0] == pytest.approx(unmasked[0], abs=0.1)


@pytest.fixture
def mixed(recipe, dataset, held_out):
    """A recipe of two datasets, one large and one small."""

    def make(**changes):
        sources = {"few": {"dataset_path": str(held_out), "weight": 1}, "many": {"dataset_path": str(dataset), "weight": 3}}
        return recipe(data__dataset_path=None, data__sources=sources, **changes)

    return make


def test_a_mixture_trains_alike_on_two_processes_and_goes_on_to_the_same_bits(mixed, tmp_path):
    (tmp_path / "one").mkdir()
    output = trained(mixed(train__output_model_path=str(tmp_path / "one" / "out")), tmp_path / "one")
    assert "data: few 25.0% (" in output and "many 75.0% (" in output
    trained(mixed(), tmp_path, processes=2)
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    out = tmp_path / "one" / "out"
    before = (out / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(out / "checkpoints" / "step_00000008")
    shutil.rmtree(out / "model")
    output = trained(mixed(train__output_model_path=str(out)), tmp_path / "one")
    assert "resuming at step 4, instance 32, " in output
    assert (out / "model" / "model.safetensors").read_bytes() == before


def test_another_mixture_is_another_run(mixed, dataset, spm_path, tmp_path):
    values = mixed(train__total_steps=4, evaluate__datasets={})
    trained(values, tmp_path)
    refused(pretrain(values, tmp_path, "data.sources.many.weight=1"), "sources.few.share 0.25 there, 0.5 here",
            "sources.many.share 0.75 there, 0.5 here")  # fmt: skip
    refused(pretrain(values, tmp_path, f'data.sources.more={{"dataset_path": "{dataset}", "weight": 4}}'),
            "sources.more None there, {sha256: ")  # fmt: skip
    refused(pretrain(values, tmp_path, f"data.sources.few.dataset_path={dataset}"), "sources.few.sha256 ")
    refused(pretrain(values, tmp_path, f"data.dataset_path={dataset}", "data.sources={}"), "dataset_sha256 None there, ")
    # the same mixture by other numbers is the same run
    output = trained(values, tmp_path, "data.sources.few.weight=0.1", "data.sources.many.weight=0.3")
    assert "the run is complete" in output


def test_a_source_of_another_tokenizer_is_refused(mixed, corpus, tmp_path):
    from tp_ext.data.preprocess import preprocess
    from tp_ext.tokens.tokenizer import open_tokenizer
    from tp_ext.tokens.train import train_tokenizer

    train_tokenizer(corpus.read_text(encoding="utf-8").splitlines(), 450, tmp_path / "other.model")
    preprocess([corpus], open_tokenizer(tmp_path / "other.model"), tmp_path / "other", 32)
    done = pretrain(mixed(), tmp_path, f"data.sources.few.dataset_path={tmp_path}/other")
    refused(done, f"{tmp_path}/other: was made by another tokenizer")
