"""Which checkpoint a run goes on from, of those that lie in its folder."""

import shutil
import threading

import pytest

from tp_ext.errors import CheckpointError
from tp_ext.output import MANIFEST
from tp_ext.train.resume import checkpoints, find, folder_of, remove_older


def _checkpoint(output, step, is_whole=True):
    folder = folder_of(output, step)
    folder.mkdir(parents=True)
    if is_whole:
        (folder / MANIFEST).write_text("{}")
    return folder


def test_the_last_whole_one_is_found_and_one_that_was_being_removed_passed_over(tmp_path):
    assert find(tmp_path, "auto") is None
    _checkpoint(tmp_path, 5, is_whole=False)
    _checkpoint(tmp_path, 10)
    last = _checkpoint(tmp_path, 20)
    folder_of(tmp_path, 25).with_name(".step_00000025.part").mkdir()
    assert find(tmp_path, "auto") == last


@pytest.mark.parametrize(("whole", "from_there"), [([10, 20], "step_00000020"), ([], "the beginning")])
def test_a_newest_one_without_its_manifest_is_not_passed_over(tmp_path, whole, from_there):
    for step in whole:
        _checkpoint(tmp_path, step)
    damaged = _checkpoint(tmp_path, 25, is_whole=False)
    with pytest.raises(CheckpointError, match=f"{damaged.name}: damaged: has no manifest.json; .* go on from {from_there}"):
        find(tmp_path, "auto")


def test_older_ones_are_no_checkpoints_while_they_are_being_removed(tmp_path, monkeypatch):
    for step in (5, 10, 20):
        _checkpoint(tmp_path, step)
    remove_older(tmp_path, 0).join()
    assert len(checkpoints(tmp_path)) == 3
    goes_on, known = threading.Event(), shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda *given, **how: goes_on.wait() and known(*given, **how))
    removal = remove_older(tmp_path, 1)
    assert checkpoints(tmp_path) == [folder_of(tmp_path, 20)]
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {".step_00000005.part", ".step_00000010.part", "step_00000020"}
    goes_on.set()
    removal.join()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000020"]
