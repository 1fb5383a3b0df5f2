"""The decoder stack all families share; its state-dict keys are TencentPretrain's."""

# B batch, T tokens, E model size, V vocabulary

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tp_ext.config import ModelConfig
from tp_ext.nn.attention import LayerCache, SelfAttention
from tp_ext.nn.documents import Spans, spans_of
from tp_ext.nn.lora import FIRST, SECOND
from tp_ext.nn.loss import IGNORED, OutputLayer
from tp_ext.nn.norm import LayerNorm, RMSNorm
from tp_ext.nn.position import Rotary


def make_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """The normalisation the configuration names."""
    kind = RMSNorm if config.layernorm == "rms" else LayerNorm
    return kind(config.hidden_size, config.layernorm_eps)


class DecoderLayer(nn.Module):
    """Pre-norm residual layer: attention, then feed-forward."""

    def __init__(self, config: ModelConfig, rotary: Rotary | None, feed_forward: nn.Module) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.self_attn = SelfAttention(
            config.hidden_size, config.heads_num, config.kv_heads, config.head_size,
            bias=not config.remove_transformer_bias, rotary=rotary,
        )  # fmt: skip
        self.feed_forward = feed_forward
        self.layer_norm_1 = make_norm(config)
        self.layer_norm_2 = make_norm(config)

    def forward(
        self, hidden: Tensor, keep: Tensor | None = None, cache: LayerCache | None = None, spans: Spans | None = None
    ) -> Tensor:
        """`hidden` [B, T, E] to the same shape; the others as in SelfAttention."""
        hidden = hidden + self._drop(self.self_attn(self.layer_norm_1(hidden), keep, cache, spans))
        return hidden + self._drop(self.feed_forward(self.layer_norm_2(hidden)))

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden


LayerMaker = Callable[[ModelConfig], Callable[[], DecoderLayer]]
"""From a configuration to a maker of its layers; what layers share is made once, in the outer call."""


class WordEmbedding(nn.Module):
    """Holds the table under the host's key `word.embedding`."""

    def __init__(self, rows: int, emb_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, emb_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows [B, T, E] of `ids` [B, T]."""
        rows: Tensor = self.embedding(ids)
        return rows


class Embedding(nn.Module):
    """Word embedding, with a layer norm unless the configuration removes it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word = WordEmbedding(config.rows, config.emb_size)
        self.layer_norm = None if config.remove_embedding_layernorm else LayerNorm(config.emb_size, config.layernorm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Hidden states [B, T, E] of `ids` [B, T]."""
        hidden: Tensor = self.word(ids)
        return self.layer_norm(hidden) if self.layer_norm else hidden


class Encoder(nn.Module):
    """The layers and the last norm."""

    def __init__(self, config: ModelConfig, maker: LayerMaker) -> None:
        super().__init__()
        make_layer = maker(config)
        self.transformer = nn.ModuleList(make_layer() for _ in range(config.layers_num))
        self.layer_norm = make_norm(config)
        self.checkpoint_every = 0
        """In training, so many layers keep their input only and are computed again in the backward pass; 0: all is kept."""

    def forward(
        self, hidden: Tensor, keep: Tensor | None, caches: list[LayerCache] | None, spans: Spans | None = None
    ) -> Tensor:
        """`hidden` [B, T, E] through all layers."""
        if self.checkpoint_every and self.training:
            for start in range(0, len(self.transformer), self.checkpoint_every):
                hidden = checkpoint(self._group, start, hidden, keep, spans, use_reentrant=False)
        else:
            for index, layer in enumerate(self.transformer):
                hidden = layer(hidden, keep, caches[index] if caches else None, spans)
        output: Tensor = self.layer_norm(hidden)
        return output

    def _group(self, start: int, hidden: Tensor, keep: Tensor | None, spans: Spans | None) -> Tensor:
        """`hidden` [B, T, E] through the layers of one group."""
        for layer in self.transformer[start : start + self.checkpoint_every]:
            hidden = layer(hidden, keep, None, spans)
        return hidden


class LmTarget(nn.Module):
    """Holds the output layer under the host's key."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.output_layer = OutputLayer(config.hidden_size, config.rows, config.vocab_padding)


class Target(nn.Module):
    """Holds the language-model head under the host's key `lm.output_layer`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lm = LmTarget(config)

    def forward(self, hidden: Tensor, targets: Tensor | None) -> Tensor:
        """Logits [B, T, V], or the mean loss of `targets` [B, T]."""
        output: Tensor = self.lm.output_layer(hidden, targets)
        return output


class Decoder(nn.Module):
    """A decoder-only language model."""

    def __init__(self, config: ModelConfig, maker: LayerMaker) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.encoder = Encoder(config, maker)
        self.target = Target(config)
        self.tie()

    def tie(self) -> None:
        """Make the output layer the word embedding, where the configuration says so."""
        if self.config.tie_weights:
            self.target.lm.output_layer.weight = self.embedding.word.embedding.weight

    def forward(
        self,
        src: Tensor,
        tgt: Tensor | None = None,
        seg: Tensor | None = None,
        documents: Tensor | None = None,
        keep: Tensor | None = None,
        caches: list[LayerCache] | None = None,
    ) -> Tensor:
        """Logits [B, T, V] of ids `src` [B, T]; given `tgt` [B, T], the mean cross entropy in nats, a float32 scalar.

        `seg` [B, T] is the host's: a target where it is 0 is padding and does not count. Given the number of each
        token's document, `documents` [B, T], a document knows nothing of the others in its row, as if it were alone.
        `keep` and `caches` are for generation.
        """
        spans = None if documents is None else spans_of(documents)
        hidden = self.encoder(self.embedding(src), keep, caches, spans)
        if tgt is not None and seg is not None:
            tgt = tgt.masked_fill(seg == 0, IGNORED)
        output: Tensor = self.target(hidden, tgt)
        return output


def initial_weight(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """The float32 weight a model trained from scratch starts with.

    Norms are 1 and 0, biases 0, matrices N(0, 0.02), those that write into the residual stream divided by
    sqrt(2 x layers) (GPT-2). Of LoRA's factors B is 0 and A uniform within 1 / sqrt(inputs), as in TencentPretrain and
    peft. Drawn by seed and name, so equal in every process and for every order of asking.
    """
    generator = torch.Generator().manual_seed(_seed_of(name, seed))
    if name.endswith((".bias", ".beta", f".{SECOND}")):
        return torch.zeros(shape)
    if name.endswith(f".{FIRST}"):
        return torch.empty(shape).uniform_(-1, 1, generator=generator) / math.sqrt(shape[1])
    if name.endswith(".gamma") or "layer_norm" in name:
        return torch.ones(shape)
    deviation = 0.02
    if name.endswith(("final_linear.weight", "linear_2.weight")):
        deviation /= (2 * config.layers_num) ** 0.5
    return torch.randn(shape, generator=generator) * deviation


def _seed_of(name: str, seed: int) -> int:
    digest = seed
    for byte in name.encode():
        digest = (digest * 1000003 ^ byte) & 0x7FFFFFFFFFFFFFFF
    return digest
