"""Documents of text files one after the other, for those who want every one or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tp_ext.corpus.blocks import read
from tp_ext.corpus.files import UTF8, Form, look_at
from tp_ext.errors import CorpusError


def texts(paths: Iterable[Path], most: int | None = None, form: Form = UTF8) -> Iterator[str]:
    """Every document of some files that is not blank: a line each, or the text of an object each in .jsonl and .json.

    Of each file no more than about `most` bytes are used. Raises CorpusError on the first thing that is no document.
    """
    for path in paths:
        used = 0
        for block in read(look_at(path, form)):
            if block.faults:
                raise CorpusError(str(block.faults[0]))
            for text, offset in zip(block.texts(), block.documents.offsets.tolist(), strict=True):
                if most is not None and offset >= most:
                    break
                yield text
            used += block.read
            if most is not None and used >= most:
                break
