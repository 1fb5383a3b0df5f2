"""A byte-level BPE vocabulary with Chinese pieces added, so that nothing else is cut differently."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import numpy as np

from tp_ext.errors import TokenizerError
from tp_ext.tokens.byte_level import (
    ByteLevelTokenizer,
    open_library,
    piece_of,
    read_document,
    without_prefix_space,
    words_of,
)
from tp_ext.tokens.candidates import IN_BASE, NO_ROOM, NORMALIZED, TWICE
from tp_ext.tokens.continue_bpe import BORDER, Tokens, continue_bpe
from tp_ext.tokens.growers import BRIDGE, CHARACTER, FILLED, OFFERED, PAD, RESERVED, Added
from tp_ext.tokens.joining import Joining, Ownership
from tp_ext.tokens.merge import cannot_fill, room_for
from tp_ext.tokens.special_names import CONFIG, as_file, config_of, with_padding

BYTES = "bytes"
"""Why a token was added, beside what a merge of sentencepiece pieces knows: a part of a character, which others share."""

NOT_CHINESE = "characters that other languages use"
CUT = "cut by the base's pre-tokenizer"
ADDED = "cut by an added token of the base"
SHARED = "bytes that cannot be joined without touching other characters or the base's pieces"


@dataclass(frozen=True)
class ByteLevelMerge:
    """A byte-level vocabulary with pieces added."""

    content: bytes
    """The tokenizer.json."""
    added: list[Added]
    """In the order of their ids, which follow the base's; bytes that are no whole characters as the vocabulary has them."""
    refused: dict[str, list[str]]
    """The offered pieces that were left out, by reason."""
    beside: Mapping[str, bytes]
    """The files that name its special pieces: the base's, with the padding that was added."""


def merge_byte_level(
    base: ByteLevelTokenizer, pieces: Sequence[str], size: int | None = None, runs: Iterable[str] = (), *,
    chinese: Callable[[str], bool], least: int = 2, pad: bool = True, multiple_of: int = 1,
    say: Callable[[str], None] = lambda message: None,
) -> ByteLevelMerge:  # fmt: skip
    """Add `pieces`, the most useful first, and when `size` leaves room those that shorten `runs` most.

    `chinese` tells whether a text is nothing but Chinese; `runs` are such texts. The base's ids and merges stay as they
    are; new ids follow all of its ids, new merges all of its merges. No new merge touches a byte of a character that is
    not Chinese (as the base normalizes it), so other text, in mixed lines too, gives the ids it gave; no text gives more
    tokens than before.

    What `runs` give is joined there `least` times. `size` is the total with `<pad>` (unless `pad` is false or the base
    has one); without it all pieces are taken, and `multiple_of` rounds the total up with reserved special pieces. Raises
    TokenizerError when `size` cannot be reached or is no such multiple.
    """
    pad = pad and base.pad_id is None
    most = room_for(base, size, pad, multiple_of)
    joiner = _Joiner(base, chinese)
    joiner.offer(pieces, most)
    offered = len(joiner.joining)
    say(f"{len(joiner.taken):,} of {len(pieces):,} pieces offered, with {offered - len(joiner.taken):,} steps on the way")
    if most is not None and offered < most:
        kept = list(runs)
        while kept and len(joiner.joining) < most:
            joiner.fill(kept, most, least)
            say(f"{len(joiner.joining) - offered:,} pieces learned from the corpus")
    added = joiner.added()
    controls = _controls(joiner.document, base.vocab_size + len(added), pad, multiple_of)
    content = json.dumps(joiner.build(controls), ensure_ascii=False, indent=2).encode()
    return ByteLevelMerge(content, [*added, *controls], joiner.refused, _named(base, pad))


class _Joiner:
    """Takes pieces one by one, and keeps account of them."""

    def __init__(self, base: ByteLevelTokenizer, chinese: Callable[[str], bool]) -> None:
        self._base, self._chinese = base, chinese
        self.document = read_document(base.content, base.path)
        names = [base.piece(index) for index in range(base.vocab_size)]
        self._known = set(names)
        self.joining = Joining(names, Ownership(chinese))
        self.taken: dict[str, str] = {}
        self.refused: dict[str, list[str]] = {}

    def offer(self, pieces: Sequence[str], most: int | None) -> None:
        """Add what can be added."""
        words = dict(zip(pieces, words_of(self._base.inside, pieces), strict=True))
        reasons = {piece: self._reason(piece, cut) for piece, cut in words.items()}
        wanted = {piece.encode() for piece, reason in reasons.items() if reason is None}
        for piece in pieces:
            reason = TWICE if piece in self.taken else reasons[piece]
            if reason is None:
                done = self.joining.join(words[piece][0], wanted, most)
                reason = None if done else NO_ROOM if done is None else SHARED
            if reason is None:
                self.taken[piece] = OFFERED
            else:
                self.refused.setdefault(reason, []).append(piece)

    def _reason(self, piece: str, words: list[list[int]]) -> str | None:
        if not self._chinese(piece):
            return NOT_CHINESE
        if not self._known.isdisjoint((piece, piece_of(piece.encode()))):
            return IN_BASE
        contents = [self.joining.content(index) for word in words for index in word]
        if not all(contents):
            return ADDED
        if b"".join(contents) != piece.encode():
            return NORMALIZED
        return CUT if len(words) > 1 else None

    def fill(self, runs: Sequence[str], most: int, least: int) -> None:
        """Add merges, made `least` times, of the tokens that the vocabulary so far gives `runs`.

        Raises TokenizerError when there are none.
        """
        before = len(self.joining)
        tokens, contents = self._units(runs)
        merges = continue_bpe(tokens, (most - before) * 9 // 8 + 100, least) if contents else []
        joined = dict.fromkeys(b"".join(map(contents.__getitem__, merge.tokens)) for merge in merges)
        texts = [content.decode() for content in joined if content not in self.joining]
        for text, words in zip(texts, words_of(self._base.inside, texts), strict=True):
            if self._reason(text, words) is None and self.joining.join(words[0], frozenset(), most):
                self.taken[text] = FILLED
        if len(self.joining) == before:
            raise cannot_fill(before, most, least)

    def _units(self, runs: Sequence[str]) -> tuple[Tokens, dict[int, bytes]]:
        """The tokens of `runs` with a border after each pre-token, and what each stands for.

        Tokens that are no whole characters are taken together until they are, and stand there as two, the second for
        nothing: they count as a merge that can be made, and nothing is joined with a part of them.
        """
        library = open_library(without_prefix_space(self.build(())), self._base.path)
        units: dict[tuple[int, ...], list[int]] = {}
        contents: dict[int, bytes] = {}

        def unit(ids: tuple[int, ...], content: bytes) -> list[int]:
            if not self._chinese(content.decode()):
                return [BORDER]
            if len(ids) == 1:
                contents[ids[0]] = content
                return list(ids)
            if not self.joining.can_join(ids):
                return [BORDER]
            first = self._base.vocab_size + len(self.joining) + 2 * len(units)
            contents.update({first: content, first + 1: b""})
            return [first, first + 1]

        def units_of(word: list[int]) -> Iterator[int]:
            start, content = 0, b""
            for stop, index in enumerate(word, 1):
                if not content and (index,) in units:
                    yield from units[index,]
                    start = stop
                    continue
                content += self.joining.content(index)
                if not _is_whole(content):
                    continue
                ids = tuple(word[start:stop])
                if ids not in units:
                    units[ids] = unit(ids, content)
                yield from units[ids]
                start, content = stop, b""
            yield BORDER

        found = [np.zeros(0, np.int32)]
        left = iter(runs)
        while block := list(islice(left, 20000)):
            words = chain.from_iterable(words_of(library, block))
            found.append(np.fromiter(chain.from_iterable(map(units_of, words)), np.int32))
        return np.concatenate(found), contents

    def added(self) -> list[Added]:
        """The new pieces, in the order of their ids."""
        return [self._account(content) for content in self.joining.tokens]

    def _account(self, content: bytes) -> Added:
        if not _is_whole(content):
            return Added(piece_of(content), BYTES)
        text = content.decode()
        return Added(text, self.taken.get(text, CHARACTER if len(text) == 1 else BRIDGE))

    def build(self, controls: Sequence[Added]) -> dict[str, Any]:
        """The base's JSON object with the new pieces, and `controls` behind them."""
        model = self.document["model"]
        special = self.document.get("added_tokens") or []
        # the library numbers added tokens that the vocabulary lacks anew, from the vocabulary's size on
        lacking = [token["content"] for token in special if token["content"] not in model["vocab"]]
        vocab = {**model["vocab"], **{name: self._base.inside.token_to_id(name) for name in lacking}}
        new = [*map(piece_of, self.joining.tokens), *(control.piece for control in controls)]
        numbered = {piece: index for index, piece in enumerate(new, self._base.vocab_size)}
        as_lists = bool(model["merges"]) and isinstance(model["merges"][0], list)
        pairs = ([piece_of(first), piece_of(second)] for first, second in self.joining.merges)
        merges = [pair if as_lists else " ".join(pair) for pair in pairs]
        rules = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        added = [{"id": numbered[control.piece], "content": control.piece, **rules} for control in controls]
        return {
            **self.document,
            "added_tokens": [*special, *added],
            "model": {**model, "vocab": {**vocab, **numbered}, "merges": [*model["merges"], *merges]},
        }


def _is_whole(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _named(base: ByteLevelTokenizer, pad: bool) -> Mapping[str, bytes]:
    """The files that name special pieces, those of the base with `<pad>` where it is added; a config where it has none."""
    ids = {"bos": base.bos_id, "eos": base.eos_id, "pad": base.pad_id}
    known = {role: base.piece(index) for role, index in ids.items() if index is not None}
    if pad:
        return with_padding(base.beside, {**known, "pad": "<pad>"})
    return {CONFIG: as_file(config_of(known)), **base.beside}


def _controls(document: dict[str, Any], size: int, pad: bool, multiple_of: int) -> list[Added]:
    known = {*document["model"]["vocab"], *(token["content"] for token in document.get("added_tokens") or [])}
    if pad and "<pad>" in known:
        raise TokenizerError("the base has a piece <pad> that is not its padding; leave the padding out")
    controls = [Added("<pad>", PAD)] if pad else []
    names = (name for name in map("<|reserved_{}|>".format, count()) if name not in known)
    return controls + [Added(name, RESERVED) for name in islice(names, -(size + len(controls)) % multiple_of)]
