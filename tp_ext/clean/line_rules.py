"""The rules for lines."""

from __future__ import annotations

import re

from tp_ext.clean.advertisement import ADVERTISEMENT
from tp_ext.clean.contact import CONTACT
from tp_ext.clean.furniture import COPYRIGHT, NAVIGATION
from tp_ext.clean.rule import Judge, Rule, Verdict, kept

LEAST = 8
_MARK = re.compile(r"[^\w\s，。、；：？！“”‘’（）《》—…·,.;:?!'\"()\-]")


def _symbols(share: float) -> Judge:
    def judge(line: str) -> Verdict:
        if len(line) < LEAST or len(_MARK.findall(line)) <= share * len(line):
            return kept(line)
        return None, "symbols"

    return judge


LINES: tuple[Rule, ...] = (
    COPYRIGHT, NAVIGATION, CONTACT, ADVERTISEMENT,
    Rule(name="symbols", make=_symbols, example_value=0.7, drops=("★★★★★★★★★★", "=========+=========", "▁▂▃▄▅▆▇█▁▂▃▄"),
         spares=("——————————", "第一章 ★★★★★", "……………………", "====", "a = b + c")),
)  # fmt: skip
"""In the order in which they are asked; the first that takes a line is the reason."""
