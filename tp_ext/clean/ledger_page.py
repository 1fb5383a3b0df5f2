"""The ledger as a page to read: what came in, what went and why, with samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tp_ext.clean.tally import (
    CHANGED,
    CHARACTERS_KEPT,
    CHARACTERS_READ,
    DROPPED,
    DUPLICATE,
    FAULT,
    KEPT,
    LINES,
    READ,
)  # fmt: skip
from tp_ext.corpus.faults import MEANING
from tp_ext.page import Code, Page, Series, Share, large, number, write_page

PAGE = "ledger.html"
WHAT: Mapping[str, str] = {
    "empty": "nothing but white space, or nothing left by the rules for characters",
    "copyright": "rights, licences to operate, reprint notices",
    "navigation": "menus, links to other pages, names of editors, buttons",
    "contact": "how to reach someone who advertises",
    "advertisement": "calls to buy, scan, follow, download or join",
    "symbols": "mostly symbols",
    "blocked host": "its URL is on a host of documents.blocked_hosts",
    "mojibake": "decoded with a wrong encoding, or damaged",
    "short": "too few letters, digits and Han characters",
    "language": "too little Chinese",
    "digits": "mostly digits",
    "short lines": "nearly all lines are very short",
    "cut-off lines": "nearly all lines are cut off by an ellipsis",
    "repeated lines": "too much of it is in lines that came before in it",
    "repeated paragraphs": "too much of it is in paragraphs that came before in it",
    "repeated n-grams": "too much of it is in stretches of ten characters that came before in it",
    "quality": "scored low by the classifier, and drawn",
    "exact": "equal to an earlier document",
    "fuzzy": "similar to an earlier document",
    "substring": "stretches that came before were cut out; a document of which nothing is left goes",
    "composed": "brought to Unicode's composed form (NFC)",
    "controls": "control characters taken out",
    "invisible": "invisible characters taken out",
    "spaces": "white space made one space",
    "full_width": "full-width letters and digits made ASCII",
    "simplified": "traditional characters made simplified",
    "emails": "e-mail addresses masked",
    "phones": "telephone numbers masked",
    "identity_numbers": "identity numbers masked",
    **MEANING,
}
"""Every reason, with what it means."""
TITLES = {
    DROPPED: ("Documents dropped by rules", "documents"),
    DUPLICATE: ("Duplicates", "documents"),
    FAULT: ("Records that are no text", "records"),
    LINES: ("Lines taken out", "lines"),
    CHANGED: ("Documents changed", "documents"),
}


def write_ledger_page(path: Path, ledger: Mapping[str, Any]) -> None:
    """Write the page of a ledger."""
    counts = ledger["all"]
    page = Page("Ledger of a cleaning")
    page.paragraph(f"{number(counts[READ])} records were read from {number(len(ledger['files']))} files. Each is a document "
                   "that was kept, one that was dropped, a duplicate, or no text, and is counted once.")  # fmt: skip
    page.tiles(_tiles(counts))
    page.bars("Where the records went", "In all files.", ["kept", "dropped by rules", "duplicates", "no text"],
              [Series("records", [_sum(counts[word]) for word in (KEPT, DROPPED, DUPLICATE, FAULT)])])  # fmt: skip
    for word, (title, unit) in TITLES.items():
        if counts[word]:
            page.heading(title)
            _reasons(page, unit, counts[word], counts[READ] if word != LINES else None)
            _samples(page, ledger["samples"].get(word, {}))
    page.heading("Files")
    _files(page, ledger["files"])
    page.heading("Settings")
    page.table(["setting", "value"], [[name, Code(str(value))] for name, value in _flat(ledger["settings"])])
    page.paragraph(f"Run {ledger['run']}, made with "
                   + ", ".join(f"{name} {version}" for name, version in ledger["versions"].items()) + ".")  # fmt: skip
    write_page(path, page)


def _tiles(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    read, characters = max(counts[READ], 1), max(counts[CHARACTERS_READ], 1)
    return [
        (number(Share(counts[KEPT] / read)), f"of the records were kept: {number(counts[KEPT])}"),
        (number(Share(counts[CHARACTERS_KEPT] / characters)), f"of the characters: {large(counts[CHARACTERS_KEPT])}"),
        (number(sum(counts[LINES].values())), "lines were taken out"),
        (number(sum(counts[FAULT].values())), "records were no text"),
    ]


def _reasons(page: Page, unit: str, reasons: Mapping[str, int], read: int | None) -> None:
    ordered = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    shares = ["of all that was read"] if read is not None else []
    rows: list[list[Any]] = [[name, count, *([Share(count / read)] if read else []), WHAT.get(name, "")]
                             for name, count in ordered]  # fmt: skip
    page.table(["reason", unit, *shares, "what it means"], rows)


def _samples(page: Page, samples: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    rows = [[reason, Code(text.replace("\n", "⏎")), f"{Path(path).name}, byte {offset:,}"]
            for reason, found in sorted(samples.items()) for _, path, offset, text in found]  # fmt: skip
    if rows:
        page.table(["reason", "how it begins", "where"], rows, "Samples, drawn by hash; the same in every run.")


def _files(page: Page, files: Sequence[Mapping[str, Any]]) -> None:
    columns = [READ, KEPT, DROPPED, DUPLICATE, FAULT]
    rows = [[Path(each["path"]).name, *(_sum(each[name]) for name in columns), Share(each[KEPT] / max(each[READ], 1)),
             each["output"]] for each in files]  # fmt: skip
    page.table(["file", "read", "kept", "dropped", "duplicates", "no text", "kept of read", "written to"], rows)


def _sum(count: int | Mapping[str, int]) -> int:
    return count if isinstance(count, int) else sum(count.values())


def _flat(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, dict) else [(before + name, value)]
    return found
