"""A sentencepiece vocabulary with Chinese pieces added, so that nothing else is cut differently."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.errors import TokenizerError
from tp_ext.tokens.candidates import NO_ROOM, SEALED, Candidates
from tp_ext.tokens.characters import chinese_runs
from tp_ext.tokens.continue_bpe import BORDER, Tokens, continue_bpe
from tp_ext.tokens.growers import FILLED, OFFERED, PAD, RESERVED, Added, BpeGrower, grower_of
from tp_ext.tokens.sentence_piece import SentencePieceTokenizer, without_prefix
from tp_ext.tokens.tokenizer import Tokenizer

TRIALS = 20
"""How often the last places are tried to be filled from what was offered."""


@dataclass(frozen=True)
class Merge:
    """A base vocabulary with pieces added."""

    content: bytes
    """The tokenizer's file."""
    added: list[Added]
    """In the order of their ids, which follow the base's."""
    refused: dict[str, list[str]]
    """The candidates that were left out, by reason."""


def merge(
    base: SentencePieceTokenizer, candidates: Candidates, size: int | None = None, corpus: Iterable[str] = (),
    least: int = 2, mixed: bool = False, pad: bool = True, multiple_of: int = 1,
    say: Callable[[str], None] = lambda message: None,
) -> Merge:  # fmt: skip
    """Add the pieces of `candidates`, and when `size` leaves room those that shorten `corpus` most.

    The base's pieces, ids, scores and rules stay as they are. An added piece has a score below all of the base's (of a
    unigram base: one that wins just over its parts), so that it comes into play only where the base has done what it
    can; scores are distinct and fall with the id, so that every reader breaks ties alike. Every character of an added
    piece is a piece. A piece that nothing leads to gets bridges: pairs of the tokens it is cut into.

    What the corpus gives occurs in it `least` times, and is one character or of Han alone, but with `mixed`. `size` is the
    total with `<pad>` (unless `pad` is false or the base has one); `multiple_of` rounds the total up with reserved control
    pieces. Raises TokenizerError when `size` cannot be reached or is no such multiple.
    """
    model = ModelProto.FromString(base.content)
    pad = pad and base.pad_id is None
    room = room_for(base, size, pad, multiple_of)
    grower = grower_of(model)
    added, sealed = _choose(grower, candidates, room)
    chosen = sum(each.origin == OFFERED for each in added)
    say(f"{chosen:,} of {len(candidates.worth):,} pieces offered, with {len(added) - chosen:,} characters and bridges")
    texts = corpus if room is not None and len(added) < room else ()
    runs = [run for text in texts for run in chinese_runs(text, mixed)]
    if runs and room is not None:
        added = _fill(grower, added, runs, room, least, say)
    added = grower.order(added)
    controls = _controls(model, base.vocab_size + len(added), pad, multiple_of)
    content = grower.build(added, controls, pad)
    return Merge(content, [*added, *controls], _refused(candidates, added, sealed))


def room_for(base: Tokenizer, size: int | None, pad: bool, multiple_of: int) -> int | None:
    """How many pieces can be added; None without a `size`. Raises TokenizerError when there is no room."""
    if size is None:
        return None
    if size % multiple_of:
        below = size // multiple_of * multiple_of
        raise TokenizerError(f"size {size} is no multiple of {multiple_of}; {below} and {below + multiple_of} are")
    room = size - base.vocab_size - pad
    if room < 1:
        raise TokenizerError(f"size {size} leaves no room: {base.path} has {base.vocab_size} pieces"
                             + (" and <pad> takes one" if pad else ""))  # fmt: skip
    return room


def cannot_fill(filled: int, room: int, least: int) -> TokenizerError:
    """The error that a text gives too few pieces."""
    return TokenizerError(f"the corpus fills {filled} of {room} places with pieces that occur {least} times; take a size "
                          f"that is {room - filled} smaller, more text, or a lower --min_count")  # fmt: skip


def _choose(grower: BpeGrower, candidates: Candidates, room: int | None) -> tuple[list[Added], list[str]]:
    """As many of the worthiest candidates as there is room for with what they need; and those that nothing leads to."""

    def completed(count: int) -> tuple[list[Added], list[str]]:
        wanted = set(candidates.worth[:count])
        return grower.complete([piece for piece in candidates.pieces if piece in wanted])

    most = len(candidates.worth) if room is None else min(len(candidates.worth), room)
    best = completed(most)
    if room is None or len(best[0]) <= room:
        return best
    best, fits, too_many = ([], []), 0, most
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        tried = completed(middle)
        if len(tried[0]) <= room:
            best, fits = tried, middle
        else:
            too_many = middle
    return _top_up(grower, best[0], candidates.worth[fits:], room), best[1]


def _top_up(grower: BpeGrower, added: list[Added], left: Sequence[str], room: int) -> list[Added]:
    """`added` with more of the candidates `left` where places are free: such as are made of two pieces that are there."""
    processor = without_prefix(grower.build(added))
    taken = grower.known | {each.piece for each in added}
    pairs = [piece for piece, ids in zip(left, processor.encode(list(left), num_threads=1), strict=True) if len(ids) == 2]
    pairs = [piece for piece in pairs if piece not in taken and taken.issuperset(piece)]
    for _ in range(TRIALS):
        new = [Added(piece, OFFERED) for piece in pairs[: room - len(added)]]
        pairs = pairs[len(new) :]
        while lost := grower.unreachable([*added, *new]):
            new = [each for each in new if each.piece not in lost]
        added = [*added, *new]
        if len(added) == room or not pairs:
            break
    return added


def _refused(candidates: Candidates, added: Sequence[Added], sealed: Sequence[str]) -> dict[str, list[str]]:
    taken = {*sealed, *(each.piece for each in added)}
    reasons = {SEALED: list(sealed), NO_ROOM: [piece for piece in candidates.worth if piece not in taken]}
    return {reason: pieces for reason, pieces in reasons.items() if pieces}


def _fill(
    grower: BpeGrower, added: list[Added], runs: list[str], room: int, least: int, say: Callable[[str], None]
) -> list[Added]:
    """More pieces up to `room`: what shortens `runs` most, as the vocabulary so far cuts them.

    These are merges of two tokens made `least` times or more, and characters that are no piece yet: one of those saves
    two tokens each time, a merge one.
    """
    refused: set[str] = set()
    counts = Counter(character for run in runs for character in run)
    while len(added) < room:
        known = grower.known | {each.piece for each in added} | refused
        missing = {character: times for character, times in counts.items() if character not in known and times >= least}
        processor = without_prefix(grower.build(added))
        tokens = _tokens(processor, runs, list(missing))
        merges = continue_bpe(tokens, room - len(added) + len(refused), least) if (tokens != BORDER).any() else []
        names = [*map(processor.id_to_piece, range(processor.vocab_size())), *missing]
        gains = [("".join(map(names.__getitem__, merge.tokens)), merge.frequency) for merge in merges]
        gains = sorted([*((letter, 2 * times) for letter, times in missing.items()), *gains], key=lambda gain: -gain[1])
        texts = dict.fromkeys(text for text, _ in gains if text not in known)
        new = [Added(text, FILLED) for text in islice(texts, room - len(added))]
        if not new:
            raise cannot_fill(len(added), room, least)
        # a merge seen inside a longer run need not be made in its own text: such a one is left out
        while lost := grower.unreachable([*added, *new]):
            refused |= lost.keys()
            new = [each for each in new if each.piece not in lost]
        added = [*added, *new]
        say(f"{len(new):,} pieces learned from the corpus")
    return added


def _tokens(processor: SentencePieceProcessor, runs: Sequence[str], atoms: Sequence[str]) -> Tokens:
    """The ids of all runs in one array, with a border after each; the characters `atoms` get numbers after all ids.

    Other characters that are no piece are borders too.
    """
    number = {atom: processor.vocab_size() + place for place, atom in enumerate(atoms)}
    strange = {i for i in range(processor.vocab_size()) if processor.is_byte(i) or processor.is_unknown(i)}
    whole = re.compile("".join(["[^", *map(re.escape, atoms), "]+|."])) if atoms else re.compile(".+")

    def blocks() -> Iterator[Tokens]:
        left = iter(runs)
        while block := list(islice(left, 20000)):
            parts = [part for run in block for part in [*whole.findall(run), ""]]
            tokens = []
            for part, ids in zip(parts, processor.encode(parts, num_threads=1), strict=True):
                if part in number:
                    tokens.append(number[part])
                else:
                    tokens += [BORDER if index in strange else index for index in ids] if part else [BORDER]
            yield np.array(tokens, np.int32)

    return np.concatenate(list(blocks()))


def _controls(model: ModelProto, size: int, pad: bool, multiple_of: int) -> list[Added]:
    known = {piece.piece for piece in model.pieces}
    if pad and "<pad>" in known:
        raise TokenizerError("the base has a piece <pad> that is not its padding; leave the padding out with --no_pad")
    controls = [Added("<pad>", PAD)] if pad else []
    names = (f"<reserved_{number}>" for number in range(size + multiple_of))
    free = (name for name in names if name not in known)
    return controls + [Added(name, RESERVED) for name in islice(free, -(size + len(controls)) % multiple_of)]


def check_file(base: bytes, merged: bytes) -> None:
    """Compare two model files. Raises TokenizerError unless the base's pieces and rules are in the merged one unchanged.

    Added scores must be distinct, from the base's too, and fall with the id.
    """
    before, after = ModelProto.FromString(base), ModelProto.FromString(merged)
    first = len(before.pieces)
    problems = []
    if list(after.pieces[:first]) != list(before.pieces):
        problems.append("pieces of the base have changed")
    if before.normalizer_spec != after.normalizer_spec or before.denormalizer_spec != after.denormalizer_spec:
        problems.append("the base's normalisation has changed")
    for model in (before, after):
        for name in ("vocab_size", "pad_id", "pad_piece"):
            model.trainer_spec.ClearField(name)
    if before.trainer_spec != after.trainer_spec:
        problems.append("the base's other settings have changed")
    added = [piece.score for piece in after.pieces[first:] if piece.type == piece.NORMAL]
    if any(second >= one for one, second in pairwise(added)) or {piece.score for piece in before.pieces} & set(added):
        problems.append("scores of added pieces are not distinct and falling")
    if problems:
        raise TokenizerError(f"the merged tokenizer fails its proof: {'; '.join(problems)}")
