"""Documents of a text file as ranges of blocks of bytes, with what was wrong beside them."""

# n documents or lines

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tp_ext.corpus.faults import NOT_UTF8, NUL, TOO_LONG, WRONG_ENCODING, Fault, excerpt
from tp_ext.corpus.files import Corpus
from tp_ext.corpus.lines import Lines, Piece
from tp_ext.corpus.objects import texts_of_objects
from tp_ext.corpus.ranges import Ranges, lines_of, whole_of

Array = np.ndarray[Any, np.dtype[Any]]
LONGEST_LINE = 64 << 20
_BOM = b"\xef\xbb\xbf"
_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Block:
    """Some documents of a file: ranges of valid UTF-8 that are neither blank nor have a NUL.

    `empty` counts lines and texts of white space, which are left out; `read` the bytes of the text this block took.
    """

    documents: Ranges
    faults: tuple[Fault, ...]
    empty: int
    read: int
    lines: Ranges | None = None
    """Of JSON lines those that hold an object or nothing, from which other values of documents can be had."""

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the documents."""
        return int((self.documents.stops - self.documents.starts).sum())

    def texts(self) -> list[str]:
        """The documents as strings."""
        return [self.documents.text(index).decode() for index in range(len(self.documents))]

    def values(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What each document's object has under some of `names`; nothing where the documents are lines of text."""
        if self.lines is None or not names:
            return [{} for _ in range(len(self.documents))]
        places = np.searchsorted(self.lines.offsets, self.documents.offsets).tolist()
        objects = (json.loads(self.lines.text(place).decode()) for place in places)
        return [{name: value[name] for name in names if name in value} for value in objects]


def read(corpus: Corpus, longest_line: int = LONGEST_LINE) -> Iterator[Block]:
    """Every block of a file. Raises CorpusError when it cannot be read."""
    with corpus.open() as stream:
        yield from blocks(corpus, Lines(stream, 0, longest_line), None)


def blocks(corpus: Corpus, lines: Lines, stop: int | None) -> Iterator[Block]:
    """The documents of the lines that begin before the byte `stop`, a block after another."""
    before = lines.offset
    for piece in lines.until(stop):
        after = piece.offset + len(piece.content)
        yield replace(block_of(corpus, piece, lines.longest), read=after - before)
        before = after


def block_of(corpus: Corpus, piece: Piece, longest: int) -> Block:
    """The documents of some lines."""
    if piece.fault:
        fault = Fault(piece.fault, corpus.path, piece.offset, piece.excerpt)
        return Block(Ranges(b"", _NOTHING, _NOTHING, _NOTHING), (fault,), 0, 0)
    faults: list[Fault] = []

    def without(texts: Ranges, kind: str, bad: Array) -> Ranges:
        faults.extend(
            Fault(kind, corpus.path, int(texts.offsets[index]), _excerpt(texts.text(index), kind))
            for index in np.flatnonzero(bad).tolist()
        )
        return texts.where(~bad)

    lines = lines_of(piece.content, piece.offset) if not corpus.form.whole else whole_of(piece.content)
    if piece.offset == 0 and piece.content.startswith(_BOM):
        lines.starts[0] += len(_BOM)
    lines = without(lines, TOO_LONG, lines.stops - lines.starts > longest)
    if corpus.form.encoding == "utf-8":
        lines = without(lines, NOT_UTF8, _undecodable(lines))
    else:
        lines = _decoded(lines, corpus, faults)
    texts = lines.where(~lines.blank())
    empty = len(lines) - len(texts)
    objects = texts if corpus.is_json else None
    if corpus.is_json:
        texts, wrong = texts_of_objects(texts, corpus.form.text_key)
        faults += [Fault(each.kind, corpus.path, each.offset, excerpt(each.line)) for each in wrong]
        blank = texts.blank()
        empty += int(blank.sum())
        texts = texts.where(~blank)
    if b"\0" in texts.buffer:
        texts = without(texts, NUL, texts.holding(np.flatnonzero(texts.array == 0)))
    return Block(texts, tuple(sorted(faults, key=lambda fault: fault.offset)), empty, 0, objects)


def _decoded(lines: Ranges, corpus: Corpus, faults: list[Fault]) -> Ranges:
    """The lines in UTF-8; those that are not in the encoding of the corpus are added to `faults`."""
    texts, right = [], np.ones(len(lines), dtype=bool)
    for index in range(len(lines)):
        line = lines.text(index)
        try:
            texts.append(line.decode(corpus.form.encoding).encode())
        except (UnicodeDecodeError, UnicodeEncodeError):
            right[index] = False
            faults.append(Fault(WRONG_ENCODING, corpus.path, int(lines.offsets[index]), excerpt(line)))
    stops = np.cumsum([0, *map(len, texts)])
    return Ranges(b"".join(texts), stops[:-1], stops[1:], lines.offsets[right])


def _undecodable(lines: Ranges) -> Array:
    bad = np.zeros(len(lines), dtype=bool)
    if not _is_utf8(lines.buffer):
        bad[:] = [not _is_utf8(lines.text(index)) for index in range(len(lines))]
    return bad


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _excerpt(line: bytes, kind: str) -> str:
    """The beginning of a line, or what is around the first byte that is wrong."""
    place = 0
    if kind == NUL:
        place = line.index(0)
    elif kind == NOT_UTF8:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            place = error.start
    return excerpt(line, max(place - 20, 0))
