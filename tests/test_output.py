"""What is written is whole or absent, wherever the path leads and however the command ends."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

from tp_ext.errors import ConfigError, TokenizerError
from tp_ext.output import kept_file, whole_file, whole_folder, write_manifest


def write(path, text="x"):
    with whole_folder(path, "kind", TokenizerError) as folder:
        (folder / "file").write_text(text)
        write_manifest(folder, "kind", {})


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "output")
    for text in ("one", "two"):
        write(tmp_path / "link", text)
        assert (tmp_path / "disk" / "output" / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "file", "link", "manifest.json", "output"]


def test_a_link_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(TokenizerError, match="link: is a link that leads to itself"):
        write(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_mount_point_is_refused_before_any_work():
    with pytest.raises(TokenizerError, match="/proc: is where a disk is mounted"):
        write(Path("/proc"))


def test_where_a_disk_is_mounted_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(TokenizerError, match="is where a disk is mounted, which cannot be replaced"):
        write(tmp_path)


def test_the_folder_one_is_in_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path(), "one")
    assert (tmp_path / "here" / "file").read_text() == "one"


def test_what_a_killed_run_had_moved_aside_comes_back(tmp_path):
    write(tmp_path / "out", "one")
    (tmp_path / "out").rename(tmp_path / ".out.abc.old")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out", "kind", TokenizerError):
        raise RuntimeError
    assert (tmp_path / "out" / "file").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


CHINESE = """
from tp_ext.errors import run_command
run_command(lambda: print("中文"))
"""


def test_a_terminal_without_chinese_stops_nothing():
    line = [sys.executable, "-c", CHINESE]
    done = subprocess.run(line, env={**environment(), "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"\\u4e2d\\u6587\n")


WAITS = """
import sys, time
from pathlib import Path
from tp_ext.errors import TokenizerError, run_command
from tp_ext.output import whole_folder
def main():
    with whole_folder(Path(sys.argv[1]), "kind", TokenizerError):
        print("begun", flush=True)
        time.sleep(60)
run_command(main)
"""


def test_sigterm_leaves_nothing(tmp_path):
    line = [sys.executable, "-c", WAITS, str(tmp_path / "out")]
    with subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


TALKS = """
from tp_ext.errors import run_command
def main():
    for _ in range(100000):
        print("a line")
run_command(main)
"""


def test_a_reader_that_has_gone_is_no_traceback():
    with subprocess.Popen([sys.executable, "-c", TALKS], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""


def test_a_kept_file_is_whole_or_absent_and_notes_stay(tmp_path):
    path, work = tmp_path / "d.pt", tmp_path / ".d.pt.work"
    with pytest.raises(ZeroDivisionError), kept_file(path, ConfigError):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []

    def killed_while_writing(part, notes):
        (notes / "note").write_text("kept")
        part.write_text("half")
        (notes / f".{part.name}.abc.part").write_text("half")  # as `whole_file` leaves it when it is killed
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), kept_file(path, ConfigError) as places:
        killed_while_writing(*places)
    assert (path.exists(), (work / "note").read_text()) == (False, "kept")
    with kept_file(path, ConfigError) as (part, notes):
        assert {each.name for each in notes.iterdir()} == {"lock", "note"}
        with pytest.raises(ConfigError, match="another process is writing it"), kept_file(path, ConfigError):
            pass
        part.write_text("whole")
    assert [each.name for each in tmp_path.iterdir()] == ["d.pt"]
    assert path.read_text() == "whole"
    with pytest.raises(ConfigError, match="exists; name another file"), kept_file(path, ConfigError):
        pass


def test_a_folder_inside_an_earlier_output_is_refused(tmp_path):
    write(tmp_path / "output")
    with pytest.raises(TokenizerError, match="is inside .*/output, an earlier output"):
        write(tmp_path / "output" / "deeper" / "more")
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["file", "manifest.json"]


@pytest.mark.parametrize("writer", [whole_file, lambda path: whole_folder(path, "a", TokenizerError)])
def test_a_full_disk_is_told_with_what_was_being_written(tmp_path, writer):
    with pytest.raises(OSError, match="No space") as caught, writer(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "out")
    assert not list(tmp_path.iterdir())
