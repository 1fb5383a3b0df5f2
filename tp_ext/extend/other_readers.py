"""The extended vocabulary for programs beside sentencepiece: what is written for them, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tp_ext.errors import TokenizerError
from tp_ext.tokens.expressible import tied_runs, why_not_llama_cpp, why_not_tokenizers
from tp_ext.tokens.fast import FAST, fast_files
from tp_ext.tokens.gguf_vocabulary import NEEDED
from tp_ext.tokens.prove import Line
from tp_ext.tokens.sentence_piece import SentencePieceTokenizer, parsed
from tp_ext.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

LONGEST_RUN = 256
NOT_COMPARED = "written, not compared (pip install 'tp_ext[byte-level]')"


def check_gguf(base: Tokenizer) -> None:
    """Raise TokenizerError when no GGUF vocabulary can be made of what will be merged into `base`."""
    if not isinstance(base, SentencePieceTokenizer):
        raise TokenizerError("--gguf writes sentencepiece vocabularies; this one is byte-level")
    if reason := why_not_llama_cpp(base):
        raise TokenizerError(f"--gguf: {base.path} {reason}")
    if find_spec("gguf") is None:
        raise TokenizerError(NEEDED)


class FastTokenizer:
    """The `tokenizer.json` of a sentencepiece model: written if it gives the same ids on all that is compared."""

    def __init__(self, tokenizer: SentencePieceTokenizer) -> None:
        self._tokenizer = tokenizer
        self._reason = why_not_tokenizers(tokenizer)
        self._files = {} if self._reason else fast_files(tokenizer)
        self._library = _library(self._files[FAST]) if self._files else None
        self._lines = self._differing = 0
        self._first = ""
        longest = tied_runs(parsed(tokenizer.content)) if self._library else {}
        if self._library:
            self._check_begin(self._library)
        runs = [character * n for character, most in longest.items() for n in range(2, min(4 * most, LONGEST_RUN))]
        self._compare(runs, tokenizer.encode_batch(runs))

    def _check_begin(self, library: tokenizers.Tokenizer) -> None:
        found, bos = library.encode("").ids, self._tokenizer.bos_id
        if found[:1] != ([] if bos is None else [bos]):
            self._reason = f"begins every text with {found[:1]}, and bos is {bos}"

    def compare(self, lines: Sequence[Line]) -> None:
        """Cut some lines that sentencepiece has cut."""
        self._compare([line.text for line in lines], [line.after for line in lines])

    def _compare(self, texts: list[str], expected: list[list[int]]) -> None:
        if self._library is None:
            return
        cut = self._library.encode_batch_fast(texts, add_special_tokens=False)
        for text, ids, found in zip(texts, expected, cut, strict=True):
            if ids != found.ids:
                self._first = self._first or f"{text[:60]!r}, {self._difference(ids, found.ids)}"
                self._differing += 1
        self._lines += len(texts)

    def _difference(self, ids: list[int], found: list[int]) -> str:
        place = next((n for n, pair in enumerate(zip_longest(ids, found)) if pair[0] != pair[1]), 0)
        right, wrong = (" ".join(map(self._tokenizer.piece, each[place : place + 4])) for each in (ids, found))
        return f"where {right} became {wrong}"

    def write(self, folder: Path) -> str:
        """Write it and its config into `folder`, or do not; gives what became of it."""
        if self._differing:
            self._reason = f"differs on {self._differing:,} of {self._lines:,} lines, first {self._first}"
        if self._reason:
            return f"not written: {self._reason}"
        for name, content in self._files.items():
            (folder / name).write_text(content, encoding="utf-8")
        return f"written, the same ids on {self._lines:,} lines" if self._library else NOT_COMPARED


def _library(content: str) -> tokenizers.Tokenizer | None:
    """The library's tokenizer, to which special pieces inside a text are text as to sentencepiece; None without it."""
    if find_spec("tokenizers") is None:
        return None
    import tokenizers

    library = tokenizers.Tokenizer.from_str(content)
    library.encode_special_tokens = True
    return library
