"""The DeepSpeed engine of a recipe: the model with its weights, in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from tp_ext.checkpoint.partitions import Optimized
from tp_ext.checkpoint.shards import axis_of
from tp_ext.checkpoint.source import EMBEDDING, HEAD, Source, with_rows
from tp_ext.checkpoint.tensors import DTYPES, Shape
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, RecipeError
from tp_ext.heap import freed_is_given_back
from tp_ext.models import build
from tp_ext.models.decoder import Decoder, initial_weight
from tp_ext.train import feed
from tp_ext.train.carry import Carrier
from tp_ext.train.derived import deepspeed_settings, make_optimizer
from tp_ext.train.lora import adapt, adapted_of, adapted_shapes, leave_out_frozen, load_trained, merged
from tp_ext.train.moved import Moved
from tp_ext.train.parallel.mesh import Mesh
from tp_ext.train.parallel.norm import clip_gradients
from tp_ext.train.parallel.pipeline import Judge, Pipeline
from tp_ext.train.parallel.tensor import join_parts, mark_parts, padded, part_of
from tp_ext.train.processes import Processes
from tp_ext.train.recipe import Recipe
from tp_ext.train.watch import StopWatch
from tp_ext.train.weights import give_weights

if TYPE_CHECKING:
    from tp_ext.train.parallel.stages import Stages

Module = TypeVar("Module", bound=nn.Module)


class Engine:
    """A model in training. One optimizer step is `accumulation_steps` calls of `backward`, then `step`; or, with a
    pipeline, one of `train_pipeline`."""

    def __init__(
        self, recipe: Recipe, config: ModelConfig, source: Source | None, processes: Processes, mesh: Mesh | None = None
    ) -> None:
        """Build the model of `config`, with the weights of `source`, or those a model starts from scratch with."""
        import deepspeed

        self.mesh = mesh or Mesh(recipe.parallel, processes)
        self._recipe, self._processes = recipe, processes
        self.adapted = adapted_of(recipe.lora, config) if recipe.lora else None
        settings = deepspeed_settings(recipe, self.mesh.data)
        self.config = config
        self._padded = padded(config, self.mesh.tensor)
        """With rows that only make the vocabulary divide; they leave in no export."""
        self._shapes = adapted_shapes(self._padded, self.adapted)
        begun_from = source.padded(self.mesh.tensor) if source else None
        assert begun_from is None or begun_from.config.rows == self._padded.rows
        with freed_is_given_back():
            model = self._model(settings)
            self._owners = self._find_owners(model)
            give_weights(model, self._shapes, begun_from, self._initial, self.mesh)
        model.encoder.checkpoint_every = recipe.model.checkpoint_every if recipe.model.checkpoint_activations else 0
        model.train()
        optimizer = make_optimizer(model, recipe)
        grid = None if self.mesh.pipeline > 1 else self.mesh.grid
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=settings, dist_init_required=False, mpu=grid
        )
        # without ZeRO and in float32 DeepSpeed clips, but does not tell the norm
        self._clips = recipe.parallel.zero == 0 and recipe.train.dtype == "fp32"
        self._pipeline = None
        if self.mesh.pipeline > 1:
            # all of a stage in one file, under the names of the whole model, instead of DeepSpeed's files of layers
            self._engine.module_state_dict = lambda **_: model.state_dict()
            read = load_trained if self.adapted else _load_all
            self._engine.load_module_state_dict = lambda checkpoint, **_: read(checkpoint["module"], model)
            self._pipeline = Pipeline(self._engine, self.mesh, processes.device)

    def _model(self, settings: dict[str, Any]) -> Decoder | Stages:
        """This process's part of the model, without values."""
        import deepspeed

        part = part_of(self._padded, self.mesh.tensor)
        if self._recipe.parallel.zero == 3:
            # without dtype: given one, DeepSpeed 0.19 takes half precision whatever was given; it reads the settings'
            group = self.mesh.grid and self.mesh.grid.get_data_parallel_group()
            with deepspeed.zero.Init(config_dict_or_path=settings, data_parallel_group=group, mpu=self.mesh.grid):
                model: Decoder | Stages = self._adapted(build(part))
            join_parts(model, self._padded, self.mesh)
        else:
            with torch.device("meta"):
                decoder = self._adapted(build(part))
            join_parts(decoder, self._padded, self.mesh)
            if self.mesh.pipeline > 1:
                from tp_ext.train.parallel.stages import Stages

                model = Stages(decoder, self.mesh, self._with_memory)
                if self.adapted:
                    leave_out_frozen(model)
            else:
                model = self._with_memory(decoder)
                decoder.tie()
        if self.mesh.tensor > 1:
            mark_parts(model)
        return model

    def _adapted(self, model: Decoder) -> Decoder:
        if self.adapted:
            adapt(model, self.adapted)
        return model

    def _with_memory(self, model: Module) -> Module:
        return model.to(DTYPES[self._recipe.train.dtype]).to_empty(device=self._processes.device)

    def _find_owners(self, model: nn.Module) -> dict[str, int]:
        """The first stage that has each weight."""
        if self.mesh.pipeline == 1:
            return dict.fromkeys(self._shapes, 0)
        names = [name for name, _ in model.named_parameters()]
        found = self._processes.gathered((self.mesh.stage, names))
        adapted = self.adapted
        idle = sorted({stage + 1 for stage, held in found if adapted and not any(map(adapted.trains, held))})
        if idle and self._recipe.parallel.zero:  # DeepSpeed's optimizers of ZeRO take at least one parameter
            raise RecipeError(
                f"recipe.parallel.pipeline: {self.mesh.pipeline} stages, of which lora trains nothing in stage "
                f"{', '.join(map(str, idle))}; name target_modules of its layers, take fewer stages, or zero 0"
            )
        owners = {name: stage for stage, held in reversed(found) for name in held}
        assert set(owners) == set(self._shapes), set(owners) ^ set(self._shapes)
        return owners

    def _initial(self, name: str) -> Tensor:
        """The whole weight from scratch; rows that stand for nothing do not change the others."""
        config, shape = self.config, self._shapes[name]
        added = self._padded.rows - config.rows if name in (EMBEDDING, HEAD) else 0
        weight = initial_weight(name, torch.Size((shape[0] - added, *shape[1:])), config, self._recipe.train.seed)
        return with_rows(weight, weight[: config.pieces], added) if added else weight

    @property
    def is_pipeline(self) -> bool:
        """Whether a step is one call of `train_pipeline`."""
        return self._pipeline is not None

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled so that gradients fit into float16, which they overflow now and then."""
        return self._recipe.train.dtype == "fp16"

    def loss(self, src: Tensor, tgt: Tensor, seg: Tensor, documents: Tensor | None = None) -> Tensor:
        """Mean loss of a micro-batch [B, T], float32; the arguments are the model's."""
        loss: Tensor = self._engine(src, tgt, seg, documents)
        return loss

    @contextmanager
    def measuring(self) -> Iterator[Callable[[list[Tensor]], float]]:
        """A function that gives the mean loss of a micro-batch, as `feed.to_host` makes it, and learns nothing; all
        processes call it alike."""
        module = self._engine.module
        was_training = module.training
        module.eval()
        with torch.no_grad():
            yield self._pipeline.loss if self._pipeline else self._measure
        module.train(was_training)

    def _measure(self, tensors: list[Tensor]) -> float:
        return float(self._engine.module(*feed.to_device(tensors, self._processes.device)))

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch."""
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> float:
        """End a micro-batch and, after the last of a step, update the weights; the gradients' norm before clipping.

        The norm is nan between updates. Where it is not finite nothing was updated, in any process.
        """
        boundary = self._engine.is_gradient_accumulation_boundary()
        self._set_rate(learning_rate)
        norm = self._clip() if boundary and self._clips else float("nan")
        self._engine.step()
        if boundary and not self._clips:
            norm = float(self._engine.get_global_grad_norm())
        return norm

    def train_pipeline(
        self, micro_batches: list[tuple[list[Tensor], float]], learning_rate: float, judge: Judge, watch: StopWatch
    ) -> tuple[list[float], float]:
        """Make a whole step; the losses of this share's micro-batches and the norm, as of `step`.

        `judge` says from the losses, before anything is changed, whether the step is to be skipped.
        """
        assert self._pipeline is not None
        self._set_rate(learning_rate)
        return self._pipeline.train(micro_batches, judge, watch, self._clip if self._clips else None)

    def _set_rate(self, learning_rate: float) -> None:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate

    def _clip(self) -> float:
        limit = self._recipe.train.max_grad_norm or float("inf")
        return clip_gradients(self._engine.module.parameters(), limit, self.mesh)

    def save(self, folder: str, tag: str) -> dict[Path, dict[str, Any]]:
        """Write the weights that are trained, and optimizer state; every process calls it.

        Gives what a manifest says of the files that this process wrote. Raises OSError where the disk takes no more, once
        the other processes need this one no longer.
        """
        from tp_ext.train.writing import writing

        with writing(self._engine) as files:
            self._engine.save_checkpoint(
                folder, tag=tag, save_latest=False, exclude_frozen_parameters=self.adapted is not None
            )
        return files

    def load(self, folder: str, tag: str) -> None:
        """Read what `save` wrote; every process calls it."""
        self._engine.load_checkpoint(folder, tag=tag, custom_load_fn=load_trained if self.adapted else None)

    def carry(self, held: Optimized) -> None:
        """Take over what a run of another shape had, in the place of `load`; every process calls it.

        Raises CheckpointError when it lacks something that is trained.
        """
        trained = {name: each for name, each in self._engine.module.named_parameters() if each.requires_grad}
        missing = sorted(set(trained) - set(held.parameters))
        if missing:
            raise CheckpointError(f"the checkpoint does not have {', '.join(missing[:8])}")
        carrier = Carrier(self._engine, self.mesh, self._processes.device)
        carrier.begin(held.step)
        for name, parameter in trained.items():
            carrier.carry(parameter, held.parameters[name], self._shapes[name], self.mesh.part(name))

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight of the model whole, LoRA's changes in it, one at a time; every process goes through it together."""
        whole = self._parameters(lambda name: True)
        return merged(whole, self.adapted) if self.adapted else whole

    def trained(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter that is trained, likewise: with LoRA its factors, each by itself."""
        adapted = self.adapted
        return self._parameters(lambda name: adapted is None or adapted.trains(name))

    def moved(self) -> Moved | None:
        """What looks after the first steps of LoRA; None when all is trained."""
        return Moved(self._engine.module, self._engine.optimizer, self._processes) if self.adapted else None

    def _parameters(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        own = dict(self._engine.module.named_parameters())
        for name, shape in self._shapes.items():
            if not wanted(name):
                continue
            parameter = own.get(name)
            partitioned = hasattr(parameter, "ds_id")
            with deepspeed.zero.GatheredParameters([parameter]) if partitioned else nullcontext():
                if parameter is None or self.mesh.pipeline > 1:
                    part = self._from_owner(name, shape, parameter)
                else:
                    part = parameter.detach()
                weight = self.mesh.whole(part, axis_of(name))
                yield name, weight[: self.config.rows] if name in (EMBEDDING, HEAD) else weight

    def _from_owner(self, name: str, shape: Shape, parameter: Tensor | None) -> Tensor:
        """The part of a weight that its stage has, in all stages."""
        owner = self._owners[name]
        if parameter is not None and owner == self.mesh.stage:
            part = parameter.detach().clone()
        else:
            cut = self.mesh.part(name)
            dtype, device = DTYPES[self._recipe.train.dtype], self._processes.device
            part = torch.empty(cut.shape(shape) if cut else shape, dtype=dtype, device=device)
        return self.mesh.from_stage(part, owner)


def _load_all(src: dict[str, Tensor], dst: nn.Module) -> None:
    dst.load_state_dict(src)
