"""The register of model families, one line each."""

from __future__ import annotations

from tp_ext.config import ModelConfig
from tp_ext.errors import ConfigError, suggest
from tp_ext.models.bloom import BLOOM
from tp_ext.models.decoder import Decoder
from tp_ext.models.llama import LLAMA
from tp_ext.registry import Family, Registry, family_of

families: Registry[Family] = Registry("model family")
families.register("llama", LLAMA)
families.register("bloom", BLOOM)


def config_of(size: str) -> ModelConfig:
    """The configuration of a published size, `llama-7b`. Raises ConfigError that suggests the nearest name."""
    sizes = {name: config for family in families for name, config in family.sizes.items()}
    if size not in sizes:
        raise ConfigError(f"no model size named '{size}'.{suggest(size, sizes)}")
    return sizes[size]


def build(config: ModelConfig) -> Decoder:
    """The model of a configuration, on the current default device, its weights not yet given."""
    model = family_of(families, config).build(config)
    assert isinstance(model, Decoder)
    return model
