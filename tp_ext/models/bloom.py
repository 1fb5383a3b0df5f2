"""BLOOM: layer norm on the embedding, ALiBi, biases, dense tanh-gelu feed-forward, tied head (arXiv 2211.05100)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tp_ext.checkpoint.names import FUSED_HEADS, STACKED, Move, row
from tp_ext.config import ModelConfig
from tp_ext.errors import ConfigError, raise_all
from tp_ext.models.decoder import Decoder, DecoderLayer
from tp_ext.nn.feed_forward import DenseFeedForward
from tp_ext.registry import Family

_7B1 = ModelConfig(
    emb_size=4096, hidden_size=4096, feedforward_size=16384, heads_num=32, layers_num=30, vocab_size=250880,
    max_seq_length=2048, hidden_act="gelu_fast", layernorm_eps=1e-5, alibi_position_embedding=True, tie_weights=True,
    encoder="bloom",
)  # fmt: skip


def _sized(hidden: int, heads: int, layers: int) -> ModelConfig:
    return _7B1.replace(
        emb_size=hidden, hidden_size=hidden, feedforward_size=4 * hidden, heads_num=heads, layers_num=layers
    )


SIZES = {
    "bloom-560m": _sized(1024, 16, 24),
    "bloom-1b1": _sized(1536, 16, 24),
    "bloom-1b7": _sized(2048, 16, 24),
    "bloom-3b": _sized(2560, 32, 30),
    "bloom-7b1": _7B1,
    "bloom-176b": _sized(14336, 112, 70),
}

_LAYER, _PARTS = "encoder.transformer.{i}.", ("weight", "bias")


def _linear(ours: str, theirs: str) -> tuple[Any, ...]:
    return tuple(row(f"{_LAYER}{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias"))


def _norm(ours: str, theirs: str) -> tuple[Any, ...]:
    return row(f"{ours}.gamma", f"{theirs}.weight"), row(f"{ours}.beta", f"{theirs}.bias")


def _qkv(theirs: str, move: Move) -> tuple[Any, ...]:
    ours = {part: tuple(f"{_LAYER}self_attn.linear_layers.{which}.{part}" for which in range(3)) for part in _PARTS}
    return tuple(row(ours[part], f"{theirs}.{part}", move) for part in _PARTS)


HUGGINGFACE = (
    row("embedding.word.embedding.weight", "transformer.word_embeddings.weight"),
    *_norm("embedding.layer_norm",         "transformer.word_embeddings_layernorm"),
    *_norm(_LAYER + "layer_norm_1",        "transformer.h.{i}.input_layernorm"),
    *_qkv("transformer.h.{i}.self_attention.query_key_value", FUSED_HEADS),
    *_linear("self_attn.final_linear",     "transformer.h.{i}.self_attention.dense"),
    *_norm(_LAYER + "layer_norm_2",        "transformer.h.{i}.post_attention_layernorm"),
    *_linear("feed_forward.linear_1",      "transformer.h.{i}.mlp.dense_h_to_4h"),
    *_linear("feed_forward.linear_2",      "transformer.h.{i}.mlp.dense_4h_to_h"),
    *_norm("encoder.layer_norm",           "transformer.ln_f"),
    row("target.lm.output_layer.weight",   "lm_head.weight", when=lambda config: not config.tie_weights),
)  # fmt: skip

GGUF = (
    row("embedding.word.embedding.weight", "token_embd.weight"),
    *_norm("embedding.layer_norm",         "token_embd_norm"),
    *_norm(_LAYER + "layer_norm_1",        "blk.{i}.attn_norm"),
    *_qkv("blk.{i}.attn_qkv", STACKED),
    *_linear("self_attn.final_linear",     "blk.{i}.attn_output"),
    *_norm(_LAYER + "layer_norm_2",        "blk.{i}.ffn_norm"),
    *_linear("feed_forward.linear_1",      "blk.{i}.ffn_up"),
    *_linear("feed_forward.linear_2",      "blk.{i}.ffn_down"),
    *_norm("encoder.layer_norm",           "output_norm"),
    row("target.lm.output_layer.weight",   "output.weight", when=lambda config: not config.tie_weights),
)  # fmt: skip


def make_layers(config: ModelConfig) -> Callable[[], DecoderLayer]:
    """A maker of BLOOM layers."""
    sizes = (config.hidden_size, config.feedforward_size, config.hidden_act, not config.remove_transformer_bias)
    return lambda: DecoderLayer(config, None, DenseFeedForward(*sizes))


def matches(config: ModelConfig) -> bool:
    """Whether the host's fields describe a BLOOM."""
    return config.alibi_position_embedding and config.layernorm == "normal" and config.feed_forward == "dense"


def from_huggingface(values: Mapping[str, Any]) -> ModelConfig:
    """A `BloomForCausalLM` config.json as ours, of 2022 (`n_embed`) or later. Raises ConfigError on what we lack."""
    problems = []
    if values.get("apply_residual_connection_post_layernorm"):
        problems.append("apply_residual_connection_post_layernorm is not supported; no released BLOOM has it")
    if values.get("slow_but_exact") and values.get("pretraining_tp", 1) > 1:
        problems.append("slow_but_exact with pretraining_tp above 1 is not supported; set slow_but_exact to false")
    raise_all(ConfigError, [f"config.json: {problem}" for problem in problems])
    hidden = next(values[key] for key in ("hidden_size", "n_embed", "n_embd") if key in values)
    heads = next(values[key] for key in ("n_head", "num_attention_heads") if key in values)
    layers = next(values[key] for key in ("n_layer", "num_hidden_layers") if key in values)
    return _sized(hidden, heads, layers).replace(
        vocab_size=values["vocab_size"], layernorm_eps=values.get("layer_norm_epsilon", 1e-5),
        max_seq_length=values.get("seq_length", 2048), tie_weights=values.get("tie_word_embeddings", True),
    )  # fmt: skip


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """Our configuration as a `BloomForCausalLM` config.json."""
    problems = []
    if config.feedforward_size != 4 * config.hidden_size:
        problems.append(f"feedforward_size {config.feedforward_size} is not 4 x hidden_size")
    if config.hidden_act != "gelu_fast":
        problems.append(f"hidden_act is {config.hidden_act!r}; Hugging Face's BLOOM always has the tanh form, gelu_fast")
    if config.remove_embedding_layernorm or config.remove_transformer_bias:
        problems.append("Hugging Face's BLOOM always has the embedding's layer norm and biases")
    raise_all(ConfigError, [f"model: cannot be written as BloomForCausalLM: {problem}" for problem in problems])
    return {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "hidden_size": config.hidden_size,
        "n_head": config.heads_num,
        "n_layer": config.layers_num,
        "vocab_size": config.rows,
        "layer_norm_epsilon": config.layernorm_eps,
        "seq_length": config.max_seq_length,
        "apply_residual_connection_post_layernorm": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_weights,
    }


BLOOM = Family(
    name="bloom", sizes=SIZES, matches=matches, build=lambda config: Decoder(config, make_layers),
    huggingface_class="BloomForCausalLM", huggingface_prefix="transformer.",
    from_huggingface=from_huggingface, to_huggingface=to_huggingface,
    tables={"huggingface": HUGGINGFACE, "gguf": GGUF},
)  # fmt: skip
