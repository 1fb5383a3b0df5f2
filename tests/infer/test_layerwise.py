import math
from dataclasses import replace

import pytest
import torch
from conftest import BLOOM, LLAMA, make_texts, tiny

from tp_ext.checkpoint.formats import open_model, write_trained
from tp_ext.errors import CheckpointError, ConfigError, TokenizerError
from tp_ext.infer import layerwise, load
from tp_ext.infer.layerwise import bits_per_byte, leading_text, windows
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight

TEXTS = ["\n".join(make_texts(12, 4)), "the module returns a new list\n第一条 国务院应当依法公开统计资料。"]


def folder_of(folder, tokenizer, family, **changes):
    """A model folder with random weights large enough to have an opinion."""
    config = tiny({"vocab_size": tokenizer.vocab_size, **family}, **changes)
    names = dict(build(config).named_parameters())
    weights = ((name, initial_weight(name, value.shape, config, 5) * 3 + 0.02) for name, value in names.items())
    folder.mkdir()
    write_trained(folder, config, families, weights, torch.float32, tokenizer, {})
    return folder


def from_logits(model, windows):
    """Bits per byte of `windows` from the logits of the whole model."""
    nats = 0.0
    for ids in windows.ids:
        logits = model.logits(torch.tensor([ids[:-1]]))[0].double()
        nats -= logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum().item()
    return nats / math.log(2) / windows.text_bytes


@pytest.mark.parametrize(
    "family",
    [LLAMA, {**LLAMA, "local_kv_heads_num": 2}, {**LLAMA, "tie_weights": True}, BLOOM, {**BLOOM, "tie_weights": False},
     {**LLAMA, "vocab_size": 512, "vocab_padding": 12}, {**BLOOM, "vocab_size": 512, "vocab_padding": 12}],
)  # fmt: skip
def test_it_is_what_the_logits_of_the_whole_model_give(tmp_path, tokenizer, family):
    folder = folder_of(tmp_path / "m", tokenizer, family)
    model = load(folder, device="cpu")
    texts = [windows(text, tokenizer, 32) for text in TEXTS]
    found = bits_per_byte(open_model(folder, families), texts, "cpu")
    expected = [from_logits(model, text) for text in texts]
    assert found == pytest.approx(expected, abs=1e-5)
    assert abs(found[0] - found[1]) > 0.01


def test_one_layer_at_a_time_is_in_memory(tmp_path, tokenizer, monkeypatch):
    source = open_model(folder_of(tmp_path / "m", tokenizer, LLAMA, layers_num=6), families)
    models, most = [], []

    def spy(config):
        models.append(build(config))
        return models[-1]

    def read():
        for named in source.read():
            if models:
                most.append(sum(value.numel() for value in models[0].parameters() if not value.is_meta))
            yield named

    monkeypatch.setattr(layerwise, "build", spy)
    bits_per_byte(replace(source, read=read), [windows(TEXTS[1], tokenizer)], "cpu")
    assert max(most) == 0  # nothing is left when the next tensor is read
    assert len(most) == len(source.shapes)


def test_half_precision_weights_are_computed_in_float32(tmp_path, tokenizer):
    folder = folder_of(tmp_path / "m", tokenizer, LLAMA)
    source = open_model(folder, families)
    halved = {name: tensor.bfloat16() for name, tensor in source.read()}
    widened = {name: tensor.float() for name, tensor in halved.items()}
    text = [windows(TEXTS[0], tokenizer)]
    one = bits_per_byte(replace(source, read=lambda: iter(halved.items())), text, "cpu")
    other = bits_per_byte(replace(source, read=lambda: iter(widened.items())), text, "cpu")
    assert one == pytest.approx(other, abs=1e-7)


def test_windows_predict_every_token_once_and_count_the_bytes_of_the_text(tokenizer):
    text = "第一条 国务院 the module\nreturns 🙂"
    ids = tokenizer.encode(text)
    for length in (1, 7, len(ids) - 1, len(ids), 500):
        cut = windows(text, tokenizer, length)
        assert [token for run in cut.ids for token in run[1:]] == ids
        assert [run[0] for run in cut.ids] == [tokenizer.bos_id, *(run[-1] for run in cut.ids[:-1])]
        assert max(map(len, cut.ids)) <= length + 1
        assert cut.text_bytes == len(text.encode())


def test_a_text_needs_something_to_begin_with(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "bos_id", None)
    assert windows("a", tokenizer).ids[0][0] == tokenizer.eos_id
    monkeypatch.setattr(tokenizer, "eos_id", None)
    with pytest.raises(TokenizerError, match="neither bos nor eos"):
        windows("a", tokenizer)


def test_leading_text_is_whole_lines_up_to_the_budget(tokenizer):
    lines = make_texts(40, 7)
    for tokens in (30, 200, 500):
        text = leading_text(["\n".join(lines[:20]), "", "\n".join(lines[20:])], tokenizer, tokens)
        taken = text.split("\n")
        used = len(tokenizer.encode(text))
        assert used <= tokens
        if len(taken) > 1:
            assert taken == lines[: len(taken)]
            assert used + len(tokenizer.encode(lines[len(taken)])) + 2 > tokens
    assert leading_text(iter(lines), tokenizer, 1 << 20) == "\n".join(lines)


def test_a_first_line_beyond_the_budget_is_cut(tokenizer):
    text = leading_text(["国务院" * 5000, "never read"], tokenizer, 50)
    assert 20 <= len(tokenizer.encode(text)) <= 50
    assert ("国务院" * 5000).startswith(text)


@pytest.mark.parametrize("texts", [[], [""], ["\n \n"]])
def test_no_text_is_refused(tokenizer, texts):
    with pytest.raises(ConfigError, match="no line of text"):
        leading_text(texts, tokenizer, 10)


def test_a_loss_that_is_no_number_is_refused(tmp_path, tokenizer):
    source = open_model(folder_of(tmp_path / "m", tokenizer, LLAMA), families)
    weights = {name: tensor.clone() for name, tensor in source.read()}
    weights["encoder.layer_norm.weight"][0] = float("nan")
    with pytest.raises(CheckpointError, match="no finite number"):
        bits_per_byte(replace(source, read=lambda: iter(weights.items())), [windows("a b", tokenizer)], "cpu")
