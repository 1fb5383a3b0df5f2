import json
import os
from pathlib import Path

import pytest
from conftest import BLOOM, LLAMA, tiny

from tp_ext.config import ModelConfig
from tp_ext.errors import ConfigError
from tp_ext.models import build, config_of, families
from tp_ext.registry import Registry, family_of

HOST_LLAMA = {
    "emb_size": 4096, "feedforward_size": 11008, "hidden_size": 4096, "hidden_act": "silu", "heads_num": 32,
    "layers_num": 32, "dropout": 0.0, "data_processor": "lm", "max_seq_length": 2048, "embedding": ["word"],
    "remove_transformer_bias": True, "remove_embedding_layernorm": True, "rotary_position_embedding": True,
    "encoder": "transformer", "feed_forward": "gated", "mask": "causal", "layernorm_positioning": "pre",
    "layernorm": "rms", "target": ["lm"],
}  # fmt: skip
HOST_BLOOM = {
    "emb_size": 1536, "feedforward_size": 6144, "hidden_size": 1536, "hidden_act": "gelu", "heads_num": 16,
    "layers_num": 24, "dropout": 0.0, "data_processor": "lm", "embedding": ["word"], "remove_transformer_bias": False,
    "has_lmtarget_bias": False, "remove_embedding_layernorm": True, "encoder": "transformer", "mask": "causal",
    "layernorm_positioning": "pre", "target": ["lm"], "tie_weights": True, "alibi_position_embedding": True,
    "layer_number_scale": True,
}  # fmt: skip


@pytest.mark.parametrize(("values", "family"), [(HOST_LLAMA, "llama"), (HOST_BLOOM, "bloom")])
def test_a_model_json_of_the_host_loads_as_it_is(values, family):
    config = ModelConfig.from_json(values)
    assert family_of(families, config).name == family
    for name, value in values.items():
        assert json.loads(json.dumps(getattr(config, name))) == value


def test_all_model_json_of_a_host_checkout_load():
    checkout = os.environ.get("TENCENTPRETRAIN")
    if not checkout:
        pytest.skip("TENCENTPRETRAIN does not point to a checkout")
    files = [file for folder in ("llama", "llama2", "bloom") for file in Path(checkout, "models", folder).glob("*.json")]
    assert len(files) >= 10
    for file in files:
        config = ModelConfig.read(file)
        assert family_of(families, config).name == file.parent.name.removesuffix("2")


def test_reading_what_was_written_gives_the_same():
    for config in (tiny(LLAMA, local_kv_heads_num=2, rope_theta=5e5), tiny(BLOOM)):
        assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_every_problem_is_told_at_once_with_the_nearest_name():
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_json({**LLAMA, "layer_num": 2, "heads_num": "4", "mask": "fully_visible"}, "models/x.json")
    message = str(error.value)
    assert "models/x.json: no setting named 'layer_num'. Did you mean 'layers_num'?" in message
    assert 'models/x.json.heads_num: expected a whole number, found "4"' in message
    assert "models/x.json.mask: 'fully_visible' is not one of 'causal'" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heads_num": 5}, "hidden_size 64 is not divisible by heads_num 5"),
        ({"local_kv_heads_num": 3}, "heads_num 4 is not divisible by local_kv_heads_num 3"),
        ({"rotary_position_embedding": False}, "does not know the order"),
        ({"emb_size": 32}, "emb_size 32 differs from hidden_size 64"),
        ({"layers_num": 0}, "layers_num is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"vocab_padding": -1}, "vocab_padding is -1"),
        ({"vocab_padding": 101}, r"vocab_padding is 101; it must be at least 0 and below vocab_size \(101\)"),
    ],
)
def test_contradictions_are_refused(changes, expected):
    with pytest.raises(ConfigError, match=expected):
        tiny(LLAMA, **changes)


def test_a_registry_refuses_a_second_value_and_suggests_a_near_name():
    registry = Registry("thing")
    registry.register("llama", 1)
    with pytest.raises(ConfigError, match="thing 'llama' is already registered"):
        registry.register("llama", 2)
    with pytest.raises(ConfigError, match="no thing named 'lama'. Did you mean 'llama'?"):
        registry.get("lama")
    assert registry.get("llama") == 1


def test_an_unknown_size_suggests_a_near_one():
    with pytest.raises(ConfigError, match="no model size named 'llama-7B'. Did you mean 'llama-7b'?"):
        config_of("llama-7B")


def test_a_model_without_a_vocabulary_says_so():
    with pytest.raises(ConfigError, match="vocab_size: unknown"):
        build(ModelConfig.from_json(LLAMA))
