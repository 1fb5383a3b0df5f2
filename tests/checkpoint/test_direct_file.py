"""A file written past the system's cache holds what was given, whatever the lengths and the file system."""

import errno
import os
import random

import pytest

from tp_ext.checkpoint.containers import direct_file
from tp_ext.checkpoint.containers.direct_file import BLOCK, PIECE, DirectFile

LENGTHS = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5, 3 * BLOCK, 17, PIECE, PIECE + 3, 2 * PIECE - 7, 2, 0, BLOCK]


def _written(path, lengths):
    draw = random.Random(0)
    given = [draw.randbytes(length) for length in lengths]
    file = DirectFile(path)
    for number, content in enumerate(given):
        file.write(memoryview(content) if number % 2 else content)
    assert file.bytes == sum(lengths)
    file.close()
    file.close()
    return b"".join(given)


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1], [3], [BLOCK], []], ids=str)
def test_holds_what_was_given(tmp_path, lengths):
    assert _written(tmp_path / "file", lengths) == (tmp_path / "file").read_bytes()


def test_a_shorter_file_takes_the_place_of_a_longer_one(tmp_path):
    (tmp_path / "file").write_bytes(b"before" * BLOCK)
    assert _written(tmp_path / "file", [10]) == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("refused", ["open", "write"])
def test_a_file_system_that_has_no_such_files(tmp_path, monkeypatch, refused):
    own_open, own_write = os.open, os.write
    through_cache = []

    def open_(path, flags, *mode):
        if refused == "open" and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return own_open(path, flags, *mode)

    def write(handle, content):
        if direct_file.fcntl.fcntl(handle, direct_file.fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        through_cache.append(len(content))
        return own_write(handle, content)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "write", write)
    assert _written(tmp_path / "file", LENGTHS) == (tmp_path / "file").read_bytes()
    assert sum(through_cache) == sum(LENGTHS)


def test_writes_that_take_only_a_part(tmp_path, monkeypatch):
    own_write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: own_write(handle, content[: max(len(content) // 3, 1)]))
    assert _written(tmp_path / "file", [BLOCK * 5 + 1, 2 * BLOCK]) == (tmp_path / "file").read_bytes()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def write(handle, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = DirectFile(tmp_path / "file")
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        file.write(bytes(BLOCK))
