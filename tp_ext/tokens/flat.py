"""Many documents into one array of ids, fast."""

# d documents, k stretches of documents in a window, s segments

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from tp_ext.tokens import numpy_scan
from tp_ext.tokens.cuts import Cuts, code_points, cuts_of
from tp_ext.tokens.segments import WORD, Ids, Segments
from tp_ext.tokens.table import Ints
from tp_ext.tokens.tokenizer import Tokenizer

try:
    from tp_ext.tokens import kernel_scan
except ImportError:  # there was no compiler
    kernel_scan = None  # type: ignore[assignment]

WINDOW_BYTES = 1 << 18
"""Text worked on at a time, about: what numpy makes of it on the way stays in the processor's cache."""
CACHE_BYTES = 16 << 20
_FIRST_LOOK = 1 << 10
_ROW = bytes(WORD)


class FlatEncoder:
    """Encodes documents that lie in a buffer; the ids are those of `tokenizer.encode`.

    A tokenizer whose text can be cut (`cuts_text`, see cuts.py) has its text cut everywhere, and segments that were met
    before are looked up. Any other is asked itself.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        around: tuple[int | None, int | None] = (None, None),
        cache_bytes: int = CACHE_BYTES,
        compiled: bool = True,
    ) -> None:
        """`around` are ids put before and behind each document. Not `compiled` is without the part in C."""
        self._tokenizer, self._around = tokenizer, around
        self._dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
        found = cuts_of(tokenizer)
        segments = Segments(tokenizer.encode_inside, self._dtype, cache_bytes)
        self._by_segments = found and _BySegments(*found, segments, compiled)

    @property
    def cuts_text(self) -> bool:
        """Whether text is cut and looked up."""
        return self._by_segments is not None

    @property
    def cache_bytes(self) -> int:
        """The memory that the segments it knows take."""
        return self._by_segments.segments.nbytes if self._by_segments else 0

    def encode(self, buffer: bytes, starts: Ints, stops: Ints) -> tuple[Ids, Ints]:
        """The ids of all documents, one after the other, and how many each has (with what is put around it) [d].

        A document is `buffer[start:stop]`, in UTF-8, which the caller has checked; documents follow each other and do
        not overlap. Ids are uint16 where the vocabulary allows it, else uint32.
        """
        starts, stops = np.asarray(starts, np.int64), np.asarray(stops, np.int64)  # [d], [d]
        if not starts.size:
            return np.empty(0, self._dtype), starts
        found = self._by_segments.encode(buffer, starts, stops) if self._by_segments else self._ask(buffer, starts, stops)
        return _surround(*found, *self._around)

    def _ask(self, buffer: bytes, starts: Ints, stops: Ints) -> tuple[Ids, Ints]:
        texts = [buffer[start:stop].decode() for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        encoded = self._tokenizer.encode_batch(texts)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return np.fromiter(chain.from_iterable(encoded), self._dtype, int(lengths.sum())), lengths


class _BySegments:
    """Ids of documents by way of cutting their text and looking up what is between the cuts."""

    def __init__(self, cuts: Cuts, has_prefix: bool, segments: Segments, compiled: bool) -> None:
        self._cuts, self._has_prefix, self.segments = cuts, has_prefix, segments
        self._scan = kernel_scan if compiled and kernel_scan else numpy_scan

    def encode(self, buffer: bytes, starts: Ints, stops: Ints) -> tuple[Ids, Ints]:
        """The ids of all documents, and how many each has [d]."""
        parts, lengths = [], np.zeros(starts.size, np.int64)
        for first, window in self._windows(buffer, starts, stops):
            ids, counts = self._encode_window(buffer, *window)
            parts.append(ids)
            lengths[first : first + counts.size] += counts
        return np.concatenate(parts), lengths

    def _windows(self, buffer: bytes, starts: Ints, stops: Ints) -> Iterator[tuple[int, tuple[Ints, Ints, bool]]]:
        """Short documents together and long ones in stretches: the first document of each window, where its stretches
        start [k] and stop [k], and whether it begins inside a document.
        """
        first = 0
        while first < starts.size:
            last = int(np.searchsorted(stops, starts[first] + WINDOW_BYTES, "right"))
            if last > first:
                yield first, (starts[first:last], stops[first:last], False)
                first = last
                continue
            place, stop = int(starts[first]), int(stops[first])
            while place < stop:
                edge = self._cut_from(buffer, place + WINDOW_BYTES, stop)
                yield first, (np.array([place]), np.array([edge]), place > starts[first])
                place = edge
            first += 1

    def _cut_from(self, buffer: bytes, place: int, stop: int) -> int:
        """A place from `place` on where a document can be cut, or else `stop`, where it ends."""
        size = _FIRST_LOOK
        while place < stop:
            while buffer[place] & 0xC0 == 0x80:  # inside a character
                place -= 1
            text = buffer[place : min(place + size, stop)].decode("utf-8", "ignore")  # but for a character cut in two
            free = np.flatnonzero(self._cuts.between(code_points(text)))
            if free.size:
                return place + len(text[: free[0] + 1].encode())
            if place + size >= stop:
                break
            size *= 4
        return stop

    def _encode_window(self, buffer: bytes, starts: Ints, stops: Ints, continues: bool) -> tuple[Ids, Ints]:
        """The ids of all stretches, and how many each has [k]."""
        content, places = _with_spaces(buffer, starts, stops)
        bare = np.full(starts.size, True) if continues or not self._has_prefix else starts == stops  # [k]
        self.segments.make_room()
        text = self._scan.scan(content, places, bare, self._cuts, self.segments)
        begins, counts = self.segments.complete(text)  # [s], [s]
        counts[text.firsts[bare]] = 0  # the space before it is not its own
        lengths = np.add.reduceat(counts, text.firsts)  # [k]
        return self._scan.gather(self.segments.ids, begins, counts, int(lengths.sum())), lengths


def _with_spaces(buffer: bytes, starts: Ints, stops: Ints) -> tuple[bytearray, Ints]:
    """The stretches with a space before each and a row of zeros behind the last, and where these spaces are [k]."""
    if np.all(starts[1:] - stops[:-1] == 1):  # lines, say
        joined, places = buffer[starts[0] : stops[-1]], starts - starts[0]
    else:
        joined = b" ".join([buffer[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)])
        places = np.cumsum(stops - starts + 1) - (stops - starts + 1)
    content = bytearray().join((b" ", joined, _ROW))
    np.frombuffer(content, np.uint8)[places] = ord(" ")
    return content, places


def _surround(ids: Ids, lengths: Ints, before: int | None, behind: int | None) -> tuple[Ids, Ints]:
    """The ids with one before and one behind those of each document where they are given, and the new lengths [d]."""
    added = (before is not None) + (behind is not None)
    if not added:
        return ids, lengths
    lengths = lengths + added
    ends = np.cumsum(lengths)
    whole = np.empty(ends[-1], ids.dtype)
    own = np.ones(whole.size, np.bool_)
    for value, places in ((before, ends - lengths), (behind, ends - 1)):
        if value is not None:
            own[places] = False
            whole[places] = value
    whole[own] = ids
    return whole, lengths
