"""Tiny random models of every shape, with tokenizers of their kind, in our own folder."""

import torch
from byte_level_bases import make_base
from conftest import BLOOM, LLAMA, tiny

from tp_ext.checkpoint.formats import open_model, write_trained
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.tokens.train import train_tokenizer

WIDE = {**LLAMA, "heads_num": 8, "feedforward_size": 128}
SHAPES = {
    "llama": WIDE,
    "groups": {**WIDE, "heads_num": 16, "local_kv_heads_num": 8, "layernorm_eps": 1e-5},
    "theta": {**WIDE, "rope_theta": 500000.0},
    "tied": {**WIDE, "tie_weights": True},
    "wide_heads": {**WIDE, "attention_head_size": 16},
    "bloom": {**BLOOM, "emb_size": 64, "hidden_size": 64, "feedforward_size": 256, "heads_num": 8},
    "bloom_untied": {**BLOOM, "heads_num": 8, "tie_weights": False},
}


def make_tokenizers(folder, corpus):
    """For LLaMA a sentencepiece model of 504 pieces, for BLOOM a byte-level one of 600."""
    train_tokenizer(corpus.read_text(encoding="utf-8").splitlines(), 504, folder / "tokenizer.model")
    return {"llama": open_tokenizer(folder / "tokenizer.model"), "bloom": open_tokenizer(make_base("bloom", folder, 600))}


def make_model(folder, shape, tokenizer, dtype=torch.float32, **changes):
    """A random model with its tokenizer in our own folder; norms and biases away from 1 and 0."""
    config = tiny(SHAPES[shape], vocab_size=tokenizer.vocab_size, **changes)
    shapes = {name: value.shape for name, value in build(config).named_parameters()}
    weights = ((name, (initial_weight(name, size, config, 3) + 0.05 * initial_weight(name + "x", size, config.replace(
        layers_num=1), 4) + 0.01).to(dtype)) for name, size in shapes.items())  # fmt: skip
    folder.mkdir()
    write_trained(folder, config, families, weights, dtype, tokenizer, {})
    return folder


def tensors(path):
    return dict(open_model(path, families).read())


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
