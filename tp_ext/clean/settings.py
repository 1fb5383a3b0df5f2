"""The settings of cleaning: a switch or a bound for each rule, and how duplicates are found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tp_ext.errors import ConfigError, raise_all
from tp_ext.settings import build, read_json


@dataclass(frozen=True, kw_only=True)
class Characters:
    """What changes characters, in this order. A switch each."""

    composed: bool = True
    """Unicode NFC."""
    controls: bool = True
    """Control characters but tab and line end go; lone returns become line ends."""
    invisible: bool = True
    """Zero-width and directional characters, soft hyphens and marks of byte order go."""
    spaces: bool = False
    """Runs of white space in a line become one space; white space at the ends of a line goes."""
    full_width: bool = False
    """Full-width letters and digits become ASCII; punctuation stays."""
    simplified: bool = False
    """Traditional characters become simplified ones; needs the extra `simplified`."""
    emails: bool = False
    """E-mail addresses become <email>."""
    identity_numbers: bool = False
    """Resident identity numbers whose check digit is right become <id>."""
    phones: bool = False
    """Mobile and landline numbers of mainland China become <phone>."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What takes whole lines out of a document, in this order."""

    copyright: bool = True
    """Rights, licences to operate and reprint notices."""
    navigation: bool = True
    """Menus, links to other pages, names of editors, buttons."""
    contact: bool = True
    """Telephone, QQ, WeChat and the like of who advertises."""
    advertisement: bool = True
    """Calls to buy, scan, follow, download, join."""
    symbols: float | None = 0.7
    """A line of at least 8 characters with a greater share of symbols."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """What drops a document, in this order; null switches a bound off."""

    blocked_hosts: str | None = None
    """A file with a host a line: documents whose "url" is on one of them, or below it, go."""
    mojibake: bool = True
    """Text decoded with a wrong encoding."""
    least_characters: int | None = 5
    """Fewer characters that are letters, digits or Han."""
    language: float | None = 0.3
    """A smaller share of Han among the letters, or kana or hangul as in Japanese and Korean."""
    symbol_share: float | None = 0.5
    """A greater share of characters that are neither letter, digit, space nor punctuation of text."""
    digit_share: float | None = 0.5
    """A greater share of digits among the characters but white space."""
    short_lines: float | None = 0.9
    """A greater share of lines shorter than 6 characters, in documents of 20 lines or more."""
    line_ends: float | None = 0.9
    """A greater share of lines that are cut off by an ellipsis, in documents of 10 lines or more."""
    repeated_lines: float | None = 0.3
    """A greater share of characters in lines that came before in the document."""
    repeated_paragraphs: float | None = 0.3
    """The same for paragraphs."""
    repeated_ngrams: float | None = 0.6
    """A greater share of characters in 10-grams that came before, in documents of 100 characters or more. Laws reach 0.5."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """How documents that came before are found, in this order."""

    exact: bool = True
    """Equal texts."""
    fuzzy: float | None = 0.7
    """Documents whose 5-grams are estimated to be shared to so great a part (Jaccard similarity)."""
    substring: int | None = 64
    """Stretches of so many characters that came before are cut out."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Which documents a classifier lets through."""

    model: str | None = None
    """A file of scripts/train_quality.py; null switches it off."""
    alpha: float = 9.0
    """Shape of the Pareto distribution that is drawn from: a score s is kept with probability (2 - s) ** -alpha."""
    seed: int = 0


OWN_KEYS = {"text", "source", "offset", "reason", "lines", "removed", "cuts"}
"""What records of kept and dropped documents have beside the fields that are taken along."""


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """A recipe of cleaning."""

    characters: Characters = field(default_factory=Characters)
    lines: Lines = field(default_factory=Lines)
    documents: Documents = field(default_factory=Documents)
    quality: Quality = field(default_factory=Quality)
    duplicates: Duplicates = field(default_factory=Duplicates)
    fields: tuple[str, ...] = ()
    """Keys of JSON objects that documents take along beside "text", for instance "meta" of The Pile."""
    compression: bool = True
    """Write .jsonl.zst; else .jsonl."""
    keep_dropped: bool = True
    """Write what was dropped beside what was kept, so that it can be put back."""


def read_settings(path: Path) -> CleanSettings:
    """The settings in a JSON file. Raises ConfigError with everything that is wrong with them."""
    problems: list[str] = []
    settings = build(CleanSettings, read_json(path), path.stem, problems)
    if settings is not None:
        problems += _out_of_bounds(settings)
    raise_all(ConfigError, problems)
    assert settings is not None
    return settings


def as_json(settings: CleanSettings) -> dict[str, Any]:
    """The settings as a recipe has them, all of them."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return values


def _out_of_bounds(settings: CleanSettings) -> Sequence[str]:
    shares = {f"{section}.{each.name}": getattr(getattr(settings, section), each.name)
              for section in ("lines", "documents", "duplicates")
              for each in dataclasses.fields(getattr(settings, section)) if "float" in str(each.type)}  # fmt: skip
    problems = [f"{name}: is {share}; a share is from 0 to 1" for name, share in shares.items()
                if share is not None and not 0 <= share <= 1]  # fmt: skip
    if settings.duplicates.substring is not None and settings.duplicates.substring < 16:
        problems.append(f"duplicates.substring: is {settings.duplicates.substring}; it must be at least 16 characters")
    if (settings.documents.least_characters or 0) < 0:
        problems.append("documents.least_characters: must not be negative")
    if taken := sorted(OWN_KEYS & set(settings.fields)):
        problems.append(f"fields: {', '.join(taken)} {'is' if len(taken) == 1 else 'are'} written by the cleaning itself")
    if settings.quality.alpha <= 0:
        problems.append(f"quality.alpha: is {settings.quality.alpha}; it must be greater than 0")
    return problems
