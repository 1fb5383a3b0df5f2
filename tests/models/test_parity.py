"""Logits, gradients and the way back agree with transformers, feature by feature, on tiny random models."""

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM

from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.formats import open_model
from tp_ext.models import build, families

LLAMA = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 32003,
         "max_position_embeddings": 128}  # fmt: skip
CASES = {
    "heads": LlamaConfig(**LLAMA, num_key_value_heads=4),
    "groups": LlamaConfig(**LLAMA, num_key_value_heads=2, rms_norm_eps=1e-5),
    "one_group_and_theta": LlamaConfig(**LLAMA, num_key_value_heads=1, rope_theta=500000.0),
    "tied": LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "wide_heads": LlamaConfig(**LLAMA, head_dim=32),
    "bloom_4_heads": BloomConfig(hidden_size=64, n_head=4, n_layer=2, vocab_size=503),
    "bloom_6_heads": BloomConfig(hidden_size=48, n_head=6, n_layer=2, vocab_size=503),
    "bloom_8_heads": BloomConfig(hidden_size=64, n_head=8, n_layer=2, vocab_size=503),
}


def reference(config):
    torch.manual_seed(0)
    model = (LlamaForCausalLM if isinstance(config, LlamaConfig) else BloomForCausalLM)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # norms and biases away from 1 and 0, so that a forgotten one is seen
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture(params=CASES)
def pair(request, tmp_path):
    """transformers' model, ours with the weights converted from it, and the folders of the conversions."""
    theirs = reference(CASES[request.param])
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="300KB")
    convert(tmp_path / "hf", tmp_path / "native", "native", families)
    source = open_model(tmp_path / "native", families)
    ours = build(source.config)
    with torch.no_grad():
        for (name, parameter), (found, tensor) in zip(ours.named_parameters(), source.read(), strict=True):
            assert name == found
            parameter.copy_(tensor)
    return theirs, ours, tmp_path


def ids_for(model):
    return torch.randint(0, model.config.vocab_size, (2, 41), generator=torch.Generator().manual_seed(1))


def test_logits(pair):
    theirs, ours, _ = pair
    ids = ids_for(theirs)
    with torch.no_grad():
        expected = theirs(ids).logits
        assert (ours(ids) - expected).abs().max() <= 1e-5
    assert expected.abs().max() > 0.1


def test_logits_under_right_padding(pair):
    theirs, ours, _ = pair
    ids = ids_for(theirs)
    mask = torch.ones_like(ids)
    mask[0, 23:] = 0
    with torch.no_grad():
        difference = (ours(ids, keep=mask.bool()) - theirs(ids, attention_mask=mask).logits).abs()
    assert (difference * mask[..., None]).max() <= 1e-5


def test_gradients_of_one_step(pair, tmp_path):
    theirs, ours, _ = pair
    ids = ids_for(theirs)
    expected = theirs(ids, labels=ids).loss
    expected.backward()
    loss = ours(ids[:, :-1], ids[:, 1:])
    loss.backward()
    assert abs(loss.item() - expected.item()) <= 1e-5
    # their gradients under our names: through the same conversion, as if they were weights
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(tmp_path / "gradients")
    wanted = dict(open_model(tmp_path / "gradients", families).read())
    for name, parameter in ours.named_parameters():
        scale = wanted[name].abs().max().clamp(min=1e-6)
        # a key's bias moves all scores of a query alike, so its gradient is 0 but for rounding
        if name.endswith("linear_layers.1.bias"):
            assert parameter.grad.abs().max() <= 1e-6
            continue
        assert (parameter.grad - wanted[name]).abs().max() / scale <= 1e-5, name


def test_back_again_bit_for_bit(pair):
    theirs, _, folder = pair
    convert(folder / "native", folder / "tencentpretrain", "tencentpretrain", families)
    convert(folder / "tencentpretrain", folder / "back", "huggingface", families)
    back = type(theirs).from_pretrained(folder / "back").state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name
