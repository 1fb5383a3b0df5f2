"""A JSON array of objects as JSON lines, byte for byte in the same places."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tp_ext.corpus.objects import leads

Array = np.ndarray[Any, np.dtype[Any]]
_QUOTE, _BACKSLASH, _NEWLINE, _COMMA, _SPACE = b'"\\\n, '
_FIRST = re.compile(rb"\s*\[\s*(\n[ \t]+\{)")
_OPENS, _CLOSES = np.zeros(256, dtype=np.int8), np.zeros(256, dtype=np.int8)
_OPENS[list(b"{[")] = 1
_CLOSES[list(b"}]")] = 1
_HEAD = 4096
_SLICE = 1 << 16
"""Bytes that are looked at once more for each object that has not ended."""


class ArrayLines:
    """Call it as the function that reads the bytes of the array, for the bytes of the lines.

    Only bytes between values change, and there is one for each, so that places stay: commas between the objects of the
    array become line ends, all other line ends spaces. A string ends where its line ends, as JSON has no line ends in
    strings, and an object ends where a line is indented and begins as that of the first object, so that damage stays
    with its object. Only in an array without line ends a string without an end takes all objects behind it.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._depth = 0
        self._in_string = self._escaped = self._ends_escaped = self._ended = False
        self._length = 0
        self._held = b""
        self._begin = b""
        """A line end and how the line of each object begins, where these lines are indented."""

    def __call__(self, count: int) -> bytes:
        """The next bytes, about as many as asked for, nothing at the end."""
        if not self._depth:
            self._start()
        content = b" "
        while content and not self._ended:
            content = self._read(min(count, _SLICE))
            whole = self._held + content
            keep = len(self._begin) if content else 0
            self._held, whole = whole[len(whole) - keep :], whole[: len(whole) - keep]
            if whole:
                return self._lines(whole)
        return self._rest(count)

    def _start(self) -> None:
        while len(self._held) < _HEAD and (content := self._read(_HEAD)):
            self._held += content
        found = _FIRST.match(self._held)
        self._begin = found[1] if found else b""
        place = self._held.index(b"[")
        self._depth = 1
        self._held = b" " * (place + 1) + self._held[place + 1 :]

    def _rest(self, count: int) -> bytes:
        """What follows the array, which is to be nothing."""
        content = self._held or self._read(count)
        self._held = b""
        return b"" if not content.strip() else content

    def _lines(self, content: bytes) -> bytes:
        pieces = []
        while content and not self._ended:
            depths, outside = self._depths(content)
            lost = self._lost(content, depths)
            ends = np.flatnonzero((depths[:lost] == 0) & outside[:lost])
            stop = int(ends[0]) + 1 if len(ends) else lost
            pieces.append(self._piece(content[:stop], depths[:stop], outside[:stop]))
            content = content[stop:]
            if len(ends):
                self._ended = pieces[-1].endswith(b"]")
                pieces[-1] = pieces[-1][:-1] + b"\n" if self._ended else pieces[-1]
                self._depth = 1  # a brace too many, which is left to its object
            elif content:  # an object has not ended
                self._depth, self._in_string, self._escaped = 1, False, False
                pieces.append(b"\n")
                content = content[1:]
        self._held = content + self._held
        return b"".join(pieces)

    def _lost(self, content: bytes, depths: Array) -> int:
        """Where an object begins inside another, by the look of its line."""
        if not self._begin:
            return len(content)
        places = np.array([found.start() for found in re.finditer(re.escape(self._begin), content)], dtype=np.int64)
        lost = places[depths[places] > 1]
        return int(lost[0]) if len(lost) else len(content)

    def _piece(self, content: bytes, depths: Array, outside: Array) -> bytes:
        """Some bytes of the array as bytes of lines."""
        array = np.frombuffer(content, dtype=np.uint8).copy()
        array[array == _NEWLINE] = _SPACE
        array[(array == _COMMA) & outside & (depths == 1)] = _NEWLINE
        if len(array):
            self._depth, self._in_string = int(depths[-1]), not outside[-1]
            self._escaped = self._ends_escaped and len(depths) == self._length
        return bytes(array)

    def _depths(self, content: bytes) -> tuple[Array, Array]:
        """How deep each byte is, the bracket that ends a value less than it, and whether it is outside of strings."""
        array = np.frombuffer(content, dtype=np.uint8)
        count = np.cumsum(self._quotes(array), dtype=np.int64) + self._in_string
        before = np.maximum.accumulate(np.where(array == _NEWLINE, count, 0))
        outside = (count - before) & 1 == 0
        return np.cumsum((_OPENS[array] - _CLOSES[array]) * outside, dtype=np.int64) + self._depth, outside

    def _quotes(self, array: Array) -> Array:
        """Which bytes are quotes that begin or end a string."""
        quotes: Array = array == _QUOTE
        places = leads(np.concatenate((np.full(int(self._escaped), _BACKSLASH, np.uint8), array))) + 1 - int(self._escaped)
        quotes[places[places < len(array)]] = False
        self._length = len(array)
        self._ends_escaped = len(places) > 0 and int(places[-1]) == len(array)
        return quotes
