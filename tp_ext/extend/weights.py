"""A model folder with a longer vocabulary: whole and proved, or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tp_ext.checkpoint.companions import carry_settings, copy_tokenizer
from tp_ext.checkpoint.formats import KIND, open_model
from tp_ext.checkpoint.grow import check_base, check_methods
from tp_ext.corpus import readers
from tp_ext.errors import CheckpointError
from tp_ext.extend.cost import cost
from tp_ext.extend.growth import Growth, GrowthSettings, check_padding, count_parameters, grow_model
from tp_ext.extend.growth import manifest_of as manifest_of_model
from tp_ext.extend.report import write_report
from tp_ext.extend.transaction import Say, Settings, Vocabulary, make_vocabulary, manifest_of
from tp_ext.models import families
from tp_ext.output import size_and_hash, whole_folder, write_json, write_manifest
from tp_ext.tokens.battery import CHINESE, ENGLISH
from tp_ext.tokens.rows import check_files_agree
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.train.report import flops_per_token

REPORT = "growth.json"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model is grown, and on what text that is proved."""

    model: Path
    config_path: Path | None = None
    """The model's JSON, for a .bin that has none beside it."""
    english: Sequence[Path] = ()
    """Text files without the new pieces, for the proof; by default a short text of our own."""
    chinese: Sequence[Path] = ()
    """Text files with new pieces, on which the methods are compared; by default a short text of our own."""
    growth: GrowthSettings = field(default_factory=GrowthSettings)

    def texts(self) -> tuple[Iterable[str], Iterable[str]]:
        """English and Chinese."""
        english = readers.texts(self.english) if self.english else [ENGLISH]
        return english, readers.texts(self.chinese) if self.chinese else [CHINESE]


def extend_model(
    settings: Settings, of_model: ModelSettings, say: Say = lambda message: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Vocabulary:  # fmt: skip
    """Write the model, grown to the vocabulary that `settings` describe, into the folder `settings.output`.

    Tokenizer, weights, proof and report are written together or not at all. Raises UserErrors.
    """
    _check_apart(of_model.model, settings.output)
    source = open_model(of_model.model, families, of_model.config_path)
    check_base(source, open_tokenizer(settings.base))
    check_methods(of_model.growth.method, of_model.growth.head_method, source.config.tie_weights)
    if settings.multiple_of % of_model.growth.pad_rows_to:  # else there is nothing to fill up
        check_padding(source)
    with whole_folder(settings.output, KIND, CheckpointError, replace=False) as folder:
        made = make_vocabulary(settings, folder, say)
        carry_settings(source.folder, folder, made.tokenizer)
        made.report["inputs"] += _inputs(of_model)
        say(f"growing {source.path} from {source.config.rows:,} rows")
        growth = grow_model(folder, source, made.base, made.tokenizer, of_model.growth, *of_model.texts(), progress)
        for doubt in growth.doubts:
            say(f"warning: {doubt}")
        sources = (source, open_model(folder, families))
        flops = [flops_per_token(count_parameters(each), each.config, each.config.max_seq_length) for each in sources]
        rows = growth.rows_after - growth.rows_before
        made.report["growth"] = growth.to_json()
        made.report["cost"] = cost(made.figures, rows, growth.parameters_added, *flops)
        write_report(folder, made.report)
        parents = manifest_of_model(source, made.base, made.tokenizer, of_model.growth)
        write_manifest(folder, KIND, {**manifest_of(made), **parents})
    return made


def grow_weights(
    of_model: ModelSettings, tokenizer: Path, output: Path, base_tokenizer: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Growth:  # fmt: skip
    """Write the model, grown to a `tokenizer` merged earlier (file or folder), into the folder `output`.

    The base tokenizer is by default the one beside the model. Raises UserErrors, and leaves no output, when a part does
    not fit another or the proof fails.
    """
    _check_apart(of_model.model, output)
    source = open_model(of_model.model, families, of_model.config_path)
    base = open_tokenizer(base_tokenizer or source.folder)
    merged = open_tokenizer(tokenizer)
    with whole_folder(output, KIND, CheckpointError, replace=False) as folder:
        if merged.path.name == merged.file_name:  # as in a folder of a tokenizer, whose other files belong to it
            check_files_agree(merged)
            copy_tokenizer(merged.path.parent, folder)
        else:
            (folder / merged.file_name).write_bytes(merged.content)
        carry_settings(source.folder, folder, merged)
        growth = grow_model(folder, source, base, merged, of_model.growth, *of_model.texts(), progress)
        write_json(folder / REPORT, growth.to_json())
        write_manifest(folder, KIND, manifest_of_model(source, base, merged, of_model.growth))
    return growth


def _inputs(of_model: ModelSettings) -> list[dict[str, Any]]:
    texts = [("english", path) for path in of_model.english] + [("chinese", path) for path in of_model.chinese]
    return [{"as": kind, "path": str(path), **size_and_hash(path)} for kind, path in texts]


def _check_apart(model: Path, output: Path) -> None:
    one, other = model.resolve(), output.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise CheckpointError(f"{output}: is where the model is; name a folder beside it")
