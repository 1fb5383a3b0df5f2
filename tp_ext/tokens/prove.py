"""The proof that a merged tokenizer is the base on all that is not Chinese, and that every piece can be reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, zip_longest

from tp_ext.errors import TokenizerError
from tp_ext.tokens.characters import has_chinese, is_chinese, split_chinese
from tp_ext.tokens.tokenizer import Tokenizer

SHOWN = 20
TIE = 1e-3
"""By so little the sums of scores of two cuts may differ that are equally good."""


@dataclass(frozen=True)
class Line:
    """A line of text as both tokenizers cut it."""

    text: str
    before: list[int]
    after: list[int]


@dataclass(frozen=True)
class _Spelt:
    """Tokens, and the bytes that each stands for in the text as it is normalized."""

    ids: list[int]
    contents: list[bytes]
    unknown: bool
    """Whether some are characters that the vocabulary does not know."""


def added_ids(base: Tokenizer, merged: Tokenizer) -> list[int]:
    """The ids that `merged` has more, but for special ones."""
    return [index for index in range(base.vocab_size, merged.vocab_size) if index not in merged.special_ids]


def cut(base: Tokenizer, merged: Tokenizer, lines: Iterable[str]) -> Iterator[Line]:
    """Each line with its ids before and after."""
    left = iter(lines)
    while block := list(islice(left, 2000)):
        for text, before, after in zip(block, base.encode_batch(block), merged.encode_batch(block), strict=True):
            yield Line(text, before, after)


@dataclass
class Proof:
    """What was compared and what was found; differences end in an error."""

    base: Tokenizer
    merged: Tokenizer
    lines: dict[str, int] = field(default_factory=dict)
    """Lines compared, by the name of their text."""
    in_part: dict[str, int] = field(default_factory=dict)
    """Those of them with characters that the base does not know, and loses."""
    tied: dict[str, int] = field(default_factory=dict)
    """Lines that a unigram base cuts otherwise beside their Chinese, in a way that it finds equally good."""
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the base itself does not allow."""

    def __post_init__(self) -> None:
        self._bytes_before, self._bytes_after = (
            [each.token_bytes(index) for index in range(each.vocab_size)] for each in (self.base, self.merged)
        )
        pieces = {index: text for index in range(self.base.vocab_size) if has_chinese(text := self.base.text(index) or "")}
        mixed = {index: text for index, text in pieces.items() if not is_chinese(text)}
        several = [text for text in pieces.values() if len(text) > 1]
        if self.base.is_bpe:  # the base's joins come first; later ones only join more, unless they lead to a lost piece
            cuts = self.base.encode_inside(list(mixed.values()))
            mixed = {index: text for (index, text), ids in zip(mixed.items(), cuts, strict=True) if ids != [index]}
            several = []
        self._strict_beside = not mixed
        self._never_longer = not several
        if mixed:
            example = next(iter(mixed.values()))
            self.notes.append(f"{len(mixed)} pieces of the base, such as {example!r}, join Chinese with other text, so what "
                              "stands beside Chinese may be cut differently")  # fmt: skip
        if several:
            self.notes.append(f"{len(several)} pieces of the unigram base, such as {several[0]!r}, have several Chinese "
                              "characters, so a text may in a rare case take more tokens than before")  # fmt: skip

    def vocabulary(self) -> None:
        """Compare the vocabularies: ids of the base stay, and every added piece is what its own text gives."""
        first = self.base.vocab_size
        for index in range(first):
            if self.merged.piece(index) != self.base.piece(index):
                self._differ(f"id {index} was {self.base.piece(index)!r} and is {self.merged.piece(index)!r}")
        if lost := sorted(self.base.special_ids ^ {index for index in self.merged.special_ids if index < first}):
            self._differ(f"ids {lost[:SHOWN]} are special in one of the two only")
        added = added_ids(self.base, self.merged)
        texts = [self.merged.text(index) for index in added]
        whole = [(index, text) for index, text in zip(added, texts, strict=True) if text is not None]
        for (index, text), ids in zip(whole, self.merged.encode_inside([text for _, text in whole]), strict=True):
            if ids != [index]:
                pieces = " ".join(map(self.merged.piece, ids))
                self._differ(f"{text!r} (id {index}) cannot be reached: its own text gives {pieces}")

    def line(self, name: str, line: Line) -> None:
        """Compare one line of the text `name`."""
        self.lines[name] = self.lines.get(name, 0) + 1
        if line.before == line.after:
            return
        where = f"{name}: {line.text[:60]!r}"
        before, after = self._spell(self.base, line.text, line.before), self._spell(self.merged, line.text, line.after)
        seen = b"".join(before.contents)
        if not has_chinese(seen.decode("utf-8", "replace")):
            self._differ(f"{where} has no Chinese and is cut differently: {self._first(line)}")
            return
        if before.unknown:
            self.in_part[name] = self.in_part.get(name, 0) + 1
        if seen != b"".join(after.contents) if before.unknown else self._decoded_differently(line):
            self._differ(f"{where} comes back differently")
        if self._never_longer and len(after.ids) > len(before.ids):
            self._differ(f"{where} takes {len(after.ids)} tokens instead of {len(before.ids)}")
        if self._strict_beside:
            chinese = _marks(seen)
            one, other = _beside(before, chinese), _beside(after, chinese)
            if one != other and self._are_tied(one, other):
                self.tied[name] = self.tied.get(name, 0) + 1
            elif one != other:
                gone = " ".join(self.base.piece(index) for place, index in one if (place, index) not in other)
                come = " ".join(self.merged.piece(index) for place, index in other if (place, index) not in one)
                self._differ(f"{where} is cut differently beside its Chinese: {gone} became {come}")

    def _are_tied(self, one: list[tuple[int, int]], other: list[tuple[int, int]]) -> bool:
        """Whether a unigram base finds two cuts equally good: then it goes by rounding of the sum over all before."""
        if self.base.is_bpe or any(index >= self.base.vocab_size for _, index in other):
            return False
        scores = [sum(self.base.score(index) for _, index in each) for each in (one, other)]
        return abs(scores[0] - scores[1]) < TIE

    def _spell(self, tokenizer: Tokenizer, text: str, ids: list[int]) -> _Spelt:
        """What each token of a text stands for. One that stands for unknown characters counts as one for each of them."""
        table = self._bytes_before if tokenizer is self.base else self._bytes_after
        contents = [table[index] for index in ids]
        if None not in contents:
            return _Spelt(ids, contents, False)  # type: ignore[arg-type]
        found = zip(ids, contents, tokenizer.spellings(text), strict=True)
        single = [(index, part) for index, known, spelling in found
                  for part in (map(str.encode, spelling) if known is None else [known])]  # fmt: skip
        return _Spelt([index for index, _ in single], [part for _, part in single], True)

    def _decoded_differently(self, line: Line) -> bool:
        return self.base.decode(line.before) != self.merged.decode(line.after)

    def finish(self) -> None:
        """Raise TokenizerError naming the differences, when there are any."""
        if self.in_part:
            self.notes.append(f"{sum(self.in_part.values())} lines with Chinese have characters that the base does not know "
                              "and loses. Of these the normalized text is compared, and the number of tokens as if each of "
                              "those characters were one, though the base makes one of a whole run")  # fmt: skip
        if self.tied:
            self.notes.append(f"{sum(self.tied.values())} lines are cut otherwise beside their Chinese where the unigram "
                              "base has cuts that are equally good: between those it decides by rounding the sum of all "
                              "scores before")  # fmt: skip
        if self.differences:
            more = len(self.differences) - SHOWN
            listed = "\n".join(f"  {each}" for each in self.differences[:SHOWN])
            raise TokenizerError(
                f"the merged tokenizer fails its proof in {len(self.differences)} places; nothing was written\n{listed}"
                + (f"\n  and {more} more" if more > 0 else "")
            )

    def _differ(self, what: str) -> None:
        self.differences.append(what)

    def _first(self, line: Line) -> str:
        place = next((n for n, (a, b) in enumerate(zip_longest(line.before, line.after)) if a != b), 0)
        before, after = line.before[place : place + 4], line.after[place : place + 4]
        return f"{' '.join(map(self.base.piece, before))} became {' '.join(map(self.merged.piece, after))}"


def _marks(text: bytes) -> bytes:
    """A byte for each of `text`: 1 where it is Chinese."""
    parts = split_chinese(text.decode("utf-8", "surrogateescape"))
    return b"".join(bytes([chinese]) * len(part.encode("utf-8", "surrogateescape")) for chinese, part in parts)


def _beside(spelt: _Spelt, chinese: bytes) -> list[tuple[int, int]]:
    """Place in bytes and id of every token that holds nothing Chinese."""
    found, place = [], 0
    for index, content in zip(spelt.ids, spelt.contents, strict=True):
        stop = place + len(content)
        if chinese.find(1, place, stop) < 0:
            found.append((place, index))
        place = stop
    return found
