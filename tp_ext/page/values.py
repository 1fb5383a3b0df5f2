"""Values as a reader sees them."""

from __future__ import annotations

import html
import math
import re
import unicodedata

NONE = "–"
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Share(float):
    """A part of a whole, shown in percent."""


class Code(str):
    """Text shown exactly as it is in the data."""

    __slots__ = ()


def number(value: float | None, digits: int = 4) -> str:
    """Whole numbers in full with their thousands apart, others with `digits` significant digits, a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    if isinstance(value, Share):
        return f"{_digits(100 * value, 3)}%"
    return f"{value:,}" if isinstance(value, int) else _digits(value, digits)


def large(value: float | None) -> str:
    """A number for running text: from a million on with three digits and a word."""
    for size, word in _WORDS:
        if value is not None and size <= abs(value) < 1e15:
            return f"{_digits(value / size, 3)} {word}"
    return number(value)


def tick(value: float, greatest: float = 0) -> str:
    """A round number, as short as can be, in the unit that suits `greatest` if that is greater."""
    for size, unit in _UNITS:
        if value and max(abs(value), greatest) >= max(size, 1e4):
            return f"{value / size:.6g}{unit}"
    return f"{value:.6g}"


def _digits(value: float, digits: int) -> str:
    size = math.floor(math.log10(abs(value))) if value else 0
    if not -5 < size < 15:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"
    return f"{value:,.{max(digits - 1 - size, 0)}f}" if value else "0"


def escaped(text: str) -> str:
    """`text` for the inside of an element or an attribute; what no page may hold becomes U+FFFD."""
    return html.escape(_UNSHOWABLE.sub("\ufffd", text))


def shortened(text: str, width: int) -> str:
    """`text` cut to `width` columns, of which East Asian characters take two, with an ellipsis where it was cut."""
    columns = 0
    for place, character in enumerate(text):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > width:
            return text[: max(place - 1, 0)] + "…"
    return text
