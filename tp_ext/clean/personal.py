"""Rules that put a mark in the place of personal data."""

from __future__ import annotations

import re

from tp_ext.clean.rule import Judge, Rule, Verdict, kept

EMAIL, PHONE, IDENTITY = "<email>", "<phone>", "<id>"
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b(?!:[\w/])"
)
"""Not a place of a repository, as git@host:path."""
_PHONE = re.compile(
    r"(?<![\d.\-A-Za-z¥￥$])(?<!人民币)(?:(?:\+|00)86[- ]?)?"
    r"(?:1[3-9]\d(?:\d{8}|[- ]\d{4}[- ]\d{4})|0(?:10|2\d|[3-9]\d{2})[-—－ ]{1,2}\d{7,8}|\(0(?:10|2\d|[3-9]\d{2})\) ?\d{7,8}"
    r"|[48]00[- ]\d{3}[- ]?\d{4}|[48]00[- ]\d{4}[- ]?\d{3})"
    r"(?![\d.])(?! ?(?:[元万亿股吨克台件套册]|公里|平方|立方|美元|人民币))",
    re.ASCII,
)
"""Not an amount: money and measures have a unit behind, or a currency before."""
_IDENTITY = re.compile(
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[0-9Xx](?![0-9A-Za-z])"
)
_DIGITS = re.compile("[0-9]{3}")
"""In every number."""
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def is_identity_number(number: str) -> bool:
    """Whether the check digit of an 18-digit resident identity number is right (GB 11643-1999)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number[:17], strict=True))
    return number[17].upper() == "10X98765432"[total % 11]


def _emails(_: bool) -> Judge:
    return lambda text: kept(_EMAIL.sub(EMAIL, text) if "@" in text else text)


def _phones(_: bool) -> Judge:
    return lambda text: kept(_PHONE.sub(PHONE, text) if _DIGITS.search(text) else text)


def _identity_numbers(_: bool) -> Judge:
    def judge(text: str) -> Verdict:
        if not _DIGITS.search(text):
            return kept(text)
        return kept(_IDENTITY.sub(lambda found: IDENTITY if is_identity_number(found[0]) else found[0], text))

    return judge


PERSONAL: tuple[Rule, ...] = (
    Rule(
        name="emails", make=_emails,
        changes=(("请寄至li.ming+a@mail.example.com.cn。", f"请寄至{EMAIL}。"), ("a@b.cn", EMAIL)),
        spares=("@人民日报 转发", "a@b", "装饰器@property", "git@example.com:group/project.git"),
    ),
    Rule(
        name="identity_numbers", make=_identity_numbers,
        changes=(("身份证11010519491231002X。", f"身份证{IDENTITY}。"),),
        spares=("身份证110105194912310021。", "订单110105194912310029999", "11010519491331002X"),
    ),
    Rule(
        name="phones", make=_phones,
        changes=(
            ("请拨打13812345678或010-12345678。", f"请拨打{PHONE}或{PHONE}。"), ("+86 138 1234 5678", PHONE),
            ("热线400-123-4567", f"热线{PHONE}"), ("(021)12345678", PHONE),
        ),
        spares=("1949-10-01", "13812345678901", "圆周率3.14159265358", "2010 12345678", "12345678901",
                "ISBN 978-7-13812345678", "资产总额为15012345678元", "借款人民币13500000000", "投资区间为400-5000000元"),
    ),
)  # fmt: skip
