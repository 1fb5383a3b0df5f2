"""Causal self-attention with key-value groups, rotary or ALiBi positions, and an optional cache."""

# B batch, T tokens of this call, S tokens to look at, H heads, K kv heads, D head size, E model size

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tp_ext.nn.documents import Spans
from tp_ext.nn.position import Rotary, alibi_slopes


class LayerCache:
    """Keys and values of one layer for the tokens seen so far; room for `length` tokens is taken at the first use."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._key = self._value = torch.empty(0)
        self.used = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add `key` and `value` [B, T, K, D]; all of them so far, [B, S, K, D]."""
        if self.used == 0:
            self._key = key.new_empty(key.shape[0], self._length, *key.shape[2:])
            self._value = torch.empty_like(self._key)
        stop = self.used + key.shape[1]
        self._key[:, self.used : stop] = key
        self._value[:, self.used : stop] = value
        self.used = stop
        return self._key[:, :stop], self._value[:, :stop]


class SelfAttention(nn.Module):
    """Attention of each token to itself and those before it.

    `linear_layers` are query, key and value. Exactly one of `rotary` and ALiBi gives the order of the tokens: without a
    `rotary` the heads get ALiBi's slopes.
    """

    def __init__(
        self, hidden_size: int, heads_num: int, kv_heads_num: int, head_size: int, bias: bool, rotary: Rotary | None
    ) -> None:
        super().__init__()
        self.head_size = head_size
        self.rotary = rotary
        self.slopes = None if rotary else alibi_slopes(heads_num)
        widths = (heads_num * head_size, kv_heads_num * head_size, kv_heads_num * head_size)
        self.linear_layers = nn.ModuleList(nn.Linear(hidden_size, width, bias=bias) for width in widths)
        self.final_linear = nn.Linear(heads_num * head_size, hidden_size, bias=bias)

    def forward(
        self, hidden: Tensor, keep: Tensor | None = None, cache: LayerCache | None = None, spans: Spans | None = None
    ) -> Tensor:
        """`hidden` [B, T, E] after attention, same shape.

        `keep` [B, S] is False for tokens nobody may look at (padding); S counts those in `cache` too. With `spans`, and
        then without the two others, every document is as if it were alone.
        """
        start = cache.used if cache else 0
        query, key, value = (layer(hidden).unflatten(-1, (-1, self.head_size)) for layer in self.linear_layers)
        if self.rotary:
            positions = spans.positions if spans else None
            query, key = self.rotary(query, start, positions), self.rotary(key, start, positions)
        if cache:
            key, value = cache.append(key, value)
        if spans:
            heads = attend_within(query, key, value, self.slopes, spans)
        else:
            heads = attend(query, key, value, self.slopes, keep)
        output: Tensor = self.final_linear(heads.flatten(-2))
        return output


def attend(
    query: Tensor, key: Tensor, value: Tensor, slopes: list[float] | None = None, keep: Tensor | None = None
) -> Tensor:
    """Causal attention of `query` [B, T, H, D] to `key` and `value` [B, S, K, D]; [B, T, H, D].

    The T queries are the last T of the S positions. Without `keep`, and with S = T, no mask and no bias of T x T
    elements is built.
    """
    size = query.shape[-1]
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # [B, H, T, D]
    mask, causal = None, False
    if keep is None and query.shape[2] == key.shape[2]:
        causal = True
        if slopes:
            place = torch.arange(query.shape[2], device=query.device)
            query, key, value = _with_alibi_columns(query, key, value, slopes, place)
    elif keep is not None or slopes or query.shape[2] > 1:
        mask = _mask(query, key.shape[2], slopes, keep)
    heads = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=size**-0.5, enable_gqa=query.shape[1] != key.shape[1]
    )
    return heads[..., :size].transpose(1, 2)


def attend_within(query: Tensor, key: Tensor, value: Tensor, slopes: list[float] | None, spans: Spans) -> Tensor:
    """Causal attention of `query` [B, T, H, D] to `key` and `value` [B, T, K, D] inside each document; [B, T, H, D].

    One document after the other goes through the kernel that a whole row would: no mask is built, and the work is that
    of the documents' squares instead of the row's.
    """
    size = query.shape[-1]
    shape = query.shape
    query, key, value = (heads.flatten(0, 1)[None].transpose(1, 2) for heads in (query, key, value))
    if slopes:
        query, key, value = _with_alibi_columns(query, key, value, slopes, spans.positions.flatten())
    grouped = query.shape[1] != key.shape[1]
    parts = zip(*(heads.split(spans.lengths, 2) for heads in (query, key, value)), strict=True)
    heads = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=size**-0.5, enable_gqa=grouped).transpose(1, 2)
        for q, k, v in parts
    ]
    return torch.cat(heads, 1)[..., :size].reshape(shape)


def _with_alibi_columns(
    query: Tensor, key: Tensor, value: Tensor, slopes: list[float], place: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """ALiBi as extra columns of the heads, whose inner product is slope x position of the key, which is `place` [T].

    The softmax does not see what is equal for all keys of a query, so slope x (j - i) and slope x j are the same bias;
    and slope x j is an inner product. So the fast causal kernels serve ALiBi too. Slope and position each stand as a
    high and a low part, exact enough in bfloat16; the columns are padded to 8, as the kernels like.
    """
    batch, heads, tokens, size = query.shape
    slope = torch.tensor(slopes, dtype=torch.float32, device=query.device) * size**0.5
    high = slope.to(query.dtype)
    low = (slope - high.float()).to(query.dtype)
    coarse, fine = (place // 256 * 256).to(query.dtype), (place % 256).to(query.dtype)
    empty = torch.zeros(heads, device=query.device, dtype=query.dtype)
    of_query = torch.stack([high, low, high, low] + [empty] * 4, -1)[:, None]  # [H, 1, 8]
    of_key = torch.stack([coarse, coarse, fine, fine] + [empty.new_zeros(tokens)] * 4, -1)  # [T, 8]
    return (
        torch.cat([query, of_query.expand(batch, heads, tokens, 8)], -1),
        torch.cat([key, of_key.expand(batch, key.shape[1], tokens, 8)], -1),
        F.pad(value, (0, 8)),
    )


def _mask(query: Tensor, length: int, slopes: list[float] | None, keep: Tensor | None) -> Tensor:
    """What may be looked at, [B or 1, 1, T, S] of bool; with slopes the bias of each head, [B or 1, H, T, S]."""
    device = query.device
    place = torch.arange(length, device=device)  # [S]
    own = place[length - query.shape[2] :, None]  # [T, 1]
    visible = (place <= own)[None, None]
    if keep is not None:
        # a padded token looks at itself, so that no row is empty
        visible = visible & (keep.bool()[:, None, None, :] | (place == own))
    if not slopes:
        return visible
    distance = (place - own).to(torch.float32)
    bias = torch.tensor(slopes, dtype=torch.float32, device=device)[:, None, None] * distance  # [H, T, S]
    return torch.where(visible, bias, float("-inf")).to(query.dtype)
