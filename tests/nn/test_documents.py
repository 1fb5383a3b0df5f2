import pytest
import torch
from torch.nn import functional as F

from tp_ext.nn import attention
from tp_ext.nn.attention import attend, attend_within
from tp_ext.nn.documents import spans_of
from tp_ext.nn.position import Rotary, alibi_slopes

DOCUMENTS = torch.tensor([[1, 1, 1, 2, 3, 3, 3, 3], [1, 2, 2, 2, 2, 2, 2, 3]])


def heads(number, seed):
    return torch.randn(2, 8, number, 16, generator=torch.Generator().manual_seed(seed))


def test_spans_are_the_documents_of_each_row():
    spans = spans_of(DOCUMENTS)
    assert spans.lengths == [3, 1, 4, 1, 6, 1]
    assert spans.positions.tolist() == [[0, 1, 2, 0, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4, 5, 0]]
    assert spans_of(torch.ones(2, 3, dtype=torch.int32)).lengths == [3, 3]


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("slopes", [None, alibi_slopes(4)])
def test_attention_within_documents_is_that_of_each_alone(kv_heads, slopes):
    inputs = [heads(4, 0), heads(kv_heads, 1), heads(kv_heads, 2)]
    found = attend_within(*inputs, slopes, spans_of(DOCUMENTS))
    for row, first, stop in [(0, 0, 3), (0, 3, 4), (0, 4, 8), (1, 0, 1), (1, 1, 7), (1, 7, 8)]:
        alone = attend(*(one[row : row + 1, first:stop] for one in inputs), slopes)
        assert (found[row, first:stop] - alone[0]).abs().max() <= 1e-6


def test_attention_within_documents_builds_no_mask(monkeypatch):
    seen = []

    def spy(query, key, value, **settings):
        seen.append((query.shape[2], settings))
        return F.scaled_dot_product_attention(query, key, value, **settings)

    class Spied:
        scaled_dot_product_attention = staticmethod(spy)
        pad = staticmethod(F.pad)

    monkeypatch.setattr(attention, "F", Spied)
    attend_within(heads(4, 0), heads(2, 1), heads(2, 2), alibi_slopes(4), spans_of(DOCUMENTS))
    assert [length for length, _ in seen] == [3, 1, 4, 1, 6, 1]
    assert all(settings["is_causal"] and "attn_mask" not in settings for _, settings in seen)


def test_rotary_takes_a_position_for_each_token():
    rotary = Rotary(16, theta=10000.0)
    x = heads(4, 3)
    positions = spans_of(DOCUMENTS).positions
    turned = rotary(x, positions=positions)
    for row in range(2):
        for token in range(8):
            alone = rotary(x[row : row + 1, token : token + 1], start=int(positions[row, token]))
            assert torch.equal(turned[row, token], alone[0, 0])
