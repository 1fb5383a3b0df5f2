"""One command's work: pieces gathered, merged, proved, the model grown, and all of it written or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tp_ext.corpus import readers
from tp_ext.corpus.files import look_at
from tp_ext.errors import TokenizerError, raise_all
from tp_ext.extend.cost import cost
from tp_ext.extend.figures import BUILT_IN, CORPUS, TextFigures, piece_figures
from tp_ext.extend.other_readers import FastTokenizer, check_gguf
from tp_ext.extend.report import write_report
from tp_ext.output import size_and_hash, whole_folder, write_manifest
from tp_ext.tokens import battery, candidates, learn
from tp_ext.tokens.candidates import Candidates
from tp_ext.tokens.characters import chinese_runs, is_chinese
from tp_ext.tokens.fast import FAST
from tp_ext.tokens.gguf_vocabulary import write_gguf_vocabulary
from tp_ext.tokens.growers import PAD, RESERVED, Added
from tp_ext.tokens.merge import check_file, merge
from tp_ext.tokens.prove import Proof, cut
from tp_ext.tokens.sentence_piece import SentencePieceTokenizer
from tp_ext.tokens.tokenizer import Tokenizer, open_tokenizer

KIND = "tp_ext tokenizer 1"
GGUF = "vocabulary.gguf"
MEASURED_BYTES = 8 << 20
"""Text of the corpus, at most, that is measured for the report."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is added to which vocabulary."""

    base: Path
    output: Path
    pieces: tuple[Path, ...] = ()
    """Sentencepiece models, or .vocab files, whose Chinese pieces are offered."""
    pieces_type: str | None = None
    """Refuse pieces that are not `bpe` or `unigram`."""
    chars: tuple[Path, ...] = ()
    words: tuple[Path, ...] = ()
    corpus: tuple[Path, ...] = ()
    """Text to learn pieces from."""
    learn: int | None = None
    """Pieces to learn from the corpus; None: where nothing else is offered, as there is room for, or 20000."""
    learn_type: str = "bpe"
    jieba: int | None = None
    """Words to take from the corpus as jieba cuts them."""
    fill: tuple[Path, ...] = ()
    """Text that the places left by the other pieces are filled from; by default the corpus."""
    size: int | None = None
    """All pieces of the result."""
    min_count: int = 5
    character_coverage: float = 0.9995
    sample_bytes: int = 64 << 20
    seed: int = 0
    mixed: bool = False
    pad: bool = True
    multiple_of: int = 1
    check: tuple[Path, ...] = ()
    """More text for the proof and the figures."""
    gguf: bool = False

    def __post_init__(self) -> None:
        learn.check_limits({name: getattr(self, name) for name in learn.LIMITS})
        problems = [f"--{name} needs a --corpus" for name in ("learn", "jieba") if getattr(self, name) and not self.corpus]
        if self.fill and not self.size:
            problems.append("--fill needs a --size: it fills the places that the other pieces leave")
        if self.corpus and (self.pieces or self.chars or self.words) and not (self.learn or self.jieba or self.size):
            problems.append("--corpus beside other pieces needs --learn or --jieba, to add pieces of it too, or --size, to "
                            "fill up from it")  # fmt: skip
        raise_all(TokenizerError, problems)


@dataclass(frozen=True)
class Vocabulary:
    """A merged tokenizer in its folder, and what there is to tell of it."""

    base: Tokenizer
    tokenizer: Tokenizer
    figures: dict[str, TextFigures]
    """By the name of the text."""
    report: dict[str, Any]


Say = Callable[[str], None]


def extend_vocabulary(settings: Settings, say: Say = lambda message: None) -> Vocabulary:
    """Write the extended tokenizer, its proof and its report into the folder `settings.output`.

    Raises TokenizerError, and writes nothing, when an input is not what it should be or the proof fails.
    """
    with whole_folder(settings.output, KIND, TokenizerError, replace=False) as folder:
        made = make_vocabulary(settings, folder, say)
        made.report["cost"] = cost(made.figures, made.tokenizer.vocab_size - made.base.vocab_size)
        write_report(folder, made.report)
        write_manifest(folder, KIND, manifest_of(made))
    return made


def manifest_of(made: Vocabulary) -> dict[str, Any]:
    """What the manifest tells of a tokenizer's parents."""
    return {"base": made.report["base"], "tokenizer_sha256": made.tokenizer.sha256, "inputs": made.report["inputs"]}


def make_vocabulary(settings: Settings, folder: Path, say: Say) -> Vocabulary:
    """Write the extended tokenizer into `folder` and prove it."""
    _check_inputs(settings)
    base = open_tokenizer(settings.base)
    if settings.gguf:
        check_gguf(base)
    sample = _sample(settings.corpus, settings)
    fill = _sample(settings.fill, settings) or sample
    offered = _gather(settings, base, sample, say)
    if not any(group.pieces for group in offered) and not fill:
        raise TokenizerError("nothing to add: name --pieces, --chars, --words, --corpus or --fill")
    tokenizer, added, refused = _merge(settings, base, offered, fill, folder, say)
    if all(each.origin in (PAD, RESERVED) for each in added):
        why = "; ".join(f"{len(pieces)} {reason}" for reason, pieces in refused.items())
        raise TokenizerError(f"none of the pieces offered can be added ({why})")
    if settings.size and tokenizer.vocab_size < settings.size:
        raise TokenizerError(
            f"all that was offered makes {tokenizer.vocab_size} pieces, and --size is {settings.size}: name text to --fill "
            "the places left from, or leave --size out"
        )
    say(f"proving {len(added):,} added pieces")
    fast = FastTokenizer(tokenizer) if isinstance(tokenizer, SentencePieceTokenizer) else None
    proof, figures, used = _prove(base, tokenizer, fast, _texts(settings, fill))
    files = _write_others(tokenizer, fast, folder, settings.gguf)
    report = {
        "base": {"path": str(base.path), "sha256": base.sha256, "pieces": base.vocab_size},
        "merged": {"sha256": tokenizer.sha256, "pieces": tokenizer.vocab_size, "pad_id": tokenizer.pad_id, "files": files},
        "inputs": _inputs(settings),
        "proof": {"compared": proof.lines, "compared_in_part": proof.in_part, "notes": proof.notes},
        "texts": {name: each.to_json() for name, each in figures.items()},
        "pieces": piece_figures(base, tokenizer, used, [each.origin for each in added]),
        "refused": refused,
    }  # fmt: skip
    return Vocabulary(base, tokenizer, figures, report)


def _sample(paths: tuple[Path, ...], settings: Settings) -> list[str]:
    return learn.sample(readers.texts(paths), settings.sample_bytes, settings.seed) if paths else []


def _gather(settings: Settings, base: Tokenizer, sample: list[str], say: Say) -> list[Candidates]:
    """All pieces offered, those first that were named most deliberately: where there is room for few, they are taken."""
    groups = [candidates.from_characters(path) for path in settings.chars]
    groups += [candidates.from_words(path) for path in settings.words]
    groups += [candidates.from_model(path, settings.pieces_type) for path in settings.pieces]
    if settings.jieba:
        say("cutting the corpus into words")
        groups.append(learn.jieba_words(sample, settings.jieba, settings.min_count))
    if sample and (settings.learn or not groups):
        room = settings.size - base.vocab_size if settings.size else 20000
        count = settings.learn or max(room, 1)
        say(f"learning {count:,} pieces from {sum(map(len, sample)):,} characters")
        learner = learn.LEARNERS[settings.learn_type]
        groups.append(learner(sample, count, settings.min_count, settings.character_coverage, settings.mixed))
    return groups


def _merge(
    settings: Settings, base: Tokenizer, offered: list[Candidates], fill: list[str], folder: Path, say: Say
) -> tuple[Tokenizer, list[Added], dict[str, list[str]]]:
    """The tokenizer written into `folder`, what was added in the order of ids, and what was refused by reason."""
    if not isinstance(base, SentencePieceTokenizer):
        return _merge_byte_level(settings, base, offered, fill, folder, say)
    known = {base.piece(index) for index in range(base.vocab_size)}
    chosen = candidates.sift(offered, known.__contains__, base.normalize, settings.mixed)
    merged = merge(base, chosen, settings.size, fill, settings.min_count, settings.mixed, settings.pad, settings.multiple_of,
                   say)  # fmt: skip
    check_file(base.content, merged.content)
    (folder / base.file_name).write_bytes(merged.content)
    return open_tokenizer(folder), merged.added, {**chosen.refused, **merged.refused}


def _merge_byte_level(
    settings: Settings, base: Tokenizer, offered: list[Candidates], fill: list[str], folder: Path, say: Say
) -> tuple[Tokenizer, list[Added], dict[str, list[str]]]:
    from tp_ext.tokens.byte_level import ByteLevelTokenizer
    from tp_ext.tokens.byte_level_merge import merge_byte_level

    assert isinstance(base, ByteLevelTokenizer)
    chosen = candidates.sift(offered, lambda piece: False, lambda piece: piece, settings.mixed)
    runs = (run for text in fill for run in chinese_runs(text, settings.mixed))
    merged = merge_byte_level(base, chosen.worth, settings.size, runs, chinese=is_chinese, least=settings.min_count,
                              pad=settings.pad, multiple_of=settings.multiple_of, say=say)  # fmt: skip
    (folder / base.file_name).write_bytes(merged.content)
    for name, content in merged.beside.items():
        (folder / name).write_bytes(content)
    return open_tokenizer(folder), merged.added, {**chosen.refused, **merged.refused}


def _texts(settings: Settings, fill: list[str]) -> dict[str, Callable[[], Iterable[str]]]:
    """What the tokenizers are compared on: the built-in battery, the files to check, and some of the corpus."""
    texts: dict[str, Callable[[], Iterable[str]]] = {}
    for name, text in battery.TEXTS.items():
        texts[f"{BUILT_IN}{name}"] = text.splitlines
    for path in settings.check:
        texts[str(path)] = partial(readers.texts, [path])
    if fill:
        texts[CORPUS] = partial(_first, fill, MEASURED_BYTES)
    return texts


def _first(texts: Iterable[str], most: int) -> Iterator[str]:
    for text in texts:
        yield text
        most -= len(text.encode())
        if most <= 0:
            return


def _prove(
    base: Tokenizer, merged: Tokenizer, fast: FastTokenizer | None, texts: Mapping[str, Callable[[], Iterable[str]]]
) -> tuple[Proof, dict[str, TextFigures], Counter[int]]:
    """Compare the tokenizers on all texts and count. Raises TokenizerError naming the differences."""
    proof = Proof(base, merged)
    proof.vocabulary()
    figures: dict[str, TextFigures] = {}
    for name, text in texts.items():
        figures[name] = TextFigures(base, merged)
        lines = cut(base, merged, learn.parts(text()))
        while block := list(islice(lines, 2000)):
            for line in block:
                proof.line(name, line)
            figures[name].add(block)
            if fast:
                fast.compare(block)
    proof.finish()
    return proof, figures, sum((each.used for each in figures.values()), Counter())


def _write_others(tokenizer: Tokenizer, fast: FastTokenizer | None, folder: Path, gguf: bool) -> dict[str, str]:
    """The same vocabulary for other readers; which files there are, or why not."""
    files = dict.fromkeys([tokenizer.file_name, *tokenizer.beside], "written")
    if fast:
        files[FAST] = fast.write(folder)
    if gguf:
        assert isinstance(tokenizer, SentencePieceTokenizer)
        write_gguf_vocabulary(tokenizer, folder / GGUF)
        files[GGUF] = "written"
    return files


def _named(settings: Settings) -> list[tuple[str, Path]]:
    """Every file that is read, with what for."""
    kinds = ("pieces", "chars", "words", "corpus", "fill", "check")
    return [(kind, path) for kind in kinds for path in getattr(settings, kind)]


def _check_inputs(settings: Settings) -> None:
    """Raise TokenizerError with all that are no regular files: they are read more than once."""
    found = [(path, "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "no such file")
             for _, path in _named(settings) if not path.is_file()]  # fmt: skip
    raise_all(TokenizerError, [f"{path}: {what}" for path, what in found])
    for path in (*settings.corpus, *settings.fill, *settings.check):
        look_at(path)


def _inputs(settings: Settings) -> list[dict[str, Any]]:
    return [{"as": kind, "path": str(path), **size_and_hash(path)} for kind, path in _named(settings)]
