"""Whole weights come out of a training checkpoint under every ZeRO stage, and are those of the model it wrote."""

import pytest
import torch
from conftest import pretrain

from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.formats import open_model
from tp_ext.errors import CheckpointError
from tp_ext.models import families


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_they_are_those_of_the_model(recipe, tmp_path, zero):
    done = pretrain(recipe(parallel__zero=zero, train__total_steps=4), tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "out" / "checkpoints" / "step_00000004"
    written = convert(checkpoint, tmp_path / "weights", Conversion(to="native"), families)
    expected = dict(open_model(tmp_path / "out" / "model", families).read())
    found = dict(written.read())
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (tmp_path / "weights" / "tokenizer.model").is_file()
    engine = checkpoint / "engine"
    file = sorted(engine.glob("*optim_states.pt") if zero == 3 else engine.glob("mp_rank_*"))[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file.name} has changed since it was written|{file.name}.*CRC-32"):
        convert(checkpoint, tmp_path / "again", Conversion(to="native"), families)
    assert not (tmp_path / "again").exists()
