"""Which characters are Chinese: the scripts that pieces are added for."""

from __future__ import annotations

import re

HAN = "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Han characters of all blocks, with radicals, 々 and 〇; simplified and traditional share them."""
PUNCTUATION = "\u3001-\u3004\u3006\u3008-\u3020\u302a-\u302f\u3031-\u3037\u303c-\u303f\ufe30-\ufe4f"
PUNCTUATION += "\uff01-\uff65\uffe0-\uffe6"
"""CJK punctuation and full-width forms. Not the ideographic space (U+3000), which a tokenizer may treat as a space, nor
“ ” ‘ ’ … — ·, which other languages use."""
BOPOMOFO = "\u02ea\u02eb\u3105-\u312f\u31a0-\u31bf"
CHINESE = HAN + PUNCTUATION + BOPOMOFO
"""All of the above: a text without these keeps its ids when pieces are added."""

_LEARNT_TEXT = re.compile(f"[{HAN}]+|[{PUNCTUATION}{BOPOMOFO}]")
_HAN_TEXT = re.compile(f"[{HAN}]+")
_CHINESE_TEXT = re.compile(f"[{CHINESE}]+")


def is_han(text: str) -> bool:
    """Whether there is nothing but Han characters in it."""
    return _HAN_TEXT.fullmatch(text) is not None


def is_chinese(text: str) -> bool:
    """Whether there is nothing but Han characters, Chinese punctuation and bopomofo in it."""
    return _CHINESE_TEXT.fullmatch(text) is not None


def has_chinese(text: str) -> bool:
    """Whether one of these characters is in it."""
    return _CHINESE_TEXT.search(text) is not None


def han_runs(text: str) -> list[str]:
    """The longest stretches of Han characters, in order."""
    return _HAN_TEXT.findall(text)


def chinese_runs(text: str, mixed: bool = False) -> list[str]:
    """What Chinese pieces are learned from: stretches of Han characters, and other Chinese ones each by itself, in order.

    With `mixed` the longest stretches of all Chinese characters.
    """
    return (_CHINESE_TEXT if mixed else _LEARNT_TEXT).findall(text)


def count_han(text: str) -> int:
    """How many Han characters are in it."""
    return sum(map(len, _HAN_TEXT.findall(text)))


def split_chinese(text: str) -> list[tuple[bool, str]]:
    """The text cut where Chinese begins and ends, each part with whether it is Chinese."""
    parts, end = [], 0
    for found in _CHINESE_TEXT.finditer(text):
        if found.start() > end:
            parts.append((False, text[end : found.start()]))
        parts.append((True, found.group()))
        end = found.end()
    return [*parts, (False, text[end:])] if end < len(text) else parts
