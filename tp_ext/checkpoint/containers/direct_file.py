"""A file that is written from its beginning to its end past the system's cache, where the file system lets us.

What is written through the cache is copied into memory that the system must first find and empty, for files that are
larger than it several seconds a gigabyte on a virtual machine; and it drives out what was there to be read.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

BLOCK = 4096
"""What offsets, lengths and addresses are multiples of."""
_BUFFERED_PIECE = 1 << 17
"""Of one write through the cache: in one call Linux takes several times as long for what was just mapped."""


class DirectFile:
    """A new file. Its content is all there when it is closed, and on the disk when the file is synchronised."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        direct = getattr(os, "O_DIRECT", 0)
        try:
            self._handle = os.open(path, flags | direct, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            direct = 0
            self._handle = os.open(path, flags, 0o666)
        self._is_direct = bool(direct)

    def write(self, content: memoryview) -> None:
        """Write behind what was written before. Raises OSError.

        The address of `content` is a multiple of BLOCK, and so is its length, but for the last one.
        """
        begin, whole = 0, len(content) - len(content) % BLOCK
        while begin < len(content):
            if begin == whole:
                self._go_through_cache()
            end = whole if self._is_direct else begin + _BUFFERED_PIECE
            with content[begin:end] as part:
                try:
                    begin += os.write(self._handle, part)
                except OSError as error:
                    if error.errno != errno.EINVAL or not self._is_direct:
                        raise
                    self._go_through_cache()  # the file system wants other blocks
            if begin % BLOCK:
                self._go_through_cache()  # the disk is full, or nearly: the next write says so

    def _go_through_cache(self) -> None:
        if self._is_direct:
            fcntl.fcntl(self._handle, fcntl.F_SETFL, fcntl.fcntl(self._handle, fcntl.F_GETFL) & ~os.O_DIRECT)
            self._is_direct = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
