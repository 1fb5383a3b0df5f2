"""What of a sentencepiece model other readers cannot express, told from the file alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Set

from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from tp_ext.tokens.sentence_piece import SPACE, SentencePieceTokenizer, parsed


def why_not_tokenizers(tokenizer: SentencePieceTokenizer) -> str | None:
    """Why `tokenizer.json` cannot express a model; None when it can."""
    model = parsed(tokenizer.content)
    return _not_plain(model) or _not_as_merges(model) or _not_apart(tokenizer, model)


def why_not_llama_cpp(tokenizer: SentencePieceTokenizer) -> str | None:
    """Why llama.cpp's vocabulary "llama" cannot express a model; None when it can."""
    model = parsed(tokenizer.content)
    if reason := _not_plain(model):
        return reason
    if model.normalizer_spec.add_dummy_prefix and user_defined(model):
        return "has user-defined pieces, behind each of which llama.cpp would put the space that belongs before a text"
    if not model.trainer_spec.byte_fallback:
        return "has no pieces for bytes, into which llama.cpp cuts what it does not know"
    return None


def user_defined(model: ModelProto) -> list[str]:
    """The pieces that are cut out of a text before anything is joined, the longest first."""
    pieces = (piece.piece for piece in model.pieces if piece.type == piece.USER_DEFINED)
    return sorted(pieces, key=lambda piece: (-len(piece), piece))


def pairs_of(model: ModelProto) -> Iterator[tuple[str, str]]:
    """Every pair of pieces that gives a piece, in the order of those."""
    usable = {piece.piece: None for piece in model.pieces if piece.type == piece.NORMAL}
    for piece in usable:
        yield from _cuts(piece, usable.keys())


def tied_runs(model: ModelProto) -> dict[str, int]:
    """Runs of one character that share their score with others, as LLaMA's runs of spaces do: the longest of each."""
    longest: dict[str, int] = {}
    for tied in _ties(model):
        if _is_run(tied):
            longest[tied[0][0]] = max(map(len, tied))
    return longest


def _not_plain(model: ModelProto) -> str | None:
    rules = model.normalizer_spec
    if model.trainer_spec.model_type != TrainerSpec.BPE:
        return "is not a BPE model"
    if rules.precompiled_charsmap or rules.remove_extra_whitespaces or not rules.escape_whitespaces:
        return "changes the text before it cuts it"
    if model.trainer_spec.treat_whitespace_as_suffix:
        return "puts spaces behind words"
    if unused := [piece.piece for piece in model.pieces if piece.type == piece.UNUSED]:
        return f"has unused pieces ({len(unused)}, such as {unused[0]!r}), which only sentencepiece takes apart again"
    if strange := [piece.piece for piece in model.pieces if not math.isfinite(piece.score)]:
        return f"has scores that are no numbers ({len(strange)}, such as that of {strange[0]!r})"
    return None


def _not_as_merges(model: ModelProto) -> str | None:
    for tied in _ties(model):
        if not _is_run(tied):
            return (f"has pieces of equal score ({len(tied)}, such as {tied[0]!r} and {tied[1]!r}): of those sentencepiece "
                    "joins the leftmost first, which an order of merges cannot say")  # fmt: skip
    normal = {piece.piece for piece in model.pieces if piece.type == piece.NORMAL}
    if strange := next((piece for piece in normal if len(piece) > 1 and not normal.issuperset(piece)), None):
        return f"has pieces, such as {strange!r}, of characters that are no pieces, which merges cannot join"
    if twice := next((piece for piece, n in Counter(piece.piece for piece in model.pieces).items() if n > 1), None):
        return f"has two pieces {twice!r}"
    return None


def _ties(model: ModelProto) -> list[list[str]]:
    """Pieces that are joined from others and share their score, by score."""
    by_score: defaultdict[float, list[str]] = defaultdict(list)
    for piece in model.pieces:
        if piece.type == piece.NORMAL:
            by_score[piece.score].append(piece.piece)
    usable = {piece for pieces in by_score.values() for piece in pieces}
    ties = ([piece for piece in pieces if any(_cuts(piece, usable))] for pieces in by_score.values() if len(pieces) > 1)
    return [pieces for pieces in ties if len(pieces) > 1]


def _cuts(piece: str, usable: Set[str]) -> Iterator[tuple[str, str]]:
    parts = ((piece[:place], piece[place:]) for place in range(1, len(piece)))
    return (pair for pair in parts if pair[0] in usable and pair[1] in usable)


def _is_run(pieces: list[str]) -> bool:
    return len(set("".join(pieces))) == 1


def _not_apart(tokenizer: SentencePieceTokenizer, model: ModelProto) -> str | None:
    """Between user-defined pieces, a text that is as a whole a piece is taken for it: so each must be reached by its own."""
    own = user_defined(model)
    if spaced := next((piece for piece in own if " " in piece), None):
        return f"has a user-defined piece with a space in it, {spaced!r}; only {SPACE!r} can stand for one"
    if not own:
        return None
    normal = {index: piece.piece for index, piece in enumerate(model.pieces) if piece.type == piece.NORMAL}
    found = tokenizer.encode_inside(list(normal.values()))
    lost = [piece for (index, piece), ids in zip(normal.items(), found, strict=True) if ids != [index]]
    if lost:
        return f"has user-defined pieces beside {len(lost)} that no text gives, such as {lost[0]!r}"
    return None
