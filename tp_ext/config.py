"""The numbers of a model, under TencentPretrain's names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tp_ext.errors import ConfigError, raise_all
from tp_ext.settings import build, read_json


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer. Field names are those of TencentPretrain's model JSON.

    `rope_theta`, `vocab_size` and `vocab_padding` are this library's own additions: the host fixes the first at 10000,
    takes the second from the tokenizer and has none of the third.
    """

    emb_size: int
    """Width of the word embedding; equal to `hidden_size`."""
    hidden_size: int
    """Width of the residual stream."""
    feedforward_size: int
    """Width inside the feed-forward layer."""
    heads_num: int
    """Query heads."""
    layers_num: int
    """Transformer layers."""
    vocab_size: int | None = None
    """Rows of the embedding; None until a tokenizer or a checkpoint says."""
    vocab_padding: int = 0
    """How many of these rows, the last ones, stand for no piece and only fill the table up."""
    local_kv_heads_num: int | None = None
    """Key and value heads; None means as many as query heads."""
    attention_head_size: int | None = None
    """Width of one head; None means hidden_size / heads_num."""
    max_seq_length: int = 2048
    """Longest sequence the model was made for, in tokens."""
    hidden_act: Literal["silu", "gelu", "gelu_fast", "relu"] = "gelu"
    """Activation of the feed-forward layer; `gelu_fast` is the tanh form."""
    feed_forward: Literal["dense", "gated"] = "dense"
    layernorm: Literal["normal", "rms"] = "normal"
    layernorm_eps: float = 1e-6
    layernorm_positioning: Literal["pre"] = "pre"
    rotary_position_embedding: bool = False
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    alibi_position_embedding: bool = False
    layer_number_scale: bool = False
    """Divides the scores by the layer's number and multiplies them back before the softmax: no effect on the result."""
    remove_transformer_bias: bool = False
    remove_embedding_layernorm: bool = False
    tie_weights: bool = False
    """The output layer is the word embedding."""
    has_lmtarget_bias: Literal[False] = False
    dropout: float = 0.0
    embedding: tuple[Literal["word"], ...] = ("word",)
    encoder: str = "transformer"
    """A family's name, or the host's `transformer`, from which the family is told by the other fields."""
    mask: Literal["causal"] = "causal"
    target: tuple[Literal["lm"], ...] = ("lm",)
    data_processor: Literal["lm"] = "lm"

    def __post_init__(self) -> None:
        raise_all(ConfigError, [f"model: {problem}" for problem in self._contradictions()])

    def _contradictions(self) -> list[str]:
        problems = []
        positive = ["emb_size", "hidden_size", "feedforward_size", "heads_num", "layers_num", "max_seq_length",
                    "vocab_size", "local_kv_heads_num", "attention_head_size", "rope_theta", "layernorm_eps"]
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                problems.append(f"{name} is {value}; it must be above 0")
        if problems:
            return problems
        if self.vocab_padding < 0 or (self.vocab_size is not None and self.vocab_padding >= self.vocab_size):
            problems.append(f"vocab_padding is {self.vocab_padding}; it must be at least 0 and below vocab_size "
                            f"({self.vocab_size})")
        if self.emb_size != self.hidden_size:
            problems.append(f"emb_size {self.emb_size} differs from hidden_size {self.hidden_size}; "
                            "a factorized embedding is not supported")
        if self.attention_head_size is None and self.hidden_size % self.heads_num:
            problems.append(f"hidden_size {self.hidden_size} is not divisible by heads_num {self.heads_num}")
        if self.heads_num % self.kv_heads:
            problems.append(f"heads_num {self.heads_num} is not divisible by local_kv_heads_num {self.kv_heads}")
        if self.rotary_position_embedding == self.alibi_position_embedding:
            problems.append("set exactly one of rotary_position_embedding and alibi_position_embedding to true; "
                            "a model without either does not know the order of its words")
        if self.rotary_position_embedding and self.head_size % 2:
            problems.append(f"rotary positions need an even head size, found {self.head_size}")
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        return problems

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.local_kv_heads_num or self.heads_num

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.attention_head_size or self.hidden_size // self.heads_num

    @property
    def rows(self) -> int:
        """Rows of the embedding. Raises ConfigError while `vocab_size` is unknown."""
        if self.vocab_size is None:
            raise ConfigError("model.vocab_size: unknown; give it in the model's JSON or a tokenizer to take it from")
        return self.vocab_size

    @property
    def pieces(self) -> int:
        """Rows that stand for a piece of the tokenizer. Raises ConfigError while `vocab_size` is unknown."""
        return self.rows - self.vocab_padding

    def replace(self, **changes: Any) -> ModelConfig:
        """The same configuration with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Every field that differs from its default, and the sizes, as JSON values."""
        required = {"emb_size", "hidden_size", "feedforward_size", "heads_num", "layers_num"}
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in required or value != field.default or field.name in _HOST_NEEDS:
                values[field.name] = list(value) if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "model") -> ModelConfig:
        """A configuration from TencentPretrain's model JSON. Raises ConfigError listing every problem."""
        problems: list[str] = []
        config = build(cls, values, where, problems)
        raise_all(ConfigError, problems)
        assert config is not None
        return config

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """A configuration from a JSON file."""
        return cls.from_json(read_json(path), str(path))


_HOST_NEEDS = {"embedding", "encoder", "mask", "target", "data_processor", "layernorm_positioning", "dropout",
               "max_seq_length", "layernorm", "feed_forward", "hidden_act", "layernorm_eps"}
"""Fields whose default differs in the host, so that its reading of our JSON is ours."""
