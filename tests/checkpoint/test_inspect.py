"""A checkpoint of any format is described, and what is wrong with it is said."""

import pytest
from conftest import command
from models_on_disk import make_model

from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.formats import FORMATS
from tp_ext.checkpoint.inspect import inspect
from tp_ext.checkpoint.source import Degree
from tp_ext.models import families


@pytest.mark.parametrize("to", [each.name for each in FORMATS if each.plan])
def test_every_format_is_described(tmp_path, tokenizer, to):
    path = make_model(tmp_path / "model", "groups", tokenizer)
    degree = Degree(2) if FORMATS.get(to).is_cut else Degree()
    convert(path, tmp_path / "out", Conversion(to=to, degree=degree), families)
    found = inspect(tmp_path / "out", families, hashes=True)
    assert found.problems == []
    assert found.facts["format"].startswith(f"{to}: ")
    assert found.facts["sizes"] == "2 layers of 64, 16 heads of 4, 8 of keys and values, feed-forward 128"
    assert found.facts["degree"] == f"tensor {degree.tensor}, pipeline 1"
    assert found.facts["vocabulary"] == "500 rows, head of its own"
    assert found.facts["dtype"] == "float32"
    assert found.facts["tokenizer"].startswith("tokenizer.model, 500 pieces")
    assert "every value kept" in found.facts["converted"]


def test_what_is_wrong_is_said_and_the_command_ends_with_1(tmp_path, tokenizer):
    path = make_model(tmp_path / "model", "llama", tokenizer)
    done = command("scripts/inspect_checkpoint.py", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("0 problems\n")
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    assert command("scripts/inspect_checkpoint.py", path).returncode == 0  # sizes alone do not tell
    done = command("scripts/inspect_checkpoint.py", path, "--hashes")
    assert done.returncode == 1
    assert "model.safetensors has changed since it was written" in done.stdout
    (path / "model.safetensors").write_bytes(content[:-100])
    assert "bytes instead of" in command("scripts/inspect_checkpoint.py", path).stdout
    done = command("scripts/inspect_checkpoint.py", tmp_path)
    assert done.returncode == 2
    assert "holds no weights under a name known here" in done.stderr
