"""Text files as streams of bytes: plain, gzip or zstd."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from tp_ext.corpus.arrays import ArrayLines
from tp_ext.corpus.containers import from_lines, page_lines, parquet_lines, warc_lines
from tp_ext.errors import CorpusError
from tp_ext.output import size_and_hash

GZIP_MAGIC, ZSTD_MAGIC, SKIPPABLE_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
ENCODINGS = ("utf-8", "gb18030", "gbk", "gb2312", "big5", "big5hkscs")
"""Encodings in which a byte below 0x40 is always that character, so that lines and JSON can be found in them."""
MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""Byte order marks with which no text in any of ENCODINGS begins."""
PACKED_BYTES = 1 << 12
"""Bytes that are decompressed in one call: what they can grow to at most, 256 MB, is held in memory."""


class DamagedError(Exception):
    """Compressed data that does not go on: cut short or changed."""


@dataclass(frozen=True)
class Form:
    """How files are to be read, as far as they do not say it themselves."""

    encoding: str = "utf-8"
    """One of ENCODINGS."""
    text_key: str = "text"
    """Of the objects in JSON."""
    whole: bool = False
    """Whether a .txt file is one document, not one a line."""


UTF8 = Form()
_CONTAINERS = {".parquet": "parquet", ".warc": "warc", ".html": "page", ".htm": "page"}


@dataclass(frozen=True)
class Corpus:
    """A file of documents as it was when it was opened first."""

    path: Path
    size: int
    modified: int
    """In nanoseconds."""
    is_json: bool
    packing: str
    """"gzip", "zstd", or nothing."""
    container: str = ""
    """"array" (one of objects in JSON), "parquet", "warc", "page" (HTML), or nothing: its lines are its documents."""
    form: Form = UTF8

    @property
    def is_stream(self) -> bool:
        """Whether it can only be read from its beginning."""
        return bool(self.packing or self.container or self.form.whole)

    @property
    def identity(self) -> list[Any]:
        """By which it is known again that the same file is read in the same way, as JSON values."""
        form = [self.form.encoding, self.form.text_key, self.form.whole]
        return [str(self.path), str(self.path.resolve()), self.size, self.modified, self.is_json, self.packing,
                self.container, form]  # fmt: skip

    def check_unchanged(self) -> None:
        """Raises CorpusError when the file is another one by now."""
        try:
            now = self.path.stat()
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read any more ({error.strerror})") from None
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise CorpusError(f"{self.path}: has changed while it was read; run the same command again when it is whole")

    @contextmanager
    def open(self, start: int = 0) -> Iterator[Callable[[int], bytes]]:
        """A function that gives the next bytes of the text, about as many as asked, nothing at its end.

        Only a plain file can be opened at a `start`. The function raises DamagedError.
        """
        try:
            file = open(self.path, "rb")  # noqa: SIM115 (closed below; a fault of the caller is not one of reading)
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read ({error.strerror})") from None
        file.seek(start)
        unpacked = {"gzip": _Gzip, "zstd": _Zstd}[self.packing](file).read if self.packing else file.read

        def read(count: int) -> bytes:
            try:
                return unpacked(count)
            except OSError as error:
                raise CorpusError(f"{self.path}: cannot be read ({error.strerror})") from None

        with file:
            yield self._lines(read)

    def _lines(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """`read` as a function that gives lines."""
        key = self.form.text_key
        if self.container == "array":
            return ArrayLines(read)
        if self.container == "parquet":
            return from_lines(parquet_lines(self.path, key))
        if self.container:
            return from_lines((warc_lines if self.container == "warc" else page_lines)(read, key))
        return read


def look_at(path: Path, form: Form = UTF8) -> Corpus:
    """What a file is. Raises CorpusError when it is not a readable file of documents."""
    if form.encoding not in ENCODINGS:
        raise CorpusError(f"--encoding {form.encoding}: is none of {', '.join(ENCODINGS)}; convert with iconv first")
    if not path.exists():
        raise CorpusError(f"{path}: no such file")
    if not path.is_file():
        raise CorpusError(f"{path}: is not a regular file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in (".gz", ".zst")
    kind = suffixes[-1 - packed] if len(suffixes) > packed else ""
    if kind not in (".txt", ".jsonl", ".json", *_CONTAINERS):
        kinds = ", ".join((".txt", ".jsonl", ".json", *_CONTAINERS))
        raise CorpusError(f"{path}: is none of {kinds} (plain, .gz or .zst); rename it to what it is")
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
            state = os.fstat(file.fileno())
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None
    packing = "gzip" if magic.startswith(GZIP_MAGIC) else "zstd" if _is_zstd(magic) else ""
    if packed and not packing and magic:
        raise CorpusError(f"{path}: is named {suffixes[-1]} but does not begin as such a file does")
    form = replace(form, whole=form.whole and kind == ".txt")
    corpus = Corpus(path, state.st_size, state.st_mtime_ns, kind != ".txt", packing, form=form)
    container = _CONTAINERS.get(kind, "")
    if not container:
        beginning = _beginning(corpus)
        if wide := next((name for mark, name in MARKS.items() if beginning.startswith(mark)), ""):
            raise CorpusError(f"{path}: is {wide}, by its byte order mark; convert it first: iconv -f {wide} -t UTF-8")
        container = "array" if kind == ".json" and beginning.lstrip().startswith(b"[") else ""
    if container and form.encoding != "utf-8":
        raise CorpusError(f"{path}: --encoding is for lines only; a JSON array is read in UTF-8 only, others tell theirs")
    return replace(corpus, container=container)


def _beginning(corpus: Corpus) -> bytes:
    with corpus.open() as read, suppress(DamagedError):
        return read(PACKED_BYTES)
    return b""


def look_at_all(paths: Sequence[Path], form: Form = UTF8) -> list[Corpus]:
    """What each file is. Raises CorpusError as `look_at`, and when one is named twice, by whatever names."""
    found: dict[tuple[int, int], Path] = {}
    corpora = []
    for path in paths:
        corpora.append(look_at(path, form))
        state = path.stat()
        key = (state.st_dev, state.st_ino)
        if key in found:
            raise CorpusError(f"{path}: is given twice, first as {found[key]}; name it once")
        found[key] = path
    return corpora


@contextmanager
def hashes_of(corpora: Sequence[Corpus]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What gives size and hash of each file, which are read while the rest is done."""
    with ThreadPoolExecutor(1) as thread:
        try:
            futures = [thread.submit(size_and_hash, corpus.path) for corpus in corpora]
            yield lambda: [future.result() for future in futures]
        finally:
            thread.shutdown(wait=False, cancel_futures=True)


def _is_zstd(magic: bytes) -> bool:
    return magic == ZSTD_MAGIC or (magic[1:] == SKIPPABLE_MAGIC and magic[0] >> 4 == 5)


class _Packed:
    """Frames that follow one another, each decompressed by an object that knows when its frame is whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._input = b""
        self._ready = memoryview(b"")
        self._damage = ""

    def read(self, count: int) -> bytes:
        """At most `count` bytes, fewer at the end alone; what comes before a damage first, then DamagedError."""
        pieces: list[memoryview] = []
        while count > 0 and (self._ready or self._more()):
            pieces.append(self._ready[:count])
            self._ready = self._ready[count:]
            count -= len(pieces[-1])
        if self._damage and not pieces:
            raise DamagedError(self._damage)
        return b"".join(pieces)

    def _more(self) -> bool:
        """Whether there are more bytes, which are made ready."""
        while not self._ready and (piece := self._next()) is not None:
            self._ready = memoryview(piece)
        return len(self._ready) > 0

    def _next(self) -> bytes | None:
        if self._damage:
            return None
        self._input = self._input or self._file.read(PACKED_BYTES)
        if self._frame is None:
            self._input = self._between(self._input)
        if not self._input:
            self._damage = "the last frame has no end" if self._frame is not None else ""
            return None
        if self._frame is None:
            self._frame = self._new()
        piece = self._decompress(self._input)
        self._input = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
        return piece

    def _between(self, content: bytes) -> bytes:
        """What comes after a frame without what may stand between frames."""
        return content

    def _new(self) -> Any:
        raise NotImplementedError

    def _decompress(self, content: bytes) -> bytes:
        """Sets `_damage` when it cannot go on."""
        raise NotImplementedError


class _Gzip(_Packed):
    def _between(self, content: bytes) -> bytes:
        content = content.lstrip(b"\0")  # padding, as gzip itself allows
        while not content and (content := self._file.read(PACKED_BYTES)):
            content = content.lstrip(b"\0")
        return content

    def _new(self) -> Any:
        return zlib.decompressobj(wbits=31)

    def _decompress(self, content: bytes) -> bytes:
        before = self._frame.copy()
        try:
            return bytes(self._frame.decompress(content))
        except zlib.error as error:
            self._damage = str(error)
        whole = bytearray()
        for place in range(len(content)):
            try:
                whole += before.decompress(content[place : place + 1])
            except zlib.error:
                break
        return bytes(whole)


class _Zstd(_Packed):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        try:
            import zstandard
        except ImportError:
            raise CorpusError("reading .zst needs the extra: pip install 'tp_ext[zstd]'") from None
        self._new_frame, self._error = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj, zstandard.ZstdError

    def _new(self) -> Any:
        return self._new_frame()

    def _decompress(self, content: bytes) -> bytes:
        try:
            return bytes(self._frame.decompress(content))
        except self._error as error:
            self._damage = str(error)
            return b""
