"""Signs that a line tells of advertisements, contacts and the like, and is none."""

from __future__ import annotations

import re

QUOTED = re.compile("“(?!阅读原文)[^“”]*”|「[^「」]*」|\"[^\"]*\"|《[^《》]*》")
_TELLS = re.compile(
    "(?P<warns>警方|民警|反诈|诈骗|骗|谨防|切勿|千万不|不要|不得|不法|违法|禁止|未经|嫌疑|被害人|法院|应当|依法|规定|条例|本法|第[一二三四五六七八九十百零]+条)"
    "|(?P<tells>他们|她们|他|她|记者|据[^，。]{1,20}(?:消息|报道)|作者|专家|研究|报道|发布(?:了)?|(?<![小传学评演游劝解请不])说(?!不定|明|服|法|书)|表示|发现(?!更多|精彩)|认为"
    "|听说|昨天|当时|那时|后来|以前|曾|已经|结果|居然|竟然|为什么|不能|近年|如今|越来越)"
    "|(?P<own>我(?:给|在|打|用|买|收|把|又|就|也|是|有|看|从|觉得|的手机)|给我(?:打|发))"
    "|(?P<past>[加扫打用买收发换删退建登下看听点抢订拨](?:描|载|出|到|入|来|回|完)?[了过着](?!解)|[加扫打拨点](?:[^，。]{0,6})了[^解]|过去|没有|无人|打不通|接通)"
    "|(?P<asks>[吗呢？?]”?$)"
)
_WEIGHTS = {"warns": 3, "tells": 2, "own": 2, "past": 2, "asks": 1}


def telling(line: str) -> int:
    """How much speaks for a tale, a report or a law: 0 for nothing."""
    return sum(_WEIGHTS[kind] for kind in {str(found.lastgroup) for found in _TELLS.finditer(line)})
