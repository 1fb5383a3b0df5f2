"""Files that lie, are damaged or want to run code: a line a problem, nothing executed, nothing written."""

import json
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import ROOT, environment
from models_on_disk import make_model, make_tokenizers
from safetensors.torch import load_file, save_file

from tp_ext.checkpoint import layout
from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.source import Degree
from tp_ext.errors import UserError
from tp_ext.models import families

CODE = "open({!r}, 'w')"


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (CODE.format(str(self.mark)),)


def evil_in_the_tensors(folder, mark):
    file = next(folder.rglob("*.bin"))
    torch.save({**torch.load(file, weights_only=True), "x": Evil(mark)}, file)


def evil_pickle(folder, mark):
    next(folder.rglob("*.bin")).write_bytes(pickle.dumps(Evil(mark)))


def evil_global(folder, mark):
    file = next(folder.rglob("*.bin"))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")


def edit_config(**changes):
    def edit(folder, mark):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def index_outside(folder, mark):
    index = next(folder.glob("*.index.json"))
    values = json.loads(index.read_text())
    values["weight_map"] = dict.fromkeys(values["weight_map"], "../model/model.safetensors")
    index.write_text(json.dumps(values))


def index_of_no_names(folder, mark):
    next(folder.glob("*.index.json")).write_text('{"weight_map": {"a": 1}}')


def doubled_over_shards(folder, mark):
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    tensors = load_file(second)
    name, tensor = next(iter(load_file(first).items()))
    save_file({**tensors, name: tensor}, second)


def cut_short(pattern, keep=0.6):
    def cut(folder, mark):
        file = sorted(folder.rglob(pattern))[-1]
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * keep)])

    return cut


def flip_a_bit(pattern, place=0.5):
    def flip(folder, mark):
        file = sorted(folder.rglob(pattern))[0]
        content = bytearray(file.read_bytes())
        content[int(len(content) * place)] ^= 4
        file.write_bytes(content)

    return flip


def absurd_safetensors(folder, mark):
    next(folder.glob("*.safetensors")).write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def absurd_gguf(count_at):
    def edit(folder, mark):
        file = next(folder.glob("*.gguf"))
        content = bytearray(file.read_bytes())
        content[count_at : count_at + 8] = struct.pack("<Q", 1 << 60)
        file.write_bytes(content)

    return edit


def absurd_gguf_array(folder, mark):
    file = next(folder.glob("*.gguf"))
    content = bytearray(file.read_bytes())
    place = content.index(b"tokenizer.ggml.scores") + len("tokenizer.ggml.scores") + 8
    content[place : place + 8] = struct.pack("<Q", 1 << 60)
    file.write_bytes(content)


def zip_bomb(folder, mark):
    with zipfile.ZipFile(next(folder.rglob("*.bin")), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))


def storage_too_short(folder, mark):
    file = next(folder.rglob("*.bin"))
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    records["archive/data/0"] = records["archive/data/0"][:-8]
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def integers(folder, mark):
    file = next(folder.glob("*.safetensors"))
    save_file({name: tensor.to(torch.int32) for name, tensor in load_file(file).items()}, file)


def one_of_another_type(folder, mark):
    file = next(folder.glob("*.safetensors"))
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name].half()}, file)


def unknown_and_missing(folder, mark):
    file = sorted(folder.glob("*.safetensors"))[-1]
    tensors = load_file(file)
    tensors["surprise.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, file)


def a_rank_less(pattern):
    return lambda folder, mark: sorted(folder.rglob(pattern))[0].unlink()


def ranks_that_differ(folder, mark):
    file = sorted(folder.rglob("mp_rank_*.pt"))[1]
    tensors = torch.load(file, weights_only=True)
    tensors["encoder.layer_norm.weight"] += 1
    torch.save(tensors, file)


def lying_params(folder, mark):
    path = folder / "params.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_heads": 7}))


CASES = {
    # format, degree, what is done to it, what is said
    "code among tensors": ("tencentpretrain", 1, evil_in_the_tensors, "can run code and is not opened"),
    "code in an old pickle": ("tencentpretrain", 1, evil_pickle, "can run code and is not opened"),
    "a global of the system": ("tencentpretrain", 1, evil_global, "can run code and is not opened"),
    "an index pointing outside": ("huggingface", 1, index_outside, "which is not a file in its folder"),
    "an index without names": ("huggingface", 1, index_of_no_names, "no weight_map of names to files"),
    "a tensor in two shards": ("huggingface", 1, doubled_over_shards, "which another file holds too"),
    "safetensors cut short": ("huggingface", 1, cut_short("*.safetensors"), "model-0000.*damaged or cut short"),
    "native cut short": ("native", 1, cut_short("*.safetensors"), "has .* bytes instead of"),
    "native bit flip": ("native", 1, flip_a_bit("*.safetensors"), "is no more what it was"),
    "huggingface bit flip": ("huggingface", 1, flip_a_bit("*.safetensors"), "is no more what it was"),
    "gguf bit flip": ("gguf", 1, flip_a_bit("*.gguf", 0.9), "is no more what it was"),
    "bin bit flip": ("tencentpretrain", 1, flip_a_bit("*.bin"), "the CRC-32 of data/.* is not the one"),
    "bin cut short": ("tencentpretrain", 1, cut_short("*.bin"), "damaged or cut short"),
    "rank bit flip": ("tensor-parallel", 2, flip_a_bit("*_00_model_states.pt"), "mp_rank_00.*the CRC-32 of"),
    "layer cut short": ("3d", 2, cut_short("layer_*.pt"), "layer_03-model_01-model_states.pt: damaged or cut short"),
    "meta bit flip": ("meta", 2, flip_a_bit("consolidated.00.pth"), "consolidated.00.pth.*the CRC-32 of"),
    "gguf cut short": ("gguf", 1, cut_short("*.gguf"), "damaged or cut short"),
    "a safetensors header of 4 EiB": ("native", 1, absurd_safetensors, "bytes instead of"),
    "a huggingface header of 4 EiB": ("huggingface", 1, absurd_safetensors, "damaged or cut short"),
    "2^60 gguf tensors": ("gguf", 1, absurd_gguf(8), "damaged or cut short"),
    "2^60 gguf keys": ("gguf", 1, absurd_gguf(16), "damaged or cut short"),
    "2^60 gguf scores": ("gguf", 1, absurd_gguf_array, "damaged or cut short"),
    "a zip bomb": ("tencentpretrain", 1, zip_bomb, "data.pkl is compressed"),
    "a storage shorter than its tensor": ("tencentpretrain", 1, storage_too_short, "is shorter than its tensor"),
    "integers": ("huggingface", 1, integers, "is I32; expected one of F32, BF16, F16"),
    "one of another type": ("huggingface", 1, one_of_another_type, "weights of several types"),
    "names the table does not explain": ("huggingface", 1, unknown_and_missing, "model.norm.weight.*surprise.weight"),
    "a config that lies": ("huggingface", 1, edit_config(hidden_size=128), "of another shape than its config.json gives"),
    "a config of 10^9 layers": ("huggingface", 1, edit_config(num_hidden_layers=10**9), "1000000000 layers"),
    "a config of no sizes": ("tensor-parallel", 2, edit_config(emb_size="big"), "expected a whole number"),
    "params that lie": ("meta", 2, lying_params, "hidden_size 64 is not divisible by heads_num 7"),
    "a rank less": ("tensor-parallel", 2, a_rank_less("mp_rank_00*"), "has no file of rank 0"),
    "a layer less": ("3d", 2, a_rank_less("layer_02-model_00*"), "files of layers and ranks; 4 x 2 are wanted"),
    "ranks that differ": ("tensor-parallel", 2, ranks_that_differ, "should be the same on all ranks; that of rank 1"),
}


@pytest.fixture(scope="module")
def formats(tmp_path_factory, corpus):
    """A small LLaMA in every format, kept for all cases; Hugging Face's in two shards."""
    folder = tmp_path_factory.mktemp("formats")
    model = make_model(folder / "model", "llama", make_tokenizers(folder, corpus)["llama"])
    made = {}
    for name, degree in {(name, degree) for name, degree, _, _ in CASES.values()}:
        whole, layout.SHARD_BYTES = layout.SHARD_BYTES, 300_000 if name == "huggingface" else 4 << 30
        convert(model, folder / name, Conversion(to=name, degree=Degree(degree)), families)
        layout.SHARD_BYTES, made[name] = whole, folder / name
    return made


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_nothing_is_written(formats, tmp_path, case):
    import shutil

    name, _, damage, expected = CASES[case]
    shutil.copytree(formats[name], tmp_path / "bad")
    damage(tmp_path / "bad", tmp_path / "was_run")
    with pytest.raises(UserError, match=expected) as error:
        convert(tmp_path / "bad", tmp_path / "out", "native", families)
    assert str(error.value).count("\n") < 3  # a line a problem
    assert len(str(error.value)) < 1500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(formats, tmp_path, monkeypatch):
    import collections

    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 1 << 20))
    with pytest.raises(UserError, match="MiB are needed there, 1 MiB are free"):
        convert(formats["native"], tmp_path / "out", "huggingface", families)
    assert not list(tmp_path.iterdir())


def test_a_killed_conversion_is_cleaned_up_by_the_next(formats, tmp_path):
    script = ROOT / "scripts" / "convert_weights.py"
    code = f"""
import os, runpy, sys
from tp_ext.checkpoint.containers import torch_writer
torch_writer.TorchWriter.add = lambda self, tensor: os.kill(os.getpid(), 9)
sys.argv = ["x", "--input", {str(formats["native"])!r}, "--output", {str(tmp_path / "out")!r}, "--to", "tencentpretrain"]
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    convert(formats["native"], tmp_path / "out", "tencentpretrain", families)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
