"""Each process reads its own part of the weights and no more."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import LLAMA, tiny
from torch import nn

from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats import open_model, write_trained
from tp_ext.checkpoint.shards import parts_of
from tp_ext.checkpoint.tensors import Span
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight
from tp_ext.train.parallel.mesh import Mesh
from tp_ext.train.weights import give_weights, place_of

CONFIG = {"vocab_size": 500, "local_kv_heads_num": 2, "layers_num": 4}
LAST = ("target.", "encoder.layer_norm.", "encoder.transformer.2.", "encoder.transformer.3.")


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    config = tiny(LLAMA, **CONFIG)
    shapes = {name: tuple(value.shape) for name, value in build(config).named_parameters()}
    weights = ((name, initial_weight(name, shape, config, 3) + 0.01) for name, shape in shapes.items())
    folder = tmp_path_factory.mktemp("model") / "native"
    folder.mkdir()
    write_trained(folder, config, families, weights, torch.float32, tokenizer, {})
    return folder


def mesh(tensor, rank, data=1, data_rank=0):
    own = SimpleNamespace(tensor=tensor, tensor_rank=rank, data=data, data_rank=data_rank)
    own.part = partial(Mesh.part, own)
    return own


def stage_of(name):
    return int(name.startswith(LAST))


class Holder(nn.Module):
    """Parameters under the names of the whole model."""

    def __init__(self, parameters):
        super().__init__()
        self.own = parameters

    def named_parameters(self):
        return iter(self.own.items())


@pytest.fixture
def read(monkeypatch):
    """Bytes read, by name."""
    counts, original = {}, Weights.read

    def counted(self, name, span=None):
        tensor = original(self, name, span)
        counts[name] = counts.get(name, 0) + tensor.nbytes
        return tensor

    monkeypatch.setattr(Weights, "read", counted)
    return counts


def never(name):
    raise AssertionError(name)


@pytest.mark.parametrize("to", ["native", "huggingface"])
def test_two_by_two_read_each_byte_in_one_process_but_for_what_all_have(model, tmp_path, read, to):
    path = model
    if to != "native":
        path = convert(model, tmp_path / to, to, families).path
    source = open_model(path, families).padded(2)
    everything = dict(source.read())
    common = sum(tensor.nbytes for name, tensor in everything.items() if tensor.dim() == 1)
    total = 0
    for stage in range(2):
        for rank in range(2):
            parts = {name: parts_of(name, 2)[rank] for name in source.shapes if stage_of(name) == stage}
            own = {name: nn.Parameter(torch.empty(part.shape(source.shapes[name]) if part else source.shapes[name]))
                   for name, part in parts.items()}  # fmt: skip
            read.clear()
            give_weights(Holder(own), source.shapes, source, never, mesh(2, rank))
            for name, part in parts.items():
                assert torch.equal(own[name], part.of(everything[name]) if part else everything[name]), name
            assert sum(read.values()) == sum(parameter.nbytes for parameter in own.values())
            total += sum(read.values())
    assert total == sum(tensor.nbytes for tensor in everything.values()) + common


@pytest.mark.parametrize("tensor", [1, 2])
def test_what_zero_3_partitions_is_read_by_rows_where_it_is(model, read, tensor):
    """Three processes, so that their values begin in the middle of a row."""
    source = open_model(model, families).padded(tensor)
    everything, shapes, ranks = dict(source.read()), source.shapes, 3
    rows = 2 * sum(each.stride(0) * each.element_size() for each in everything.values())
    for rank in range(tensor):
        joined = {}
        for data_rank in range(ranks):
            own = {}
            for name, shape in shapes.items():
                part = parts_of(name, tensor)[rank]
                count = torch.Size(part.shape(shape) if part else shape).numel()
                own[name] = SimpleNamespace(ds_tensor=torch.full((-(-count // ranks),), 7.0), ds_numel=count,
                                            ds_secondary_tensor=None)  # fmt: skip
            read.clear()
            give_weights(Holder(own), shapes, source, never, mesh(tensor, rank, ranks, data_rank))
            if tensor == 1:
                assert 0 < sum(read.values()) <= sum(each.ds_tensor.nbytes for each in own.values()) + rows
            for name, each in own.items():
                joined.setdefault(name, []).append(each.ds_tensor)
        for name, pieces in joined.items():
            part = parts_of(name, tensor)[rank]
            expected = (part.of(everything[name]) if part else everything[name]).flatten()
            flat = torch.cat(pieces)
            assert torch.equal(flat[: len(expected)], expected), name
            assert (flat[len(expected) :] == 7).all()


@pytest.mark.parametrize(("shape", "part", "share", "span", "values"), [
    ((10, 4), None, slice(0, 20), Span(0, 0, 5), slice(0, 20)),
    ((10, 4), None, slice(6, 13), Span(0, 1, 4), slice(2, 9)),
    ((10, 4), Span(0, 5, 10), slice(6, 13), Span(0, 6, 9), slice(2, 9)),
    ((10, 4), Span(1, 2, 4), slice(6, 13), Span(1, 2, 4), slice(6, 13)),
    ((10,), None, slice(3, 7), Span(0, 3, 7), slice(0, 4)),
    ((10, 4), Span(1, 2, 4), None, Span(1, 2, 4), None),
])  # fmt: skip
def test_places_of_shares(shape, part, share, span, values):
    whole = torch.arange(torch.Size(shape).numel()).view(shape)
    place = place_of(shape, part, share)
    assert (place.span, place.values) == (span, values)
    held = part.of(whole) if part else whole
    assert torch.equal(place.of(span.of(whole)), held.flatten()[share] if share else held)


def test_weights_that_are_nowhere_are_drawn_and_cut(model):
    source = open_model(model, families)
    drawn = {name: torch.randn(shape) for name, shape in source.shapes.items()}
    name = "encoder.transformer.1.feed_forward.linear_2.weight"
    own = {name: nn.Parameter(torch.empty(parts_of(name, 2)[1].shape(source.shapes[name])))}
    give_weights(Holder(own), source.shapes, None, drawn.__getitem__, mesh(2, 1))
    assert torch.equal(own[name], drawn[name][:, 48:])
