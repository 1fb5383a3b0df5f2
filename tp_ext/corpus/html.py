"""The text of a page: what is between its tags, but for what is never text, a line for each block."""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser

_NEVER = frozenset(("script", "style", "noscript", "template", "head", "nav", "footer", "aside", "form", "button", "select",
                    "textarea", "iframe", "svg", "object"))  # fmt: skip
_BLOCKS = frozenset((
    "address", "article", "blockquote", "br", "caption", "center", "dd", "details", "dialog", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "legend", "li", "main", "menu", "ol", "p",
    "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
))  # fmt: skip
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_ALIASES = {"gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "utf8": "utf-8"}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_HEAD_BYTES = 4096
_COMMENT_END = re.compile(r"--!?>")
_UNFINISHED = re.compile(r"<[A-Za-z!?/]")
"""Behind the last > of a page, a tag that has no end."""
_SPACES = re.compile(r"[ \t\r\f\v\n]+")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[list[str]] = [[]]
        self._never: list[str] = []
        self._no_end = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _NEVER:
            self._never.append(tag)
        elif tag == "body":
            self._never.clear()  # a head without an end
        elif tag in _BLOCKS:
            self.lines.append([])

    def handle_endtag(self, tag: str) -> None:
        if tag in self._never:
            while self._never.pop() != tag:
                pass
        elif tag in _BLOCKS:
            self.lines.append([])

    def handle_data(self, data: str) -> None:
        if not self._never:
            self.lines[-1].append(data)

    def parse_comment(self, i: int, report: bool = True) -> int:
        """Where a comment ends; a search without result is not made again for each comment behind it."""
        found = None if self._no_end else _COMMENT_END.search(self.rawdata, i + 4)
        self._no_end = found is None
        return found.end() if found else self.parse_bogus_comment(i, report)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Ends at the next >, as in browsers; html.parser raises where it does not know the name."""
        return self.parse_bogus_comment(i, report)


def text_of_page(page: str) -> str:
    """The text of a page in HTML, without blank lines."""
    parser = _Text()
    unfinished = _UNFINISHED.search(page, page.rfind(">") + 1)
    parser.feed(page[: unfinished.start()] if unfinished else page)
    parser.close()
    lines = (_SPACES.sub(" ", "".join(pieces)).strip() for pieces in parser.lines)
    return "\n".join(line for line in lines if line)


def decoded(content: bytes, charset: str = "") -> str:
    """A page in the encoding of its byte order mark, or that the `charset` it was sent with, or itself, names; else UTF-8.

    Raises ValueError when it is not in that encoding, and LookupError when there is none of that name.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    found = _CHARSET.search(content[:_HEAD_BYTES])
    name = (charset or (found[1].decode("ascii") if found else "") or "utf-8").strip("\"' ").lower()
    return content.decode(_ALIASES.get(name, name))
