"""Files that hold documents in other ways than lines, as JSON lines: parquet, WARC, pages in HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tp_ext.corpus.html import decoded, text_of_page
from tp_ext.errors import CorpusError

Read = Callable[[int], bytes]
ROWS, MOST_RECORD = 512, 256 << 20
MOST_PAGE = 32 << 20
"""Bytes of a page; one that is longer is none."""
_BLOCK = 1 << 16
_VERSION = b"WARC/1."
_CHARSET = re.compile(r"charset\s*=\s*([^;\s]+)", re.IGNORECASE)


def from_lines(lines: Iterator[bytes]) -> Read:
    """A function that gives the next bytes of some lines, at least as many as asked for, nothing at their end."""

    def read(count: int) -> bytes:
        pieces, length = [], 0
        while length < count and (line := next(lines, None)) is not None:
            pieces.append(line)
            length += len(line)
        return b"".join(pieces)

    return read


def parquet_lines(path: Path, key: str) -> Iterator[bytes]:
    """A line of JSON for each row: its text under `key` and what else is text or a number. Raises CorpusError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise CorpusError(f"{path}: needs the extra: pip install 'tp_ext[parquet]'") from None
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        if key not in schema.names:
            raise CorpusError(f"{path}: has no column '{key}', but {', '.join(schema.names)}; name one with --text_key")
        plain = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_integer, pyarrow.types.is_floating)
        columns = [each.name for each in schema if each.name == key or any(kind(each.type) for kind in plain)]
        for batch in file.iter_batches(ROWS, columns=columns):
            yield from (_line(row) for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from None


def page_lines(read: Read, key: str) -> Iterator[bytes]:
    """The one line of a page."""
    content = bytearray()
    while len(content) <= MOST_PAGE and (more := read(_BLOCK)):
        content += more
    yield _page(bytes(content), "", {}, key)


def warc_lines(read: Read, key: str) -> Iterator[bytes]:
    """A line for each response with a page in it: its text under `key`, and "url". A record that is none is a line too."""
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer and len(buffer) < _BLOCK and (more := read(_BLOCK)):
            buffer += more
        buffer = buffer.lstrip(b"\r\n")
        if not buffer:
            return
        head, separator, buffer = buffer.partition(b"\r\n\r\n")
        values = _headers(head)
        length = _length(values.get("content-length", ""))
        if not (head.startswith(_VERSION) and separator and 0 <= length <= MOST_RECORD):
            yield b"no WARC record: " + head[:60].replace(b"\n", b" ").replace(b"\r", b"") + b"\n"
            buffer = _next_record(buffer, read)
            continue
        while len(buffer) < length and (more := read(max(_BLOCK, length - len(buffer)))):
            buffer += more
        content, buffer = buffer[:length], buffer[length:]
        if len(content) < length:
            yield _fault(f"WARC record cut short: {values.get('warc-target-uri', '')}")
        elif values.get("warc-type") == "response" and (line := _response(content, values, key)):
            yield line


def _next_record(buffer: bytes, read: Read) -> bytes:
    """What follows from the next beginning of a record on."""
    while (place := buffer.find(b"\r\n" + _VERSION)) < 0 and (more := read(_BLOCK)):
        buffer = buffer[-len(_VERSION) - 2 :] + more
    return buffer[place + 2 :] if place >= 0 else b""


def _response(content: bytes, values: dict[str, str], key: str) -> bytes:
    head, _, body = content.partition(b"\r\n\r\n")
    sent = _headers(head)
    kind = sent.get("content-type", "")
    if "html" not in kind.lower():
        return b""
    charset = _CHARSET.search(kind)
    return _page(body, charset[1] if charset else "", {"url": values.get("warc-target-uri", "")}, key)


def _length(told: str) -> int:
    """A length in bytes; -1 for what is none."""
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else -1


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _page(content: bytes, charset: str, values: dict[str, Any], key: str) -> bytes:
    if len(content) > MOST_PAGE:
        return _fault(f"page of more than {MOST_PAGE >> 20} MB: {values.get('url', '')}")
    try:
        page = decoded(content, charset)
    except (ValueError, LookupError) as error:  # ValueError: of codecs and of a name with a NUL
        return _fault(f"page not in its encoding: {values.get('url', '')} {error}")
    try:
        return _line({key: text_of_page(page), **values})
    except ValueError as error:  # a number of a character with thousands of digits
        return _fault(f"page cannot be read: {values.get('url', '')} {error}")


def _fault(told: str) -> bytes:
    """A line that is no object, by which a fault is counted."""
    return " ".join(told.split()).encode("utf-8", "replace") + b"\n"


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, default=lambda _: None).encode() + b"\n"  # bytes and dates are no text
