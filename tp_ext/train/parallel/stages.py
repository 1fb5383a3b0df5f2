"""A model as the stages of DeepSpeed's pipeline; each process has the layers of its own stage only."""

# B batch, T tokens, E model size

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import torch
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from torch import Tensor, nn

from tp_ext.models.decoder import Decoder
from tp_ext.nn.documents import spans_of
from tp_ext.nn.loss import IGNORED
from tp_ext.train.parallel.balance import stages_of
from tp_ext.train.parallel.mesh import Mesh

EMBEDDING = "embedding"


class Absent(nn.Module):
    """Stands for what another stage has."""

    def forward(self, hidden: Tensor, *others: Any) -> Tensor:
        """`hidden` as it is."""
        return hidden


class Stages(PipelineModule):  # type: ignore[misc]
    """The stage of a decoder that this process has; its parameters have the names they have in the whole model.

    The embedding is the first layer and the output layer with the last norm the last one. A tied embedding is in both
    of their stages, under one name, and its gradients are added up.
    """

    def __init__(self, decoder: Decoder, mesh: Mesh, materialize: Callable[[nn.Module], nn.Module]) -> None:
        """From the whole `decoder` on the meta device, of which `materialize` gives memory to what stays."""
        self._given = (decoder, materialize)  # not as attributes: it is no module yet
        self._is_tied = decoder.config.tie_weights
        tied = TiedLayerSpec(EMBEDDING, nn.Embedding, tied_weight_attr=["weight"])
        end = tied if self._is_tied else LayerSpec(nn.Module)
        layers = [end, *(LayerSpec(nn.Module) for _ in decoder.encoder.transformer), end]
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(layers, topology=mesh.topology, loss_fn=self._loss)

    def _partition_layers(self, method: str = "parameters") -> None:
        """Cut as `stages_of` says, whatever the method."""
        decoder, _ = self._given
        stages = stages_of(decoder, self.num_stages)
        self.parts = [stage.start for stage in stages] + [stages[-1].stop]
        self._set_bounds(start=self.parts[self.stage_id], stop=self.parts[self.stage_id + 1])

    def _build(self) -> None:
        decoder, materialize = self._given
        layers = decoder.encoder.transformer
        del self._given, self.tied_modules
        self.tied_modules: dict[str, nn.Module] = {}
        self._is_first, self._is_last = self._local_start == 0, self._local_stop == len(layers) + 2
        for index in range(len(layers)):
            if not self._local_start <= index + 1 < self._local_stop:
                layers[index] = Absent()
        self.embedding: nn.Module = decoder.embedding
        if not self._is_first and self._is_last and self._is_tied:
            decoder.embedding.layer_norm = None
        elif not self._is_first:
            self.embedding = Absent()
        self.encoder, self.target = decoder.encoder, decoder.target if self._is_last else Absent()
        if not self._is_last:
            setattr(self.encoder, "layer_norm", Absent())  # noqa: B010  (of another type than the norm)
        materialize(self)
        if self._is_tied and (self._is_first or self._is_last):
            word = decoder.embedding.word.embedding
            self.tied_modules[EMBEDDING], self.tied_weight_attrs[EMBEDDING] = word, ["weight"]
            if self._is_last:
                decoder.target.lm.output_layer.weight = word.weight
        for parameter in self.parameters():
            parameter.ds_pipe_replicated = False

    def forward(self, inputs: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Ids [B, T] or hidden states [B, T, E], with the documents [B, T] if they are told apart, through this stage."""
        hidden, documents = inputs if isinstance(inputs, tuple) else (inputs, None)
        if self._is_first:
            hidden = self.embedding(hidden)
        hidden = self.encoder(hidden, None, None, None if documents is None else spans_of(documents))
        if torch.is_grad_enabled() and not hidden.requires_grad:
            hidden.requires_grad_()  # DeepSpeed goes back through a stage in which nothing is trained too
        return hidden if documents is None else (hidden, documents)

    def _loss(self, outputs: Tensor | tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The loss of targets and seg [B, T], times the weight of the micro-batch."""
        hidden = outputs[0] if isinstance(outputs, tuple) else outputs
        targets, seg, weight = labels
        loss: Tensor = self.target(hidden, targets.masked_fill(seg == 0, IGNORED)) * weight
        return loss
