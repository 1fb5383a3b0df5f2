"""Every format to every other and back is the identity, cut by any degree that fits."""

import json

import pytest
import torch
from conftest import ROOT
from models_on_disk import SHAPES, make_model, make_tokenizers, same, tensors

from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.formats import FORMATS, open_model
from tp_ext.checkpoint.source import Degree
from tp_ext.errors import CheckpointError
from tp_ext.infer.compare import compare_logits
from tp_ext.models import families
from tp_ext.tokens.tokenizer import open_tokenizer

WRITTEN = [each.name for each in FORMATS if each.plan]
CUT = [each.name for each in FORMATS if each.is_cut]


def fits(shape, to):
    return not (to == "meta" and (shape in ("tied", "wide_heads") or "bloom" in shape))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, corpus):
    return make_tokenizers(tmp_path_factory.mktemp("tokenizers"), corpus)


@pytest.fixture(params=SHAPES)
def model(request, tmp_path, tokenizers):
    tokenizer = tokenizers["bloom" if "bloom" in request.param else "llama"]
    return request.param, make_model(tmp_path / "model", request.param, tokenizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_through_every_format_and_back(tmp_path, tokenizers, dtype):
    for shape in ("groups", "bloom"):
        tokenizer = tokenizers["bloom" if "bloom" in shape else "llama"]
        path = first = make_model(tmp_path / shape, shape, tokenizer, dtype)
        for number, to in enumerate([name for name in WRITTEN if fits(shape, name)] + ["native"]):
            convert(path, tmp_path / f"{shape}-{number}", to, families)
            path = tmp_path / f"{shape}-{number}"
        assert same(tensors(path), tensors(first))
        assert json.loads((path / "conversion.json").read_text())["exact"] is True


@pytest.mark.parametrize("to", WRITTEN)
def test_there_and_back(model, tmp_path, to):
    shape, path = model
    if not fits(shape, to):
        with pytest.raises(Exception, match="Meta's"):
            convert(path, tmp_path / "there", to, families)
        assert not (tmp_path / "there").exists()
        return
    there = convert(path, tmp_path / "there", to, families, compare_logits)
    assert there.format == to
    assert there.config.layernorm_eps == open_model(path, families).config.layernorm_eps
    convert(tmp_path / "there", tmp_path / "back", "native", families, compare_logits)
    assert same(tensors(tmp_path / "back"), tensors(path))


@pytest.mark.parametrize(("shape", "to"), [(shape, to) for shape in ("llama", "groups", "bloom", "tied") for to in CUT
                                           if fits(shape, to)])  # fmt: skip
def test_any_degree_to_any_other(tmp_path, tokenizers, shape, to):
    tokenizer = tokenizers["bloom" if shape == "bloom" else "llama"]
    path = first = make_model(tmp_path / "model", shape, tokenizer)
    for number, tensor in enumerate([1, 2, 4, 8, 2, 8, 1]):
        degree = Degree(tensor, 1 + number % 2 if to == "3d" else 1)
        written = convert(path, tmp_path / str(number), Conversion(to=to, degree=degree), families)
        assert written.degree == degree
        path = tmp_path / str(number)
        assert same(tensors(path), tensors(first))
        held = sum(file.stat().st_size for file in path.rglob("*") if file.suffix in (".pt", ".pth"))
        own = sum(tensor.nbytes for tensor in tensors(path).values())
        assert held < 1.3 * own + degree.tensor * degree.pipeline * 8000 + 60_000 * degree.tensor


def test_uneven_vocabularies_are_refused_with_the_next_size_or_padded_by_name(tmp_path, tokenizer):
    path = make_model(tmp_path / "model", "llama", tokenizer)  # 500 rows
    with pytest.raises(CheckpointError, match="into 8: 500 rows; grow to 504 first, or convert with --pad_vocab"):
        convert(path, tmp_path / "out", Conversion(to="3d", degree=Degree(8)), families)
    assert not (tmp_path / "out").exists()
    written = convert(path, tmp_path / "out", Conversion(to="3d", degree=Degree(8), pad_vocab=True), families)
    assert (written.config.rows, written.config.vocab_padding) == (504, 4)
    convert(tmp_path / "out", tmp_path / "back", "huggingface", families)
    assert same(tensors(tmp_path / "back"), tensors(path))
    again = convert(tmp_path / "back", tmp_path / "again", Conversion(to="3d", degree=Degree(8), pad_vocab=True), families)
    assert again.config.vocab_padding == 4


def test_heads_are_never_cut(tmp_path, tokenizer):
    path = make_model(tmp_path / "model", "llama", tokenizer, local_kv_heads_num=2)
    with pytest.raises(CheckpointError, match="linear_layers.1.weight into 4: 2 key and value heads; they divide into 1, 2"):
        convert(path, tmp_path / "out", Conversion(to="tensor-parallel", degree=Degree(4)), families)


def test_q8_0_is_what_the_blocks_say_and_goes_back_to_floats(tmp_path, tokenizer):
    path = make_model(tmp_path / "model", "llama", tokenizer)
    convert(path, tmp_path / "q8", Conversion(to="gguf", dtype="q8_0"), families, compare_logits)
    found, exact = tensors(tmp_path / "q8"), tensors(path)
    for name, tensor in exact.items():
        largest = float(tensor.abs().max())
        assert (found[name] - tensor).abs().max() <= (largest / 127 if tensor.dim() > 1 else 0), name
    convert(tmp_path / "q8", tmp_path / "hf", "huggingface", families)
    assert same(tensors(tmp_path / "hf"), found)
    with pytest.raises(CheckpointError, match="q8_0 is a type of GGUF's"):
        Conversion(to="native", dtype="q8_0")


def test_norms_that_another_type_cannot_hold_are_not_rounded_unasked(tmp_path, tokenizer):
    path = make_model(tmp_path / "model", "llama", tokenizer)
    convert(path, tmp_path / "f16", Conversion(to="gguf", dtype="fp16"), families)
    with pytest.raises(CheckpointError, match="would lose digits as F16; choose with --dtype"):
        convert(tmp_path / "f16", tmp_path / "out", "native", families)
    convert(tmp_path / "f16", tmp_path / "out", Conversion(to="native", dtype="fp32"), families)
    assert torch.equal(tensors(tmp_path / "out")["encoder.layer_norm.weight"], tensors(path)["encoder.layer_norm.weight"])


@pytest.fixture(scope="module")
def in_every_format(tmp_path_factory, tokenizers):
    """One LLaMA in all formats, cut in two where they are cut."""
    folder = tmp_path_factory.mktemp("formats")
    model = make_model(folder / "model", "groups", tokenizers["llama"], torch.bfloat16)
    for to in WRITTEN:
        convert(model, folder / to, Conversion(to=to, degree=Degree(2 if to in CUT else 1)), families)
    return folder


@pytest.mark.parametrize("begin", WRITTEN)
@pytest.mark.parametrize("to", WRITTEN)
def test_every_cell_of_the_matrix(in_every_format, tmp_path, begin, to):
    degree = Degree(4 if to in CUT else 1)
    convert(in_every_format / begin, tmp_path / "out", Conversion(to=to, degree=degree), families)
    found, expected = tensors(tmp_path / "out"), tensors(in_every_format / "model")
    assert same({name: tensor.bfloat16() for name, tensor in found.items()}, expected)
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["exact"] is True


def test_the_documentation_has_every_format():
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for each in FORMATS:
        assert f"| {each.name} |" in page, each.name
        assert each.plan is None or f"--to {each.name}" in page


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_a_gguf_file_alone_gives_its_tokenizer_too(tmp_path, tokenizers, kind):
    from conftest import make_texts

    tokenizer = tokenizers[kind]
    path = make_model(tmp_path / "model", kind, tokenizer)
    convert(path, tmp_path / "gguf", "gguf", families)
    (tmp_path / "gguf" / "model.gguf").rename(tmp_path / "alone.gguf")
    convert(tmp_path / "alone.gguf", tmp_path / "out", "huggingface", families)
    found = open_tokenizer(tmp_path / "out")
    lines = [*make_texts(30, 9), "", " a", "a   b", "<s>"]
    assert found.encode_batch(lines) == tokenizer.encode_batch(lines)
    assert (found.bos_id, found.eos_id, found.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert found.vocab_size == tokenizer.vocab_size
    assert same(tensors(tmp_path / "out"), tensors(path))
