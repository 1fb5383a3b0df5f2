"""All rules of some settings as one function of a document."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tp_ext.clean.characters import CHARACTERS
from tp_ext.clean.documents import DOCUMENTS
from tp_ext.clean.line_rules import LINES
from tp_ext.clean.rule import Judge, Rule
from tp_ext.clean.settings import CleanSettings
from tp_ext.clean.triggers import worth_a_look

EMPTY = "empty"
"""The reason of a document with nothing but white space."""


@dataclass(frozen=True)
class Removed:
    """A line that was taken out: its number among the lines of the document, from 0, and why."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class Cleaned:
    """What became of a document."""

    whole: str
    """The text after the rules for characters, with all its lines."""
    text: str | None
    """None when it was dropped."""
    reason: str = ""
    """Why it was dropped."""
    removed: tuple[Removed, ...] = ()
    changed: tuple[str, ...] = ()
    """The rules that changed characters."""

    def dropped(self, reason: str) -> Cleaned:
        """The same document, but dropped."""
        return dataclasses.replace(self, text=None, reason=reason)


class Cleaner:
    """Call it with a document."""

    def __init__(self, settings: CleanSettings) -> None:
        """Raises ConfigError when a rule needs what is not there."""
        self._characters = _judges(CHARACTERS, settings.characters)
        self._lines = _judges(LINES, settings.lines)
        self._documents = _judges(DOCUMENTS, settings.documents)

    def __call__(self, text: str) -> Cleaned:
        """What the rules leave of a text; the same for the same text, whatever came before."""
        return self.many([text])[0]

    def many(self, texts: Sequence[str]) -> list[Cleaned]:
        """What the rules leave of each text."""
        written = [self._written(text) for text in texts]
        worth = worth_a_look([text for text, _ in written]) if self._lines else [[]] * len(texts)
        return [self._cleaned(text, changed, lines) for (text, changed), lines in zip(written, worth, strict=True)]

    def _written(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text after the rules for characters, and which of them changed it."""
        changed = []
        for name, judge in self._characters:
            found, _ = judge(text)
            assert found is not None
            if found != text:
                changed.append(name)
                text = found
        return text, tuple(changed)

    def _cleaned(self, text: str, changed: tuple[str, ...], lines: Sequence[int]) -> Cleaned:
        removed = self._removed(text, lines)
        gone = {each.line for each in removed}
        rest = "\n".join(line for number, line in enumerate(text.split("\n")) if number not in gone) if gone else text
        left, reason = self._judged(rest, removed)
        return Cleaned(text, left, reason, tuple(removed), changed)

    def _removed(self, text: str, numbers: Sequence[int]) -> list[Removed]:
        """Those of some lines of the text that a rule takes."""
        if not numbers:
            return []
        lines = text.split("\n")
        reasons = [(number, self._reason(lines[number])) for number in numbers]
        return [Removed(number, reason, lines[number]) for number, reason in reasons if reason]

    def _reason(self, line: str) -> str:
        for _, judge in self._lines:
            found, reason = judge(line)
            if found is None:
                return reason
        return ""

    def _judged(self, text: str, removed: Sequence[Removed]) -> tuple[str | None, str]:
        if not text or text.isspace():
            return None, removed[0].reason if removed else EMPTY
        for _, judge in self._documents:
            found, reason = judge(text)
            if found is None:
                return None, reason
        return text, ""


def _judges(rules: Sequence[Rule], section: Any) -> list[tuple[str, Judge]]:
    """The functions of the rules that are switched on."""
    values = {each.name: getattr(section, each.name) for each in dataclasses.fields(section)}
    return [(rule.name, rule.make(values[rule.name])) for rule in rules if values[rule.name] not in (None, False)]


