"""Documents packed into one row with the document mask are as if each were alone."""

import pytest
import torch
from conftest import BLOOM, LLAMA, tiny
from test_decoder import started

FAMILIES = [LLAMA, {**LLAMA, "local_kv_heads_num": 2}, BLOOM]
LENGTHS = [[30, 1, 69], [50, 50, 0]]


def packed(seed=0):
    """Ids, targets and document numbers [2, 100]."""
    ids = torch.randint(0, 101, (2, 101), generator=torch.Generator().manual_seed(seed))
    numbers = torch.stack([torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)) for lengths in LENGTHS])
    return ids[:, :-1], ids[:, 1:], numbers


def alone(*arrays):
    """The documents of `packed` as rows of their own."""
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for length in lengths:
            if length:
                yield [array[row : row + 1, start : start + length] for array in arrays]
            start += length


def weighty(family):
    """A model whose attention matters: fresh weights are so small that it hardly does."""
    model = started(tiny(family))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter *= 5
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_each_document_alone(family):
    model = weighty(family).eval()
    src, _, numbers = packed()
    with torch.no_grad():
        found = model(src, documents=numbers)
        unmasked = model(src)
        for ids, logits in alone(src, found):
            expected = model(ids)
            assert (logits - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
        first = next(alone(found, unmasked))
        assert (first[0] - first[1]).abs().max() <= 1e-4
        assert (found[0, 31:] - unmasked[0, 31:]).abs().max() > 0.1


@pytest.mark.parametrize("checkpointed", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_each_document_alone(family, checkpointed):
    model = weighty(family).train()
    model.encoder.checkpoint_every = checkpointed
    src, tgt, numbers = packed()
    model(src, tgt, torch.ones_like(src), numbers).backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.encoder.checkpoint_every = 0
    for ids, targets in alone(src, tgt):
        (model(ids, targets) * ids.numel() / src.numel()).backward()
    for (name, parameter), gradient in zip(model.named_parameters(), found, strict=True):
        assert (gradient - parameter.grad).abs().max() <= 1e-5 * max(1.0, parameter.grad.abs().max().item()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_another_document_says_changes_no_bit(family):
    model = weighty(family).eval()
    src, _, numbers = packed()
    other = torch.where(numbers == 2, (src + 1) % 101, src)
    with torch.no_grad():
        one, two = model(src, documents=numbers), model(other, documents=numbers)
    assert torch.equal(one[numbers != 2], two[numbers != 2])
