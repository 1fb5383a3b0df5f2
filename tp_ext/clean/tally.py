"""What became of the documents of a file: counts by reason, and samples that do not depend on who counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

DROPPED, DUPLICATE, FAULT, LINES, CHANGED = "dropped", "duplicate", "fault", "lines", "changed"
READ, KEPT, CHARACTERS_READ, CHARACTERS_KEPT = "read", "kept", "characters_read", "characters_kept"
SAMPLES, SAMPLE_CHARACTERS = 8, 160
Kind = tuple[str, str]
"""One of the five words above, and a reason."""


@dataclass
class Tally:
    """Counts, and of each reason the samples with the least hashes."""

    totals: Counter[str] = field(default_factory=Counter)
    """By READ, KEPT, CHARACTERS_READ and CHARACTERS_KEPT."""
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    """By DROPPED, DUPLICATE, FAULT, LINES and CHANGED; a reason with how often."""
    samples: dict[str, dict[str, list[list[Any]]]] = field(default_factory=dict)
    """As `reasons`: [hash, file, byte, text]."""

    def count(self, word: str, reason: str, times: int = 1) -> None:
        """Count a reason."""
        self.reasons.setdefault(word, Counter())[reason] += times

    def sample(self, word: str, reason: str, path: str, offset: int, text: str) -> None:
        """Offer a sample."""
        draw = blake2b(f"{path}:{offset}:{reason}:{text[:20]}".encode("utf-8", "replace"), digest_size=6).hexdigest()
        held = self.samples.setdefault(word, {}).setdefault(reason, [])
        if len(held) < SAMPLES or draw < held[-1][0]:
            held.append([draw, path, offset, text[:SAMPLE_CHARACTERS]])
            held.sort()
            del held[SAMPLES:]

    def add(self, other: Tally) -> None:
        """Count what another one has counted."""
        self.totals.update(other.totals)
        for word, reasons in other.reasons.items():
            self.reasons.setdefault(word, Counter()).update(reasons)
        for word, by_reason in other.samples.items():
            for reason, samples in by_reason.items():
                held = self.samples.setdefault(word, {}).setdefault(reason, [])
                held[:] = sorted([*held, *samples])[:SAMPLES]

    def sum_of(self, word: str) -> int:
        """How many were counted for all reasons of a word."""
        return sum(self.reasons.get(word, {}).values())

    def as_json(self) -> dict[str, Any]:
        """All counts, in a fixed order."""
        totals = {name: self.totals[name] for name in (READ, KEPT, CHARACTERS_READ, CHARACTERS_KEPT)}
        words = (DROPPED, DUPLICATE, FAULT, LINES, CHANGED)
        return totals | {word: dict(sorted(self.reasons.get(word, {}).items())) for word in words}

    def write(self) -> dict[str, Any]:
        """All of it as JSON, for `read_tally`."""
        return {"counts": self.as_json(), "samples": self.samples}


def read_tally(values: Mapping[str, Any]) -> Tally:
    """What `write` gave."""
    counts = values["counts"]
    totals = Counter({name: counts[name] for name in (READ, KEPT, CHARACTERS_READ, CHARACTERS_KEPT)})
    reasons = {word: Counter(counts[word]) for word in (DROPPED, DUPLICATE, FAULT, LINES, CHANGED)}
    return Tally(totals, reasons, json.loads(json.dumps(values["samples"])))
