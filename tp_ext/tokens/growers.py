"""How a sentencepiece model, BPE or unigram, takes more pieces: their scores, and the steps that lead to them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

from tp_ext.errors import TokenizerError
from tp_ext.tokens.characters import has_chinese
from tp_ext.tokens.sentence_piece import without_prefix

OFFERED, CHARACTER, BRIDGE, FILLED, PAD, RESERVED = "offered", "character", "bridge", "filled", "pad", "reserved"
"""Why a piece was added: it was offered; a character of one that was; a step on the way to one that no other steps
lead to; learned from the corpus to fill the vocabulary; padding; a row kept free."""
_EXACT = 1 << 24
"""Up to this every whole number is one of float32."""


@dataclass(frozen=True)
class Added:
    """A piece that the base does not have."""

    piece: str
    origin: str


def grower_of(model: ModelProto) -> BpeGrower:
    """What adds pieces to a model of its kind. Raises TokenizerError when there is none."""
    kinds = {TrainerSpec.BPE: BpeGrower, TrainerSpec.UNIGRAM: UnigramGrower}
    if model.trainer_spec.model_type not in kinds:
        name = TrainerSpec.ModelType.Name(model.trainer_spec.model_type).lower()
        raise TokenizerError(f"the base is a {name} model; pieces can be added to BPE and unigram models")
    if strange := next((piece for piece in model.pieces if not math.isfinite(piece.score)), None):
        raise TokenizerError(f"the base's piece {strange.piece!r} has the score {strange.score}; a finite number is needed")
    return kinds[model.trainer_spec.model_type](model)


class BpeGrower:
    """Adds pieces to a BPE model.

    Sentencepiece joins the pair of neighbours whose text is the piece of the highest score, ties leftmost. Pieces
    below all others are joined when nothing else can be; so a piece is reached in every text if its own text gives it.
    """

    def __init__(self, model: ModelProto) -> None:
        self.base = model
        self.known = {piece.piece for piece in model.pieces}

    def complete(self, pieces: Sequence[str]) -> tuple[list[Added], list[str]]:
        """`pieces` with the characters and bridges they need, in the order of joining; and those that nothing leads to."""
        barred: set[str] = set()
        while True:
            kept = [piece for piece in pieces if piece not in barred]
            offered = [Added(piece, OFFERED) for piece in kept]
            added, sealed = self._lead(_characters(kept, self.known | barred) + offered, barred)
            if not sealed:
                return added, [piece for piece in pieces if piece in barred]
            barred |= sealed

    def _lead(self, added: list[Added], barred: Set[str]) -> tuple[list[Added], Set[str]]:
        """`added` with bridges, none of them `barred`; or what no bridges lead to, past pieces that the base never joins."""
        while lost := self.unreachable(added):
            taken = self.known | barred | {each.piece for each in added}
            joined = {piece: [first + second for first, second in pairwise(tokens)] for piece, tokens in lost.items()}
            free = {piece: [pair for pair in pairs if pair not in taken] for piece, pairs in joined.items()}
            if sealed := {piece for piece, pairs in free.items() if not pairs}:
                return added, sealed
            counts = Counter(pair for pairs in joined.values() for pair in set(pairs))
            bridges: dict[str, None] = {}
            for piece, pairs in free.items():
                if not bridges.keys() & set(joined[piece]):
                    bridges[max(pairs, key=counts.__getitem__)] = None
            added = added + [Added(piece, BRIDGE) for piece in bridges]
        return added, frozenset()

    def order(self, added: list[Added]) -> list[Added]:
        """By falling score."""
        return added

    def unreachable(self, added: Sequence[Added]) -> dict[str, list[str]]:
        """The pieces whose text is cut into several, with what it is cut into."""
        processor = without_prefix(self.build(added))
        first = len(self.base.pieces)
        lost = {}
        for number, ids in enumerate(processor.encode([each.piece for each in added], num_threads=1)):
            if ids != [first + number]:
                lost[added[number].piece] = [processor.id_to_piece(index) for index in ids]
        return lost

    def build(self, added: Sequence[Added], controls: Sequence[Added] = (), pad: bool = False) -> bytes:
        """The model file. Raises TokenizerError when there are not enough different scores."""
        return _write(self.base, added, self._scores(added), controls, pad)

    def _scores(self, added: Sequence[Added]) -> Sequence[float]:
        lowest = min(0.0, *(piece.score for piece in self.base.pieces if piece.score > -1e8 or has_chinese(piece.piece)))
        if lowest - len(added) > -_EXACT:
            return [math.floor(lowest) - 1.0 - number for number in range(len(added))]
        first = int(np.float32(lowest).view(np.uint32)) + 1  # of negative floats the next lower one has the next bits
        scores = np.arange(first, first + len(added), dtype=np.uint32).view(np.float32)
        if not np.isfinite(scores).all():
            raise TokenizerError(f"the base's lowest score is {lowest}; float32 has no {len(added)} numbers below it. Give "
                                 "the base's pieces scores that begin at 0 and fall by 1")  # fmt: skip
        return [float(score) for score in scores]


class UnigramGrower(BpeGrower):
    """Adds pieces to a unigram model.

    The best cut of a text is the one with the highest sum of scores. An added piece gets just more than the best cut of
    its text without it, and never less than the base's lowest score, on which the score of the unknown depends.
    """

    def __init__(self, model: ModelProto) -> None:
        super().__init__(model)
        self._score = lru_cache(maxsize=2)(self._score_pieces)  # it opens a model for every length

    def _lead(self, added: list[Added], barred: Set[str]) -> tuple[list[Added], Set[str]]:
        """`added` by falling score, or those that no text gives; there are no bridges."""
        added = self.order(added)
        return added, self.unreachable(added).keys()

    def order(self, added: list[Added]) -> list[Added]:
        """By falling score."""
        scores = self._scores(added)
        return [added[place] for place in sorted(range(len(added)), key=lambda place: -scores[place])]

    def _scores(self, added: Sequence[Added]) -> Sequence[float]:
        return self._score(tuple(each.piece for each in added))

    def _score_pieces(self, pieces: tuple[str, ...]) -> list[float]:
        """Of equals the first gets the highest, so that the order of scores is its own order."""
        lowest = min(piece.score for piece in self.base.pieces if piece.type == piece.NORMAL)
        taken = {piece.score for piece in self.base.pieces}
        scores: dict[str, float] = {}
        for length in sorted(set(map(len, pieces))):
            group = [piece for piece in reversed(pieces) if len(piece) == length]
            done = [Added(piece, OFFERED) for piece in scores]
            processor = without_prefix(_write(self.base, done, list(scores.values()), (), False))
            cuts = processor.encode(group, num_threads=1)
            parts = [sum(map(processor.get_score, ids)) if length > 1 else lowest for ids in cuts]
            score = np.float32(-np.inf)
            for part, piece in sorted(zip(parts, group, strict=True), key=lambda pair: pair[0]):
                score = max(np.float32(max(part, lowest) + 1e-3), np.nextafter(score, np.float32(0)))
                while float(score) in taken and score < 0:
                    score = np.nextafter(score, np.float32(0))
                if score >= 0:
                    raise TokenizerError(f"the unigram base leaves no score below 0 for {piece!r}, which it cuts for "
                                         f"{part:g}; its scores must be logarithms of probabilities")  # fmt: skip
                taken.add(float(score))
                scores[piece] = float(score)
        return [scores[piece] for piece in pieces]


def _characters(pieces: Iterable[str], known: set[str]) -> list[Added]:
    """The single characters of longer pieces that are neither in the base nor among `pieces`."""
    offered = set(pieces) | known
    missing = dict.fromkeys(character for piece in pieces for character in piece if character not in offered)
    return [Added(character, CHARACTER) for character in missing]


def _write(base: ModelProto, added: Sequence[Added], scores: Sequence[float], controls: Sequence[Added], pad: bool) -> bytes:
    """The base's file with normal pieces and control pieces behind its own."""
    model = ModelProto()
    model.CopyFrom(base)
    for each, score in zip(added, scores, strict=True):
        model.pieces.add(piece=each.piece, score=score, type=ModelProto.SentencePiece.NORMAL)
    for each in controls:
        model.pieces.add(piece=each.piece, score=0.0, type=ModelProto.SentencePiece.CONTROL)
    model.trainer_spec.vocab_size = len(model.pieces)
    if pad:
        model.trainer_spec.pad_id = len(base.pieces) + len(added)
        model.trainer_spec.pad_piece = "<pad>"
    return bytes(model.SerializeToString())
