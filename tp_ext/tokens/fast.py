"""A sentencepiece BPE model as `tokenizer.json`, which Hugging Face's fast tokenizers read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from tp_ext.errors import TokenizerError
from tp_ext.tokens.sentence_piece import SPACE, SentencePieceTokenizer


def write_fast(tokenizer: SentencePieceTokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`.

    Ids are those of sentencepiece, but for texts that contain a special piece, such as "<s>": there the fast tokenizers
    give its id. Raises TokenizerError with the reason where the format cannot express the model: unigram, or another
    normalisation than none.

    Format: https://github.com/huggingface/tokenizers, its serialized form; class PreTrainedTokenizerFast takes it as it
    is, while transformers' Llama classes convert tokenizer.model anew, and cut runs of spaces differently.
    """
    if reason := why_not(tokenizer):
        raise TokenizerError(f"{tokenizer.path}: {reason}")
    model = ModelProto.FromString(tokenizer.content)
    specials = {name: model.pieces[index].piece for name, index in
                [("unk", model.trainer_spec.unk_id), ("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id),
                 ("pad", tokenizer.pad_id)] if index is not None and index >= 0}  # fmt: skip
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30), **{f"{name}_token": piece for name, piece in specials.items()},
    }  # fmt: skip
    for name, values in [("tokenizer.json", as_fast(model)), ("tokenizer_config.json", config)]:
        (folder / name).write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def why_not(tokenizer: SentencePieceTokenizer) -> str | None:
    """Why a model cannot be written as `tokenizer.json`; None when it can."""
    model = ModelProto.FromString(tokenizer.content)
    rules = model.normalizer_spec
    if model.trainer_spec.model_type != TrainerSpec.BPE:
        return "is not a BPE model"
    if rules.precompiled_charsmap or rules.remove_extra_whitespaces or not rules.escape_whitespaces:
        return "changes the text before it cuts it"
    if model.trainer_spec.treat_whitespace_as_suffix:
        return "puts spaces behind words"
    return None


def as_fast(model: ModelProto) -> dict[str, Any]:
    """The content of `tokenizer.json`."""
    rules, trainer = model.normalizer_spec, model.trainer_spec
    prefix = [{"type": "Prepend", "prepend": SPACE}] if rules.add_dummy_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if rules.add_dummy_prefix else []
    added = [
        {"id": index, "content": piece.piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": piece.type != piece.USER_DEFINED}
        for index, piece in enumerate(model.pieces) if piece.type in (piece.UNKNOWN, piece.CONTROL, piece.USER_DEFINED)
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            *prefix, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]},
        "pre_tokenizer": None,
        "post_processor": _begin(model),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": model.pieces[trainer.unk_id].piece,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
            "byte_fallback": trainer.byte_fallback, "ignore_merges": False,
            "vocab": {piece.piece: index for index, piece in enumerate(model.pieces)}, "merges": _merges(model),
        },
    }  # fmt: skip


def _begin(model: ModelProto) -> dict[str, Any] | None:
    """The begin piece before every text, as LLaMA's own."""
    index = model.trainer_spec.bos_id
    if index < 0:
        return None
    begin = model.pieces[index].piece
    first = {"SpecialToken": {"id": begin, "type_id": 0}}
    parts = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": [first, parts[0]], "pair": [first, parts[0], first, parts[1]],
            "special_tokens": {begin: {"id": begin, "ids": [index], "tokens": [begin]}}}  # fmt: skip


def _merges(model: ModelProto) -> list[list[str]]:
    """Every pair of pieces that gives a piece, in the order in which sentencepiece joins: by falling score."""
    usable = {piece.piece: piece.score for piece in model.pieces if piece.type == piece.NORMAL}
    pairs = [
        (-score, number, piece[:place], piece[place:])
        for number, (piece, score) in enumerate(usable.items())
        for place in range(1, len(piece)) if piece[:place] in usable and piece[place:] in usable
    ]  # fmt: skip
    return [[first, second] for _, _, first, second in sorted(pairs)]
