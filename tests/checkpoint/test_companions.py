"""What Hugging Face's programs know of a model stays with it through every format, growth and training."""

import json

import pytest
import torch
from conftest import BLOOM, LLAMA, WORDS, extend_spm, tiny

from tp_ext.checkpoint.convert import convert
from tp_ext.checkpoint.formats import open_model, write_trained
from tp_ext.errors import CheckpointError
from tp_ext.extend import growth
from tp_ext.extend.growth import GrowthSettings
from tp_ext.extend.weights import ModelSettings, grow_weights
from tp_ext.models import build, families
from tp_ext.models.decoder import initial_weight
from tp_ext.settings import read_json
from tp_ext.tokens.fast import write_fast

KNOWN = {"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": None, "use_cache": True, "initializer_range": 0.02}
GENERATION = {"eos_token_id": [2, 7], "temperature": 0.6, "do_sample": True}


def trained(folder, tokenizer, begun_from=None, family=LLAMA):
    config = tiny(family, vocab_size=tokenizer.vocab_size)
    shapes = {name: value.shape for name, value in build(config).named_parameters()}
    weights = ((name, initial_weight(name, shape, config, 5)) for name, shape in shapes.items())
    folder.mkdir()
    write_trained(folder, config, families, weights, torch.float32, tokenizer, {}, begun_from)
    return folder


@pytest.fixture
def chat(tmp_path, tokenizer):
    """A Hugging Face folder as a chat model has it."""
    folder = tmp_path / "chat"
    convert(trained(tmp_path / "native", tokenizer), folder, "huggingface", families)
    (folder / "manifest.json").unlink()
    (folder / "config.json").write_text(json.dumps({**read_json(folder / "config.json"), **KNOWN, "auto_map": {"a": "b"}}))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ old }}", "model_max_length": 4096}))
    return folder


def holds(folder, pad=None):
    config, generation = read_json(folder / "config.json"), read_json(folder / "generation_config.json")
    assert {key: config[key] for key in KNOWN} == {**KNOWN, "pad_token_id": pad}
    assert "auto_map" not in config
    expected = {**GENERATION, "bos_token_id": 1, **({} if pad is None else {"pad_token_id": pad})}
    assert generation == expected
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"


def test_every_format_keeps_it(chat, tmp_path):
    path = chat
    for number, to in enumerate(["huggingface", "native", "tencentpretrain", "native", "huggingface"]):
        convert(path, tmp_path / str(number), to, families)
        path = tmp_path / str(number)
    holds(path)
    assert read_json(path / "tokenizer_config.json") == read_json(chat / "tokenizer_config.json")


def test_a_trained_model_keeps_it(chat, tmp_path, tokenizer):
    for start in (chat, tmp_path / "again"):
        convert(start, tmp_path / "again", "native", families) if start == chat else None
        name = f"trained from {start.name}"
        trained(tmp_path / name, tokenizer, open_model(start, families))
        convert(tmp_path / name, tmp_path / f"{name}, hf", "huggingface", families)
        holds(tmp_path / f"{name}, hf")


def test_a_grown_model_keeps_it_and_names_its_padding(chat, tmp_path, merged, monkeypatch):
    monkeypatch.setattr(growth, "ENGLISH_BOUND", 1.0)  # this model was never trained
    with_pad = extend_spm(chat / "tokenizer.model", tmp_path / "merged" / "tokenizer.model")
    model = with_pad.content
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    proto = ModelProto.FromString(model)
    proto.trainer_spec.pad_id, proto.trainer_spec.pad_piece = with_pad.vocab_size - 1, "<pad>"
    (tmp_path / "merged" / "tokenizer.model").write_bytes(proto.SerializeToString())
    (tmp_path / "merged" / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    settings = ModelSettings(model=chat, growth=GrowthSettings(proof_tokens=40))
    grow_weights(settings, tmp_path / "merged", tmp_path / "grown")
    holds(tmp_path / "grown", pad=with_pad.vocab_size - 1)
    expected = {"pad_token": "<pad>", "chat_template": "{{ old }}", "model_max_length": 4096}
    assert expected.items() <= read_json(tmp_path / "grown" / "tokenizer_config.json").items()


def test_the_roles_of_pieces_stay_where_the_model_has_them(chat, tmp_path, tokenizer, monkeypatch):
    """A chat model of its own begin and end, which puts nothing before a text."""
    monkeypatch.setattr(growth, "ENGLISH_BOUND", 1.0)
    control = ("<|start|>", "<|end|>")
    base = extend_spm(chat / "tokenizer.model", chat / "tokenizer.model", (), control)
    config = tiny(LLAMA, vocab_size=base.vocab_size)
    shapes = {name: value.shape for name, value in build(config).named_parameters()}
    weights = ((name, initial_weight(name, shape, config, 5)) for name, shape in shapes.items())
    (tmp_path / "m").mkdir()
    write_trained(tmp_path / "m", config, families, weights, torch.float32, base, {})
    roles = {"bos_token": "<|start|>", "eos_token": {"content": "<|end|>", "special": True}, "pad_token": "[PAD]"}
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({**roles, "add_bos_token": False}))
    (tmp_path / "m" / "manifest.json").unlink()
    merged = extend_spm(base.path, tmp_path / "merged" / "tokenizer.model", WORDS, ())
    settings = ModelSettings(model=tmp_path / "m", growth=GrowthSettings(proof_tokens=40))
    for number, with_json in enumerate((True, False)):
        if with_json:
            write_fast(merged, tmp_path / "merged")
        else:
            (tmp_path / "merged" / "tokenizer.json").unlink()
            (tmp_path / "merged" / "tokenizer_config.json").unlink()
        out = tmp_path / f"out{number}"
        grow_weights(settings, merged.path, out)
        written = read_json(out / "tokenizer_config.json")
        assert (written["bos_token"], written["eos_token"], written["add_bos_token"]) == ("<|start|>", "<|end|>", False)
        assert written.get("pad_token") in (None, "[PAD]")
        if with_json:
            found = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(out))
            assert found("abc").input_ids == merged.encode("abc")
            assert (found.bos_token_id, found.eos_token_id) == (500, 501)
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|gone|>"}))
    with pytest.raises(CheckpointError, match="its files name '<.gone.>' as eos_token, which is no piece"):
        grow_weights(settings, merged.path, tmp_path / "none")


def test_a_file_of_another_tokenizer_beside_the_merged_one_is_refused(chat, tmp_path, tokenizer):
    merged = extend_spm(chat / "tokenizer.model", tmp_path / "merged" / "tokenizer.model", WORDS, ())
    write_fast(merged, tmp_path / "merged")
    merged = extend_spm(chat / "tokenizer.model", tmp_path / "merged" / "tokenizer.model", WORDS[::-1], ())
    settings = ModelSettings(model=chat, growth=GrowthSettings(proof_tokens=40))
    with pytest.raises(CheckpointError, match="tokenizer.json: is of another tokenizer than .*piece 500 is"):
        grow_weights(settings, tmp_path / "merged", tmp_path / "out")


@pytest.mark.parametrize("family", [LLAMA, BLOOM])
def test_a_model_of_ours_has_the_ids_of_its_tokenizer(tmp_path, spm_path, family):
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto.FromString(spm_path.read_bytes())
    model.pieces[1].piece, model.pieces[2].piece = "<eos>", "<bos>"
    model.trainer_spec.bos_id, model.trainer_spec.eos_id = 2, 1
    model.trainer_spec.bos_piece, model.trainer_spec.eos_piece = "<bos>", "<eos>"
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.model").write_bytes(model.SerializeToString())
    tokenizer = extend_spm(tmp_path / "base" / "tokenizer.model", tmp_path / "tokenizer.model", WORDS, ())
    convert(trained(tmp_path / "m", tokenizer, family=family), tmp_path / "hf", "huggingface", families)
    values = read_json(tmp_path / "hf" / "config.json")
    assert (values["bos_token_id"], values["eos_token_id"]) == (2, 1)
    assert "pad_token_id" not in values


def test_another_base_of_the_same_size_is_refused(tmp_path, tokenizer, spm_path, merged):
    model = trained(tmp_path / "m", tokenizer)
    other = spm_path.read_bytes().replace("▁the".encode(), "▁teh".encode())
    (tmp_path / "other.model").write_bytes(other)
    settings = ModelSettings(model=model, growth=GrowthSettings(proof_tokens=40))
    with pytest.raises(CheckpointError, match="other.model is another tokenizer than .*m/tokenizer.model, which"):
        grow_weights(settings, merged.path, tmp_path / "out", tmp_path / "other.model")
    assert not (tmp_path / "out").exists()


def test_a_converted_tokenizer_is_compared_piece_by_piece(tmp_path, tokenizer, merged, monkeypatch):
    monkeypatch.setattr(growth, "ENGLISH_BOUND", 1.0)
    model = trained(tmp_path / "m", tokenizer)
    (model / "manifest.json").unlink()
    (model / "tokenizer.model").unlink()
    pieces = [tokenizer.piece(index) for index in range(tokenizer.vocab_size)]
    settings = ModelSettings(model=model, growth=GrowthSettings(proof_tokens=40))
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {p: n for n, p in enumerate(pieces)}}}))
    grow_weights(settings, merged.path, tmp_path / "one", tokenizer.path)
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [[p, 0.0] for p in pieces]}}))
    grow_weights(settings, merged.path, tmp_path / "two", tokenizer.path)
    pieces[300:302] = pieces[301], pieces[300]
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [[p, 0.0] for p in pieces]}}))
    with pytest.raises(CheckpointError, match="another tokenizer than .*tokenizer.json.*piece 300 is "):
        grow_weights(settings, merged.path, tmp_path / "three", tokenizer.path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", {"<|im_start|>": 505}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": {"content": "a"}, "505": {"content": "<|im_start|>"}}}),
        ("tokenizer.json", {"added_tokens": [{"id": 505, "content": "<|im_start|>"}]}),
    ],
)
def test_rows_of_added_tokens_are_not_taken_for_padding(tmp_path, tokenizer, merged, name, content, monkeypatch):
    monkeypatch.setattr(growth, "ENGLISH_BOUND", 1.0)
    config = tiny(LLAMA, vocab_size=512)
    shapes = {name: value.shape for name, value in build(config).named_parameters()}
    weights = ((name, initial_weight(name, shape, config, 5)) for name, shape in shapes.items())
    (tmp_path / "m").mkdir()
    write_trained(tmp_path / "m", config, families, weights, torch.float32, tokenizer, {})
    (tmp_path / "m" / "manifest.json").unlink()
    settings = ModelSettings(model=tmp_path / "m", growth=GrowthSettings(proof_tokens=40))
    (tmp_path / "m" / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"{name}: says that '<.im_start.>' is 505, but .* has 500 pieces"):
        grow_weights(settings, merged.path, tmp_path / "out")
    (tmp_path / "m" / name).write_text(json.dumps({"added_tokens": [7], "added_tokens_decoder": [7], "x": "y"}))
    with pytest.raises(CheckpointError, match="are not written as Hugging Face"):
        grow_weights(settings, merged.path, tmp_path / "out")
    (tmp_path / "m" / name).write_text(json.dumps(content).replace("505", "512"))  # no row has that id
    grow_weights(settings, merged.path, tmp_path / "out")


def test_a_model_that_knows_less_than_nothing_is_doubted(tmp_path, tokenizer, merged, monkeypatch):
    monkeypatch.setattr(growth, "ENGLISH_BOUND", 9.0)
    config = tiny(LLAMA, vocab_size=tokenizer.vocab_size)
    shapes = {name: value.shape for name, value in build(config).named_parameters()}
    found = []
    for factor in (1, 40):
        weights = ((name, factor * initial_weight(name, shape, config, 5)) for name, shape in shapes.items())
        (tmp_path / str(factor)).mkdir()
        write_trained(tmp_path / str(factor), config, families, weights, torch.float32, tokenizer, {})
        settings = ModelSettings(model=tmp_path / str(factor), growth=GrowthSettings(proof_tokens=40))
        found.append(grow_weights(settings, merged.path, tmp_path / f"{factor} grown").doubts)
    assert found[0] == []
    assert "is the base model" not in found[1][0]
    assert "tokenizer.model the tokenizer of" in found[1][0]
