"""LoRA adapters between TencentPretrain's form and peft's, and merged into their model."""

import json

import pytest
import torch
from conftest import command
from models_on_disk import make_model, same, tensors

from tp_ext.checkpoint.adapters import convert_adapter, merged, open_adapter
from tp_ext.checkpoint.convert import Conversion, convert, convert_source
from tp_ext.checkpoint.formats import open_model
from tp_ext.checkpoint.inspect import inspect
from tp_ext.errors import CheckpointError
from tp_ext.infer import load
from tp_ext.models import families

RANK, ALPHA = 4, 6


def make_lora(folder, base, targets=("self_attn.linear_layers.0", "self_attn.linear_layers.2", "feed_forward.linear_2")):
    """An adapter as TencentPretrain saves it, with B away from 0."""
    draw = torch.Generator().manual_seed(1)
    values = {}
    for name, shape in base.shapes.items():
        owner = name.removesuffix(".weight")
        if owner.endswith(targets):
            values[f"{owner}.lora_A"] = torch.randn(RANK, shape[1], generator=draw) * 0.1
            values[f"{owner}.lora_B"] = torch.randn(shape[0], RANK, generator=draw) * 0.1
    folder.mkdir()
    torch.save(values, folder / "lora.bin")
    params = {"lora_r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0}
    (folder / "config.json").write_text(json.dumps({**base.config.to_json(), "lora_params": params}))
    return values


@pytest.fixture
def base(tmp_path, tokenizer):
    return open_model(make_model(tmp_path / "base", "groups", tokenizer), families)


def test_there_and_back_is_the_identity(tmp_path, base):
    values = make_lora(tmp_path / "lora", base)
    convert_adapter(open_adapter(tmp_path / "lora", base), base, tmp_path / "peft", "peft")
    convert_adapter(open_adapter(tmp_path / "peft", base), base, tmp_path / "back", "lora")
    back = torch.load(tmp_path / "back" / "lora.bin", weights_only=True)
    assert same(dict(sorted(back.items())), dict(sorted(values.items())))


def test_merged_weights_are_the_sum(tmp_path, base):
    values = make_lora(tmp_path / "lora", base)
    adapter = open_adapter(tmp_path / "lora", base)
    for to in ("huggingface", "tencentpretrain"):
        convert_source(merged(base, adapter), tmp_path / to, Conversion(to=to), families)
        found, before = tensors(tmp_path / to), tensors(base.path)
        for name, tensor in before.items():
            owner = name.removesuffix(".weight")
            change = values[f"{owner}.lora_B"] @ values[f"{owner}.lora_A"] if f"{owner}.lora_A" in values else 0
            assert torch.allclose(found[name], tensor + ALPHA / RANK * change, atol=1e-6), name
        assert (tmp_path / to / "tokenizer.model").is_file()


@pytest.mark.frontends
def test_peft_computes_what_the_merged_model_does(tmp_path, base):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    make_lora(tmp_path / "lora", base)
    adapter = open_adapter(tmp_path / "lora", base)
    convert_adapter(adapter, base, tmp_path / "peft", "peft")
    convert(base.path, tmp_path / "hf", "huggingface", families)
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "hf"), tmp_path / "peft").eval()
    convert_source(merged(base, adapter), tmp_path / "merged", Conversion(to="native"), families)
    ids = torch.randint(500, (2, 30), generator=torch.Generator().manual_seed(2))
    expected = load(tmp_path / "merged").logits(ids)
    with torch.no_grad():
        assert (theirs(ids).logits - expected).abs().max() <= 1e-4
    assert (load(base.path).logits(ids) - expected).abs().max() > 0.01
    # and what peft itself saves is read
    theirs.save_pretrained(tmp_path / "saved")
    again = open_adapter(tmp_path / "saved", base)
    assert all(torch.equal(one(), two()) for name in adapter.parts
               for one, two in zip(adapter.parts[name], again.parts[name], strict=True))  # fmt: skip


def test_the_command(tmp_path, base):
    make_lora(tmp_path / "lora", base)
    done = command("scripts/convert_weights.py", "--input", tmp_path / "lora", "--output", tmp_path / "out", "--to", "peft")
    assert done.returncode == 2
    assert "is an adapter; name the model it belongs to with --base" in done.stderr
    for to in ("peft", "native"):
        done = command("scripts/convert_weights.py", "--input", tmp_path / "lora", "--base", base.path, "--output",
                       tmp_path / to, "--to", to)  # fmt: skip
        assert done.returncode == 0, done.stderr
    for adapter in (tmp_path / "lora", tmp_path / "peft"):
        with pytest.raises(CheckpointError, match="is an adapter, not a model; merge it into the one it belongs to"):
            load(adapter)
        found = inspect(adapter, families, hashes=True)
        assert found.problems == []
        assert found.facts["format"] == f"{adapter.name}: what LoRA has trained, not a model"
        assert "rank 4" in found.facts["adapter"] and "alpha 6, so B A is added times 1.5" in found.facts["adapter"]
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"peft_type": "LOHA"}))
    problems = inspect(tmp_path / "peft", families).problems
    assert len(problems) == 2 and "its peft_type is 'LOHA'" in problems[0] and "bytes instead of" in problems[1]
    done = command("scripts/convert_weights.py", "--input", base.path, "--output", tmp_path / "x", "--to", "peft")
    assert "is a whole model; peft is a form of adapters" in done.stderr


@pytest.mark.parametrize(("change", "expected"), [
    (lambda values: values.pop(next(iter(values))), "what has no pair: "),
    (lambda values: values.update({"encoder.x.lora_A": torch.ones(4, 4), "encoder.x.lora_B": torch.ones(4, 4)}),
     "encoder.x.weight: the model has no such matrix"),
    (lambda values: values.update({next(iter(values)): torch.ones(RANK, 3)}), "which do not make"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, base, change, expected):
    values = make_lora(tmp_path / "lora", base)
    change(values)
    torch.save(values, tmp_path / "lora" / "lora.bin")
    with pytest.raises(CheckpointError, match=expected):
        open_adapter(tmp_path / "lora", base)


@pytest.mark.parametrize("targets", [("linear_layers.0",), ("linear_layers.0", "linear_layers.2"),
                                     ("linear_layers.0", "linear_layers.1", "linear_layers.2", "linear_1")])  # fmt: skip
def test_blooms_fused_weights_are_one_pair_in_peft_and_several_again(tmp_path, tokenizer, targets):
    base = open_model(make_model(tmp_path / "base", "bloom", tokenizer), families)
    values = make_lora(tmp_path / "lora", base, targets)
    convert_adapter(open_adapter(tmp_path / "lora", base), base, tmp_path / "peft", "peft")
    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert set(settings["rank_pattern"].values()) == {3 * RANK} and set(settings["alpha_pattern"].values()) == {3 * ALPHA}
    convert_adapter(open_adapter(tmp_path / "peft", base), base, tmp_path / "back", "lora")
    back = torch.load(tmp_path / "back" / "lora.bin", weights_only=True)
    assert same(dict(sorted(back.items())), dict(sorted(values.items())))


def test_an_adapter_that_peft_gave_several_scales_is_refused(tmp_path, base):
    make_lora(tmp_path / "lora", base)
    convert_adapter(open_adapter(tmp_path / "lora", base), base, tmp_path / "peft", "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "alpha_pattern": {"q_proj": 3}}))
    with pytest.raises(CheckpointError, match="rank_pattern and alpha_pattern give its layers several scales"):
        open_adapter(tmp_path / "peft", base)
