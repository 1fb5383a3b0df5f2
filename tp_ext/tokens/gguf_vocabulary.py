"""A tokenizer as the vocabulary of a GGUF file, which llama.cpp reads.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, section Tokenizer; the types' numbers are
sentencepiece's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tp_ext.errors import TokenizerError
from tp_ext.tokens.byte_level import ByteLevelTokenizer, steps_of
from tp_ext.tokens.expressible import why_not_llama_cpp
from tp_ext.tokens.sentence_piece import SentencePieceTokenizer, parsed
from tp_ext.tokens.tokenizer import Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
GPT2 = "GPT-2's"
PRE_TOKENIZERS = {
    GPT2: "gpt-2",
    r" ?[^(\s|[.,!?…。，、।۔،])]+": "bloom",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "llama-bpe",
}
"""What llama.cpp calls the ways to cut text before pairs are joined, by the pattern of `tokenizer.json`."""

NEEDED = "writing GGUF needs the extra: pip install 'tp_ext[gguf]'"


def write_gguf_vocabulary(tokenizer: SentencePieceTokenizer, path: Path) -> None:
    """Write a GGUF file that holds the vocabulary alone. Needs the extra `gguf`; errors as `add_vocabulary`."""
    writer = gguf_package().GGUFWriter(path, "llama")
    add_vocabulary(writer, tokenizer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def add_vocabulary(writer: Any, tokenizer: Tokenizer, rows: int | None = None) -> None:
    """Add the vocabulary's keys to a GGUFWriter.

    `rows` is how many the embedding has: those beyond the pieces are named, as llama.cpp wants a piece for each. Raises
    TokenizerError where llama.cpp would cut text differently from `tokenizer`.
    """
    extra = [f"[PAD{index}]" for index in range(tokenizer.vocab_size, rows or 0)]
    if isinstance(tokenizer, SentencePieceTokenizer):
        _add_sentence_pieces(writer, tokenizer, extra)
    elif isinstance(tokenizer, ByteLevelTokenizer):
        _add_byte_pieces(writer, tokenizer, extra)
    else:
        raise TokenizerError(f"{tokenizer.path}: neither sentencepiece nor byte-level")
    for index, add in [(tokenizer.bos_id, writer.add_bos_token_id), (tokenizer.eos_id, writer.add_eos_token_id),
                       (tokenizer.pad_id, writer.add_pad_token_id)]:  # fmt: skip
        if index is not None:
            add(index)
    writer.add_add_eos_token(False)


def _add_sentence_pieces(writer: Any, tokenizer: SentencePieceTokenizer, extra: list[str]) -> None:
    """llama.cpp's model "llama" joins by score as sentencepiece does, so scores and types go with the pieces."""
    if reason := why_not_llama_cpp(tokenizer):
        raise TokenizerError(f"{tokenizer.path}: {reason}; llama.cpp would cut text differently")
    model = parsed(tokenizer.content)
    lowest = min(piece.score for piece in model.pieces)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*(piece.piece.encode() for piece in model.pieces), *(piece.encode() for piece in extra)])
    writer.add_token_scores([*(piece.score for piece in model.pieces), *([lowest] * len(extra))])
    writer.add_token_types([*(piece.type for piece in model.pieces), *([UNUSED] * len(extra))])
    writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_add_bos_token(tokenizer.bos_id is not None)
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)


def _add_byte_pieces(writer: Any, tokenizer: ByteLevelTokenizer, extra: list[str]) -> None:
    """llama.cpp's model "gpt2" joins in the order of the list of merges."""
    document = json.loads(tokenizer.content)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(document, tokenizer))
    pieces = [tokenizer.piece(index) or f"[UNUSED{index}]" for index in range(tokenizer.vocab_size)]
    writer.add_token_list([piece.encode() for piece in (*pieces, *extra)])
    writer.add_token_types([*(_type_of(tokenizer, index) for index in range(len(pieces))), *([UNUSED] * len(extra))])
    merges = document["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_add_bos_token(tokenizer.begins_with_bos)


def _type_of(tokenizer: ByteLevelTokenizer, index: int) -> int:
    if not tokenizer.piece(index):
        return UNUSED
    if index in tokenizer.special_ids:
        return CONTROL
    return USER_DEFINED if tokenizer.is_added(index) else NORMAL


def _pre_tokenizer(document: dict[str, Any], tokenizer: ByteLevelTokenizer) -> str:
    steps = list(steps_of(document["pre_tokenizer"]))
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    patterns += [GPT2 for step in steps if step["type"] == "ByteLevel" and step.get("use_regex", True)]
    known = PRE_TOKENIZERS.get(patterns[0]) if len(patterns) == 1 else None
    problem = None
    if known is None or any(step["type"] not in ("Split", "ByteLevel") for step in steps):
        problem = f"cuts text in a way that has no name in llama.cpp's list here ({', '.join(map(repr, patterns))})"
    elif document.get("normalizer") or any(step.get("add_prefix_space") for step in steps):
        problem = "changes the text before it cuts it"
    if problem:
        raise TokenizerError(f"{tokenizer.path}: {problem}; llama.cpp would cut text differently")
    assert known is not None
    return known


def gguf_package() -> Any:
    """The gguf package. Raises TokenizerError when it is not installed."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise TokenizerError(NEEDED) from None
    return gguf
