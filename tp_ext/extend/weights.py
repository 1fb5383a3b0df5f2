"""A model folder for a vocabulary that was merged earlier: whole and proved, or absent."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tp_ext.checkpoint.formats import KIND, TOKENIZER_FILES, open_model
from tp_ext.corpus.readers import read, split
from tp_ext.errors import CheckpointError
from tp_ext.extend.growth import Growth, GrowthSettings, grow_model, manifest_of
from tp_ext.models import families
from tp_ext.output import whole_folder, write_json, write_manifest
from tp_ext.tokens.battery import CHINESE, ENGLISH
from tp_ext.tokens.tokenizer import Tokenizer, open_tokenizer

REPORT = "growth.json"


def grow_weights(
    model: Path, tokenizer: Path, output: Path, settings: GrowthSettings, base_tokenizer: Path | None = None,
    config_path: Path | None = None, english: Sequence[Path] = (), chinese: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Growth:  # fmt: skip
    """Write the model at `model`, grown to the merged `tokenizer` (file or folder), into the folder `output`.

    The base tokenizer is by default the one beside the model; `english` and `chinese` are text files for the proof, by
    default two short texts of our own. Raises UserErrors, and leaves no output, when a part does not fit another or
    the proof fails.
    """
    one, other = model.resolve(), output.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise CheckpointError(f"{output}: is where the model is; name a folder beside it")
    source = open_model(model, families, config_path)
    base = open_tokenizer(base_tokenizer or source.folder)
    merged = open_tokenizer(tokenizer)
    with whole_folder(output, KIND, CheckpointError) as folder:
        _copy_tokenizer(tokenizer, merged, folder)
        growth = grow_model(
            folder, source, base, merged, settings, _texts(english) or [ENGLISH], _texts(chinese) or [CHINESE], progress
        )
        write_json(folder / REPORT, growth.to_json())
        write_manifest(folder, KIND, manifest_of(source, base, merged, settings))
    return growth


def _copy_tokenizer(path: Path, merged: Tokenizer, folder: Path) -> None:
    if path.is_dir():
        for name in TOKENIZER_FILES:
            if (path / name).is_file():
                shutil.copyfile(path / name, folder / name)
    else:
        (folder / merged.file_name).write_bytes(merged.content)


def _texts(paths: Sequence[Path]) -> Iterable[str] | None:
    """The documents of text files, read when they are asked for; None without files."""
    parts = [part for path in paths for part in split(path)]
    return (text for part in parts for _, text in read(part)) if paths else None
