"""State-dict keys and shapes are TencentPretrain's: golden lists, and its own model where there is a checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import BLOOM, LLAMA, tiny

from tp_ext.models import build

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CONFIGS = {
    "llama": tiny(LLAMA),
    "llama_gqa": tiny(LLAMA, local_kv_heads_num=2),
    "bloom": tiny(BLOOM),
}


def keys(config) -> list[str]:
    return [f"{name} {list(value.shape)}" for name, value in build(config).state_dict().items()]


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_are_the_golden_ones(name):
    assert keys(CONFIGS[name]) == (GOLDEN / f"{name}_keys.txt").read_text().splitlines()


HOST = """
import argparse, json, sys
from tencentpretrain.embeddings import Embedding, str2embedding
from tencentpretrain.encoders import str2encoder
from tencentpretrain.models.model import Model
from tencentpretrain.opts import model_opts
from tencentpretrain.targets import Target, str2target
parser = argparse.ArgumentParser(); model_opts(parser); args = parser.parse_args([])
values = json.loads(sys.argv[1]); rows = values.pop("vocab_size"); values["encoder"] = "transformer"
for name, value in values.items(): setattr(args, name, value)
embedding = Embedding(args); embedding.update(str2embedding["word"](args, rows), "word")
target = Target(); target.update(str2target["lm"](args, rows), "lm")
model = Model(args, embedding, str2encoder["transformer"](args), None, None, target)
print("\\n".join(f"{name} {list(value.shape)}" for name, value in model.state_dict().items()))
"""


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_are_those_of_the_host_itself(name):
    checkout = os.environ.get("TENCENTPRETRAIN")
    if not checkout:
        pytest.skip("TENCENTPRETRAIN does not point to a checkout")
    values = json.dumps(CONFIGS[name].to_json())
    found = subprocess.run([sys.executable, "-c", HOST, values], cwd=checkout, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    # the order in which modules are made differs; names and shapes do not
    assert sorted(keys(CONFIGS[name])) == sorted(found.stdout.splitlines())


def test_the_rotary_table_stays_out_of_the_state_dict_and_in_float32():
    model = build(CONFIGS["llama"])
    ids = torch.arange(20)[None]
    model(ids)
    assert not [name for name in model.state_dict() if "rotary" in name or "freq" in name]
    model.bfloat16()(ids)
    assert model.encoder.transformer[0].self_attn.rotary._table.dtype == torch.complex64
