"""The tokenizer file that the vocabulary of a GGUF file stands for; the other direction of gguf_vocabulary.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tp_ext.errors import TokenizerError
from tp_ext.tokens.gguf_vocabulary import CONTROL, GPT2, PRE_TOKENIZERS, UNUSED, USER_DEFINED

_KEYS = "tokenizer.ggml."


def tokenizer_of(values: Mapping[str, Any], where: Path) -> dict[str, bytes]:
    """Files, by name, of the tokenizer that the keys of a GGUF file tell of; none where they tell of none.

    Pieces that only fill the vocabulary up at its end are left out. Raises TokenizerError on a vocabulary of another
    kind than sentencepiece BPE and byte-level BPE.
    """
    kind, pieces = values.get(f"{_KEYS}model"), values.get(f"{_KEYS}tokens")
    if kind is None or kind == "none":
        return {}
    types = values.get(f"{_KEYS}token_type")
    if not isinstance(pieces, list) or not isinstance(types, list) or len(pieces) != len(types):
        raise TokenizerError(f"{where}: its list of pieces and that of their types are not of one length")
    count = len(pieces)
    while count and types[count - 1] == UNUSED and pieces[count - 1] == f"[PAD{count - 1}]":
        count -= 1
    if kind == "llama":
        return {"tokenizer.model": _sentence_pieces(values, pieces[:count], types[:count], where)}
    if kind == "gpt2":
        return _byte_pieces(values, pieces[:count], types[:count], where)
    raise TokenizerError(f"{where}: its vocabulary is of the kind {kind!r}; expected 'llama' or 'gpt2'")


def _sentence_pieces(values: Mapping[str, Any], pieces: list[str], types: list[int], where: Path) -> bytes:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    scores = values.get(f"{_KEYS}scores")
    if not isinstance(scores, list) or len(scores) < len(pieces):
        raise TokenizerError(f"{where}: has no score for each piece, without which text is cut differently")
    model = ModelProto()
    for piece, score, kind in zip(pieces, scores[: len(pieces)], types, strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer, rules = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size = trainer.BPE, len(pieces)
    trainer.byte_fallback = any(piece.type == piece.BYTE for piece in model.pieces)
    for name in ("unk", "bos", "eos", "pad"):
        key = {"unk": "unknown", "pad": "padding"}.get(name, name)
        index = values.get(f"{_KEYS}{key}_token_id")
        setattr(trainer, f"{name}_id", -1 if index is None else index)
        if index is not None and 0 <= index < len(pieces):
            setattr(trainer, f"{name}_piece", pieces[index])
    rules.name, rules.remove_extra_whitespaces, rules.escape_whitespaces = "identity", False, True
    rules.add_dummy_prefix = bool(values.get(f"{_KEYS}add_space_prefix", True))
    return bytes(model.SerializeToString())


def _byte_pieces(values: Mapping[str, Any], pieces: list[str], types: list[int], where: Path) -> dict[str, bytes]:
    pattern = next((known for known, name in PRE_TOKENIZERS.items() if name == values.get(f"{_KEYS}pre")), None)
    merges = values.get(f"{_KEYS}merges")
    if pattern is None or not isinstance(merges, list):
        raise TokenizerError(f"{where}: cuts text as {values.get(f'{_KEYS}pre')!r}, which is not known here; put its "
                             "tokenizer.json beside it")  # fmt: skip
    whole = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern == GPT2}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    added = [
        {"id": index, "content": piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": types[index] == CONTROL}
        for index, piece in enumerate(pieces) if types[index] in (CONTROL, USER_DEFINED)
    ]  # fmt: skip
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": whole if pattern == GPT2 else {"type": "Sequence", "pretokenizers": [split, whole]},
        "post_processor": None, "decoder": whole,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": "p{N}" in pattern,
            "vocab": {piece: index for index, piece in enumerate(pieces) if types[index] != UNUSED}, "merges": merges,
        },
    }  # fmt: skip
    named = {}
    for name, key in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")]:
        index = values.get(f"{_KEYS}{key}_token_id")
        if isinstance(index, int) and 0 <= index < len(pieces):
            named[f"{name}_token"] = pieces[index]
    files = {"tokenizer.json": document, "special_tokens_map.json": named}
    return {name: json.dumps(content, ensure_ascii=False).encode() for name, content in files.items()}
