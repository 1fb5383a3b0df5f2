"""Names to values, where a duplicate raises and an unknown name suggests the nearest one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tp_ext.config import ModelConfig
from tp_ext.errors import ConfigError, suggest

if TYPE_CHECKING:
    from torch import nn

    from tp_ext.checkpoint.names import Table

T = TypeVar("T")


class Registry(Generic[T]):
    """Values by name, in the order they were registered."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._values: dict[str, T] = {}

    def register(self, name: str, value: T) -> T:
        """Give `value` a name. Raises ConfigError when the name is taken."""
        if name in self._values:
            raise ConfigError(f"{self._kind} '{name}' is already registered")
        self._values[name] = value
        return value

    def get(self, name: str) -> T:
        """The value of that name. Raises ConfigError that suggests the nearest name."""
        if name not in self._values:
            raise ConfigError(f"no {self._kind} named '{name}'.{suggest(name, self._values)}")
        return self._values[name]

    def names(self) -> list[str]:
        """All names."""
        return list(self._values)

    def __iter__(self) -> Iterator[T]:
        return iter(self._values.values())


@dataclass(frozen=True, kw_only=True)
class Family:
    """All that the rest of the library needs to know of a model family."""

    name: str
    """Also the name of its encoder in a TencentPretrain model JSON."""
    sizes: Mapping[str, ModelConfig]
    """Published sizes by their usual name, `llama-7b`."""
    matches: Callable[[ModelConfig], bool]
    """Whether a model JSON with the host's `encoder: transformer` describes this family."""
    build: Callable[[ModelConfig], nn.Module]
    """The model, uninitialised weights, on the current default device."""
    huggingface_class: str
    """`architectures` in a Hugging Face config.json."""
    huggingface_prefix: str
    """What all names but the head's begin with there; files of the headless model lack it (bigscience's BLOOM)."""
    from_huggingface: Callable[[Mapping[str, Any]], ModelConfig]
    """A Hugging Face config.json read as ours. Raises ConfigError on what this family cannot express."""
    to_huggingface: Callable[[ModelConfig], dict[str, Any]]
    """Our configuration as a Hugging Face config.json."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """Names of the weights in other formats."""


def family_of(families: Registry[Family], config: ModelConfig) -> Family:
    """The family of a configuration: named by `encoder`, or told by the fields of the host's `transformer`."""
    if config.encoder != "transformer":
        return families.get(config.encoder)
    for family in families:
        if family.matches(config):
            return family
    raise ConfigError(f"model: these fields describe none of the families known here: {', '.join(families.names())}")
