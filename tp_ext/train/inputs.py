"""What a recipe names, opened and compared before anything is trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.formats import open_model
from tp_ext.checkpoint.shards import check_degree
from tp_ext.checkpoint.source import Source, shapes_of
from tp_ext.config import ModelConfig
from tp_ext.data.mixture import Epochs, Mixture
from tp_ext.data.pack import Windows, pack
from tp_ext.data.store import Store
from tp_ext.errors import CheckpointError, DatasetError, RecipeError, raise_all
from tp_ext.models import config_of, families
from tp_ext.registry import family_of
from tp_ext.tokens.rows import check_beside, check_rows
from tp_ext.tokens.tokenizer import Tokenizer, open_tokenizer
from tp_ext.train.lora import adapted_of
from tp_ext.train.parallel.tensor import padded
from tp_ext.train.recipe import ParallelSection, Recipe
from tp_ext.train.records import RESULTS
from tp_ext.train.schedule import warmup_steps


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a recipe learns from."""

    tokenizer: Tokenizer
    stream: Epochs | Mixture
    stores: list[Store]
    sources: dict[str, dict[str, Any]]
    """With several datasets, the hash and the share of each by its name."""

    @property
    def sha256(self) -> str | None:
        """The hash of the one dataset; None where there are several."""
        return None if self.sources else self.stores[0].sha256

    def described(self, instances_num: int) -> str:
        """What is learned from, in a run of `instances_num` instances."""
        stream = self.stream
        if isinstance(stream, Epochs):
            places = len(stream.instances) * stream.seq_length
            return (
                f"{len(stream.instances):,} instances of {stream.seq_length}, "
                f"{stream.instances.targets_num / places:.1%} of them targets"
            )
        passes = stream.passes(instances_num)
        parts = [f"{name} {self.sources[name]['share']:.1%} ({passes[name]:.2f} passes)" for name in stream.names]
        return f"{', '.join(parts)} in instances of {stream.seq_length}"


@dataclass(frozen=True, kw_only=True)
class Inputs(Data):
    """What a recipe names, opened and found to fit together."""

    config: ModelConfig
    source: Source | None
    held_out: dict[str, Windows]
    total_steps: int


def open_data(recipe: Recipe) -> Data:
    """Open datasets and tokenizer, and compare them. Raises TokenizerError and DatasetError."""
    tokenizer = open_tokenizer(recipe.model.spm_model_path)
    stores = [_store(path, tokenizer) for path in recipe.dataset_paths()]
    stream, sources = _stream(recipe, stores)
    return Data(tokenizer=tokenizer, stream=stream, stores=stores, sources=sources)


def open_inputs(recipe: Recipe) -> Inputs:
    """Open and compare datasets, tokenizer, model and held-out text; nothing large is read."""
    _check_output(recipe)
    data = open_data(recipe)
    tokenizer = data.tokenizer
    held_out = {
        name: Windows(_store(path, tokenizer), recipe.data.seq_length) for name, path in recipe.evaluate.datasets.items()
    }
    pretrained = recipe.model.pretrained_model_path
    given = config_of_recipe(recipe)
    source = None
    if pretrained is not None:
        config_path = recipe.model.config_path
        source = open_model(Path(pretrained), families, Path(config_path) if config_path else None)
        _compare_config(given, source)
        _compare_tokenizer(source, tokenizer)
    config = source.config if source else given
    assert config is not None
    if config.vocab_size is None or source is None:
        config = config.replace(vocab_size=config.vocab_size or tokenizer.vocab_size + config.vocab_padding)
    check_rows(config, tokenizer)
    total_steps = recipe.train.total_steps
    if total_steps is None:
        total_steps = max(1, steps_of_epochs(recipe, data.stream, 0))
    raise_all(RecipeError, check_model(recipe, config, total_steps))
    return Inputs(
        tokenizer=tokenizer, stream=data.stream, stores=data.stores, sources=data.sources, config=config, source=source,
        held_out=held_out, total_steps=total_steps,
    )  # fmt: skip


def check_model(recipe: Recipe, config: ModelConfig, total_steps: int | None) -> list[str]:
    """What does not fit together in a recipe, its model and its length, if that is known: a line each."""
    problems = []
    if config.rotary_position_embedding and recipe.data.seq_length > config.max_seq_length:
        problems.append(f"recipe.data.seq_length: {recipe.data.seq_length} is longer than the model's max_seq_length "
                        f"{config.max_seq_length}")  # fmt: skip
    try:
        if recipe.lora:
            adapted_of(recipe.lora, config)
    except RecipeError as error:
        problems += str(error).splitlines()
    problems += cut_problems(config, recipe.parallel)
    warm = warmup_steps(recipe.train.warmup, total_steps) if total_steps else 0
    if total_steps and warm >= total_steps:
        problems.append(f"recipe.train.warmup: {warm} steps do not fit into the run's {total_steps}")
    return problems


def cut_problems(config: ModelConfig, parallel: ParallelSection) -> list[str]:
    """Why the model cannot be cut as the recipe says, a line each; its vocabulary always can."""
    if parallel.pipeline > config.layers_num:
        return [f"recipe.parallel.pipeline: {parallel.pipeline} stages for {config.layers_num} layers"]
    try:
        check_degree(shapes_of(family_of(families, config), config), padded(config, parallel.tensor), parallel.tensor)
    except CheckpointError as error:
        return f"recipe.parallel.tensor: {error}".splitlines()
    return []


def steps_of_epochs(recipe: Recipe, stream: Epochs | Mixture, position: int) -> int:
    """Steps that are left of train.epochs from `position` on."""
    assert recipe.train.epochs is not None and isinstance(stream, Epochs)
    return round((recipe.train.epochs * len(stream.instances) - position) / recipe.train.global_batch_size)


def _check_output(recipe: Recipe) -> None:
    """Raise RecipeError when the output is no folder, or an input lies where the trained model will be written."""
    output = Path(recipe.train.output_model_path)
    if output.exists() and not output.is_dir():
        raise RecipeError(f"recipe.train.output_model_path: {output} is a file; name a folder")
    results = [(output / name).resolve() for name in RESULTS]
    model = recipe.model
    datasets = [*recipe.dataset_paths(), *recipe.evaluate.datasets.values()]
    for path in [model.spm_model_path, model.pretrained_model_path, *datasets]:
        found = Path(path).resolve() if path is not None else None
        written = next((each for each in results if found and (each == found or each in found.parents)), None)
        if written:
            raise RecipeError(f"recipe.train.output_model_path: {path} lies in {written}, which the run would write over")


def _stream(recipe: Recipe, stores: list[Store]) -> tuple[Epochs | Mixture, dict[str, dict[str, Any]]]:
    """The instances of a run, and with sources the hash and the share of each."""
    data, seed = recipe.data, recipe.train.seed
    packed = [pack(store, data.seq_length, data.packing, data.document_mask) for store in stores]
    if not data.sources:
        return Epochs(packed[0], seed, data.shuffle), {}
    total = sum(source.weight for source in data.sources.values())
    shares = {name: round(source.weight / total, 9) for name, source in data.sources.items()}
    sources = {
        name: {"sha256": store.sha256, "share": share} for (name, share), store in zip(shares.items(), stores, strict=True)
    }
    return Mixture(dict(zip(shares, packed, strict=True)), shares, seed, data.shuffle), sources


def _store(path: str, tokenizer: Tokenizer) -> Store:
    """The dataset at `path`. Raises DatasetError when it is of another tokenizer."""
    store = Store(Path(path))
    if store.tokenizer_sha256 != tokenizer.sha256:
        raise DatasetError(
            f"{path}: was made by another tokenizer (SHA-256 {store.tokenizer_sha256[:12]}) than {tokenizer.path} "
            f"({tokenizer.sha256[:12]}); run scripts/preprocess.py again with that one"
        )
    ends = store.manifest.get("bos_id"), store.manifest.get("eos_id")
    if ends != (tokenizer.bos_id, tokenizer.eos_id):
        raise DatasetError(
            f"{path}: its documents begin and end with {ends}, those of {tokenizer.path} with "
            f"{(tokenizer.bos_id, tokenizer.eos_id)}: the files beside that one name other special pieces; run "
            "scripts/preprocess.py again with it"
        )
    return store


def config_of_recipe(recipe: Recipe) -> ModelConfig | None:
    """The model a recipe describes itself; None when it takes the pretrained model's."""
    model = recipe.model
    if model.size is not None:
        return config_of(model.size)
    if model.config_path is not None:
        return ModelConfig.read(Path(model.config_path))
    if model.config is not None:
        return ModelConfig.from_json(model.config, "recipe.model.config")
    return None


def _compare_config(given: ModelConfig | None, source: Source) -> None:
    """Raise RecipeError when the recipe describes another model than the pretrained one is."""
    if given is None:
        return
    ignored = {"encoder", "vocab_size", "vocab_padding", "max_seq_length"}
    problems = [
        f"{field.name} is {getattr(given, field.name)} in the recipe and {getattr(source.config, field.name)} there"
        for field in dataclasses.fields(ModelConfig)
        if field.name not in ignored and getattr(given, field.name) != getattr(source.config, field.name)
    ]
    if problems:
        raise RecipeError(f"recipe.model: {source.path} is another model: {'; '.join(problems)}")


def _compare_tokenizer(source: Source, tokenizer: Tokenizer) -> None:
    try:
        check_beside(source.folder, tokenizer)
    except CheckpointError as error:
        raise RecipeError(f"recipe.model.spm_model_path: {error}") from None
