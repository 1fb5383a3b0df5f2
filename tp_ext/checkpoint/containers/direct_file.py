"""A file that is written from its beginning to its end past the system's cache, where the file system lets us.

What is written through the cache is copied into memory that the system must first find and empty, for files that are
larger than it several seconds a gigabyte on a virtual machine; and it drives out what was there to be read.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path

BLOCK = 4096
"""What offsets, lengths and addresses are multiples of."""
PIECE = 8 << 20
"""Of one write; a multiple of BLOCK."""
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
        self._tail = b""
        """What does not fill a block yet."""
        self.bytes = 0
        """How many were given."""

    def write(self, content: bytes | memoryview) -> None:
        """Write behind what was written before. Raises OSError as writing does."""
        self.bytes += len(content)
        if not self._is_direct:
            self._write_out(memoryview(content))
            return
        left = len(self._tail) + len(content)
        kept = left % BLOCK
        if left == kept:
            self._tail += content
            return
        head, end = self._tail, len(content) - kept
        self._tail = bytes(content[end:])
        left, begin = left - kept, 0
        with mmap.mmap(-1, min(PIECE, left)) as pages, memoryview(pages) as piece:
            while left:
                length = min(PIECE, left)
                taken = length - len(head)
                piece[: len(head)] = head
                piece[len(head) : length] = content[begin : begin + taken]
                with piece[:length] as blocks:
                    self._write_out(blocks)
                head, begin, left = b"", begin + taken, left - length
        if not self._is_direct:
            self._write_out_tail()

    def _write_out(self, content: memoryview) -> None:
        begin = 0
        while begin < len(content):
            end = len(content) if self._is_direct else begin + _BUFFERED_PIECE
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

    def _write_out_tail(self) -> None:
        tail, self._tail = self._tail, b""
        self._write_out(memoryview(tail))

    def close(self) -> None:
        """Write what fills no block, and close the file. Nothing the second time."""
        if self._handle < 0:
            return
        try:
            self._go_through_cache()
            self._write_out_tail()
        finally:
            os.close(self._handle)
            self._handle = -1
