"""Rows that stand for no piece, in a run."""

import json

import pytest
import torch
from conftest import LLAMA, metrics, pretrain, tiny

from tp_ext.checkpoint.formats import open_model, write_trained
from tp_ext.checkpoint.source import EMBEDDING, HEAD
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight


def folder_of(folder, tokenizer, padding):
    """A native folder whose first rows do not depend on the padding after them."""
    config = tiny(LLAMA, vocab_size=500 + padding, vocab_padding=padding)
    shapes = {name: value.shape for name, value in build(config.replace(vocab_size=500, vocab_padding=0)).named_parameters()}
    weights = {name: initial_weight(name, shape, config, 0) for name, shape in shapes.items()}
    for name in (EMBEDDING, HEAD):
        weights[name] = torch.cat([weights[name], weights[name].mean(0).expand(padding, -1)])
    folder.mkdir()
    write_trained(folder, config, families, iter(weights.items()), torch.float32, tokenizer, {})
    return folder


@pytest.mark.parametrize("zero", [1, 3])
def test_a_run_goes_as_if_they_were_not_there_and_keeps_them(recipe, tokenizer, tmp_path, zero):
    losses = []
    for padding in (0, 12):
        start = folder_of(tmp_path / f"from{padding}", tokenizer, padding)
        values = recipe(model__config=None, model__pretrained_model_path=str(start), parallel__zero=zero,
                        train__total_steps=4, train__output_model_path=str(tmp_path / str(padding)))  # fmt: skip
        done = pretrain(values, tmp_path)
        assert done.returncode == 0, done.stderr
        losses.append(metrics(tmp_path / str(padding), "loss"))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0][-1] < losses[0][0]
    written = open_model(tmp_path / "12" / "model", families)
    assert (written.config.rows, written.config.vocab_padding) == (512, 12)
    before, after = (dict(open_model(folder, families).read())[HEAD] for folder in (start, written.path))
    assert not torch.equal(before[:500], after[:500])
    turn = torch.cosine_similarity(before[500:], after[500:])  # no gradient; weight decay may shorten them
    assert (turn - 1).abs().max() <= 1e-5
    assert json.loads((tmp_path / "12" / "model" / "config.json").read_text())["vocab_padding"] == 12
