"""Whether an embedding belongs to a tokenizer."""

from __future__ import annotations

from tp_ext.errors import CheckpointError
from tp_ext.tokens.tokenizer import Tokenizer


def check_rows(rows: int, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError unless the embedding has a row a piece, or that number rounded up to a multiple of 64."""
    pieces = tokenizer.vocab_size
    if rows == pieces or (0 < rows - pieces < 512 and rows % 64 == 0):
        return
    advice = "is this the tokenizer of another vocabulary?" if rows < pieces else "is this the old tokenizer?"
    raise CheckpointError(
        f"the embedding has {rows} rows and {tokenizer.path} has {pieces} pieces; they must be equal, or the rows that "
        f"number rounded up to a multiple of 64: {advice}"
    )
