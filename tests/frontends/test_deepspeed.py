"""DeepSpeed's own pipeline engine loads a 3d folder, layer by layer and strictly."""

import subprocess
import sys

import pytest
import torch
from conftest import environment
from models_on_disk import make_model

from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.source import Degree
from tp_ext.infer import load
from tp_ext.models import families

pytestmark = pytest.mark.frontends

PIPELINE = """
import os, sys
os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[3])
import deepspeed, torch
from deepspeed.pipe import LayerSpec, PipelineModule
from tp_ext.checkpoint.formats import open_model
from tp_ext.models import build, families
from pathlib import Path
deepspeed.init_distributed("gloo")
model = build(open_model(Path(sys.argv[1]), families).config)
for parameter in model.parameters():
    parameter.data.zero_()

class First(torch.nn.Module):  # the modules that TencentPretrain's pipeline is made of, under the same names
    def __init__(self):
        super().__init__(); self.embeddings = model.embedding
    def forward(self, ids):
        return self.embeddings(ids)

class Middle(torch.nn.Module):
    def __init__(self, index):
        super().__init__(); self.index, self.layer = index, model.encoder.transformer[index]
        self.layer_norm = model.encoder.layer_norm
    def forward(self, hidden):
        hidden = self.layer(hidden)
        return self.layer_norm(hidden) if self.index == len(model.encoder.transformer) - 1 else hidden

class Last(torch.nn.Module):
    def __init__(self):
        super().__init__(); self.target_layer = model.target
    def forward(self, hidden):
        return self.target_layer(hidden, None)

specs = [LayerSpec(First), *(LayerSpec(Middle, index) for index in range(len(model.encoder.transformer))), LayerSpec(Last)]
module = PipelineModule(specs, num_stages=1, loss_fn=lambda logits, ids: logits.mean())
settings = {"train_batch_size": 1, "optimizer": {"type": "Adam", "params": {"lr": 0.1, "torch_adam": True}}}
engine, *_ = deepspeed.initialize(model=module, config=settings)
found, _ = engine.load_checkpoint(sys.argv[1], load_module_only=True)
assert found, "nothing was loaded"
ids = torch.arange(3, 33)[None]
with torch.no_grad():
    torch.save(module(ids), sys.argv[2])
"""


@pytest.mark.parametrize("shape", ["groups", "tied"])
def test_the_pipeline_engine_loads_it(tmp_path, tokenizer, shape):
    path = make_model(tmp_path / "model", shape, tokenizer)
    convert(path, tmp_path / "3d", Conversion(to="3d", degree=Degree(1, 1)), families)
    line = [sys.executable, "-c", PIPELINE, tmp_path / "3d", tmp_path / "logits.pt", "29655"]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert (found - load(path).logits(torch.arange(3, 33)[None])).abs().max() <= 1e-6
