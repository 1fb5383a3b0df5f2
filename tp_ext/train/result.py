"""What a finished run leaves: the trained model, or the adapter that LoRA has made for its base."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from tp_ext.checkpoint.adapter import Adapter, Reader
from tp_ext.checkpoint.adapters import convert_adapter
from tp_ext.checkpoint.files import DTYPES
from tp_ext.checkpoint.formats import KIND, write_trained
from tp_ext.errors import CheckpointError
from tp_ext.models import families
from tp_ext.nn.lora import FIRST, SECOND
from tp_ext.output import whole_folder
from tp_ext.train.engine import Engine
from tp_ext.train.inputs import Inputs
from tp_ext.train.lora import Adapted
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import Recipe
from tp_ext.train.records import FORMS, MODEL
from tp_ext.train.resume import State


def write_result(
    output: Path, recipe: Recipe, inputs: Inputs, engine: Engine, state: State, processes: Processes
) -> None:
    """Write the result of a run; every process calls it, the first one writes. Raises CheckpointError."""
    datasets = {name: source["sha256"] for name, source in state.identity.sources.items()}
    manifest = {
        "trained": {"step": state.step, "tokens": state.tokens, "dataset_sha256": datasets or state.identity.dataset_sha256},
        "tokenizer_sha256": state.identity.tokenizer_sha256,
    }
    if engine.adapted and recipe.lora:
        _write_adapter(output, inputs, engine, engine.adapted, {**manifest, "base_fingerprint": state.identity.pretrained},
                       processes)  # fmt: skip
    if recipe.lora is None or recipe.lora.merge:
        _write_model(output / MODEL, recipe, inputs, engine, manifest, processes)
    processes.wait()


def _write_model(
    folder: Path, recipe: Recipe, inputs: Inputs, engine: Engine, manifest: dict[str, Any], processes: Processes
) -> None:
    """Write the trained weights with their tokenizer as a model folder of ours."""
    if not processes.is_first:
        _go_through(engine.weights())
        return
    with whole_folder(folder, KIND, CheckpointError) as part:
        write_trained(part, inputs.config, families, engine.weights(), DTYPES[recipe.train.dtype], inputs.tokenizer,
                      manifest, inputs.source)  # fmt: skip


def _write_adapter(
    output: Path, inputs: Inputs, engine: Engine, adapted: Adapted, manifest: dict[str, Any], processes: Processes
) -> None:
    """Write what LoRA has trained in both forms of an adapter."""
    if not processes.is_first:
        _go_through(engine.trained())
        return
    assert inputs.source is not None
    trained = {name: tensor.to("cpu", copy=True) for name, tensor in engine.trained()}
    parts = {f"{layer}.weight": (_reader(trained, f"{layer}.{FIRST}"), _reader(trained, f"{layer}.{SECOND}"))
             for layer in adapted.layers}  # fmt: skip
    adapter = Adapter(output, "training", adapted.rank, adapted.alpha, adapted.dropout, parts,
                      {name: _reader(trained, name) for name in adapted.whole})  # fmt: skip
    for folder, form in FORMS.items():
        convert_adapter(adapter, inputs.source, output / folder, form, manifest)


def _reader(tensors: dict[str, Tensor], name: str) -> Reader:
    return lambda: tensors[name]


def _go_through(tensors: Iterable[tuple[str, Tensor]]) -> None:
    for _ in tensors:
        pass
