"""What the special pieces of a byte-level tokenizer are called, in the files beside its tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tp_ext.errors import TokenizerError

CONFIG = "tokenizer_config.json"
BESIDE = ("special_tokens_map.json", CONFIG)
"""The files that name special pieces; the last has the last word."""
KNOWN = {
    "bos": ("<s>", "<|begin_of_text|>"),
    "eos": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
    "pad": ("<pad>", "<|padding|>"),
}
"""The names of special pieces, where no file names them."""


def read(folder: Path) -> dict[str, bytes]:
    """The files that are there, by name."""
    return {name: (folder / name).read_bytes() for name in BESIDE if (folder / name).is_file()}


def names_in(files: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """What each `..._token` is called, as a string or as an object with a `content`. Raises TokenizerError."""
    names: dict[str, str] = {}
    for file, content in files.items():
        try:
            values = dict(json.loads(content))
        except (ValueError, TypeError):
            raise TokenizerError(f"{folder / file}: is not a JSON object") from None
        for key, value in values.items():
            name = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(name, str):
                names[key] = name
    return names


def config_of(names: Mapping[str, str]) -> dict[str, Any]:
    """A `tokenizer_config.json` for a tokenizer.json as it is, with the names of special pieces by role (bos, eos, pad)."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30), **{f"{role}_token": name for role, name in names.items()},
    }  # fmt: skip


def with_padding(files: Mapping[str, bytes], names: Mapping[str, str]) -> dict[str, bytes]:
    """The same files with the `pad` of `names` in each; a config with all of `names`, where there is none."""
    changed = {name: {**json.loads(content), "pad_token": names["pad"]} for name, content in files.items()}
    changed.setdefault(CONFIG, config_of(names))
    return {name: as_file(values) for name, values in changed.items()}


def as_file(values: Mapping[str, Any]) -> bytes:
    """The content of such a file."""
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()
