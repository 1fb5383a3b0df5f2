"""How texts are cut before and after, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import regex

from tp_ext.tokens.characters import BOPOMOFO, HAN, PUNCTUATION
from tp_ext.tokens.growers import BRIDGE
from tp_ext.tokens.prove import Line
from tp_ext.tokens.tokenizer import Tokenizer

SCRIPTS = {
    "Han": f"[{HAN}]+", "Chinese punctuation": f"[{PUNCTUATION}{BOPOMOFO}]+", "Latin": r"\p{Latin}+", "digits": "[0-9]+",
    "kana": r"[\p{Hiragana}\p{Katakana}ー]+", "Korean": r"\p{Hangul}+", "Cyrillic": r"\p{Cyrillic}+", "Greek": r"\p{Greek}+",
    "Arabic": r"\p{Arabic}+", "spaces": r"\s+",
}  # fmt: skip
"""Runs of one script. Those of two or more characters in a text, cut by themselves, tell what the script costs."""
_SCRIPTS = {name: regex.compile(pattern) for name, pattern in SCRIPTS.items()}
BUILT_IN = "built-in: "
"""What the names of texts begin with that are part of this library."""
CORPUS = "the corpus"
BINS = 24
"""Bars of the histogram: 0 to 6 characters a token, the last for all above."""


@dataclass
class Count:
    """Characters and the tokens they take."""

    characters: int = 0
    before: int = 0
    after: int = 0

    def to_json(self) -> dict[str, Any]:
        """The counts, and characters per token."""
        return {
            "characters": self.characters, "tokens_before": self.before, "tokens_after": self.after,
            "characters_per_token_before": _ratio(self.characters, self.before),
            "characters_per_token_after": _ratio(self.characters, self.after),
        }  # fmt: skip


@dataclass
class TextFigures:
    """One text, document by document."""

    base: Tokenizer
    merged: Tokenizer
    whole: Count = field(default_factory=Count)
    scripts: dict[str, Count] = field(default_factory=dict)
    documents: int = 0
    size: int = 0
    """Bytes of UTF-8, without line ends."""
    single_bytes: Count = field(default_factory=Count)
    """Tokens that are a byte of a character that is no piece."""
    histogram: dict[str, list[int]] = field(default_factory=lambda: {"before": [0] * BINS, "after": [0] * BINS})
    """Documents by characters per token, in steps of a quarter."""
    used: Counter[int] = field(default_factory=Counter)
    """How often each added piece occurs."""

    def add(self, lines: Sequence[Line]) -> None:
        """Count some documents."""
        first = self.base.vocab_size
        before_bytes, after_bytes = self.base.single_byte_ids, self.merged.single_byte_ids
        for line in lines:
            if not line.text:
                continue
            length = len(line.text)
            self.documents += 1
            self.size += len(line.text.encode())
            self.whole.characters += length
            self.whole.before += len(line.before)
            self.whole.after += len(line.after)
            self.single_bytes.before += sum(index in before_bytes for index in line.before)
            self.single_bytes.after += sum(index in after_bytes for index in line.after)
            self.used.update(index for index in line.after if index >= first)
            for name, ids in (("before", line.before), ("after", line.after)):
                self.histogram[name][min(int(4 * length / max(len(ids), 1)), BINS - 1)] += 1
        text = "\n".join(line.text for line in lines)
        for name, pattern in _SCRIPTS.items():
            runs = [run for run in pattern.findall(text) if name != "spaces" or "\n" not in run]
            if runs:
                count = self.scripts.setdefault(name, Count())
                count.characters += sum(map(len, runs))
                count.before += sum(map(len, self.base.encode_inside(runs)))
                count.after += sum(map(len, self.merged.encode_inside(runs)))

    def to_json(self) -> dict[str, Any]:
        """Everything but the use of single pieces."""
        whole = self.whole
        return {
            "documents": self.documents, "bytes": self.size, **whole.to_json(),
            "tokens_per_byte_before": _ratio(whole.before, self.size),
            "tokens_per_byte_after": _ratio(whole.after, self.size),
            "share_of_single_bytes_before": _ratio(self.single_bytes.before, whole.before),
            "share_of_single_bytes_after": _ratio(self.single_bytes.after, whole.after),
            "scripts": {name: count.to_json() for name, count in self.scripts.items()},
            "documents_by_characters_per_token": {"step": 0.25, **self.histogram},
        }  # fmt: skip


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None


def piece_figures(base: Tokenizer, merged: Tokenizer, used: Counter[int], origins: Sequence[str]) -> dict[str, Any]:
    """The added pieces: their lengths, and which save most tokens in the texts that were counted.

    `origins` are those of the added ids in order.
    """
    first = base.vocab_size
    pieces = {index: text for index in range(first, merged.vocab_size) if (text := merged.text(index)) is not None}
    parts = dict(zip(pieces, map(len, base.encode_inside(list(pieces.values()))), strict=True))
    saved = {index: used[index] * (parts[index] - 1) for index in pieces}

    def rows(indices: Iterable[int]) -> list[dict[str, Any]]:
        return [{"id": index, "piece": pieces[index], "origin": origins[index - first], "used": used[index],
                 "tokens_before": parts[index], "tokens_saved": saved[index]} for index in indices]  # fmt: skip

    wanted = [index for index in pieces if origins[index - first] != BRIDGE]  # bridges only lead to others
    order = sorted(pieces, key=lambda index: (-saved[index], index))
    return {
        "by_origin": dict(Counter(origins)),
        "by_length": {str(length): n for length, n in sorted(Counter(map(len, pieces.values())).items())},
        "never_used": sum(not used[index] for index in wanted),
        "most_useful": rows(order[:50]),
        "least_used": rows(sorted(wanted, key=lambda index: (used[index], -index))[:50]),
    }
