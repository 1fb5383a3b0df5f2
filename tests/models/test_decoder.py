import pytest
import torch
from conftest import BLOOM, LLAMA, tiny

from tp_ext.models import build
from tp_ext.models.decoder import initial_weight
from tp_ext.nn.attention import LayerCache


def started(config, seed=0):
    model = build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial_weight(name, parameter.shape, config, seed))
    return model


@pytest.mark.parametrize("family", [LLAMA, BLOOM])
def test_from_scratch_norms_are_neutral_and_residual_projections_scaled(family):
    config = tiny(family, layers_num=8, vocab_size=4000)
    model = started(config)
    for name, parameter in model.named_parameters():
        if name.endswith((".bias", ".beta")):
            assert not parameter.any()
        elif "layer_norm" in name:
            assert bool((parameter == 1).all())
        else:
            residual = name.endswith(("final_linear.weight", "linear_2.weight"))
            expected = 0.02 / (4 if residual else 1)  # sqrt(2 x 8 layers) = 4
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name


def test_initial_weights_depend_on_seed_and_name_alone():
    config = tiny(LLAMA)
    shape = torch.Size([8, 8])
    first = initial_weight("a.weight", shape, config, 1)
    assert torch.equal(first, initial_weight("a.weight", shape, config, 1))
    assert not torch.equal(first, initial_weight("b.weight", shape, config, 1))
    assert not torch.equal(first, initial_weight("a.weight", shape, config, 2))


@pytest.mark.parametrize("family", [LLAMA, {**LLAMA, "local_kv_heads_num": 1}, BLOOM])
def test_cached_logits_are_the_uncached_ones(family):
    model = started(tiny(family)).eval()
    ids = torch.randint(0, 101, (2, 19))
    keep = torch.ones(2, 19, dtype=torch.bool)
    keep[1, :4] = False  # a shorter prompt, padded on the left
    with torch.no_grad():
        whole = model(ids, keep=keep)
        caches = [LayerCache(19) for _ in model.encoder.transformer]
        steps = [model(ids[:, :7], keep=keep[:, :7], caches=caches), model(ids[:, 7:12], keep=keep[:, :12], caches=caches)]
        steps += [model(ids[:, i : i + 1], keep=keep[:, : i + 1], caches=caches) for i in range(12, 19)]
    difference = (torch.cat(steps, 1) - whole).abs()[keep]
    assert difference.max() <= 1e-5


@pytest.mark.parametrize("family", [LLAMA, BLOOM])
def test_left_padding_changes_nothing(family):
    model = started(tiny(family)).eval()
    ids = torch.randint(0, 101, (1, 11))
    padded = torch.cat([torch.zeros(1, 6, dtype=torch.long), ids], 1)
    keep = torch.arange(17)[None] >= 6
    with torch.no_grad():
        assert (model(padded, keep=keep)[:, 6:] - model(ids)).abs().max() <= 1e-5


@pytest.mark.parametrize("family", [LLAMA, BLOOM])
def test_recomputed_activations_give_the_same_gradients(family):
    gradients, inputs = [], []
    for every in (0, 1, 2, 5, 9):
        model = started(tiny(family, layers_num=5)).train()
        model.encoder.checkpoint_every = every
        ids = torch.arange(34).view(2, 17)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=kept: kept.append(1) or tensor, lambda each: each):
            loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        inputs.append(len(kept))
    for found in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], found, strict=True))
    assert inputs[0] > inputs[1] > inputs[2] > inputs[3] == inputs[4]


def test_a_padded_target_has_no_part_in_loss_and_gradient():
    model = started(tiny(LLAMA))
    ids = torch.randint(0, 101, (1, 13))
    seg = torch.ones(1, 12, dtype=torch.long)
    seg[0, 8:] = 0
    loss = model(ids[:, :-1], ids[:, 1:], seg)
    loss.backward()
    padded = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    alone = model(ids[:, :8], ids[:, 1:9])
    alone.backward()
    assert loss.item() == pytest.approx(alone.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        assert (parameter.grad - padded[name]).abs().max() <= 1e-6 * parameter.grad.abs().max(), name


def test_the_effect_of_dropout_is_in_training_only():
    model = started(tiny(LLAMA, dropout=0.5))
    ids = torch.arange(10)[None]
    assert not torch.equal(model.train()(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))
