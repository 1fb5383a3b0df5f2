import json

import pytest
import torch
from conftest import BLOOM, LLAMA, WORDS, command, extend_spm, tiny

from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.formats import open_model, write_trained
from tp_ext.checkpoint.grow import METHODS
from tp_ext.errors import UserError
from tp_ext.extend import growth
from tp_ext.extend.growth import GrowthSettings
from tp_ext.extend.weights import ModelSettings, grow_weights
from tp_ext.infer import load
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight


def of_model(model):
    return ModelSettings(model=model, growth=GrowthSettings(proof_tokens=40))


def folder_of(folder, tokenizer, family=LLAMA):
    """A native folder of a model that was never trained."""
    config = tiny(family, vocab_size=tokenizer.vocab_size)
    names = dict(build(config).named_parameters())
    weights = {name: initial_weight(name, value.shape, config, 5) for name, value in names.items()}
    folder.mkdir()
    write_trained(folder, config, families, iter(weights.items()), torch.float32, tokenizer, {})
    return folder


@pytest.fixture(autouse=True)
def _a_wide_bound(monkeypatch):
    monkeypatch.setattr(growth, "ENGLISH_BOUND", 1.0)  # these models were never trained


def test_the_output_is_whole_and_complete(tmp_path, tokenizer, merged):
    model = folder_of(tmp_path / "m", tokenizer)
    found = grow_weights(of_model(model), merged.path, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "growth.json", "manifest.json", "model.safetensors", "tokenizer.model"}
    assert json.loads((tmp_path / "out" / "growth.json").read_text()) == found.to_json()
    listed = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert set(listed) == names - {"manifest.json"}
    assert load(tmp_path / "out").tokenizer.sha256 == merged.sha256
    with pytest.raises(UserError, match="out: exists; name another folder, or remove it"):
        grow_weights(of_model(model), merged.path, tmp_path / "out")


def test_all_files_of_a_tokenizer_folder_come_along_and_none_of_the_old(tmp_path, tokenizer, merged):
    convert(folder_of(tmp_path / "native", tokenizer), tmp_path / "hf", "huggingface", families)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "hf" / name).write_text('{"old": 1}')
    (tmp_path / "hf" / "manifest.json").unlink()
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "tokenizer.model").write_bytes(merged.content)
    (tmp_path / "merged" / "tokenizer_config.json").write_text('{"new": 1}')
    (tmp_path / "merged" / "notes.txt").write_text("not a tokenizer's")
    grow_weights(of_model(tmp_path / "hf"), tmp_path / "merged", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "special_tokens_map.json" not in names
    assert "notes.txt" not in names
    told = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert told["new"] == 1
    assert "old" not in told
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == merged.vocab_size


def test_a_bin_of_tencentpretrain_is_grown_too(tmp_path, tokenizer, merged):
    convert(folder_of(tmp_path / "native", tokenizer, BLOOM), tmp_path / "tp", "tencentpretrain", families)
    (tmp_path / "tp" / "config.json").rename(tmp_path / "bloom.json")
    (tmp_path / "tp" / "tokenizer.model").unlink()
    settings = ModelSettings(
        model=tmp_path / "tp" / "tencentpretrain_model.bin", config_path=tmp_path / "bloom.json",
        growth=GrowthSettings(proof_tokens=40),
    )  # fmt: skip
    grow_weights(settings, merged.path, tmp_path / "out", base_tokenizer=tokenizer.path)
    assert open_model(tmp_path / "out", families).config.rows == merged.vocab_size


def test_mistakes_are_told_and_leave_nothing(tmp_path, tokenizer, merged):
    model = folder_of(tmp_path / "m", tokenizer)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    right = {"tokenizer": merged.path, "output": tmp_path / "out"}
    for changes, expected in [
        ({"model": tmp_path / "absent"}, "absent: no such model"),
        ({"tokenizer": tmp_path / "absent"}, "absent: no such tokenizer file"),
        ({"base_tokenizer": merged.path}, "the embedding has 500 rows"),
        ({"tokenizer": tokenizer.path, "base_tokenizer": merged.path}, "the embedding has 500 rows"),
        ({"output": model}, "is where the model is"),
        ({"output": model / "inside"}, "is where the model is"),
        ({"output": tmp_path}, "is where the model is"),
        ({"output": tmp_path / "taken"}, "taken: exists; name another folder"),
        ({"english": [tmp_path / "bad.txt"]}, "bad.txt"),
        ({"chinese": [tmp_path / "empty.txt"]}, "no line of text"),
        ({"growth": GrowthSettings(method="means")}, "Did you mean 'mean'"),
    ]:
        ours = {name: changes[name] for name in changes if name in ("model", "english", "chinese", "growth")}
        rest = {name: changes[name] for name in changes if name not in ours}
        with pytest.raises(UserError, match=expected):
            grow_weights(ModelSettings(**{"model": model, **ours}), **{**right, **rest})
        assert sorted(tmp_path.rglob("*")) == before


def test_the_command_is_one_line_on_a_mistake_and_a_summary_else(tmp_path, tokenizer, spm_path):
    merged = extend_spm(spm_path, tmp_path / "merged.model", WORDS[:3], ())
    model = folder_of(tmp_path / "m", tokenizer)
    (tmp_path / "en.txt").write_text("the module returns a new list\n")
    line = ["scripts/grow_weights.py", "--model", model, "--tokenizer", merged.path, "--proof_tokens", 30]
    done = command(*line, "--output", model)
    assert (done.returncode, done.stderr) == (2, f"error: {model}: is where the model is; name a folder beside it\n")
    done = command(*line, "--output", tmp_path / "out", "--english", tmp_path / "en.txt", "--method", "mean")
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path / 'out'}: 503 rows instead of 500, 384 parameters more" in done.stdout
    assert all(f"{name} " in done.stdout for name in METHODS)
    many = extend_spm(spm_path, tmp_path / "many.model", [chr(code) for code in range(0xAC00, 0xAC00 + 300)])
    done = command(*line[:3], "--tokenizer", many.path, "--output", tmp_path / "new")  # never trained: all draw alike
    assert done.returncode == 2
    assert done.stderr.startswith("error: the English text costs ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
