"""Pieces that may be added to a vocabulary, and why others may not."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.errors import TokenizerError
from tp_ext.tokens.characters import has_chinese, is_chinese, is_han
from tp_ext.tokens.sentence_piece import SPACE, SentencePieceTokenizer

KIND = "tp_ext pieces 1"
"""What the manifest of a list of pieces says it is."""
IN_BASE = "in the base already"
TWICE = "offered twice"
NO_CHINESE = "without a Chinese character"
MIXED = "Chinese joined with another script, a space or a mark that other languages use"
PUNCTUATED = "characters joined with punctuation (--mixed keeps these)"
NORMALIZED = "changed by the base's normalisation, so that no text could ever give it"
SPECIAL = "control, byte or unused piece of the source"
LONGEST = 64
"""Characters of a piece, at most: four times what sentencepiece learns by default. Time grows with the cube of it."""
TOO_LONG = f"longer than {LONGEST} characters"
SEALED = "cut by the base's own pieces, so that no text could ever give it"
NO_ROOM = "no room left"


@dataclass(frozen=True)
class Candidates:
    """Pieces in the order in which they should be joined, the first before the others."""

    pieces: list[str]
    worth: list[str]
    """The same pieces, those first that should be kept when there is room for few."""
    origin: str
    """What they come from: a file's name, or how they were learned."""
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Those left out, by reason."""
    scores: dict[str, float] = field(default_factory=dict)
    """Of pieces of a unigram model, the logarithm of their probability."""


def from_model(path: Path, expected: str | None = None) -> Candidates:
    """The pieces of a sentencepiece model, or of the `.vocab` file written beside one (piece, tab, score).

    BPE pieces are joined in the order of their scores; unigram pieces longest first, as the longest is what a unigram
    model would choose. `expected` (bpe, unigram) refuses the other kind. Raises TokenizerError.
    """
    scored, refused = _read_vocab(path) if path.suffix == ".vocab" else _read_model(path)
    if strange := next((each for each in scored if not math.isfinite(each[1])), None):
        raise TokenizerError(f"{path}: piece {strange[0]!r} has the score {strange[1]}; a finite number is needed")
    kind = "bpe" if all(score.is_integer() for _, score in scored) else "unigram"
    if expected and expected != kind:
        raise TokenizerError(f"{path}: holds {kind} pieces, not {expected}; leave --pieces_type out to take them so")
    worth = [piece for piece, _ in sorted(scored, key=lambda each: -each[1])]
    return Candidates(worth if kind == "bpe" else longest_first(worth), worth, str(path), refused)


def _read_model(path: Path) -> tuple[list[tuple[str, float]], dict[str, list[str]]]:
    pieces = ModelProto.FromString(SentencePieceTokenizer(path).content).pieces
    normal = [(piece.piece, piece.score) for piece in pieces if piece.type == piece.NORMAL]
    return normal, {SPECIAL: [piece.piece for piece in pieces if piece.type != piece.NORMAL]}


def _read_vocab(path: Path) -> tuple[list[tuple[str, float]], dict[str, list[str]]]:
    scored = []
    for number, line in _lines(path):
        piece, _, score = line.partition("\t")
        try:
            scored.append((piece, float(score)))
        except ValueError:
            what = f"expected a piece, a tab and its score; found {line[:40]!r}"
            raise TokenizerError(f"{path}: line {number}: {what}") from None
    return scored, {}


def from_characters(path: Path) -> Candidates:
    """Every character of a text file but line ends. Raises TokenizerError on other white space or control characters."""
    pieces = [character for number, line in _lines(path) for character in _checked(line, path, number)]
    return Candidates(pieces, pieces, str(path))


def from_words(path: Path) -> Candidates:
    """A word a line, the most useful first; longer words are joined first. Raises TokenizerError."""
    worth = [_checked(line, path, number) for number, line in _lines(path)]
    return Candidates(longest_first(worth), worth, str(path))


def longest_first(pieces: Iterable[str]) -> list[str]:
    """Pieces by falling length, in their order among equals."""
    return sorted(pieces, key=lambda piece: -len(piece))


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: byte {error.start}: not UTF-8; expected a text file") from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror})") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip("\r")]
    if not lines:
        raise TokenizerError(f"{path}: is empty")
    return [(number, line.removesuffix("\r")) for number, line in lines]


def _checked(line: str, path: Path, number: int) -> str:
    for character in line:
        if is_chinese(character):  # whatever this Python's version of Unicode knows of it
            continue
        if character.isspace() or character == SPACE or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn"):
            name = unicodedata.name(character, "a control character")
            raise TokenizerError(
                f"{path}: line {number}: {line[:40]!r} has U+{ord(character):04X} ({name}); a piece has no spaces and no "
                "control characters"
            )
    return line


def sift(
    candidates: Sequence[Candidates], in_base: Callable[[str], bool], normalize: Callable[[str], str], mixed: bool = False
) -> Candidates:
    """One list of what may be added, and all that may not, by reason.

    Kept are single Chinese characters and longer pieces of nothing but Han; with `mixed` also those that join Han and
    Chinese punctuation. A piece that joins Chinese with anything else is never kept: it would change how that other
    text is cut.
    """
    refused: dict[str, list[str]] = {}
    seen: set[str] = set()
    for group in candidates:
        for known, pieces in group.refused.items():
            refused.setdefault(known, []).extend(pieces)
        for piece in group.worth:
            reason = TWICE if piece in seen else _reason(piece, in_base, normalize, mixed)
            if reason:
                refused.setdefault(reason, []).append(piece)
            else:
                seen.add(piece)
    joined = dict.fromkeys(piece for group in candidates for piece in group.pieces if piece in seen)
    worth = dict.fromkeys(piece for group in candidates for piece in group.worth if piece in seen)
    return Candidates(list(joined), list(worth), ", ".join(group.origin for group in candidates), refused)


def _reason(piece: str, in_base: Callable[[str], bool], normalize: Callable[[str], str], mixed: bool) -> str | None:
    if not has_chinese(piece):
        return NO_CHINESE
    if not is_chinese(piece):
        return MIXED
    if len(piece) > LONGEST:
        return TOO_LONG
    if in_base(piece):
        return IN_BASE
    if normalize(piece) != piece:
        return NORMALIZED
    if len(piece) > 1 and not is_han(piece) and not mixed:
        return PUNCTUATED
    return None
