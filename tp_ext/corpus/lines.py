"""A stream of bytes cut between lines, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tp_ext.corpus.faults import DAMAGED, EXCERPT_BYTES, TOO_LONG, excerpt
from tp_ext.corpus.files import DamagedError

BLOCK_BYTES = 1 << 20
_RETURNS = 1 << 10
"""More of them than this at the end of a line are counted as of the line."""


@dataclass(frozen=True)
class Piece:
    """Whole lines with their ends, or the beginning of a line that is none with what is wrong with it."""

    offset: int
    content: bytes
    fault: str = ""
    excerpt: str = ""


class Lines:
    """The lines of a stream, about BLOCK_BYTES at a time; of one longer than `longest` only the beginning is held.

    `offset` is the byte of the stream that comes next; `digest` is over what was taken so far and can be put anew.
    """

    def __init__(self, read: Callable[[int], bytes], offset: int, longest: int, skip: bool = False) -> None:
        """With `skip` the first line is passed over: the stream was opened inside it."""
        self._read, self.offset, self.longest, self._skipping = read, offset, longest, skip
        self._rest = b""
        self._damage: str | None = None
        self.ended = False
        """Whether nothing more will come."""
        self._exhausted = False
        self.digest = hashlib.sha256()

    def until(self, stop: int | None) -> Iterator[Piece]:
        """The lines that begin before the byte `stop`; all of them for None."""
        while not self.ended and (stop is None or self.offset < stop):
            if self._skipping:
                end = self._rest.find(b"\n") + 1
                self._skipping = not (end or self._exhausted)
                self._take(end or len(self._rest))
            elif end := self._whole_lines(stop):
                yield Piece(self.offset, self._rest[:end])
                self._take(end)
            elif self._exhausted:
                if self._damage is not None:
                    shown = excerpt(self._rest)
                    yield Piece(self.offset, b"", DAMAGED, f"{shown} ... {self._damage}" if shown else self._damage)
                self._take(len(self._rest))
                self.ended = True
            elif self._is_too_long():
                yield Piece(self.offset, b"", TOO_LONG, excerpt(self._rest[: EXCERPT_BYTES + 4]))
                self._skipping = True
            else:
                self._more(stop)
            if not self._rest and not self._exhausted:
                self._more(stop)

    def _whole_lines(self, stop: int | None) -> int:
        """Bytes of the whole lines at hand that begin before `stop`."""
        before = len(self._rest) + 1 if stop is None else stop - self.offset
        end = self._rest.find(b"\n", before - 1) + 1 if before <= len(self._rest) else 0
        end = end or self._rest.rfind(b"\n") + 1
        return len(self._rest) if not end and self._exhausted and self._damage is None else end

    def _is_too_long(self) -> bool:
        """Whether the line at hand, whose end has not come, will be too long; returns may turn out to be of its end."""
        size = len(self._rest)
        return size > self.longest and (size > self.longest + _RETURNS or len(self._rest.rstrip(b"\r")) > self.longest)

    def _take(self, count: int) -> None:
        self.digest.update(memoryview(self._rest)[:count])
        self._rest = self._rest[count:]
        self.offset += count

    def _more(self, stop: int | None) -> None:
        held = len(self._rest)  # twice as much each time, so that a long line is copied few times
        wanted = max(BLOCK_BYTES, min(held, self.longest - held))
        if stop is not None:
            wanted = min(wanted, max(stop - self.offset - held, held, BLOCK_BYTES >> 4))
        try:
            content = self._read(wanted)
        except DamagedError as error:
            self._damage, content = str(error), b""
        self._exhausted = not content
        self._rest += content


def whole(read: Callable[[int], bytes], longest: int) -> Piece:
    """Everything that `read` gives as one piece, or what is wrong with it when that is longer than `longest`."""
    content = bytearray()
    try:
        while len(content) <= longest and (more := read(BLOCK_BYTES)):
            content += more
    except DamagedError as error:
        return Piece(0, b"", DAMAGED, f"{excerpt(bytes(content[: EXCERPT_BYTES + 4]))} ... {error}")
    if len(content) > longest:
        return Piece(0, b"", TOO_LONG, excerpt(bytes(content[: EXCERPT_BYTES + 4])))
    return Piece(0, bytes(content))
