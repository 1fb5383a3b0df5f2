"""A model from one format into another, with a certificate that it still is the same model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tp_ext.checkpoint import certificate, companions
from tp_ext.checkpoint.ahead import read_ahead
from tp_ext.checkpoint.containers.output_file import Said
from tp_ext.checkpoint.digests import Digests, watched
from tp_ext.checkpoint.formats import FORMATS, KIND, open_model, plan_model
from tp_ext.checkpoint.formats.format import Format, Target
from tp_ext.checkpoint.layout import write_layout
from tp_ext.checkpoint.source import WHOLE, Degree, Named, Source, whole
from tp_ext.checkpoint.tensors import DTYPES, TYPE_OF
from tp_ext.config import ModelConfig
from tp_ext.errors import CheckpointError, suggest
from tp_ext.output import MANIFEST, check_files, listed_files, size_and_hash, sync, whole_folder, write_json, write_manifest
from tp_ext.registry import Family, Registry
from tp_ext.settings import read_json

OPTIONS = {**{name: TYPE_OF[dtype] for name, dtype in DTYPES.items()}, "q8_0": "Q8_0"}
"""The types of weights that can be asked for."""
_COSMETIC: dict[str, Any] = {"dropout": 0.0, "max_seq_length": 1, "encoder": "", "layer_number_scale": False}
"""Fields that the numbers of a model do not depend on, which formats may not have words for."""

Proof = Callable[[Source, Source, str], Mapping[str, Any]]
"""Compares what source and target compute, given the type of the target. Raises CheckpointError."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is asked of a conversion, beside from where and to where."""

    to: str
    """A format's name."""
    dtype: str | None = None
    """One of OPTIONS; None keeps the type, and then every number stays bit for bit."""
    degree: Degree = WHOLE
    pad_vocab: bool = False
    """Add rows that stand for no piece where the vocabulary does not divide by the degree."""
    expected: str | None = None
    """The format of the source, where a folder holds several."""
    config_path: Path | None = None
    """The model's JSON, where there is none beside the weights."""

    def __post_init__(self) -> None:
        chosen = FORMATS.get(self.to) if self.to in FORMATS.names() else None
        if chosen is None:
            raise CheckpointError(f"no format named '{self.to}'.{suggest(self.to, FORMATS.names())}")
        if self.dtype is not None and self.dtype not in OPTIONS:
            raise CheckpointError(f"no type named '{self.dtype}'.{suggest(self.dtype, OPTIONS)}")
        if self.dtype == "q8_0" and self.to != "gguf":
            raise CheckpointError(f"q8_0 is a type of GGUF's; {self.to} has {', '.join(DTYPES)}")
        if min(self.degree.tensor, self.degree.pipeline) < 1:
            raise CheckpointError(f"a degree of parallelism is at least 1, not {self.degree.tensor}, {self.degree.pipeline}")
        if not chosen.is_cut and self.degree != WHOLE:
            cut = ", ".join(each.name for each in FORMATS if each.is_cut)
            raise CheckpointError(f"{self.to} is not cut; a degree is for {cut}")
        if self.pad_vocab and not (chosen.is_cut and chosen.keeps_padding):
            padded = ", ".join(each.name for each in FORMATS if each.is_cut and each.keeps_padding)
            raise CheckpointError(f"{self.to} has no word for rows that stand for nothing; --pad_vocab is for {padded}")

    @property
    def format(self) -> Format:
        """The format that is written."""
        return FORMATS.get(self.to)


def convert(
    path: Path, output: Path, asked: Conversion | str, families: Registry[Family], proof: Proof | None = None,
) -> Source:  # fmt: skip
    """Write the model at `path` into the folder `output` as `asked` (a format's name alone keeps all else); what was
    written, opened again.

    It is read back through the inverse table, and the hash of every tensor compared with the source's; `proof` may
    compare more. conversion.json in `output` says so. Raises CheckpointError or ConfigError, and leaves no output, when
    the source is not exactly a model of its configuration, is damaged, or anything differs.
    """
    asked = Conversion(to=asked) if isinstance(asked, str) else asked
    return convert_source(open_model(path, families, asked.config_path, asked.expected), output, asked, families, proof)


def convert_source(
    source: Source, output: Path, asked: Conversion, families: Registry[Family], proof: Proof | None = None
) -> Source:
    """As `convert`, of a model that is open."""
    path = source.path
    check_apart(output, path, source.folder, *filter(None, [asked.config_path]))
    _check_replaceable(output)
    target = Target(OPTIONS[asked.dtype] if asked.dtype else TYPE_OF[source.dtype], asked.degree)
    kept = _as_kept(source, asked)
    with whole_folder(output, KIND, CheckpointError) as folder, _checked_files(source), ThreadPoolExecutor(1) as thread:
        files: dict[Path, Said] = {}
        synced: list[Future[None]] = []

        def finished(file: Path, said: Said | None) -> None:
            files[file] = said or thread.submit(size_and_hash, file)
            synced.append(thread.submit(sync, file))

        hashes, own, exact = _write(folder, source, kept, asked, target, finished)
        parent = certificate.check_parent(source, own)
        written = open_model(folder, families, expected=asked.to)
        certificate.compare(hashes, certificate.read_back(written, asked.format, target),
                            "reads back differently from what was written; nothing was kept")  # fmt: skip
        _compare_configs(kept, written)
        logits = proof(kept, written, target.type) if proof else None
        said = certificate.certificate(source, kept, asked.format, target, hashes, own, exact, parent, logits)
        write_json(folder / certificate.FILE, said)
        for done in synced:
            done.result()
        manifest = {"format": asked.to, "family": source.family.name, "tensors": hashes,
                    "source": {"path": str(path), "format": source.format}}  # fmt: skip
        write_manifest(folder, KIND, manifest, {file: known.result() for file, known in files.items()})
    return open_model(output, families, expected=asked.to)


def check_apart(output: Path, *inputs: Path) -> None:
    """Raise CheckpointError when an output would be written over one of its inputs, or into the first, the model."""
    to = output.resolve()
    for path in inputs:
        if to in (path.resolve(), *path.resolve().parents):
            raise CheckpointError(f"{output}: is where {path} is, which is read; name another folder")
    if inputs[0].resolve() in to.parents:
        raise CheckpointError(f"{output}: is inside the input; name a folder elsewhere")


def _check_replaceable(output: Path) -> None:
    """Raise CheckpointError when there is a model that no conversion wrote, which therefore none can write again."""
    path = output / MANIFEST
    if path.is_file() and "source" not in read_json(path, CheckpointError):
        raise CheckpointError(f"{output}: holds what no conversion wrote; name another folder, or remove it")


def _as_kept(source: Source, asked: Conversion) -> Source:
    """`source` with the rows that the format and the degree want."""
    if asked.pad_vocab:
        return source.padded(asked.degree.tensor)
    return source if asked.format.keeps_padding else source.without_padding()


def _write(
    folder: Path, source: Source, kept: Source, asked: Conversion, target: Target,
    finished: Callable[[Path, Said | None], None],
) -> tuple[dict[str, str], dict[str, str], bool]:  # fmt: skip
    """Write all files of the model, and tell `finished` of each file of weights.

    Gives the hashes of its tensors as they will be read back and as they were, and whether all values stayed.
    """
    hashes, own = Digests(), Digests()
    alike = kept.shapes == source.shapes and _keeps_types(source, asked.format, target)
    if not alike:
        kept = _as_kept(watched(source, own), asked)
    unwatched = kept

    def read() -> Named:
        return certificate.expected(unwatched, target, asked.format, asked.dtype is not None, hashes)

    companions.write_tokenizer(source, folder)
    plan = plan_model(folder, replace(kept, read=whole(read)), asked.to, target)
    with read_ahead(plan.read()) as tensors:
        write_layout(folder, plan.container, plan.layout, plan.slots, tensors, finished)
    return hashes.hashes, hashes.hashes if alike else own.hashes, hashes.exact


def _keeps_types(source: Source, to: Format, target: Target) -> bool:
    before = FORMATS.get(source.format).type_of if source.format in FORMATS.names() else None
    return target.type == TYPE_OF[source.dtype] and before is to.type_of


@contextmanager
def _checked_files(source: Source) -> Iterator[None]:
    """Compare the files of a source that has a manifest with it, in another thread while the block runs.

    Where the manifest tells the hash of each tensor, these are compared anyway.
    """
    manifest = source.weights_folder / MANIFEST
    if not manifest.is_file():
        yield
        return
    values = read_json(manifest, CheckpointError)
    listed_files(source.weights_folder, values, CheckpointError)
    if "tensors" in values:
        yield
        return
    with ThreadPoolExecutor(1) as thread:
        check = thread.submit(check_files, source.weights_folder, values, True, CheckpointError)
        try:
            yield
        except CheckpointError:
            check.result()  # a damaged file is the better reason
            raise
        check.result()


def _compare_configs(kept: Source, written: Source) -> None:
    """Raise CheckpointError when what was written says another number of the model than the source."""
    one, other = (_essence(source.config) for source in (kept, written))
    wrong = [
        f"{field.name} {getattr(one, field.name)!r} becomes {getattr(other, field.name)!r}"
        for field in dataclasses.fields(one) if getattr(one, field.name) != getattr(other, field.name)
    ]  # fmt: skip
    if wrong:
        raise CheckpointError(f"{kept.path}: {written.format} cannot say all of its configuration: {'; '.join(wrong)}")


def _essence(config: ModelConfig) -> ModelConfig:
    """What the numbers of a model depend on, said in one way."""
    return config.replace(**_COSMETIC, local_kv_heads_num=config.kv_heads, attention_head_size=config.head_size)
