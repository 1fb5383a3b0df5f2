"""What a run of cleaning depends on, as one id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tp_ext
from tp_ext.clean import minhash
from tp_ext.clean.settings import CleanSettings, as_json
from tp_ext.corpus.files import UTF8, Form
from tp_ext.data import parts
from tp_ext.errors import ConfigError, raise_all
from tp_ext.output import MANIFEST, sha256_of

_ROOMS = ("clean", "corpus")


@cache
def _code() -> str:
    """A hash of the code that decides what becomes of a document."""
    files = sorted(path for room in _ROOMS for path in (Path(tp_ext.__file__).parent / room).glob("*.py"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()[:12]


def versions(settings: CleanSettings) -> dict[str, str]:
    """What the result depends on beside the settings. Raises ConfigError when a package that is needed is absent."""
    found = {"tp_ext": tp_ext.__version__, "code": _code(), "unicode": unicodedata.unidata_version}
    return found | (minhash.versions() if settings.duplicates.fuzzy is not None else {})


def run_id(
    settings: CleanSettings, longest_line: int, against: Sequence[Path] = (), form: Form = UTF8,
    files: Sequence[Any] | None = None,
) -> str:  # fmt: skip
    """Equal for runs that give the same for the same files, and with `files` for runs over these only.

    Raises ConfigError when a file that the settings name is absent.
    """
    named = {"documents.blocked_hosts": settings.documents.blocked_hosts, "quality.model": settings.quality.model}
    paths = {name: Path(path) for name, path in named.items() if path is not None}
    raise_all(ConfigError, [f"{name}: {path}: no such file" for name, path in paths.items() if not path.is_file()])
    values = {
        "settings": as_json(settings), "versions": versions(settings), "longest_line": longest_line,
        "form": dataclasses.asdict(form), "part_bytes": parts.PART_BYTES, "corpus": files,
        "named": {name: sha256_of(path) for name, path in paths.items()},
        "against": [sha256_of(path / MANIFEST) for path in against if (path / MANIFEST).is_file()],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
