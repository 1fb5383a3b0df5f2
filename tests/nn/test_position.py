import pytest
import torch

from tp_ext.nn.position import Rotary, alibi_slopes


def test_slopes_of_powers_of_two_and_of_others():
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(6) == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert len(alibi_slopes(112)) == 112  # BLOOM-176B


def test_a_rotation_turns_interleaved_pairs_by_position_times_frequency():
    rotary = Rotary(4, theta=100.0)
    turned = rotary(torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(1, 3, 1, 1), start=5)
    for token in range(3):
        angles = torch.tensor([5.0 + token, (5.0 + token) / 10.0])
        expected = torch.stack([angles.cos(), angles.sin()], -1).flatten()
        assert (turned[0, token, 0] - expected).abs().max() <= 1e-6


def test_scores_depend_on_distance_only():
    rotary = Rotary(8, theta=10000.0)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    near = (rotary(query, 7) * rotary(key, 3)).sum()
    far = (rotary(query, 1007) * rotary(key, 1003)).sum()
    assert near.item() == pytest.approx(far.item(), abs=1e-4)


def test_the_gradient_is_the_rotation_back():
    rotary = Rotary(8, theta=10000.0)
    heads = torch.randn(2, 5, 3, 8, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(2, 5, 3, 8)
    (rotary(heads, 2) * weight).sum().backward()
    # <R x, w> = <x, R^T w>
    assert (heads.grad * heads).sum().item() == pytest.approx((rotary(heads, 2) * weight).sum().item(), rel=1e-4)
