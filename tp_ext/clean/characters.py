"""Rules that change characters and drop nothing."""

from __future__ import annotations

import re
import unicodedata
from functools import partial

from tp_ext.clean.personal import PERSONAL
from tp_ext.clean.rule import Judge, Rule, Verdict, kept
from tp_ext.errors import ConfigError

_BREAKS = "\r\x0b\x0c"
"""Controls that end a line or a page."""
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]|\r\n?")
_INVISIBLE = re.compile(
    "(?:[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
    "|(?<![\u1820-\u18aa])\u180e)+"
)
"""U+180E behind a Mongolian letter is part of the spelling."""
_JOINED = re.compile("[\u0600-\u0dff\ufe0f\U0001f000-\U0001faff]")
"""Scripts and pictures that joiners (U+200C, U+200D) belong to."""
_SPACES = re.compile("[^\\S\n]+")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code - 0xFEE0).isalnum()} | {0x3000: 0x20}
_FULL_WIDTH_TEXT = re.compile("[\u3000\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")


def _composed(text: str) -> Verdict:
    return kept(text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text))


def _controls(text: str) -> Verdict:
    return kept(_CONTROL.sub(lambda found: "\n" if found[0][0] in _BREAKS else "", text))


def _invisible(text: str) -> Verdict:
    if not _INVISIBLE.search(text):
        return kept(text)
    if _JOINED.search(text):
        return kept(_INVISIBLE.sub(lambda found: re.sub("[^\u200c\u200d]", "", found[0]), text))
    return kept(_INVISIBLE.sub("", text))


def _spaces(text: str) -> Verdict:
    return kept("\n".join(_SPACES.sub(" ", line).strip() for line in text.split("\n")))


def _full_width(text: str) -> Verdict:
    return kept(text.translate(_FULL_WIDTH) if _FULL_WIDTH_TEXT.search(text) else text)


def _simplified(_: bool) -> Judge:
    try:
        from opencc import OpenCC
    except ImportError:
        raise ConfigError("characters.simplified: needs the extra: pip install 'tp_ext[simplified]'") from None
    converter = OpenCC("t2s")
    return lambda text: kept(converter.convert(text))


def _always(judge: Judge, _: bool) -> Judge:
    return judge


CHARACTERS: tuple[Rule, ...] = (
    Rule(
        name="composed", make=partial(_always, _composed),
        changes=(("cafe\u0301", "café"), ("か\u3099", "が")), spares=("第一条，１２。", "ﬁ", "①"),
    ),
    Rule(
        name="controls", make=partial(_always, _controls),
        changes=(("a\x00b\x07", "ab"), ("一\r\n二\r三", "一\n二\n三"), ("一\x0c二\x0b三\x85", "一\n二\n三")),
        spares=("一\t二\n三", "\u3000　甲"),
    ),
    Rule(
        name="invisible", make=partial(_always, _invisible),
        changes=(("天\u200b气\ufeff", "天气"), ("\u202e甲\u202c", "甲"), ("soft\u00adware", "software"),
                 ("甲\u180e乙", "甲乙")),
        spares=("👨\u200d👩\u200d👧", "می\u200cخواهم", "甲\u3000乙\u00a0丙", "\u182c\u1820\u1837\u180e\u1820"),
    ),
    Rule(
        name="spaces", make=partial(_always, _spaces),
        changes=(("\u3000\u3000甲  乙\t丙 \n 丁", "甲 乙 丙\n丁"),), spares=("甲 乙\n\n丙",),
    ),
    Rule(
        name="full_width", make=partial(_always, _full_width),
        changes=(("２０２４年ＡＢｃ\u3000好", "2024年ABc 好"),), spares=("甲，乙（丙）！：；？～", "12 ab"),
    ),
    Rule(
        name="simplified", make=_simplified,
        changes=(("漢語與電腦", "汉语与电脑"),), spares=("汉语与电脑", "ABC，12"),
    ),
    *PERSONAL,
)  # fmt: skip
"""In the order in which they are applied."""
