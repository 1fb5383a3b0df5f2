"""A sentencepiece BPE model as `tokenizer.json`, which Hugging Face's fast tokenizers read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.errors import TokenizerError
from tp_ext.tokens.expressible import pairs_of, user_defined, why_not_tokenizers
from tp_ext.tokens.sentence_piece import SPACE, SentencePieceTokenizer, parsed
from tp_ext.tokens.special_names import CONFIG, config_of

FAST = "tokenizer.json"


def write_fast(tokenizer: SentencePieceTokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`.

    Ids are those of sentencepiece, but for texts that contain a special piece, such as "<s>": there the fast tokenizers
    give its id. Raises TokenizerError with the reason where the format cannot express the model.

    Format: https://github.com/huggingface/tokenizers, its serialized form; class PreTrainedTokenizerFast takes it as it
    is, while transformers' Llama classes convert tokenizer.model anew, and cut runs of spaces differently.
    """
    if reason := why_not_tokenizers(tokenizer):
        raise TokenizerError(f"{tokenizer.path}: {reason}")
    for name, content in fast_files(tokenizer).items():
        (folder / name).write_text(content, encoding="utf-8")


def fast_files(tokenizer: SentencePieceTokenizer) -> dict[str, str]:
    """The content of tokenizer.json and tokenizer_config.json, whether it gives the ids of sentencepiece or not."""
    model = parsed(tokenizer.content)
    named = [("unk", tokenizer.unk_id), ("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id),
             ("pad", tokenizer.pad_id)]  # fmt: skip
    specials = {role: model.pieces[index].piece for role, index in named if index is not None and index >= 0}
    files = {FAST: _document(model, tokenizer), CONFIG: config_of(specials)}
    return {name: json.dumps(values, ensure_ascii=False, indent=1) + "\n" for name, values in files.items()}


def _document(model: ModelProto, tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    rules, own = model.normalizer_spec, user_defined(model)
    prefix = [{"type": "Prepend", "prepend": SPACE}] if rules.add_dummy_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if rules.add_dummy_prefix else []
    added = [
        {"id": index, "content": piece.piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for index, piece in enumerate(model.pieces) if piece.type in (piece.UNKNOWN, piece.CONTROL)
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            *prefix, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]},
        "pre_tokenizer": _apart(model, own) if own else None,
        "post_processor": _begin(tokenizer),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": tokenizer.piece(tokenizer.unk_id),
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
            "byte_fallback": model.trainer_spec.byte_fallback, "ignore_merges": bool(own),
            "vocab": {piece.piece: index for index, piece in enumerate(model.pieces)}, "merges": _merges(model),
        },
    }  # fmt: skip


def _apart(model: ModelProto, own: list[str]) -> dict[str, Any]:
    """Cuts user-defined pieces out of the text, where `ignore_merges` takes them whole.

    As added tokens they would be cut out before the normalizer puts its space before the text, and each part would get
    one. A part that spells a byte or a control piece must not be taken whole: its first character is cut off.
    """
    special = (piece.piece for piece in model.pieces if piece.type in (piece.UNKNOWN, piece.CONTROL, piece.BYTE))
    spelt = (rf"{re.escape(piece[:1])}(?={re.escape(piece[1:])}\z)" for piece in special)
    patterns = ["|".join(map(re.escape, own)), rf"\A(?:{'|'.join(spelt)})"]
    steps = [{"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False} for each in patterns]
    return {"type": "Sequence", "pretokenizers": steps}


def _begin(tokenizer: SentencePieceTokenizer) -> dict[str, Any] | None:
    """The begin piece before every text, as LLaMA's own."""
    index = tokenizer.bos_id
    if index is None:
        return None
    begin = tokenizer.piece(index)
    first = {"SpecialToken": {"id": begin, "type_id": 0}}
    parts = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": [first, parts[0]], "pair": [first, parts[0], first, parts[1]],
            "special_tokens": {begin: {"id": begin, "ids": [index], "tokens": [begin]}}}  # fmt: skip


def _merges(model: ModelProto) -> list[list[str]]:
    """Every pair of pieces that gives a piece, in the order in which sentencepiece joins: by falling score."""
    place = {piece.piece: (-piece.score, index) for index, piece in enumerate(model.pieces)}
    return [list(pair) for pair in sorted(pairs_of(model), key=lambda pair: (place[pair[0] + pair[1]], pair))]
