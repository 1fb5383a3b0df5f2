"""Parts of a corpus encoded by this process or by several, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tp_ext.data.parts import Encoded, Part, encode
from tp_ext.errors import DatasetError, TokenizerError
from tp_ext.heap import keep_freed
from tp_ext.tokens.flat import FlatEncoder
from tp_ext.tokens.tokenizer import Tokenizer, open_tokenizer
from tp_ext.workers import in_order


def encode_all(
    parts: Iterable[Part], tokenizer: Tokenizer, processes_num: int, longest_line: int
) -> Iterator[tuple[Part, Encoded]]:
    """Every part with its documents, in the order of `parts`, encoded by this process and `processes_num` - 1 others.

    Raises what reading a part raises, and DatasetError when a process dies.
    """
    make = partial(_encoding, tokenizer.path, tokenizer.sha256, longest_line)
    yield from in_order(parts, _encoder(tokenizer, longest_line), make, processes_num, DatasetError)


def _encoder(tokenizer: Tokenizer, longest_line: int) -> Callable[[Part], Encoded]:
    keep_freed()
    encoder = FlatEncoder(tokenizer, around=(tokenizer.bos_id, tokenizer.eos_id))
    return lambda part: encode(part, encoder, longest_line)


def _encoding(path: Path, sha256: str, longest_line: int) -> Callable[[Part], Encoded]:
    tokenizer = open_tokenizer(path)
    if tokenizer.sha256 != sha256:
        raise TokenizerError(f"{tokenizer.path}: has changed while it was used")
    return _encoder(tokenizer, longest_line)
