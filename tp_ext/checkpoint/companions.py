"""What is in a model folder beside sizes and weights: its tokenizer, and what Hugging Face's programs know of the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.source import Source
from tp_ext.errors import CheckpointError, TokenizerError
from tp_ext.settings import read_json
from tp_ext.tokens.expressible import why_not_tokenizers
from tp_ext.tokens.fast import write_fast
from tp_ext.tokens.sentence_piece import SentencePieceTokenizer
from tp_ext.tokens.special_names import CONFIG as TOKENIZER_CONFIG
from tp_ext.tokens.special_names import names_in
from tp_ext.tokens.special_names import read as files_beside
from tp_ext.tokens.tokenizer import FILE_NAMES, Tokenizer, find_tokenizer, open_tokenizer

CONFIG, FAST = "config.json", "tokenizer.json"
EXTRAS = "huggingface.json"
"""In folders of other formats: what a Hugging Face config.json said that ours has no word for."""
GENERATION = "generation_config.json"
CHAT = ("chat_template.jinja", "chat_template.json")
TOKENIZER_FILES = (*FILE_NAMES, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", *CHAT)
FAST = "tokenizer.json"
OF_THE_MODEL = ("chat_template", "model_max_length", "padding_side", "add_bos_token", "add_eos_token")
"""Keys of a tokenizer_config.json that tell how the model was trained, and hold for a longer vocabulary too."""
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")

_OF_THE_FILE = ("architectures", "auto_map", "_name_or_path", "dtype", "torch_dtype", "transformers_version")
"""Keys of a config.json that speak of the file it was in, not of the model."""


def read_extras(folder: Path) -> dict[str, Any]:
    """What a folder that is not Hugging Face's keeps for one that is."""
    return read_json(folder / EXTRAS, CheckpointError) if (folder / EXTRAS).is_file() else {}


def extras_of(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a Hugging Face config.json that are not among the `known`."""
    return {key: value for key, value in values.items() if key not in known and key not in _OF_THE_FILE}


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of the tokenizer in one folder into another, but for those that are there."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and not (folder / name).exists():
            shutil.copyfile(source / name, folder / name)


def write_tokenizer(source: Source, folder: Path) -> None:
    """Give `folder` the tokenizer of a model: that beside it, else the one in the file of its weights."""
    copy_tokenizer(source.folder, folder)
    if find_tokenizer(folder) is None:
        for name, content in source.carried.items():
            (folder / name).write_bytes(content)


def carry_settings(source: Path, folder: Path, merged: Tokenizer) -> None:
    """Give a folder with the longer tokenizer `merged` what the files beside the old one say of the model.

    That is how chats are written, which pieces begin, end and pad a text, whether the first is put before each, and so on.
    Where the new folder has no tokenizer_config.json, it gets the old one. Raises CheckpointError on a name of a piece
    that is none.
    """
    for name in CHAT:
        if (source / name).is_file() and not (folder / name).exists():
            shutil.copyfile(source / name, folder / name)
    old, new = (_read(each / TOKENIZER_CONFIG) for each in (source, folder))
    named = names_in(files_beside(source), source)
    roles = {role: named[role] for role in ROLES if role in named}
    pieces = {merged.piece(index) for index in range(merged.vocab_size)}
    if roles.get("pad_token") not in pieces:  # one that has no row; the new tokenizer may have one
        roles.pop("pad_token", None)
    if lost := next((role for role, name in roles.items() if name not in pieces), None):
        raise CheckpointError(f"{source}: its files name {roles[lost]!r} as {lost}, which is no piece of {merged.path}")
    kept = {key: old[key] for key in OF_THE_MODEL if old.get(key) is not None}
    if new or old:
        pad = {"pad_token": merged.piece(merged.pad_id)} if merged.pad_id is not None else {}
        _write(folder / TOKENIZER_CONFIG, {**(new or {**old, **pad}), **kept, **roles})
    if old.get("add_bos_token") is False and (folder / FAST).is_file():
        _write(folder / FAST, {**_read(folder / FAST), "post_processor": None})


def write_huggingface_config(source: Path, folder: Path, values: Mapping[str, Any], extras: Mapping[str, Any]) -> None:
    """Write config.json, and generation_config.json when there is one in `source`, into `folder`.

    Ids of bos, eos and pad that they do not name are those of the tokenizer in `folder`. Raises CheckpointError when
    nothing names them.
    """
    ids = _special_ids(folder, must=not extras)
    _write(folder / CONFIG, {**_filled(extras, ids), **values})
    if (source / GENERATION).is_file():
        _write(folder / GENERATION, _filled(_read(source / GENERATION), ids))


def write_extras(source: Path, folder: Path, extras: Mapping[str, Any]) -> None:
    """Keep in `folder` what `write_huggingface_config` will want."""
    if extras:
        _write(folder / EXTRAS, extras)
    if (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, folder / GENERATION)


def write_fast_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` for a sentencepiece model in `folder` that has none, where that form can express it.

    Without it transformers converts the model anew, and cuts runs of spaces differently.
    """
    path = find_tokenizer(folder)
    if path is None or path.suffix == ".json" or (folder / FAST).exists():
        return
    tokenizer = open_tokenizer(path)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    if why_not_tokenizers(tokenizer) is None:
        known = _read(folder / TOKENIZER_CONFIG)
        write_fast(tokenizer, folder)
        written = _read(folder / TOKENIZER_CONFIG)
        _write(folder / TOKENIZER_CONFIG, {**written, **known, "tokenizer_class": written["tokenizer_class"]})


def _special_ids(folder: Path, must: bool) -> dict[str, int]:
    path = find_tokenizer(folder)
    if path is None:
        return {}
    try:
        tokenizer = open_tokenizer(path)
    except TokenizerError:
        if must:
            raise
        return {}
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    return {key: index for key, index in ids.items() if index is not None}


def _filled(values: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    return {**values, **{key: index for key, index in ids.items() if values.get(key) is None}}


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, CheckpointError) if path.is_file() else {}


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
