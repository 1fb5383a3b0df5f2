"""A file that is written from its beginning to its end, and hashed in another thread meanwhile."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.ahead import Behind

PIECE = 1 << 17

Said = Future[dict[str, Any]]
"""What a manifest says of a file, as soon as it is known."""


class OutputFile:
    """A file to write to; what was written cannot be written again, as zipfile would like to."""

    def __init__(self, path: Path, behind: Behind | None) -> None:
        """`behind` is the thread that hashes; there is no hash without."""
        self._file = open(path, "wb")  # noqa: SIM115  (closed in close)
        self._behind = behind
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, content: bytes | memoryview) -> int:
        """Write piece by piece: in one call Linux takes several times as long for what was just mapped."""
        if self._behind:
            self._behind.do(self._digest.update, content)
        for start in range(0, len(content), PIECE):
            self._file.write(content[start : start + PIECE])
        self._bytes += len(content)
        return len(content)

    def tell(self) -> int:
        """How many bytes were written."""
        return self._bytes

    def flush(self) -> None:
        """Give the system what is still here."""
        self._file.flush()

    def close(self) -> Said | None:
        """Its size and SHA-256, with `behind`."""
        self._file.close()
        return self._behind.do(lambda: {"bytes": self._bytes, "sha256": self._digest.hexdigest()}) if self._behind else None
