"""What a rule of cleaning is: a name, its examples, and a pure function of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Verdict = tuple[str | None, str]
"""What stays of a text and "", or None and the reason that the ledger counts."""
Judge = Callable[[str], Verdict]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule as it is listed; `make` gives its function for the value of the setting that has the rule's name."""

    name: str
    """Also the name of its setting and, with few exceptions, the reason in the ledger."""
    make: Callable[[Any], Judge]
    changes: tuple[tuple[str, str], ...] = ()
    """Texts with what they become."""
    drops: tuple[str, ...] = ()
    """Texts that go."""
    spares: tuple[str, ...] = ()
    """Texts that stay as they are, near to those that do not."""
    example_value: Any = True
    """The value of the setting under which the examples are true."""


def kept(text: str) -> Verdict:
    """The verdict that the text stays as it is."""
    return text, ""
