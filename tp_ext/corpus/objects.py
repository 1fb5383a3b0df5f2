"""The texts of a block of JSON lines, cut out without parsing where that gives what parsing would."""

# n lines

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tp_ext.corpus.faults import NO_OBJECT, NO_STRING, NO_TEXT, NOT_JSON, SURROGATE
from tp_ext.corpus.ranges import Ranges

_orjson: Callable[[bytes], Any] | None = None
with suppress(ImportError):
    import orjson

    _orjson = orjson.loads

_compiled: ModuleType | None = None
with suppress(ImportError):  # where it was not built, numpy does most of it
    from tp_ext.corpus import _objects

    _compiled = _objects

Array = np.ndarray[Any, np.dtype[Any]]
_QUOTE, _BACKSLASH, _SPACE, _OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = b'"\\ {}[]'
_DEEPEST = 500
"""Objects and lists in one another in a line. How many more a parser takes depends on which one, and on who calls it."""
_RARE = "\ue8f3"
_MARK, _BETWEEN = f"{_RARE} the text", f"{_RARE} between lines"
"""Stand for a text that was cut out, and between two lines; where their first character occurs nothing is cut out."""
_MEANT = np.zeros(256, dtype=np.uint8)
_MEANT[list(b'"\\/bfnrt')] = list(b'"\\/\b\f\n\r\t')


@dataclass(frozen=True)
class Wrong:
    """A line that gives no text, and why."""

    kind: str
    offset: int
    line: bytes


@dataclass(frozen=True)
class _Escapes:
    """Places of the backslashes that begin an escape of two characters, and of those that begin a longer or wrong one."""

    short: Array
    other: Array

    @classmethod
    def of(cls, array: Array) -> _Escapes:
        begins = leads(array)
        short = (_MEANT[array.take(begins + 1, mode="clip")] > 0) & (begins + 1 < len(array))
        return cls(begins[short], begins[~short])


def leads(array: Array) -> Array:
    """Places of the backslashes that begin an escape."""
    places = np.flatnonzero(array == _BACKSLASH)
    index = np.arange(len(places))
    begins = np.ones(len(places), dtype=bool)
    begins[1:] = np.diff(places) > 1
    found: Array = places[(index - np.maximum.accumulate(np.where(begins, index, 0))) % 2 == 0]
    return found


def texts_of_objects(lines: Ranges, key: str = "text") -> tuple[Ranges, list[Wrong]]:
    """The string under `key`, here called "text", of the object in each line; what `json.loads` says of a line counts.

    But for one thing: a line in which more than _DEEPEST objects and lists are inside one another is no JSON.

    Most lines are not parsed: see `_read` and `_cut_out`. The others are, one by one.
    """
    if not len(lines):
        return lines, []
    texts, cut = _read(lines, key, _compiled) if _compiled else _cut_out(lines, key)
    parsed: dict[int, bytes] = {}
    wrong: list[Wrong] = []
    for index in np.flatnonzero(~cut).tolist():
        line = lines.text(index)
        found = _parse(line, key)
        if isinstance(found, bytes):
            parsed[index] = found
            cut[index] = True
        else:
            wrong.append(Wrong(found, int(lines.offsets[index]), line))
    texts = texts.where(cut)
    return (_with(texts, np.flatnonzero(cut), parsed) if parsed else texts), wrong


def _read(lines: Ranges, key: str, compiled: ModuleType) -> tuple[Ranges, Array]:
    """The text of each line, and for which lines that is certain [n]; in C.

    Certain are lines that are by JSON's grammar objects with one string under `key`, of which all escapes are Unicode's.
    """
    starts, stops = np.empty((2, len(lines)), dtype=np.int64)
    certain = np.empty(len(lines), dtype=bool)
    places = (np.ascontiguousarray(each, dtype=np.int64) for each in (lines.starts, lines.stops))
    buffer = compiled.texts(lines.buffer, key.encode(), *places, starts, stops, certain)
    return Ranges(buffer, starts, stops, lines.offsets), certain


def _cut_out(lines: Ranges, key: str) -> tuple[Ranges, Array]:
    """As `_read`, with numpy and few calls of the parser.

    In a line with one `"text":` outside of strings whose value is a string, the value is cut out, up to the next quote
    that no backslash escapes, and the rest is parsed with a mark in its place. When that is an object with the mark as
    its "text", the whole line is an object with the value as its "text". The rest is short, and parsed for all lines at
    once. Lines with other escapes than of one character, or control characters, are not certain.
    """
    escapes = _Escapes.of(lines.array)
    starts, stops, cut = _values(lines, escapes, key)
    buffer = lines.buffer
    if len(escapes.short) and cut.any():
        buffer, starts, stops = _unescaped(lines.array, escapes.short, starts, stops)
    return Ranges(buffer, starts, stops, lines.offsets), cut


def _with(texts: Ranges, lines: Array, parsed: dict[int, bytes]) -> Ranges:
    """The texts of `lines` in a buffer of their own, one after the other, those that were `parsed` in their places."""
    found = [parsed[line] if line in parsed else texts.text(place) for place, line in enumerate(lines.tolist())]
    lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    stops = np.cumsum(lengths)
    return Ranges(b"".join(found), stops - lengths, stops, texts.offsets)


def _values(lines: Ranges, escapes: _Escapes, key: str) -> tuple[Array, Array, Array]:
    """Where the text of each line starts and stops, and for which lines that is certain; [n]."""
    array, count = lines.array, len(lines)
    quotes = np.flatnonzero(array == _QUOTE)
    escaped = escapes.short + 1
    quotes = np.setdiff1d(quotes, escaped[array[escaped] == _QUOTE], assume_unique=True) if len(escaped) else quotes
    keys, name = quotes, f'{key}":'.encode()
    for place, byte in enumerate(name, 1):
        keys = keys[array.take(keys + place, mode="clip") == byte]
    values = keys + len(name) + 1
    values = values + (array.take(values, mode="clip") == _SPACE)
    opened = array.take(values, mode="clip") == _QUOTE
    keys, values = keys[opened], values[opened] + 1
    last = np.searchsorted(quotes, values)
    inside = last < len(quotes)
    keys, values, closing = keys[inside], values[inside], quotes[last[inside]]
    line = np.searchsorted(lines.starts, keys, side="right") - 1
    inside = (line >= 0) & (closing < lines.stops[line])
    keys, values, closing, line = keys[inside], values[inside], closing[inside], line[inside]

    starts, stops, begins = np.zeros((3, count), dtype=np.int64)
    starts[line], stops[line], begins[line] = values, closing, keys
    certain = np.bincount(line, minlength=count) == 1
    certain &= ~lines.holding(escapes.other) & ~lines.holding(np.flatnonzero(array < _SPACE))
    alone = certain & (begins == lines.starts + 1) & (stops + 2 == lines.stops)
    alone &= (array.take(lines.starts, mode="clip") == _OPEN) & (array.take(stops + 1, mode="clip") == _CLOSE)
    among = np.flatnonzero(certain & ~alone)
    certain[among] = _are_whole(lines, among, starts, stops, key)
    return starts, stops, certain


def _are_whole(lines: Ranges, among: Array, starts: Array, stops: Array, key: str) -> Array:
    """Whether each of some lines is an object whose "text" is the string cut out of it."""
    buffer, mark = lines.buffer, _MARK.encode()
    if not len(among) or _RARE.encode() in buffer:
        return np.zeros(len(among), dtype=bool)
    places = zip(*(each[among].tolist() for each in (lines.starts, starts, stops, lines.stops)), strict=True)
    rests = [buffer[begin:start] + mark + buffer[stop:end] for begin, start, stop, end in places]
    try:
        parsed = _loads(b"[" + f',"{_BETWEEN}",'.encode().join(rests) + b"]")
    except (ValueError, RecursionError):
        parsed = [_mark_or_none(rest) for rest in rests]
    else:
        if parsed[1::2] != [_BETWEEN] * (len(rests) - 1) or len(parsed) != 2 * len(rests) - 1:
            parsed = [_mark_or_none(rest) for rest in rests]
        else:
            parsed = parsed[::2]
    return np.array([isinstance(each, dict) and each.get(key) == _MARK for each in parsed])


def _unescaped(array: Array, leads: Array, starts: Array, stops: Array) -> tuple[bytes, Array, Array]:
    """The buffer with what its escapes mean, and places in it."""
    changed = array.copy()
    changed[leads + 1] = _MEANT[array[leads + 1]]
    keep = np.ones(len(array), dtype=bool)
    keep[leads] = False
    return changed[keep].tobytes(), starts - np.searchsorted(leads, starts), stops - np.searchsorted(leads, stops)


def _mark_or_none(rest: bytes) -> Any:
    try:
        return _loads(rest)
    except (ValueError, RecursionError):
        return None


def _is_too_deep(line: bytes) -> bool:
    """Whether more than _DEEPEST objects and lists are inside one another, if it is JSON."""
    if line.count(b"[") + line.count(b"{") <= _DEEPEST:
        return False
    array = np.frombuffer(line, dtype=np.uint8)
    quotes = array == _QUOTE
    escaped = leads(array) + 1
    quotes[escaped[escaped < len(array)]] = False
    places = np.flatnonzero(~np.logical_xor.accumulate(quotes))  # outside of strings
    opened = np.isin(array[places], (_OPEN, _OPEN_LIST)).astype(np.int32)
    return bool(np.cumsum(opened - np.isin(array[places], (_CLOSE, _CLOSE_LIST))).max(initial=0) > _DEEPEST)


def _loads(line: bytes) -> Any:
    if _is_too_deep(line):
        raise ValueError("too deep")
    if _orjson is not None:
        try:
            return _orjson(line)
        except ValueError:
            pass  # it is stricter, and counts less
    return json.loads(line.decode())


def _parse(line: bytes, key: str) -> bytes | str:
    """The text in UTF-8, or the kind of fault."""
    try:
        value = _loads(line)
    except (ValueError, RecursionError):
        return NOT_JSON
    if not isinstance(value, dict):
        return NO_OBJECT
    if key not in value:
        return NO_TEXT
    if not isinstance(value[key], str):
        return NO_STRING
    try:
        return str(value[key]).encode()
    except UnicodeEncodeError:
        return SURROGATE
