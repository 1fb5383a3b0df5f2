"""The last step of a cleaning: the documents that are kept and those that are not, files for each that was read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tp_ext.clean.duplicates import KINDS, SUBSTRING
from tp_ext.clean.earlier import DROPPED, DUPLICATES, INDEX, UNCUT, Earlier
from tp_ext.clean.settings import CleanSettings
from tp_ext.clean.staging import FileWork, Staging
from tp_ext.clean.substrings import Cutter, repeated
from tp_ext.clean.tally import CHANGED, CHARACTERS_KEPT, DUPLICATE, KEPT
from tp_ext.corpus.faults import FAULTS
from tp_ext.errors import CorpusError
from tp_ext.output import json_bytes

Array = np.ndarray[Any, np.dtype[Any]]
_WORD = re.compile(r"\w")
_LEVEL = 3
"""Of zstd."""


def write_documents(
    folder: Path, work: Path, staging: Staging, kinds: Array, settings: CleanSettings, before: Earlier | None,
    earlier: Sequence[Earlier],
) -> list[str]:  # fmt: skip
    """Write all documents and count what became of them; the names of the files with those that were kept.

    `kinds` is what each document that passed the rules is; those that go for their stretches are found here. `before` is
    the output that is gone on with, `earlier` all outputs whose documents came before.
    """
    for path in folder.iterdir():  # of a run that was interrupted here
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / INDEX).mkdir()
    if before:
        before.carry_over(folder)
    first = len(before.files) if before else 0
    ending = ".jsonl.zst" if settings.compression else ".jsonl"
    names = [f"{number:05}_{_stem(file.corpus.path)}{ending}" for number, file in enumerate(staging.files, first)]
    with open(folder / INDEX / UNCUT, "ab") as uncut:
        writer = _Writer(settings, kinds, _cutter(work, staging, kinds, settings, earlier), uncut)
        for name, (file, passed), (_, dropped) in zip(names, staging.passed(), staging.dropped(), strict=True):
            writer.write(folder, name, file, passed, dropped)
    _write_faults(folder / FAULTS, [*([before.folder / FAULTS] if before else []), staging.folder / FAULTS])
    return names


class _Writer:
    """Writes file after file; the documents of all of them are counted through."""

    def __init__(self, settings: CleanSettings, kinds: Array, cutter: Cutter | None, uncut: BinaryIO) -> None:
        self._settings, self._kinds, self._cutter, self._uncut = settings, iter(kinds.tobytes()), cutter, uncut

    def write(self, folder: Path, name: str, file: FileWork, passed: Iterator[bytes], dropped: Iterator[bytes]) -> None:
        """The documents of one file, those that were kept, dropped, or came before."""
        with ExitStack() as stack:
            kept = stack.enter_context(opened_for_writing(folder / name))
            duplicates = stack.enter_context(self._beside(folder / DUPLICATES / name))
            for line in passed:
                text, record = self._judged(file, line)
                kept.write(text)
                if record is not None and duplicates is not None:
                    duplicates.write(json_line(record))
            with self._beside(folder / DROPPED / name) as target:
                for line in dropped if target is not None else ():
                    target.write(line)

    def _beside(self, path: Path) -> Any:
        return opened_for_writing(path) if self._settings.keep_dropped else nullcontext()

    def _judged(self, file: FileWork, line: bytes) -> tuple[bytes, dict[str, Any] | None]:
        """What is written of a document that passed the rules, and what is told of it if it is not as it was."""
        value, kind = json.loads(line), next(self._kinds)
        place = {"source": value["source"], "offset": value["offset"]}
        if kind:
            return b"", value | {"reason": _told(file, value, kind)}
        text = value["text"]
        cuts = self._cutter.cut(text) if self._cutter is not None else []
        record = None
        if cuts:
            self._uncut.write(line)
            rest = _without(text, cuts)
            if not _WORD.search(rest):  # a shorter rest stays: it may be the copy that is kept of what comes later
                return b"", value | {"reason": _told(file, value, SUBSTRING)}
            file.tally.count(CHANGED, KINDS[SUBSTRING])
            record = place | {"cuts": [[start, text[start:stop]] for start, stop in cuts]}
            text, line = rest, json_line(value | {"text": rest})
        file.tally.totals[KEPT] += 1
        file.tally.totals[CHARACTERS_KEPT] += len(text)
        return line, record


def _told(file: FileWork, value: dict[str, Any], kind: int) -> str:
    reason = KINDS[kind]
    file.tally.count(DUPLICATE, reason)
    file.tally.sample(DUPLICATE, reason, value["source"], value["offset"], value["text"])
    return reason


def _cutter(
    work: Path, staging: Staging, kinds: Array, settings: CleanSettings, earlier: Sequence[Earlier]
) -> Cutter | None:
    width = settings.duplicates.substring
    if width is None:
        return None
    known = (text for each in earlier for text in each.texts())
    texts = (text for text, kind in zip(staging.texts(), kinds.tobytes(), strict=True) if not kind)
    return Cutter(repeated(known, texts, width, staging.size_passed() // 3, work), width)


def _without(text: str, cuts: Iterable[tuple[int, int]]) -> str:
    """The text without some stretches of it, which are in order."""
    pieces, end = [], 0
    for start, stop in cuts:
        pieces.append(text[end:start])
        end = stop
    return "".join([*pieces, text[end:]])


def _write_faults(target: Path, sources: Sequence[Path]) -> None:
    """One list of faults of several, if there are any."""
    contents = [path for path in sources if path.is_file() and path.stat().st_size]
    if contents:
        with open(target, "wb") as file:
            for path in contents:
                with open(path, "rb") as source:
                    shutil.copyfileobj(source, file)


def json_line(value: dict[str, Any]) -> bytes:
    """An object as a line of JSON."""
    return json_bytes(value) + b"\n"


def _stem(path: Path) -> str:
    """A file's name without what says how it is packed, with nothing in it that a file system may not like."""
    name = path.name
    while Path(name).suffix.lower() in (".txt", ".json", ".jsonl", ".gz", ".zst", ".parquet", ".warc", ".html", ".htm"):
        name = Path(name).stem
    return re.sub(r"[^\w.-]", "_", name)[:80]


@contextmanager
def opened_for_writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, compressed if it is called so. Raises CorpusError without zstandard."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file:
        if path.suffix != ".zst":
            yield file
            return
        try:
            import zstandard
        except ImportError:
            message = "writing .zst needs the extra: pip install 'tp_ext[zstd]'; or set \"compression\": false"
            raise CorpusError(message) from None
        with zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(file, closefd=False) as packed:
            yield cast(BinaryIO, packed)
