"""A corpus in parts, each one process's work at a time, and what becomes of them."""

# n documents

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tp_ext.corpus.blocks import Block, block_of, blocks
from tp_ext.corpus.faults import DAMAGED, Fault
from tp_ext.corpus.files import Corpus
from tp_ext.corpus.lines import Lines, Piece, whole
from tp_ext.tokens.flat import FlatEncoder

Array = np.ndarray[Any, np.dtype[Any]]
PART_BYTES = 2 << 20
"""Text of a part, about."""


@dataclass(frozen=True)
class Part:
    """Some lines of a file: those that begin in a range of its bytes.

    Of a file that can only be read from its beginning, as compressed ones, the lines themselves are there.
    """

    file: int
    """The number of the file in the corpus."""
    corpus: Corpus
    start: int
    stop: int
    """Where the next part of the file starts."""
    pieces: tuple[Piece, ...] | None = None


@dataclass(frozen=True)
class Encoded:
    """The documents of a part."""

    ids: Array
    """With what stands around each document, one after the other."""
    lengths: Array
    """Of each document in tokens, int64 [n]."""
    offsets: Array
    """The byte at which each document's line begins, int64 [n]."""
    counts: Counter[str]
    """`documents`, `text_bytes` of them, `empty_documents` left out, `faults`, and `damaged` among those."""
    faults: tuple[Fault, ...]


def parts_of(corpora: Sequence[Corpus], file: int, start: int, longest_line: int) -> Iterator[Part]:
    """All parts from the one that starts at the byte `start` of the file numbered `file` on."""
    for number, corpus in enumerate(corpora[file:], file):
        first = start if number == file else 0
        yield from (_streamed if corpus.is_stream else _ranges)(number, corpus, first, longest_line)


def _ranges(number: int, corpus: Corpus, start: int, longest_line: int) -> Iterator[Part]:
    for first in range(start, corpus.size, PART_BYTES):
        yield Part(number, corpus, first, min(first + PART_BYTES, corpus.size))


def _streamed(number: int, corpus: Corpus, start: int, longest_line: int) -> Iterator[Part]:
    with corpus.open() as stream:
        if corpus.form.whole:
            yield from [Part(number, corpus, 0, 1, (whole(stream, longest_line),))] if not start else []
            return
        lines = Lines(stream, 0, longest_line)
        for _ in lines.until(start):
            pass
        while not lines.ended:
            first = lines.offset
            pieces = tuple(lines.until(first + PART_BYTES))
            if pieces:
                yield Part(number, corpus, first, lines.offset, pieces)


def encode(part: Part, encoder: FlatEncoder, longest_line: int) -> Encoded:
    """The ids of all documents of a part."""
    ids, lengths, offsets = [np.zeros(0, np.uint16)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    counts: Counter[str] = Counter()
    faults: list[Fault] = []
    for block in blocks_of(part, longest_line):
        documents = block.documents
        found = encoder.encode(documents.buffer, documents.starts, documents.stops)
        ids.append(found[0])
        lengths.append(found[1])
        offsets.append(documents.offsets)
        counts.update(documents=len(documents), text_bytes=block.text_bytes, empty_documents=block.empty,
                      faults=len(block.faults), damaged=sum(fault.kind == DAMAGED for fault in block.faults))  # fmt: skip
        faults += block.faults
    return Encoded(np.concatenate(ids), np.concatenate(lengths), np.concatenate(offsets), counts, tuple(faults))


def blocks_of(part: Part, longest_line: int) -> Iterator[Block]:
    """The documents of a part, a block after another."""
    if part.pieces is not None:
        yield from (block_of(part.corpus, piece, longest_line) for piece in part.pieces)
        return
    before = max(part.start - 1, 0)  # a line that begins at `start` is known by the line end before it
    with part.corpus.open(before) as stream:
        yield from blocks(part.corpus, Lines(stream, before, longest_line, skip=part.start > 0), part.stop)
