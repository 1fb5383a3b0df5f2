"""Whether an embedding belongs to a tokenizer."""

from __future__ import annotations

from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError
from tp_ext.tokens.tokenizer import Tokenizer


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
