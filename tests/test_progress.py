"""The progress bar."""

import sys

from tp_ext import progress
from tp_ext.progress import Progress


def drawn(monkeypatch, capsys, calls):
    """The lines that are shown for calls a second apart."""
    seconds = iter(range(100, 1000))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    bar = Progress("read", "B")
    for call in calls:
        bar(*call)
    return [line.strip() for line in capsys.readouterr().err.split("\r")[1:]]


def test_speeds_and_what_is_left(monkeypatch, capsys):
    lines = drawn(monkeypatch, capsys, [(0, 4000, 0), (1000, 4000, 500), (2000, 4000, 1500)])
    assert lines[0].endswith("0% 0B/s, 0 tokens/s, ? left")
    assert lines[1].endswith("25% 1kB/s, 500 tokens/s, 0:03 left")
    assert lines[2].endswith("50% 1kB/s, 750 tokens/s, 0:02 left")


def test_what_an_earlier_run_did_makes_this_one_no_faster(monkeypatch, capsys):
    lines = drawn(monkeypatch, capsys, [(2000, 4000, 10**6), (3000, 4000, 10**6 + 500)])
    assert lines[0].endswith("50% 0B/s, 0 tokens/s, ? left")
    assert lines[1].endswith("75% 1kB/s, 500 tokens/s, 0:01 left")


def test_nothing_is_shown_where_no_terminal_is(capsys):
    with Progress("read", "B") as bar:
        bar(1, 2)
    assert capsys.readouterr().err == ""
