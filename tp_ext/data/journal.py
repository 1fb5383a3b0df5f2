"""Files that grow part by part, so that work that was interrupted goes on behind its last whole part."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tp_ext.errors import UserError
from tp_ext.output import write_json
from tp_ext.settings import read_json

PLAN, PARTS = "plan.json", "parts.jsonl"
_BLOCK = 1 << 20


class Journal:
    """Some files, and in the folder `notes` a line for each part that was added to them: its bytes and their hash."""

    def __init__(
        self, paths: Sequence[Path], notes: Path, plan: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]
    ) -> None:
        """Open the files `paths`. What an earlier run of the same `plan` left is kept, up to its last whole part.

        `tell` hears the values of every part that is kept. What a run of another plan left is removed.
        """
        if not _is_same(notes / PLAN, plan):
            for path in (*paths, notes / PARTS):
                path.unlink(missing_ok=True)
            write_json(notes / PLAN, plan)
        for path in (*paths, notes / PARTS):
            path.touch()
        ends, read = _whole_parts(paths, notes / PARTS, tell)
        self._files = [_open_at(path, end) for path, end in zip(paths, ends, strict=True)]
        self._parts = _open_at(notes / PARTS, read)

    def append(self, contents: Sequence[bytes], values: Mapping[str, Any]) -> None:
        """Add a part: some bytes to each file, and `values` to be told when the work goes on."""
        digest = hashlib.sha256()
        for file, content in zip(self._files, contents, strict=True):
            file.write(content)
            digest.update(content)
        for file in self._files:
            file.flush()
        digest.update(json.dumps(values).encode())
        line = {"bytes": [len(content) for content in contents], "sha256": digest.hexdigest(), "values": values}
        self._parts.write(json.dumps(line).encode() + b"\n")
        self._parts.flush()

    def finish(self, contents: Sequence[bytes]) -> None:
        """Add the last bytes of each file, and have the system put them on the disk."""
        for file, content in zip(self._files, contents, strict=True):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with ExitStack() as stack:
            for file in (*self._files, self._parts):
                stack.enter_context(file)


def _is_same(path: Path, plan: Mapping[str, Any]) -> bool:
    try:
        return path.is_file() and read_json(path) == plan
    except UserError:  # cut short by a crash
        return False


def _whole_parts(paths: Sequence[Path], parts: Path, tell: Callable[[dict[str, Any]], None]) -> tuple[list[int], int]:
    """Bytes of each file, and of the list of parts, that are as they were written."""
    ends, read = [0] * len(paths), 0
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        for line in stack.enter_context(open(parts, "rb")):
            part = _part(line)
            if part is None or len(part["bytes"]) != len(files) or _hash(files, part) != part["sha256"]:
                break
            ends = [end + size for end, size in zip(ends, part["bytes"], strict=True)]
            read += len(line)
            tell(part["values"])
    return ends, read


def _open_at(path: Path, end: int) -> BinaryIO:
    file = open(path, "r+b")  # noqa: SIM115 (closed by the journal)
    file.truncate(end)
    file.seek(end)
    return file


def _part(line: bytes) -> dict[str, Any] | None:
    try:
        part = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not line.endswith(b"\n") or not isinstance(part, dict) or set(part) != {"bytes", "sha256", "values"}:
        return None
    sizes = part["bytes"]
    return part if isinstance(sizes, list) and all(type(size) is int and size >= 0 for size in sizes) else None


def _hash(files: Sequence[BinaryIO], part: Mapping[str, Any]) -> str:
    """The hash of the next bytes of each file and of the values of the part they are."""
    digest = hashlib.sha256()
    for file, size in zip(files, part["bytes"], strict=True):
        for block in _blocks(file, size):
            digest.update(block)
    digest.update(json.dumps(part["values"]).encode())
    return digest.hexdigest()


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (block := file.read(min(size, _BLOCK))):
        yield block
        size -= len(block)
