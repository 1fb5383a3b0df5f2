"""A file written past the system's cache holds what was given, whatever the lengths and the file system."""

import errno
import fcntl
import hashlib
import os
import random
import threading

import pytest

from tp_ext.checkpoint.containers.direct_file import BLOCK
from tp_ext.checkpoint.containers.output_file import OutputFile
from tp_ext.checkpoint.containers.pieces import AHEAD, PIECE, Pieces

LENGTHS = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5, 3 * BLOCK, 17, PIECE, PIECE + 3, 2 * PIECE - 7, 2, 0, BLOCK]


def _written(path, lengths):
    """Write so many bytes one after the other; all of them, when the file is found to hold them and to be said so."""
    draw = random.Random(0)
    given = [draw.randbytes(length) for length in lengths]
    with Pieces() as pieces:
        file = OutputFile(path, pieces)
        for number, content in enumerate(given):
            file.write(memoryview(content) if number % 2 else content)
        assert file.tell() == sum(lengths)
        said = file.close()
        assert file.close() is said
    whole = b"".join(given)
    assert path.read_bytes() == whole
    assert said.result() == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    return whole


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1], [3], [BLOCK], [PIECE], []], ids=str)
def test_holds_what_was_given(tmp_path, lengths):
    _written(tmp_path / "file", lengths)


def test_a_shorter_file_takes_the_place_of_a_longer_one(tmp_path):
    (tmp_path / "file").write_bytes(b"before" * BLOCK)
    _written(tmp_path / "file", [10])


def test_several_files_at_once_share_their_memory(tmp_path, monkeypatch):
    draw = random.Random(1)
    taken, take = [], Pieces.take
    monkeypatch.setattr(Pieces, "take", lambda pieces: taken.append(take(pieces)) or taken[-1])
    given = {name: [] for name in "abc"}
    with Pieces() as pieces:
        files = {name: OutputFile(tmp_path / name, pieces) for name in given}
        for _ in range(60):
            name, content = draw.choice("abc"), draw.randbytes(draw.randrange(3 * PIECE))
            files[name].write(content)
            given[name].append(content)
        said = {name: file.close() for name, file in files.items()}
    for name, contents in given.items():
        whole = b"".join(contents)
        assert (tmp_path / name).read_bytes() == whole
        assert said[name].result() == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    assert len(taken) > 75
    assert len({id(piece) for piece in taken}) <= AHEAD + 1 + len(files)


def test_what_was_given_can_be_changed_at_once(tmp_path, monkeypatch):
    """While the disk is slow, what was written last is not on it yet."""
    may_write, own_write = threading.Event(), os.write
    monkeypatch.setattr(os, "write", lambda *given: may_write.wait() and own_write(*given))
    with Pieces() as pieces:
        file = OutputFile(tmp_path / "file", pieces)
        content = bytearray(b"a" * 2 * PIECE)
        file.write(memoryview(content))
        content[:] = b"b" * len(content)
        may_write.set()
        file.close()
    assert (tmp_path / "file").read_bytes() == b"a" * 2 * PIECE


@pytest.mark.parametrize("refused", ["open", "write"])
def test_a_file_system_that_has_no_such_files(tmp_path, monkeypatch, refused):
    own_open, own_write = os.open, os.write
    through_cache = []

    def open_(path, flags, *mode):
        if refused == "open" and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return own_open(path, flags, *mode)

    def write(handle, content):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        through_cache.append(len(content))
        return own_write(handle, content)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "write", write)
    _written(tmp_path / "file", LENGTHS)
    assert sum(through_cache) == sum(LENGTHS)


def test_writes_that_take_only_a_part(tmp_path, monkeypatch):
    own_write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: own_write(handle, content[: max(len(content) // 3, 1)]))
    _written(tmp_path / "file", [BLOCK * 5 + 1, 2 * BLOCK])


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    own_write, left = os.write, [PIECE + 1]

    def write(handle, content):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = own_write(handle, content[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    content = bytes(PIECE)
    with Pieces() as pieces:
        file = OutputFile(tmp_path / "small", pieces)
        file.write(content + b"123")
        with pytest.raises(OSError, match="No space"):
            file.close()
        file.close()  # told once
        file = OutputFile(tmp_path / "large", pieces)
        with pytest.raises(OSError, match="No space"):
            file.write(content * (AHEAD + 3))
        with pytest.raises(OSError, match="No space"):
            file.close()
    assert (tmp_path / "small").stat().st_size == PIECE + 1
