"""The rule for text that was decoded with a wrong encoding."""

from __future__ import annotations

import re

from tp_ext.clean.rule import Judge, Rule, Verdict, kept
from tp_ext.tokens.characters import count_han

LOST = "\ufffd"
_SHARE = 0.01
"""Of characters that were lost, from which on a text is damaged."""
_LATIN = re.compile("(?:[\xc2-\xf4][\x80-\xbf\u0152-\u0178\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{1,3}){3,}")
"""UTF-8 read as Latin-1 or Windows-1252."""
_GBK = re.compile("[锛銆鐨涓浜鍦鈥鏄锟閿鎴鐢鏈]")
"""Of UTF-8 read as GBK, what the most frequent bytes become; rare in text."""
_HAN_RUN = re.compile("[\u3400-\u9fff\ue000-\uf8ff€·—？?]{6,}")
_FILLERS = re.compile("锟斤拷|烫烫烫烫|屯屯屯屯")


def _read_anew(run: str) -> str:
    """What a run of Chinese says when its GBK bytes are read as UTF-8."""
    return run.encode("gb18030", "ignore").decode("utf-8", "ignore")


def _is_utf8_as_gbk(text: str) -> bool:
    """Whether most of the runs with suspicious characters make sense as UTF-8."""
    runs = [run for run in _HAN_RUN.findall(text) if len(_GBK.findall(run)) * 20 >= len(run)]
    return any(2 * count_han(_read_anew(run)) >= len(run) // 2 for run in runs)


def _mojibake(text: str) -> Verdict:
    lost = text.count(LOST)
    if lost and lost > _SHARE * len(text):
        return None, "mojibake"
    if _LATIN.search(text) or _FILLERS.search(text) or (_GBK.search(text) and _is_utf8_as_gbk(text)):
        return None, "mojibake"
    return kept(text)


def _make(_: bool) -> Judge:
    return _mojibake


MOJIBAKE = Rule(
    name="mojibake", make=_make,
    drops=("ä½\xa0å¥½ï¼Œä¸–ç•Œ",
           "中华人民共和国".encode().decode("latin-1"), "这是一个很好的例子，我们来看看。".encode().decode("gbk",
           "ignore"),
           "手持两把锟斤拷", "\ufffd\ufffd出\ufffd"),
    spares=("涓涓细流，汇成江海。", "café naïve Übermut", "这是一个很好的例子，我们来看看。", "浜松市在日本静冈县。",
            "他用锛子把木头锛平。"),
)  # fmt: skip
