"""A page built part by part, with its style inside, for screens light and dark, wide and narrow, and for paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tp_ext.output import whole_file
from tp_ext.page import charts
from tp_ext.page.charts import Line, Series
from tp_ext.page.style import STYLE
from tp_ext.page.values import Code, escaped, number

Cell = str | float | None | Sequence[Code]
"""What a table shows; numbers stand to the right."""
SHORT = 20
"""Characters of a cell that is not broken into lines."""


class Page:
    """A page with a title. Its parts stand in the order in which they are added; all text is escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []
        self._headings: list[str] = []

    def heading(self, text: str) -> None:
        """Begin a section, which the list at the top of the page names."""
        self._headings.append(text)
        self._parts.append(f'<h2 id="s{len(self._headings)}">{escaped(text)}</h2>')

    def paragraph(self, text: str) -> None:
        """Running text."""
        self._parts.append(f"<p>{escaped(text)}</p>")

    def note(self, text: str) -> None:
        """Text that is set off."""
        self._parts.append(f'<p class="note">{escaped(text)}</p>')

    def points(self, texts: Sequence[str]) -> None:
        """Short texts one below the other."""
        self._parts.append(f"<ul>{''.join(f'<li>{escaped(text)}</li>' for text in texts)}</ul>" if texts else "")

    def tiles(self, tiles: Sequence[tuple[str, str]]) -> None:
        """Values in large type, each with what it is."""
        parts = [f"<div><dt>{escaped(what)}</dt><dd>{escaped(value)}</dd></div>" for value, what in tiles]
        self._parts.append(f'<dl class="tiles">{"".join(parts)}</dl>' if tiles else "")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> None:
        """A row of cells for each of `rows`; long tables scroll on a screen and are whole on paper."""
        right = [bool(rows) and all(_is_number(row[place]) for row in rows) for place in range(len(columns))]
        head = "".join(f"<th{_right(side)}>{escaped(name)}</th>" for name, side in zip(columns, right, strict=True))
        body = "".join(
            f"<tr>{''.join(_cell(cell, side) for cell, side in zip(row, right, strict=True))}</tr>" for row in rows
        )
        said = f'<p class="caption">{escaped(caption)}</p>' if caption else ""
        name = escaped(caption or ", ".join(columns))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._parts.append(f'{said}<div class="table" tabindex="0" role="region" aria-label="{name}">{table}</div>')

    def bars(
        self, title: str, caption: str, labels: Sequence[str], series: Sequence[Series], *, standing: bool = False,
        x: str = "", y: str = "",
    ) -> None:  # fmt: skip
        """A bar for each value, its value beside it; `x` and `y` name the axes of standing ones."""
        draw = charts.standing_bars(title, labels, series, x, y) if standing else charts.lying_bars(title, labels, series)
        self._figure(title, caption, [each.name for each in series], draw)

    def histogram(
        self, title: str, caption: str, step: float, series: Sequence[Series], *, x: str, y: str, open_end: bool = False
    ) -> None:
        """How many lie in each interval of `step` from 0 on; with `open_end` the last holds all above."""
        draw = charts.histogram(title, step, series, x, y, open_end)
        self._figure(title, caption, [each.name for each in series], draw)

    def lines(self, title: str, caption: str, lines: Sequence[Line], *, x: str, y: str, log_x: bool = False) -> None:
        """Curves over a common axis."""
        draw = charts.lines(title, lines, x, y, log_x)
        self._figure(title, caption, [each.name for each in lines], draw, line=True)

    def _figure(self, title: str, caption: str, names: Sequence[str], drawing: str, line: bool = False) -> None:
        said = f"<figcaption><strong>{escaped(title)}</strong><span>{escaped(caption)}</span></figcaption>"
        keys = [f"<span>{charts.key(tint, line)}{escaped(name)}</span>"
                for tint, name in zip(charts.tints(len(names)), names, strict=True)]  # fmt: skip
        legend = f'<div class="legend">{"".join(keys)}</div>' if len(names) > 1 else ""
        self._parts.append(f"<figure>{said}{legend}{drawing}</figure>")

    def html(self) -> str:
        """The whole page, which is well-formed XML as well."""
        links = [f'<a href="#s{place}">{escaped(name)}</a>' for place, name in enumerate(self._headings, 1)]
        first = next((place for place, part in enumerate(self._parts) if part.startswith("<h2")), len(self._parts))
        nav = [f"<nav>{' '.join(links)}</nav>"] if len(links) > 2 else []
        body = "\n".join([*self._parts[:first], *nav, *self._parts[first:]])
        title = escaped(self._title)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n"
            "</main>\n</body>\n</html>\n"
        )


def write_page(path: Path, page: Page) -> None:
    """Write a page, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(page.html(), encoding="utf-8")


def _is_number(cell: Cell) -> bool:
    return cell is None or isinstance(cell, (int, float))


def _right(side: bool) -> str:
    return ' class="right"' if side else ""


def _cell(cell: Cell, right: bool) -> str:
    if isinstance(cell, str):
        shown = _code(cell) if isinstance(cell, Code) else escaped(cell)
        return f'<td class="{"short" if len(cell) <= SHORT else "long"}">{shown}</td>'
    if cell is None or isinstance(cell, (int, float)):
        return f"<td{_right(right)}>{number(cell)}</td>"
    return f'<td class="many">{" ".join(map(_code, cell))}</td>'


def _code(text: Code) -> str:
    return f'<code lang="zh">{escaped(text)}</code>'
