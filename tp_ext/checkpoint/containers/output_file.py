"""A file that is written from its beginning to its end, and hashed on the way."""

from __future__ import annotations

import hashlib
import mmap
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.containers.direct_file import DirectFile
from tp_ext.checkpoint.containers.pieces import PIECE, Pieces

Said = Future[dict[str, Any]]
"""What a manifest says of a file, as soon as it is known."""


class OutputFile:
    """A file to write to, in one thread; what was written cannot be written again, as zipfile would like to."""

    problem: OSError | None = None
    """Why not all was written, of what has come to the disk so far."""

    def __init__(self, path: Path, pieces: Pieces) -> None:
        self._pieces = pieces
        self._file = DirectFile(path)
        self._digest, self._hashing = hashlib.sha256(), ThreadPoolExecutor(1)
        self._bytes = 0
        self._piece: mmap.mmap | None = None
        self._filled = 0
        self._said: Said | None = None

    def write(self, content: bytes | memoryview) -> int:
        """Write the next bytes; how many. Raises the OSError of what was written before."""
        begin, content = 0, memoryview(content)
        while begin < len(content):
            if self.problem:
                raise self.problem
            if self._piece is None:
                self._piece = self._pieces.take()
            end = min(len(content), begin + PIECE - self._filled)
            filled = self._filled + end - begin
            self._piece[self._filled : filled] = content[begin:end]
            begin, self._filled = end, filled
            if filled == PIECE:
                self._send()
        self._bytes += len(content)
        return len(content)

    def _send(self) -> None:
        if self._piece is not None:
            self._pieces.send(self._piece, self._filled, self._hashing, self._digest.update, self._write)
        self._piece, self._filled = None, 0

    def _write(self, content: memoryview) -> None:
        """In the thread that writes, which has nobody to raise an error to."""
        try:
            if not self.problem:
                self._file.write(content)
        except OSError as error:
            self.problem = error

    def tell(self) -> int:
        """How many bytes were written."""
        return self._bytes

    def flush(self) -> None:
        """Nothing: what is still here is written when the file is closed."""

    def close(self) -> Said:
        """Its size and SHA-256, when all is written. Raises the OSError of what was written, the first time."""
        if not self._said:
            self._send()
            self._said = self._hashing.submit(self._what_is_said)
            self._hashing.shutdown(wait=False)
            self._pieces.when_written(self._file.close).result()
            if self.problem:
                raise self.problem
        return self._said

    def _what_is_said(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}
