"""Names and spans of a model in every format: the same numbers as of the whole, and no more is read than must be."""

import re
from pathlib import Path

import pytest
import torch
from models_on_disk import make_model, make_tokenizers

from tp_ext.checkpoint.containers import SAFETENSORS, torch_file
from tp_ext.checkpoint.containers.pieces import Pieces
from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats import FORMATS, open_model, write_weights
from tp_ext.checkpoint.shards import parts_of
from tp_ext.checkpoint.source import EMBEDDING, HEAD, Degree, whole
from tp_ext.checkpoint.tensors import Slot, Span
from tp_ext.errors import CheckpointError
from tp_ext.models import families

CASES = [(shape, each.name) for each in FORMATS if each.plan for shape in ("groups", "bloom")
         if (shape, each.name) != ("bloom", "meta")]  # fmt: skip
WHOLE = {("bloom", "gguf"): r"linear_layers"}
"""What a format cannot cut: one below the other, the rows of three weights are not where those of their parts are."""
TWICE = ("tencentpretrain", "tencentpretrain-blocks", "tensor-parallel", "3d")
"""Formats that keep a tied head beside the embedding, with which it is compared."""


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, corpus):
    return make_tokenizers(tmp_path_factory.mktemp("tokenizers"), corpus)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def written(request, tmp_path_factory, tokenizers):
    shape, to = request.param
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "model", shape, tokenizers["bloom" if shape == "bloom" else "llama"], torch.bfloat16)
    degree = Degree(4) if FORMATS.get(to).is_cut else Degree()
    return request.param, convert(folder / "model", folder / "there", Conversion(to=to, degree=degree), families)


@pytest.fixture
def taken(monkeypatch):
    """Values that were taken out of files, by their names there."""
    counts = {}
    read = Weights.read

    def counted(self, name, span=None):
        tensor = read(self, name, span)
        counts[name] = counts.get(name, 0) + tensor.numel()
        return tensor

    monkeypatch.setattr(Weights, "read", counted)
    return counts


def wanted_by(source, degree, rank, names):
    parts = {name: parts_of(name, degree)[rank] for name in names}
    return {name: part and part.span(source.shapes[name]) for name, part in parts.items()}


@pytest.mark.parametrize("degree", [2, 8])
def test_each_part_is_that_of_the_whole_and_all_that_is_read(written, taken, degree):
    (case, source), some = written, re.compile(r"embedding|.*transformer\.1\.")
    everything = dict(source.read())
    names = [name for name in source.shapes if some.match(name)]
    assert 5 < len(names) < len(source.shapes) - 5
    for rank in range(degree):
        wanted = wanted_by(source, degree, rank, names)
        taken.clear()
        found = dict(source.read(wanted))
        assert list(found) == names
        for name, tensor in found.items():
            assert torch.equal(tensor, wanted[name].of(everything[name]) if wanted[name] else everything[name]), name
        more = [name for name in names if case in WHOLE and re.search(WHOLE[case], name)]
        expected = sum((everything if name in more else found)[name].numel() for name in names)
        if source.config.tie_weights and case[1] in TWICE:
            expected += found[EMBEDDING].numel()
        assert sum(taken.values()) == expected


@pytest.mark.parametrize("written", [case for case in CASES if FORMATS.get(case[1]).is_cut], ids="-".join, indirect=True)
def test_of_files_by_rank_those_are_opened_that_have_the_span(written, monkeypatch):
    _, source = written
    assert source.degree.tensor == 4
    name = next(name for name in source.shapes if name.endswith("feed_forward.linear_2.weight"))
    columns = source.shapes[name][1]
    (_, expected), opened, read = next(source.read({name: None})), [], torch_file._Archive.read

    def told(self, record, most=None):
        opened.append(self._file)
        return read(self, record, most)

    monkeypatch.setattr(torch_file._Archive, "read", told)
    for start, stop, count in ((columns // 4, columns // 2, 1), (columns // 8, columns // 2, 2), (0, columns, 4)):
        opened.clear()
        (_, found), = source.read({name: Span(1, start, stop)})
        assert torch.equal(found, expected[:, start:stop])
        assert len(opened) == count


def test_a_part_that_does_not_end_with_a_head_is_right_too(written):
    _, source = written
    everything = dict(source.read())
    names = [name for name in source.shapes if "linear_layers" in name]
    found = dict(source.read(dict.fromkeys(names, Span(0, 3, 17))))
    assert list(found) == names
    assert all(torch.equal(tensor, everything[name][3:17]) for name, tensor in found.items())


def test_of_a_mapped_file_only_the_pages_of_a_part_are_in_memory(tmp_path):
    shape = (1 << 14, 1 << 10)  # 32 MiB
    file = tmp_path / "model.safetensors"
    with Pieces() as pieces:
        writer = SAFETENSORS.create(file, {"a": Slot(shape, "BF16")}, {}, pieces)
        writer.add(torch.ones(shape, dtype=torch.bfloat16))
        writer.close()
    weights = Weights.open(tmp_path, [file])
    part = weights.read("a", Span(0, 1 << 12, 1 << 13))
    copied = torch.empty(part.shape, dtype=torch.bfloat16).copy_(part)
    assert copied.sum(dtype=torch.float64) == 1 << 22
    own, most = copied.nbytes, 1 << 20  # the kernel maps up to sixteen pages around one that is touched
    assert own <= resident(file) <= own + most
    assert resident(file, whole=True) >= 32 << 20
    del part
    assert resident(file) == 0


def resident(file, whole=False):
    """Bytes of a file that this process has mapped, of them those in memory."""
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    kind = "Size" if whole else "Rss"
    return sum(int(re.search(rf"^{kind}: +(\d+) kB", area, re.MULTILINE)[1]) << 10 for area in areas if str(file) in area)


def padded_model(folder, tokenizers, padding):
    make_model(folder / "model", "llama", tokenizers["llama"])
    source = open_model(folder / "model", families)
    assert source.config.rows == 504
    if padding:
        (folder / "padded").mkdir()
        write_weights(folder / "padded", source.padded(504 + padding), "native", source.dtype)
        source = open_model(folder / "padded", families)
    return source


@pytest.mark.parametrize(("padding", "multiple"), [(0, 8), (0, 64), (8, 512), (8, 100)])
def test_parts_of_tables_with_rows_added_or_left_out(tmp_path, tokenizers, padding, multiple):
    source = padded_model(tmp_path, tokenizers, padding)
    for changed in (source.padded(multiple), source.without_padding(), source.without_padding().padded(multiple)):
        everything = dict(changed.read())
        assert {name: tuple(tensor.shape) for name, tensor in everything.items()} == changed.shapes
        rows = changed.config.rows
        for start, stop in ((0, 100), (496, rows), (rows - 3, rows), (500, 504)):
            wanted = {EMBEDDING: Span(0, start, stop), "encoder.layer_norm.weight": None, HEAD: Span(0, start, stop)}
            found = dict(changed.read(wanted))
            assert set(found) == set(wanted)
            assert all(torch.equal(found[name], everything[name][start:stop]) for name in (EMBEDDING, HEAD))
    mean = dict(source.read())[EMBEDDING][:504].mean(0)
    added = dict(source.padded(multiple).read())[EMBEDDING][504 + padding :]
    assert (added - mean).abs().max() <= 1e-6 if len(added) else source.config.rows % multiple == 0


def test_what_gives_only_whole_tensors_is_cut():
    tensors = {"a": torch.arange(12).view(4, 3), "b": torch.arange(3)}
    read = whole(lambda: iter(tensors.items()))
    assert dict(read()) == tensors
    (name, found), = read({"a": Span(1, 1, 3)})
    assert name == "a"
    assert torch.equal(found, tensors["a"][:, 1:])


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_found_by_the_part_that_has_it(tmp_path, tokenizers):
    make_model(tmp_path / "model", "tied", tokenizers["llama"])
    convert(tmp_path / "model", tmp_path / "bin", "tencentpretrain", families)
    (file,) = (tmp_path / "bin").glob("*.bin")
    values = torch.load(file, weights_only=True)
    values[HEAD] = values[EMBEDDING].clone()
    values[HEAD][400, 3] += 1
    torch.save(values, file)
    (tmp_path / "bin" / "manifest.json").unlink()
    source = open_model(tmp_path / "bin", families)
    assert dict(source.read({EMBEDDING: Span(0, 0, 252)}))
    assert dict(source.read({"encoder.layer_norm.weight": None}))
    with pytest.raises(CheckpointError, match="differs from embedding"):
        dict(source.read({EMBEDDING: Span(0, 252, 504)}))
