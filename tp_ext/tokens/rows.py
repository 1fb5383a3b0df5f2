"""Whether the rows of a model belong to the pieces of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError
from tp_ext.output import sha256_of
from tp_ext.settings import read_json
from tp_ext.tokens.tokenizer import FILE_NAMES, Tokenizer, find_tokenizer, open_tokenizer


def check_rows(config: ModelConfig, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError unless the embedding has a row a piece beside its `vocab_padding`.

    Where no padding is known, that number rounded up to a multiple of 64 is right too.
    """
    rows, padding, pieces = config.rows, config.vocab_padding, tokenizer.vocab_size
    if rows - padding == pieces or (not padding and 0 < rows - pieces < 512 and rows % 64 == 0):
        return
    advice = "is this the tokenizer of another vocabulary?" if rows - padding < pieces else "is this the old tokenizer?"
    if padding:
        raise CheckpointError(
            f"the embedding has {rows} rows, {padding} of them padding, and {tokenizer.path} has {pieces} pieces; rows "
            f"without padding and pieces must be equal: {advice}"
        )
    raise CheckpointError(
        f"the embedding has {rows} rows and {tokenizer.path} has {pieces} pieces; they must be equal, or the rows that "
        f"number rounded up to a multiple of 64: {advice}"
    )


def check_beside(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError when the model in `folder` has another tokenizer beside it.

    Files of the same name must be equal; a `tokenizer.json` converted from sentencepiece must have the same pieces.
    """
    same_name = folder / tokenizer.file_name
    beside = same_name if same_name.is_file() else find_tokenizer(folder)
    if beside is None:
        return
    if beside == same_name:
        difference = "" if sha256_of(beside) == tokenizer.sha256 else "their SHA-256 differ"
    else:
        difference = _difference(tokenizer, beside)
    if difference:
        raise CheckpointError(
            f"{tokenizer.path} is another tokenizer than {beside}, which the weights belong to ({difference})"
        )


def check_files_agree(tokenizer: Tokenizer) -> None:
    """Raise CheckpointError when another tokenizer's file, for another library, lies beside that of `tokenizer`."""
    for name in FILE_NAMES:
        other = tokenizer.path.parent / name
        if name != tokenizer.file_name and other.is_file() and (difference := _difference(tokenizer, other)):
            raise CheckpointError(f"{other}: is of another tokenizer than {tokenizer.path} beside it ({difference})")


def _difference(tokenizer: Tokenizer, path: Path) -> str:
    """What the pieces in a file have otherwise than those of `tokenizer`; nothing when they are the same."""
    theirs = _pieces(path)
    ours = {index: tokenizer.piece(index) for index in range(tokenizer.vocab_size)}
    place = next((index for index in sorted(ours.keys() | theirs) if ours.get(index) != theirs.get(index)), None)
    return "" if place is None else f"piece {place} is {ours.get(place)!r} and {theirs.get(place)!r}"


def check_added(folder: Path, rows: int, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError when the files beside a model of `rows` rows name some that `tokenizer` has no piece for.

    Chat models have such rows, of pieces added to the tokenizer behind its file; by their number they may look like
    padding.
    """
    for file, index, piece in _added(folder):
        if tokenizer.vocab_size <= index < rows:
            raise CheckpointError(
                f"{file}: says that {piece!r} is {index}, but {tokenizer.path} has {tokenizer.vocab_size} pieces; that "
                "row would be lost: take the model as it was before tokens were added to its tokenizer"
            )


def _pieces(path: Path) -> dict[int, str]:
    """The pieces in a tokenizer's file, by id."""
    if path.suffix != ".json":
        tokenizer = open_tokenizer(path)
        return {index: tokenizer.piece(index) for index in range(tokenizer.vocab_size)}
    model = read_json(path, CheckpointError).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        return {index: piece for piece, index in vocab.items()}
    if isinstance(vocab, list):  # unigram: pairs of a piece and its score
        return {index: pair[0] for index, pair in enumerate(vocab)}
    raise CheckpointError(f"{path}: has no model with a vocabulary")


def _added(folder: Path) -> Iterator[tuple[Path, int, str]]:
    """Every added piece that the files of Hugging Face's tokenizers name, with its id."""
    readers: dict[str, Callable[[Any], Iterable[tuple[Any, str]]]] = {
        "added_tokens.json": lambda values: ((index, piece) for piece, index in values.items()),
        "tokenizer_config.json": lambda values: (
            (index, token["content"]) for index, token in (values.get("added_tokens_decoder") or {}).items()
        ),
        "tokenizer.json": lambda values: ((token["id"], token["content"]) for token in values.get("added_tokens") or []),
    }
    for name, reader in readers.items():
        path = folder / name
        values = read_json(path, CheckpointError) if path.is_file() else {}
        try:
            yield from ((path, int(index), piece) for index, piece in reader(values))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path}: its added tokens are not written as Hugging Face's tokenizers do") from None
