import pytest
import torch
from torch.nn import functional as F

from tp_ext.nn import attention
from tp_ext.nn.attention import attend
from tp_ext.nn.position import alibi_slopes


def heads(tokens, number, size=16, seed=0):
    return torch.randn(2, tokens, number, size, generator=torch.Generator().manual_seed(seed))


def written_out(query, key, value, slopes=None):
    """Attention as the formula says, in float64."""
    query, key, value = (x.double().transpose(1, 2) for x in (query, key, value))
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    place = torch.arange(query.shape[2])
    if slopes:
        scores = scores + torch.tensor(slopes).double()[:, None, None] * (place - place[:, None])
    scores = scores.masked_fill(place > place[:, None], float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
@pytest.mark.parametrize("slopes", [None, alibi_slopes(6)])
def test_attention_is_the_formula(kv_heads, slopes):
    query, key, value = heads(300, 6), heads(300, kv_heads, seed=1), heads(300, kv_heads, seed=2)
    difference = attend(query, key, value, slopes) - written_out(query, key, value, slopes)
    # a bias of 150 (slope 1/2, position 300) is known to float32 to 1e-5
    assert difference.abs().max() <= (3e-5 if slopes else 2e-6)


def test_alibi_columns_are_exact_enough_in_bfloat16():
    # positions beyond 256 have no exact bfloat16; without the split the bias of the steepest head would be off by 4
    query, key, value = (heads(900, 6, seed=seed).bfloat16() for seed in range(3))
    slopes = alibi_slopes(6)
    difference = attend(query, key, value, slopes).double() - written_out(query, key, value, slopes)
    assert difference.abs().max() <= 0.02


@pytest.mark.parametrize("slopes", [None, alibi_slopes(6)])
def test_training_builds_no_mask_and_repeats_no_heads(slopes, monkeypatch):
    seen = {}

    def spy(query, key, value, **settings):
        seen.update(settings, kv_heads=key.shape[1])
        return F.scaled_dot_product_attention(query, key, value, **settings)

    class Spied:
        scaled_dot_product_attention = staticmethod(spy)
        pad = staticmethod(F.pad)

    monkeypatch.setattr(attention, "F", Spied)
    attend(heads(8, 6), heads(8, 2), heads(8, 2), slopes)
    assert seen["attn_mask"] is None
    assert seen["is_causal"]
    assert seen["kv_heads"] == 2


@pytest.mark.parametrize("slopes", [None, alibi_slopes(4)])
def test_gradients_are_those_of_the_formula(slopes):
    inputs = [heads(20, number, seed=number).requires_grad_() for number in (4, 2, 2)]
    inputs[2] = heads(20, 2, seed=9).requires_grad_()
    found = torch.autograd.grad(attend(*inputs, slopes).square().sum(), inputs)
    expected = torch.autograd.grad(written_out(*inputs, slopes).square().sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
