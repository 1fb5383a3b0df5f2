"""The rules for whole documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from tp_ext.clean.mojibake import MOJIBAKE
from tp_ext.clean.repetition import REPETITION
from tp_ext.clean.rule import Judge, Rule, Verdict, kept
from tp_ext.tokens.characters import count_han

_KANA_HANGUL = re.compile("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\u1100-\u11ff\uac00-\ud7af]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")
_SYMBOLS = re.compile(r"[^\w\s，。、；：？！“”‘’（）《》〈〉【】「」『』〔〕—…·～,.;:?!'\"()\[\]<>/%°℃￥$&+=*#@\-]+")
SHORT, MANY_LINES, SOME_LINES = 6, 20, 10
_CUT_OFF = re.compile(r"(?:…|\.\.\.|。。。)[\s”\"]*$")
_FOREIGN_SHARE = 0.1
"""Of kana and hangul among all letters; Chinese text quotes some."""


def _length(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))


_han = lru_cache(maxsize=2)(count_han)
"""How many Han characters are in a text, which most rules ask of the same one; of enough of them nothing else is asked."""


def _least_characters(least: int) -> Judge:
    def judge(text: str) -> Verdict:
        return kept(text) if _han(text) >= least or _length(_WORD, text) >= least else (None, "short")

    return judge


def _language(share: float) -> Judge:
    def judge(text: str) -> Verdict:
        if len(text) - _han(text) <= min(_FOREIGN_SHARE, 1 - share) * _han(text):
            return kept(text)
        letters = _length(_LETTERS, text)
        if _han(text) < share * letters:
            return None, "language"
        foreign = _length(_KANA_HANGUL, text)
        return (None, "language") if foreign > _FOREIGN_SHARE * letters else kept(text)

    return judge


def _share_of(pattern: re.Pattern[str], reason: str) -> Callable[[float], Judge]:
    """A bound for the share of what matches among all characters but white space."""

    def make(share: float) -> Judge:
        def judge(text: str) -> Verdict:
            if _han(text) >= (1 - share) * len(text):
                return kept(text)
            found = _length(pattern, text)
            if found <= share * (len(text) - _length(_SPACE, text)):
                return kept(text)
            return None, reason

        return judge

    return make


def _share_of_lines(least: int, is_bad: Callable[[str], bool], reason: str) -> Callable[[float], Judge]:
    """A bound for the share of bad lines among those that are not blank, where there are `least` at least."""

    def make(share: float) -> Judge:
        def judge(text: str) -> Verdict:
            if text.count("\n") < least - 1:
                return kept(text)
            lines = [line for line in text.split("\n") if line and not line.isspace()]
            if len(lines) < least or sum(map(is_bad, lines)) <= share * len(lines):
                return kept(text)
            return None, reason

        return judge

    return make


def _is_short(line: str) -> bool:
    return len(line.strip()) < SHORT


def _is_cut_off(line: str) -> bool:
    return _CUT_OFF.search(line) is not None


def _lines(*lines: str) -> str:
    return "\n".join(lines)


_MENU: Sequence[str] = ["新闻", "体育", "财经", "娱乐"] * 5

DOCUMENTS: tuple[Rule, ...] = (
    MOJIBAKE,
    Rule(name="least_characters", make=_least_characters, example_value=5, drops=("好的。", "！！！！！！", "…… a 1"),
         spares=("今天天气好", "abc12")),
    Rule(
        name="language", make=_language, example_value=0.3,
        drops=("The quick brown fox jumps over the lazy dog.", "これは日本語の文章です。漢字もあります。",
               "한국어로 쓴 글입니다.",
               "Mostly English with 中文 in it"),
        spares=("第一条 为了保护", "繁體中文也是中文", "用 Python 写的 HTTP 服务器程序", "12.5%",
                "“の”是日语里最常用的假名之一，相当于汉语的“的”字。"),
    ),
    Rule(name="symbol_share", make=_share_of(_SYMBOLS, "symbols"), example_value=0.5, drops=("■□■□■□好", "🎉🎉🎉🎉喜"),
         spares=("甲、乙、丙：丁！", "①第一步 ②第二步 ③第三步", "x = (a + b) * c / 2")),
    Rule(name="digit_share", make=_share_of(_DIGITS, "digits"), example_value=0.5, drops=("2024 11 30 5567 8812 甲",
    "0755-12345678"),
         spares=("2008年8月8日，第29届奥运会开幕", "一二三四五六七")),
    Rule(name="short_lines", make=_share_of_lines(MANY_LINES, _is_short, "short lines"), example_value=0.9,
         drops=(_lines(*_MENU), _lines(*_MENU, "这是一行比较长的文字")),
         spares=(_lines("床前明月光", "疑是地上霜"), _lines(*["一行比较长的文字。"] * 10, *_MENU))),
    Rule(name="line_ends", make=_share_of_lines(SOME_LINES, _is_cut_off, "cut-off lines"), example_value=0.9,
         drops=(_lines(*(f"第{number}条新闻的开头……" for number in range(12))),),
         spares=(_lines(*(f"第{number}行。" for number in range(12))), _lines("他说……", "她说……"))),
    *REPETITION,
)  # fmt: skip
"""In the order in which they are asked."""
