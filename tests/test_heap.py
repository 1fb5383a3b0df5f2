"""Memory that is freed, in a process of its own."""

import ctypes
import subprocess
import sys

import pytest
from conftest import environment

HOLES = """
import resource
from tp_ext.heap import freed_is_given_back, keep_freed

def left():
    "MiB that stay of fifty large blocks that were freed, with small ones between that were not."
    before = resident()
    blocks = [b"x" * size for _ in range(50) for size in (4 << 20, 100_000)]
    assert resident() - before > 190
    del blocks[::2]
    return resident() - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20

with freed_is_given_back():
    print(left())
print(left())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_blocks_are_given_back_inside_and_kept_after():
    known = {name: value for name, value in environment().items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", HOLES], env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inside, after = map(int, done.stdout.split())
    assert inside < 20
    assert after > 150
