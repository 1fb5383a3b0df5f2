"""Which weights a recipe's LoRA trains, and the model made ready for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from tp_ext.checkpoint.files import compare_names
from tp_ext.checkpoint.names import expand
from tp_ext.checkpoint.source import EMBEDDING, HEAD, Shapes, shapes_of
from tp_ext.config import ModelConfig
from tp_ext.errors import RecipeError, raise_all, suggest
from tp_ext.models import build, families
from tp_ext.models.decoder import Decoder
from tp_ext.nn.lora import FIRST, SECOND, LoraLinear
from tp_ext.registry import family_of
from tp_ext.train.recipe import LoraSection

ALSO = {"embedding": EMBEDDING, "lm_head": HEAD}
"""What can be trained whole beside the factors, by the name that a recipe gives it."""


@dataclass(frozen=True)
class Adapted:
    """What is trained of a model."""

    layers: tuple[str, ...]
    """Names of the linear layers that get factors."""
    whole: tuple[str, ...]
    """Names of the weights that are trained themselves."""
    rank: int
    alpha: float
    dropout: float

    def trains(self, name: str) -> bool:
        """Whether a parameter of the model is trained."""
        return is_factor(name) or name in self.whole

    @property
    def scale(self) -> float:
        """By which B A is multiplied."""
        return self.alpha / self.rank

    def to_json(self) -> dict[str, object]:
        """By what a checkpoint knows that it fits: all but the dropout, which may change between two steps."""
        return {"layers": list(self.layers), "whole": list(self.whole), "r": self.rank, "alpha": self.alpha}


def adapted_of(section: LoraSection, config: ModelConfig) -> Adapted:
    """What a recipe's LoRA trains of the model `config`. Raises RecipeError on names that it does not have."""
    names = layer_names(config)
    problems = []
    chosen = set()
    for target in section.target_modules:
        found = {layer for layer, known in names.items() if any(_is_end(target, name) for name in known)}
        if not found and target in ALSO:
            problems.append(f"target_modules: {target} is trained whole, not by factors; name it in also_train")
        elif not found:
            ends = {_last(name) for known in names.values() for name in known if not _last(name).isdigit()}
            problems.append(f"target_modules: the model has no linear layer called '{target}'.{suggest(target, ends)}")
        chosen |= found
    if config.tie_weights and len(section.also_train) == 1:
        problems.append(f"also_train: {section.also_train[0]} alone: the model's lm_head is its embedding (tie_weights), "
                        "so one cannot be trained without the other; name both, embedding and lm_head, or none")  # fmt: skip
    raise_all(RecipeError, [f"recipe.lora.{problem}" for problem in problems])
    own = ("embedding",) if config.tie_weights else tuple(ALSO)
    whole = tuple(ALSO[name] for name in own if name in section.also_train)
    layers = tuple(layer for layer in names if layer in chosen)
    return Adapted(layers, whole, section.r, section.alpha, section.dropout)


def layer_names(config: ModelConfig) -> dict[str, set[str]]:
    """Every linear layer inside the transformer by our name, with all its names: ours, Hugging Face's, Meta's.

    A group of layers has a name too: `linear_layers` are query, key and value.
    """
    family = family_of(families, config)
    matrices = [name for name, shape in shapes_of(family, config).items() if len(shape) == 2]
    layers = {_owner(name): {_owner(name)} for name in matrices if name.startswith("encoder.")}
    for layer, names in layers.items():
        if _last(layer).isdigit():
            names.add(layer.rpartition(".")[0])
    for table in (family.tables[key] for key in ("huggingface", "meta") if key in family.tables):
        for row in expand(table, config):
            for ours in row.ours:
                if ours.endswith(".weight") and _owner(ours) in layers:
                    layers[_owner(ours)].add(_owner(row.theirs))
    return layers


def _owner(weight: str) -> str:
    return weight.removesuffix(".weight")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_end(target: str, name: str) -> bool:
    return not target.isdigit() and f".{name}".endswith(f".{target}")


def adapt(model: Decoder, adapted: Adapted) -> None:
    """Give the layers their factors, on the device and in the type of the model; all that is not trained is frozen.

    What is frozen is left out of its state, see `leave_out_frozen`."""
    model.requires_grad_(False)
    for name in adapted.layers:
        parent, _, last = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(model.get_submodule(parent), last, LoraLinear(linear, adapted.rank, adapted.scale, adapted.dropout))
    for name in adapted.whole:
        model.get_parameter(name).requires_grad_(True)
    leave_out_frozen(model)


def adapted_shapes(config: ModelConfig, adapted: Adapted | None) -> Shapes:
    """Shapes of all parameters of a model in training, each once, LoRA's factors among them."""
    return {name: tuple(parameter.shape) for name, parameter in outline(config, adapted).named_parameters()}


def outline(config: ModelConfig, adapted: Adapted | None) -> Decoder:
    """The model in training without values."""
    with torch.device("meta"):
        model = build(config)
        if adapted:
            adapt(model, adapted)
    return model


def leave_out_frozen(model: nn.Module) -> None:
    """Let the state of a model be what is trained of it."""
    model.register_state_dict_post_hook(_leave_out_frozen)


def _leave_out_frozen(model: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """Keep what is trained, each once: DeepSpeed leaves a frozen embedding in under its second name, the head's."""
    trained = {prefix + name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name in set(state) - trained:
        del state[name]


def load_trained(src: Mapping[str, Tensor], dst: nn.Module) -> None:
    """Give a model what a checkpoint has of it, which must be all that is trained and nothing else.

    The names are those by which DeepSpeed calls it.
    """
    trained = {name: parameter for name, parameter in dst.named_parameters() if parameter.requires_grad}
    compare_names(src, trained, "the checkpoint", "the recipe's lora")
    for name, parameter in trained.items():
        with torch.no_grad():
            parameter.copy_(src[name])


@dataclass(frozen=True)
class Counts:
    """Parameters of a model in training, or of a process's share of it."""

    all: int
    trained: int
    multiplied: int
    """Those that are not trained, without an embedding that is only looked up in."""


@cache
def counts_of(config: ModelConfig, lora: LoraSection | None) -> Counts:
    """Parameters of a model, LoRA's factors among them; a tied output layer counts once."""
    model = outline(config, adapted_of(lora, config) if lora else None)
    return count(dict(model.named_parameters()), config)


def count(parameters: Mapping[str, nn.Parameter], config: ModelConfig) -> Counts:
    """The counts of some of a model's parameters, by their names."""
    frozen = {name: each.numel() for name, each in parameters.items() if not each.requires_grad}
    total = sum(each.numel() for each in parameters.values())
    looked_up = 0 if config.tie_weights else frozen.get(EMBEDDING, 0)
    return Counts(total, total - sum(frozen.values()), sum(frozen.values()) - looked_up)


def is_factor(name: str) -> bool:
    """Whether a parameter is one of LoRA's."""
    return name.endswith((f".{FIRST}", f".{SECOND}"))


def merged(weights: Iterable[tuple[str, Tensor]], adapted: Adapted) -> Iterator[tuple[str, Tensor]]:
    """The weights of an adapted model as those of a plain one: factors, which come after their weight, added to it."""
    held: dict[str, Tensor] = {}
    for name, tensor in weights:
        owner, _, kind = name.rpartition(".")
        if owner not in adapted.layers:
            yield name, tensor
            continue
        held[kind] = tensor.clone()
        if kind == SECOND:
            first, second, weight = held.pop(FIRST).float(), held.pop(SECOND).float(), held["weight"]
            held["weight"] = weight.float().addmm_(second, first, alpha=adapted.scale).to(weight.dtype)
            yield from ((f"{owner}.{each}", value) for each, value in held.items())
            held = {}
