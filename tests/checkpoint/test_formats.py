import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import BLOOM, LLAMA, tiny
from models_on_disk import make_model, same, tensors
from safetensors.torch import load_file, save_file

from tp_ext.checkpoint import layout
from tp_ext.checkpoint.containers import SAFETENSORS, TORCH, safetensors_file
from tp_ext.checkpoint.containers.pieces import Pieces
from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.files import Weights
from tp_ext.checkpoint.formats import open_model
from tp_ext.checkpoint.source import Degree
from tp_ext.checkpoint.tensors import TYPES, Slot
from tp_ext.errors import CheckpointError, ConfigError
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight
from tp_ext.output import size_and_hash
from tp_ext.settings import read_json

GQA = {**LLAMA, "local_kv_heads_num": 2}


def model_folder(folder, family, **changes):
    """A model in TencentPretrain's single file with its JSON beside it."""
    config = tiny(family, **changes)
    model = build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial_weight(name, parameter.shape, config, 0) + 0.01)
    folder.mkdir()
    torch.save(model.state_dict(), folder / "tencentpretrain_model.bin")
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    return dict(model.named_parameters())


@pytest.fixture(params=[LLAMA, GQA, {**LLAMA, "tie_weights": True}, BLOOM, {**BLOOM, "tie_weights": False}])
def model(request, tmp_path):
    return tmp_path / "model", model_folder(tmp_path / "model", request.param)


def test_every_format_gives_every_tensor_back(model, tmp_path):
    path, expected = model
    chain = ["native", "huggingface", "tencentpretrain", "huggingface", "native"]
    for number, to in enumerate(chain):
        convert(path, tmp_path / str(number), to, families)
        path = tmp_path / str(number)
    found = dict(open_model(path, families).read())
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_shards_with_an_index_are_one_model(model, tmp_path, monkeypatch):
    path, expected = model
    monkeypatch.setattr(layout, "SHARD_BYTES", 50_000)
    for to in ("native", "huggingface"):
        convert(path, tmp_path / to, to, families)
        assert len(list((tmp_path / to).glob("model-*-of-*.safetensors"))) > 1
        found = dict(open_model(tmp_path / to, families).read())
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    shards = sorted((tmp_path / "huggingface").glob("model-*.safetensors"))
    (tmp_path / "bin").mkdir()
    weight_map = {}
    for number, shard in enumerate(shards):  # the same model as .bin shards
        tensors = load_file(shard)
        torch.save(tensors, tmp_path / "bin" / f"pytorch_model-{number}.bin")
        weight_map.update(dict.fromkeys(tensors, f"pytorch_model-{number}.bin"))
    (tmp_path / "bin" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    shutil.copy(tmp_path / "huggingface" / "config.json", tmp_path / "bin")
    found = dict(open_model(tmp_path / "bin", families).read())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (tmp_path / "bin" / "pytorch_model-1.bin").unlink()
    with pytest.raises(CheckpointError, match="pytorch_model-1.bin: no such file"):
        open_model(tmp_path / "bin", families)


def test_half_precision_stays_as_it_is_and_changes_on_request(tmp_path):
    expected = model_folder(tmp_path / "model", LLAMA)
    convert(tmp_path / "model", tmp_path / "half", Conversion(to="native", dtype="bf16"), families)
    convert(tmp_path / "half", tmp_path / "hf", "huggingface", families)
    source = open_model(tmp_path / "hf", families)
    assert source.dtype == torch.bfloat16
    assert all(torch.equal(tensor, expected[name].bfloat16()) for name, tensor in source.read())
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"


def test_names_without_the_prefix_are_the_same_model(tmp_path):
    """bigscience's BLOOM files hold the headless model: `h.0...` instead of `transformer.h.0...`."""
    expected = model_folder(tmp_path / "model", BLOOM)
    convert(tmp_path / "model", tmp_path / "hf", "huggingface", families)
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    save_file({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()},
              tmp_path / "hf" / "model.safetensors")  # fmt: skip
    (tmp_path / "hf" / "manifest.json").unlink()
    found = dict(open_model(tmp_path / "hf", families).read())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_every_missing_unexpected_and_misshapen_tensor_is_in_one_message(tmp_path):
    model_folder(tmp_path / "model", LLAMA)
    file = tmp_path / "model" / "tencentpretrain_model.bin"
    tensors = torch.load(file, weights_only=True)
    del tensors["encoder.layer_norm.weight"]
    tensors["encoder.transformer.0.self_attn.linear_layers.1.weight"] = torch.zeros(3, 64)
    tensors["encoder.transformer.7.layer_norm_1.weight"] = torch.zeros(64)
    torch.save(tensors, file)
    with pytest.raises(CheckpointError) as error:
        open_model(tmp_path / "model", families)
    message = str(error.value)
    assert "1 missing that the configuration needs: encoder.layer_norm.weight" in message
    assert "1 that the configuration does not know: encoder.transformer.7.layer_norm_1.weight" in message
    assert "linear_layers.1.weight is [3, 64] instead of [64, 64]" in message
    assert "\n" not in message


def test_an_embedding_of_other_rows_is_refused(tmp_path):
    model_folder(tmp_path / "model", LLAMA, vocab_size=120)
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**values, "vocab_size": 101}))
    with pytest.raises(CheckpointError, match=r"embedding.word.embedding.weight is \[120, 64\] instead of \[101, 64\]"):
        open_model(tmp_path / "model", families)


class Evil:
    def __reduce__(self):
        return (exec, ("open('/tmp/tp_ext_was_run', 'w')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_not_opened(tmp_path, zipped):
    model_folder(tmp_path / "model", LLAMA)
    file = tmp_path / "model" / "tencentpretrain_model.bin"
    if zipped:
        torch.save({"x": Evil()}, file)
    else:
        file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="can run code and is not opened"):
        open_model(tmp_path / "model", families)


@pytest.mark.parametrize("keep", [0, 10, 5000])
@pytest.mark.parametrize("format_", ["native", "huggingface", "tencentpretrain"])
def test_a_file_cut_short_is_refused(tmp_path, format_, keep):
    model_folder(tmp_path / "model", LLAMA)
    convert(tmp_path / "model", tmp_path / "other", format_, families)
    (tmp_path / "other" / "manifest.json").unlink()
    file = next(path for path in (tmp_path / "other").iterdir() if path.suffix in (".bin", ".safetensors"))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or cut short|can run code"):
        open_model(tmp_path / "other", families)


def test_a_head_that_differs_from_its_tied_embedding_is_not_dropped_silently(tmp_path):
    model_folder(tmp_path / "model", {**LLAMA, "tie_weights": True})
    file = tmp_path / "model" / "tencentpretrain_model.bin"
    tensors = torch.load(file, weights_only=True)
    tensors["target.lm.output_layer.weight"] = tensors["target.lm.output_layer.weight"] + 1
    torch.save(tensors, file)
    with pytest.raises(CheckpointError, match="differs from embedding.word.embedding.weight"):
        convert(tmp_path / "model", tmp_path / "out", "native", families)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    model_folder(tmp_path / "model", LLAMA)
    monkeypatch.setattr("tp_ext.checkpoint.convert.write_manifest", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        convert(tmp_path / "model", tmp_path / "out", "native", families)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("to", "degree"), [("native", 1), ("tencentpretrain", 1), ("tensor-parallel", 2), ("3d", 2)])
def test_the_hashes_made_while_writing_are_those_of_the_files(tmp_path, to, degree):
    model_folder(tmp_path / "model", LLAMA)
    convert(tmp_path / "model", tmp_path / "out", Conversion(to=to, degree=Degree(degree), pad_vocab=degree > 1), families)
    files = read_json(tmp_path / "out" / "manifest.json")["files"]
    assert files == {name: size_and_hash(tmp_path / "out" / name) for name in files}
    assert any(name.endswith((".safetensors", ".bin", "model_states.pt")) for name in files)


def test_a_conversion_that_reads_back_differently_is_not_kept(tmp_path, monkeypatch):
    model_folder(tmp_path / "model", LLAMA)
    whole = safetensors_file.bytes_of
    monkeypatch.setattr(safetensors_file, "bytes_of", lambda tensor, kind: bytes(whole(tensor, kind))[::-1])
    with pytest.raises(CheckpointError, match="reads back differently"):
        convert(tmp_path / "model", tmp_path / "out", "native", families)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "expected"), [(1e6, "too large for float16"), (float("nan"), "no finite numbers")])
def test_a_value_the_type_cannot_hold_is_refused(tmp_path, value, expected):
    model_folder(tmp_path / "model", LLAMA)
    file = tmp_path / "model" / "tencentpretrain_model.bin"
    tensors = torch.load(file, weights_only=True)
    tensors["encoder.layer_norm.weight"][3] = value
    torch.save(tensors, file)
    with pytest.raises(CheckpointError, match=f"encoder.layer_norm.weight .*{expected}"):
        convert(tmp_path / "model", tmp_path / "out", Conversion(to="native", dtype="fp16"), families)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", [".", "model", "model/..", "model/inside", "model/a/b"])
def test_the_input_is_never_overwritten(tmp_path, output):
    model_folder(tmp_path / "model", LLAMA)
    before = (tmp_path / "model" / "tencentpretrain_model.bin").read_bytes()
    with pytest.raises(CheckpointError):
        convert(tmp_path / "model", tmp_path / output, "native", families)
    assert (tmp_path / "model" / "tencentpretrain_model.bin").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "tencentpretrain_model.bin"]


def test_a_model_that_no_conversion_wrote_is_never_replaced(tmp_path, tokenizer):
    first, trained = (make_model(tmp_path / name, "llama", tokenizer) for name in ("first", "trained"))
    with pytest.raises(CheckpointError, match="trained: holds what no conversion wrote; name another folder"):
        convert(first, trained, "huggingface", families)
    assert same(tensors(trained), tensors(first))
    for to in ("huggingface", "3d"):  # what one wrote is
        convert(first, tmp_path / "out", to, families)


def test_the_models_json_is_never_overwritten_by_its_output(tmp_path):
    model_folder(tmp_path / "model", LLAMA)
    convert(tmp_path / "model", tmp_path / "out", "tencentpretrain", families)
    (tmp_path / "model" / "config.json").unlink()
    asked = Conversion(to="native", config_path=tmp_path / "out" / "config.json")
    with pytest.raises(CheckpointError, match="out: is where .*config.json is, which is read"):
        convert(tmp_path / "model", tmp_path / "out", asked, families)


@pytest.mark.parametrize(("tensor", "pipeline"), [(0, 1), (-1, 1), (1, 0), (2, -3)])
def test_a_degree_below_1_is_refused(tensor, pipeline):
    with pytest.raises(CheckpointError, match="a degree of parallelism is at least 1"):
        Conversion(to="3d", degree=Degree(tensor, pipeline))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, "a Qwen2ForCausalLM; this converter knows LlamaForCausalLM"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope scaling .* is not supported"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "rope scaling .* is not supported"),
        ({"attention_bias": True}, "attention_bias and mlp_bias are not supported"),
        ({"hidden_size": None}, "hidden_size"),
        ({"intermediate_size": 1.5}, "config.json.feedforward_size: expected a whole number, found 1.5"),
        ({"intermediate_size": [1]}, "config.json"),
        ({"rms_norm_eps": "small"}, "config.json"),
        ({"rope_theta": 5e5}, "rope_theta is 10000.0 in rope_parameters and 500000.0 beside them"),
    ],
)
def test_a_huggingface_model_that_cannot_be_expressed_is_refused(tmp_path, changes, expected):
    model_folder(tmp_path / "model", LLAMA)
    convert(tmp_path / "model", tmp_path / "hf", "huggingface", families)
    values = {**json.loads((tmp_path / "hf" / "config.json").read_text()), **changes}
    (tmp_path / "hf" / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    (tmp_path / "hf" / "manifest.json").unlink()
    with pytest.raises((CheckpointError, ConfigError), match=expected):
        open_model(tmp_path / "hf", families)


@pytest.mark.parametrize("to", ["native", "huggingface", "tencentpretrain"])
def test_no_page_of_a_file_stays_in_memory_when_its_tensors_are_gone(tmp_path, to):
    model_folder(tmp_path / "model", LLAMA)
    source = convert(tmp_path / "model", tmp_path / "other", to, families)
    held = [tensor for _, tensor in source.read()]
    maps = Path("/proc/self/maps")
    assert held
    assert str(tmp_path / "other") in maps.read_text()
    del held
    assert str(tmp_path / "other") not in maps.read_text()
    assert dict(source.read())


@pytest.mark.parametrize("kind", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("container", [SAFETENSORS, TORCH], ids=lambda container: container.suffix)
def test_what_we_write_is_what_the_package_itself_reads(tmp_path, container, kind):
    dtype = TYPES[kind]
    tensors = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(7).to(dtype), "c": torch.zeros(0, 2, dtype=dtype)}
    file = tmp_path / f"model{container.suffix}"
    slots = {name: Slot(tuple(each.shape), kind) for name, each in tensors.items()}
    with Pieces() as pieces:
        writer = container.create(file, slots, {}, pieces)
        for tensor in tensors.values():
            writer.add(tensor)
        writer.close()
    found = load_file(file) if container is SAFETENSORS else torch.load(file, weights_only=True, mmap=True)
    again = Weights.open(tmp_path, [file])
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(again.read(name), tensor)
    if container is TORCH:
        assert zipfile.ZipFile(file).testzip() is None
