"""LLaMA: RMS norm, rotary positions, gated feed-forward, key-value groups (Touvron et al. 2023, arXiv 2302.13971)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tp_ext.checkpoint.names import ROTARY_PAIRS, row
from tp_ext.config import ModelConfig
from tp_ext.errors import ConfigError, raise_all
from tp_ext.models.decoder import Decoder, DecoderLayer
from tp_ext.nn.feed_forward import GatedFeedForward
from tp_ext.nn.position import Rotary
from tp_ext.registry import Family

_7B = ModelConfig(
    emb_size=4096, hidden_size=4096, feedforward_size=11008, heads_num=32, layers_num=32, vocab_size=32000,
    max_seq_length=2048, hidden_act="silu", feed_forward="gated", layernorm="rms", layernorm_eps=1e-6,
    rotary_position_embedding=True, remove_transformer_bias=True, remove_embedding_layernorm=True, encoder="llama",
)  # fmt: skip
_13B = _7B.replace(emb_size=5120, hidden_size=5120, feedforward_size=13824, heads_num=40, layers_num=40)
_33B = _7B.replace(emb_size=6656, hidden_size=6656, feedforward_size=17920, heads_num=52, layers_num=60)
_65B = _7B.replace(emb_size=8192, hidden_size=8192, feedforward_size=22016, heads_num=64, layers_num=80)
_SECOND = {"max_seq_length": 4096, "layernorm_eps": 1e-5}
_THIRD = {"max_seq_length": 8192, "layernorm_eps": 1e-5, "rope_theta": 500000.0, "vocab_size": 128256}

SIZES = {
    "llama-7b": _7B,
    "llama-13b": _13B,
    "llama-33b": _33B,
    "llama-65b": _65B,
    "llama2-7b": _7B.replace(**_SECOND),
    "llama2-13b": _13B.replace(**_SECOND),
    "llama2-70b": _65B.replace(**_SECOND, feedforward_size=28672, local_kv_heads_num=8),
    "llama3-8b": _7B.replace(**_THIRD, feedforward_size=14336, local_kv_heads_num=8),
}

HUGGINGFACE = (
    row("embedding.word.embedding.weight",                       "model.embed_tokens.weight"),
    row("encoder.transformer.{i}.self_attn.linear_layers.0.weight", "model.layers.{i}.self_attn.q_proj.weight",
        ROTARY_PAIRS),
    row("encoder.transformer.{i}.self_attn.linear_layers.1.weight", "model.layers.{i}.self_attn.k_proj.weight",
        ROTARY_PAIRS),
    row("encoder.transformer.{i}.self_attn.linear_layers.2.weight", "model.layers.{i}.self_attn.v_proj.weight"),
    row("encoder.transformer.{i}.self_attn.final_linear.weight",    "model.layers.{i}.self_attn.o_proj.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_gate.weight",  "model.layers.{i}.mlp.gate_proj.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_1.weight",     "model.layers.{i}.mlp.up_proj.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_2.weight",     "model.layers.{i}.mlp.down_proj.weight"),
    row("encoder.transformer.{i}.layer_norm_1.weight",              "model.layers.{i}.input_layernorm.weight"),
    row("encoder.transformer.{i}.layer_norm_2.weight",              "model.layers.{i}.post_attention_layernorm.weight"),
    row("encoder.layer_norm.weight",                                "model.norm.weight"),
    row("target.lm.output_layer.weight",                            "lm_head.weight",
        when=lambda config: not config.tie_weights),
)  # fmt: skip

META = (
    row("embedding.word.embedding.weight",                       "tok_embeddings.weight"),
    row("encoder.transformer.{i}.self_attn.linear_layers.0.weight", "layers.{i}.attention.wq.weight"),
    row("encoder.transformer.{i}.self_attn.linear_layers.1.weight", "layers.{i}.attention.wk.weight"),
    row("encoder.transformer.{i}.self_attn.linear_layers.2.weight", "layers.{i}.attention.wv.weight"),
    row("encoder.transformer.{i}.self_attn.final_linear.weight",    "layers.{i}.attention.wo.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_gate.weight",  "layers.{i}.feed_forward.w1.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_1.weight",     "layers.{i}.feed_forward.w3.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_2.weight",     "layers.{i}.feed_forward.w2.weight"),
    row("encoder.transformer.{i}.layer_norm_1.weight",              "layers.{i}.attention_norm.weight"),
    row("encoder.transformer.{i}.layer_norm_2.weight",              "layers.{i}.ffn_norm.weight"),
    row("encoder.layer_norm.weight",                                "norm.weight"),
    row("target.lm.output_layer.weight",                            "output.weight",
        when=lambda config: not config.tie_weights),
)  # fmt: skip

GGUF = (
    row("embedding.word.embedding.weight",                       "token_embd.weight"),
    row("encoder.transformer.{i}.self_attn.linear_layers.0.weight", "blk.{i}.attn_q.weight"),
    row("encoder.transformer.{i}.self_attn.linear_layers.1.weight", "blk.{i}.attn_k.weight"),
    row("encoder.transformer.{i}.self_attn.linear_layers.2.weight", "blk.{i}.attn_v.weight"),
    row("encoder.transformer.{i}.self_attn.final_linear.weight",    "blk.{i}.attn_output.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_gate.weight",  "blk.{i}.ffn_gate.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_1.weight",     "blk.{i}.ffn_up.weight"),
    row("encoder.transformer.{i}.feed_forward.linear_2.weight",     "blk.{i}.ffn_down.weight"),
    row("encoder.transformer.{i}.layer_norm_1.weight",              "blk.{i}.attn_norm.weight"),
    row("encoder.transformer.{i}.layer_norm_2.weight",              "blk.{i}.ffn_norm.weight"),
    row("encoder.layer_norm.weight",                                "output_norm.weight"),
    row("target.lm.output_layer.weight",                            "output.weight",
        when=lambda config: not config.tie_weights),
)  # fmt: skip


def make_layers(config: ModelConfig) -> Callable[[], DecoderLayer]:
    """A maker of LLaMA layers that share one table of rotations."""
    rotary = Rotary(config.head_size, config.rope_theta)
    sizes = (config.hidden_size, config.feedforward_size, config.hidden_act, not config.remove_transformer_bias)
    return lambda: DecoderLayer(config, rotary, GatedFeedForward(*sizes))


def matches(config: ModelConfig) -> bool:
    """Whether the host's fields describe a LLaMA."""
    return config.rotary_position_embedding and config.layernorm == "rms" and config.feed_forward == "gated"


def from_huggingface(values: Mapping[str, Any]) -> ModelConfig:
    """A `LlamaForCausalLM` config.json as ours. Raises ConfigError on what would change the result unnoticed."""
    rope = values.get("rope_parameters") or {}
    scaling = rope if rope.get("rope_type", "default") != "default" else values.get("rope_scaling")
    problems = []
    if scaling:
        problems.append(f"rope scaling {scaling} is not supported; only plain rotary positions are")
    thetas = [each["rope_theta"] for each in (rope, values) if each.get("rope_theta") is not None]
    if len(thetas) == 2 and thetas[0] != thetas[1]:
        problems.append(f"rope_theta is {thetas[0]} in rope_parameters and {thetas[1]} beside them; keep the right one")
    if values.get("attention_bias") or values.get("mlp_bias"):
        problems.append("attention_bias and mlp_bias are not supported; LLaMA has no biases")
    if values.get("hidden_act", "silu") != "silu":
        problems.append(f"hidden_act is {values['hidden_act']!r}; LLaMA's is 'silu'")
    raise_all(ConfigError, [f"config.json: {problem}" for problem in problems])
    kv_heads = values.get("num_key_value_heads")
    head_size = values.get("head_dim")
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    return _7B.replace(
        emb_size=hidden, hidden_size=hidden, feedforward_size=values["intermediate_size"], heads_num=heads,
        layers_num=values["num_hidden_layers"], vocab_size=values["vocab_size"],
        local_kv_heads_num=None if kv_heads == heads else kv_heads,
        attention_head_size=None if head_size == hidden // heads else head_size,
        max_seq_length=values.get("max_position_embeddings", 2048), layernorm_eps=values.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta", values.get("rope_theta", 10000.0))),
        tie_weights=values.get("tie_word_embeddings", False),
    )  # fmt: skip


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """Our configuration as a `LlamaForCausalLM` config.json, readable by transformers 4 and 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.feedforward_size,
        "num_attention_heads": config.heads_num,
        "num_key_value_heads": config.kv_heads,
        "num_hidden_layers": config.layers_num,
        "head_dim": config.head_size,
        "vocab_size": config.rows,
        "max_position_embeddings": config.max_seq_length,
        "rms_norm_eps": config.layernorm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_weights,
    }


LLAMA = Family(
    name="llama", sizes=SIZES, matches=matches, build=lambda config: Decoder(config, make_layers),
    huggingface_class="LlamaForCausalLM", huggingface_prefix="model.",
    from_huggingface=from_huggingface, to_huggingface=to_huggingface,
    tables={"huggingface": HUGGINGFACE, "meta": META, "gguf": GGUF},
)  # fmt: skip
