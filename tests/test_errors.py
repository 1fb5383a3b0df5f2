"""How a command ends."""

import subprocess
import sys

import pytest
from conftest import environment

ENDS = """
import atexit, sys, threading, time
from tp_ext.errors import UserError, end_at_once, run_command
atexit.register(print, "closed")
class Late:
    def __del__(self):
        print("taken apart")
late = Late()
late.itself = late
def main():
    print("worked", end=" ")
    {what}
end_at_once(lambda: run_command(main))
"""


@pytest.mark.parametrize(("what", "code", "told"), [
    ("pass", 0, ""), ("raise UserError('a mistake')", 2, "error: a mistake\n"), ("sys.exit(7)", 7, ""),
    ("raise ValueError('unforeseen')", 1, "ValueError: unforeseen\n"),
])  # fmt: skip
def test_a_command_ends_with_its_code_and_all_it_has_to_say(what, code, told):
    words = [sys.executable, "-c", ENDS.format(what=what)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert done.stderr.endswith(told)
    assert done.stdout.startswith("worked closed\n")
    if code != 1:
        assert "taken apart" not in done.stdout
