import pytest
import torch
from conftest import LLAMA, tiny
from torch.nn import functional as F

from tp_ext.models import build
from tp_ext.nn import loss as module
from tp_ext.nn.loss import IGNORED, OutputLayer, linear_cross_entropy


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setitem(module.CHUNK_ELEMENTS, "cpu", 7 * 101)  # 7 tokens at once, so that 50 give a remainder


def inputs(dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(50, 16, generator=generator) * scale).to(dtype).requires_grad_()
    layer = OutputLayer(16, 101).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(101, 16, generator=generator))
    targets = torch.randint(0, 101, (50,), generator=generator)
    targets[[3, 20, 49]] = IGNORED
    return hidden, layer, targets


def test_loss_and_gradients_are_those_of_whole_logits():
    hidden, layer, targets = inputs()
    loss = layer(hidden, targets)
    found = torch.autograd.grad(loss, [hidden, layer.weight])
    whole = F.cross_entropy(hidden.double() @ layer.weight.double().t(), targets, ignore_index=IGNORED)
    expected = torch.autograd.grad(whole, [hidden, layer.weight])
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-6 * other.abs().max() + 1e-9


def test_logits_far_apart_neither_overflow_nor_underflow():
    hidden, layer, targets = inputs(scale=300.0)
    whole = F.cross_entropy(hidden.double() @ layer.weight.double().t(), targets, ignore_index=IGNORED)
    assert layer(hidden, targets).item() == pytest.approx(whole.item(), rel=1e-6)


def test_the_loss_of_a_bfloat16_model_is_float32():
    hidden, layer, targets = inputs(torch.bfloat16)
    logits = (hidden.detach() @ layer.weight.detach().t()).float()
    loss = layer(hidden, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(F.cross_entropy(logits, targets, ignore_index=IGNORED).item(), rel=1e-6)
    loss.backward()
    exact = torch.autograd.grad(
        F.cross_entropy(hidden.detach().float() @ (weight := layer.weight.detach().float().requires_grad_()).t(), targets,
                        ignore_index=IGNORED), weight)[0]  # fmt: skip
    assert (layer.weight.grad - exact).norm() / exact.norm() <= 0.01


@pytest.mark.parametrize("tied", [False, True])
def test_padding_rows_have_no_logit_and_no_part_in_the_loss(tied):
    generator = torch.Generator().manual_seed(1)
    config = tiny(LLAMA, vocab_padding=9, tie_weights=tied)
    padded, plain = build(config), build(config.replace(vocab_size=92, vocab_padding=0))
    with torch.no_grad():
        for (name, one), other in zip(padded.named_parameters(), plain.parameters(), strict=True):
            one.copy_(torch.randn(one.shape, generator=generator))
            other.copy_(one[:92] if one.shape[0] == 101 else one)
            assert one.shape[0] != 101 or "embedding" in name or "output_layer" in name
    ids = torch.randint(0, 92, (2, 21), generator=generator)
    logits, fewer = padded(ids), plain(ids)
    assert logits.shape == (2, 21, 101)
    assert bool((logits[..., 92:] == float("-inf")).all())
    assert (logits[..., :92] - fewer).abs().max() <= 1e-6
    losses = [model(ids[:, :-1], ids[:, 1:]) for model in (padded, plain)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
    for loss in losses:
        loss.backward()
    for one, other in zip(padded.parameters(), plain.parameters(), strict=True):
        assert (one.grad[: len(other)] - other.grad).abs().max() <= 1e-6
        assert not one.grad[len(other) :].any()


def test_no_target_at_all_gives_zero():
    hidden, layer, targets = inputs()
    loss = layer(hidden, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert not layer.weight.grad.any()


def test_the_logits_of_all_tokens_never_exist_at_once(monkeypatch):
    hidden, layer, targets = inputs()
    sizes = []
    softmax = torch.softmax

    def spy(logits, *rest, **more):
        sizes.append(logits.numel())
        return softmax(logits, *rest, **more)

    monkeypatch.setattr(torch, "softmax", spy)
    layer(hidden, targets).backward()
    assert max(sizes) == 7 * 101
    assert len(sizes) == 7  # 47 counted targets in chunks of 7


def test_without_gradients_none_are_made():
    hidden, layer, targets = inputs()
    counted = targets != IGNORED
    with torch.no_grad():
        nats = linear_cross_entropy(hidden[counted], layer.weight, targets[counted])
    assert not nats.requires_grad
