"""A file that is written from its beginning to its end, and hashed in another thread meanwhile."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.ahead import Behind
from tp_ext.checkpoint.containers.direct_file import DirectFile

Said = Future[dict[str, Any]]
"""What a manifest says of a file, as soon as it is known."""


class OutputFile:
    """A file to write to; what was written cannot be written again, as zipfile would like to."""

    def __init__(self, path: Path, behind: Behind | None) -> None:
        """`behind` is the thread that hashes; there is no hash without."""
        self._file = DirectFile(path)
        self._behind = behind
        self._digest = hashlib.sha256()

    def write(self, content: bytes | memoryview) -> int:
        """Write the next bytes, which must stay as they are until the next ones are written; how many."""
        if self._behind:
            self._behind.do(self._digest.update, content)
        self._file.write(content)
        return len(content)

    def tell(self) -> int:
        """How many bytes were written."""
        return self._file.bytes

    def flush(self) -> None:
        """Nothing: what is still here is written when the file is closed."""

    def close(self) -> Said | None:
        """Its size and SHA-256, with `behind`."""
        self._file.close()
        return self._behind.do(self._said) if self._behind else None

    def _said(self) -> dict[str, Any]:
        return {"bytes": self._file.bytes, "sha256": self._digest.hexdigest()}
