"""What a vocabulary merge came to, as JSON and as a page to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tp_ext.output import write_json
from tp_ext.page import Code, Page, Series, Share, large, number, write_page

JSON, PAGE = "vocab_report.json", "vocab_report.html"
BUILT_IN = "built-in: "
CORPUS = "the corpus"
EXAMPLES = 40
LONGEST_PIECE = 40
LENGTHS = 12
"""Longer pieces share a bar."""
ORIGINS = {
    "offered": "named by an input, or learned from the corpus",
    "character": "a character of an offered piece",
    "bridge": "a step on the way to an offered piece, to which no other pieces lead",
    "bytes": "a step on the way to a character: some of its bytes",
    "filled": "learned from text to fill the places that were left",
    "pad": "padding, which no text gives",
    "reserved": "kept free, so that the number of pieces divides evenly",
}
TABLES = {"embedding_old": "embedding, old", "embedding_new": "embedding, new", "head_old": "head, old", "head_new": "head, new"}

Report = Mapping[str, Any]


def write_report(folder: Path, report: Report) -> None:
    """Write `report` into `folder` as it is, and as a page."""
    write_json(folder / JSON, report)
    write_page(folder / PAGE, make_page(report))


def make_page(report: Report) -> Page:
    """The page of a report; a section whose figures are missing is left out."""
    page = Page(f"Vocabulary report: {_name_of(report.get('base'))}, extended")
    _summary(page, report)
    for name, section in SECTIONS.items():
        if report.get(name):
            section(page, report)
    return page


def _summary(page: Page, report: Report) -> None:
    """What an engineer wants to know first."""
    base, merged, texts = (report.get(name) or {} for name in ("base", "merged", "texts"))
    tiles, said = [], []
    if base and merged:
        first, last = base["pieces"], merged["pieces"]
        tiles.append((f"+{last - first:,}", f"pieces: {first:,} became {last:,}"))
        said.append(f"{last - first:,} pieces were added to {_name_of(base)}, which had {first:,}; all of these keep their ids.")
    if names := _chinese_texts(report):
        chosen = [texts[name] for name in names]
        before, after = _script_ratios(chosen, "Han")
        saved = _saved(chosen)
        tiles += [(f"{number(before)} → {number(after)}", "Han characters per token"),
                  (number(saved), "of the tokens of Chinese text saved")]  # fmt: skip
        said.append(f"On {_listed(_short(texts)[name] for name in names)} a token now holds {number(after)} Han characters, "
                    f"{number(before)} before; the same text takes {_fewer(saved)}.")  # fmt: skip
    if compared := (report.get("proof") or {}).get("compared"):
        total = sum(compared.values())
        tiles.append(("0 differences", f"in text without Chinese; {total:,} documents compared"))
        said.append(f"Text without Chinese keeps its token ids: {total:,} documents of {len(compared):,} texts were cut by "
                    "both tokenizers and compared, with 0 differences.")  # fmt: skip
    page.tiles(tiles)
    page.paragraph(" ".join(said) or "This report has no figures.")


def _texts(page: Page, report: Report) -> None:
    texts, short = report["texts"], _short(report["texts"])
    page.heading("Characters per token")
    page.paragraph("The more characters a token holds, the fewer tokens a text takes. Only Chinese should change.")
    scripts = {script: _script_ratios(texts.values(), script) for script in _scripts(texts.values())}
    page.bars("By script, over all texts", "Runs of one script, cut by themselves. The bars of all scripts but Han should be "
              "equally long before and after.", list(scripts), _before_after(scripts.values()))  # fmt: skip
    ratios = [_pair(each, "characters_per_token") for each in texts.values()]
    page.bars("By text", "Chinese texts gain; the others stay as they were.", [short[name] for name in texts],
              _before_after(ratios))  # fmt: skip
    page.table(
        ["text", "documents", "bytes", "characters per token, before", "after", "tokens per byte, before", "after",
         "single-byte tokens, before", "after"],
        [[short[name], each.get("documents"), each.get("bytes"), *_pair(each, "characters_per_token"),
          *_pair(each, "tokens_per_byte"), *map(_share, _pair(each, "share_of_single_bytes"))]
         for name, each in texts.items()],
        "Single-byte tokens are the bytes of characters that are no piece; a model learns little from them.",
    )  # fmt: skip
    page.table(
        ["text", *scripts],
        [[short[name], *(_change(_script_ratios([each], script)) for script in scripts)] for name, each in texts.items()],
        "Characters per token by text and script; an arrow where it changed.",
    )
    _histogram(page, report)


def _histogram(page: Page, report: Report) -> None:
    texts, short, names = report["texts"], _short(report["texts"]), _chinese_texts(report)
    drawn = [figures for name in names if (figures := texts[name].get("documents_by_characters_per_token"))]
    if not drawn:
        return
    series = [Series(side, [sum(column) for column in zip(*(each[side] for each in drawn), strict=True)])
              for side in ("before", "after")]  # fmt: skip
    page.histogram("Documents by characters per token", f"Documents of {_listed(short[name] for name in names)}. The hill "
                   "should move to the right as a whole; what stays at the left is text the new pieces do not help.",
                   drawn[0]["step"], series, x="characters per token", y="documents", open_end=True)  # fmt: skip


def _pieces(page: Page, report: Report) -> None:
    pieces = report["pieces"]
    page.heading("Added pieces")
    origins = pieces.get("by_origin") or {}
    page.table(["origin", "pieces", "what it means"], [[name, n, ORIGINS.get(name, "")] for name, n in origins.items()])
    lengths: Counter[int] = Counter()
    for length, count in (pieces.get("by_length") or {}).items():
        lengths[min(int(length), LENGTHS)] += count
    if lengths:
        labels = [f"{length} or more" if length == LENGTHS else str(length) for length in sorted(lengths)]
        page.bars("By length", "Most words have two characters.", labels,
                  [Series("pieces", [lengths[length] for length in sorted(lengths)])], standing=True,
                  x="characters", y="pieces")  # fmt: skip
    if (unused := pieces.get("never_used")) is not None:
        page.paragraph(f"{unused:,} added pieces occur in none of the texts measured here.")
    for name, caption in (
        ("most_useful", "The most useful pieces: those that save most tokens in all texts measured."),
        ("least_used", "The least used pieces: those that occur most rarely in all texts measured."),
    ):
        if rows := pieces.get(name):
            page.table(["piece", "id", "origin", "occurrences", "tokens before", "tokens saved"],
                       [[_piece(row["piece"]), str(row["id"]), row["origin"], row["used"], row["tokens_before"],
                         row["tokens_saved"]] for row in rows], caption)  # fmt: skip


def _refused(page: Page, report: Report) -> None:
    refused = report["refused"]
    page.heading("Refused pieces")
    page.paragraph(f"{sum(map(len, refused.values())):,} offered pieces were left out, so that other text stays as it was.")
    rows = [[reason, len(pieces), [_piece(piece) for piece in pieces[:EXAMPLES]]] for reason, pieces in refused.items()]
    page.table(["reason", "pieces", f"the first {EXAMPLES}"], rows)


def _growth(page: Page, report: Report) -> None:
    growth = report["growth"]
    page.heading("The grown model, before any training")
    before, after, bound = (growth.get(f"english_{name}") for name in ("before", "after", "bound"))
    if None not in (before, after, bound):
        page.paragraph(f"English text costs {after:.4f} bits per byte under the grown model and {before:.4f} under its base: "
                       f"a difference of {after - before:+.4f}, where {number(bound)} is allowed.")  # fmt: skip
    if growth.get("parameters_added") is not None:
        page.paragraph(f"The embedding went from {number(growth.get('rows_before'))} rows to "
                       f"{number(growth.get('rows_after'))}; with the head, {large(growth['parameters_added'])} parameters "
                       "were added.")  # fmt: skip
    costs = {"the base, its own tokenizer": growth.get("chinese_before")}
    for method, value in (growth.get("chinese_methods") or {}).items():
        costs[f"{method} (taken)" if method == growth.get("method") else method] = value
    page.bars("Chinese text, bits per byte", "By the method that new rows begin with; less is better. The base reads the same "
              "text in many small tokens, so it may be ahead until the new rows are trained.", list(costs),
              [Series("bits per byte", list(costs.values()))])  # fmt: skip
    rows = [[what, *(each.get(of) for of in ("mean", "least", "greatest"))]
            for name, what in TABLES.items() if (each := growth.get(name))]  # fmt: skip
    page.table(["rows", "mean", "least", "greatest"], rows, "Lengths of the rows; new ones should be of the size of old ones.")


def _cost(page: Page, report: Report) -> None:
    cost = report["cost"]
    get = cost.get
    page.heading("Cost against gain")
    if get("rows_added") is not None:
        added = f", {large(get('parameters_added'))} parameters" if get("parameters_added") is not None else ""
        page.paragraph(f"Cost: {get('rows_added'):,} more rows{added}.")
    before, after = get("flops_per_token_before"), get("flops_per_token_after")
    saved, ratio = get("tokens_saved_share"), get("flops_ratio")
    text = _short(report.get("texts") or {}).get(get("text"), get("text") or "the text measured")
    if saved is not None:
        page.paragraph(f"Gain: {text} takes {_fewer(saved)}.")
    bars = {"tokens of the same text": None if saved is None else 1 - saved,
            "work for a token": after / before if before and after else None,
            "work for the same text": ratio}  # fmt: skip
    if ratio is not None or (before and after):
        page.bars("The work of training, before = 1", "A token costs more, as there are more rows to choose from; the text takes "
                  "fewer tokens. Below 1 in the last pair is what is won.", list(bars),
                  _before_after((1.0, value) for value in bars.values()))  # fmt: skip
        page.paragraph(f"A token costs {number(before)} floating-point operations before and {number(after)} after.")
    _budget(page, cost)


def _budget(page: Page, cost: Report) -> None:
    seen, budgets = cost.get("seen_times"), [cost.get("budget_half"), cost.get("budget_nine_tenths")]
    if not seen:
        return
    page.points([f"{share} of the added pieces have been seen {seen:,} times after "
                 + (f"{large(budget)} tokens of such text." if budget else "more tokens than this text can tell.")
                 for share, budget in zip(("Half", "Nine tenths"), budgets, strict=True)])  # fmt: skip
    page.note(f"Assumed: a new row is worth having once it has been seen {seen:,} times, a round number that nothing here "
              "measures; and pieces occur in the text to come as often as in this one. A budget far below the first number "
              "is too small for so many pieces: take a smaller size.")  # fmt: skip


def _proof(page: Page, report: Report) -> None:
    proof = report["proof"]
    page.heading("The proof")
    page.paragraph("Compared were the pieces of the base, id by id, and each document as both tokenizers cut it. Text without "
                   "Chinese has the same ids; text with Chinese comes back the same. Each added piece is what its own text "
                   "gives. Where one of these fails, nothing is written.")  # fmt: skip
    for note in proof.get("notes") or ():
        page.note(f"Note: {note}.")
    compared = proof.get("compared") or {}
    short = _short(compared)
    page.table(["text", "documents compared", "differences"], [[short[name], n, 0] for name, n in compared.items()])


def _inputs(page: Page, report: Report) -> None:
    page.heading("Inputs and files")
    base, merged = report.get("base"), report.get("merged")
    sources = [{"as": "base", **base}] if base else []
    rows = [[each.get("as", ""), each.get("path", ""), each.get("bytes"), Code(str(each.get("sha256", ""))[:12])]
            for each in [*sources, *report["inputs"]]]  # fmt: skip
    page.table(["as", "path", "bytes", "SHA-256 begins"], rows)
    if merged:
        files = [[name, state] for name, state in (merged.get("files") or {}).items()]
        page.table(["file", "state"], files, f"Result: SHA-256 {str(merged.get('sha256', ''))[:12]}…")


SECTIONS: dict[str, Callable[[Page, Report], None]] = {
    "texts": _texts, "pieces": _pieces, "refused": _refused, "growth": _growth, "cost": _cost, "proof": _proof,
    "inputs": _inputs,
}  # fmt: skip
"""By the key that a section needs, in the order of the page."""


def _name_of(base: Mapping[str, Any] | None) -> str:
    """A tokenizer's file, with its folder."""
    return "/".join(Path(base.get("path", "")).parts[-2:]) if base else "a vocabulary"


def _short(names: Iterable[str]) -> dict[str, str]:
    """Texts by their files' names, where no two have the same."""
    names = list(names)
    files = Counter(Path(name).name for name in names)
    return {name: Path(name).name if files[Path(name).name] == 1 else name for name in names}


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _chinese_texts(report: Report) -> list[str]:
    """The texts that tell most: those that are checked, else the corpus, else all; of these those that are mostly Han."""
    texts = report.get("texts") or {}
    own = [name for name in texts if not name.startswith(BUILT_IN)]
    for group in ([name for name in own if not name.startswith(CORPUS)], own, list(texts)):
        han = {name: _counts([texts[name]], "Han")[0] for name in group}
        if mostly := [name for name in group if 2 * han[name] > texts[name].get("characters", 0)]:
            return mostly
    return [name for name in texts if _counts([texts[name]], "Han")[0]]


def _scripts(texts: Iterable[Report]) -> list[str]:
    return list(dict.fromkeys(script for each in texts for script in each.get("scripts") or ()))


def _counts(texts: Iterable[Report], script: str) -> tuple[int, int, int]:
    """Characters of a script in all texts, and their tokens before and after."""
    found = [count for each in texts if (count := (each.get("scripts") or {}).get(script))]
    characters, before, after = (
        sum(count.get(name) or 0 for count in found) for name in ("characters", "tokens_before", "tokens_after")
    )
    return characters, before, after


def _script_ratios(texts: Iterable[Report], script: str) -> tuple[float | None, float | None]:
    characters, before, after = _counts(texts, script)
    return characters / before if before else None, characters / after if after else None


def _saved(texts: Sequence[Report]) -> Share | None:
    before, after = (sum(each.get(f"tokens_{side}") or 0 for each in texts) for side in ("before", "after"))
    return Share(1 - after / before) if before else None


def _fewer(saved: float | None) -> str:
    if saved is None:
        return "as many tokens"
    return f"{number(Share(abs(saved)))} {'more' if saved < 0 else 'fewer'} tokens"


def _pair(figures: Report, name: str) -> tuple[float | None, float | None]:
    return figures.get(f"{name}_before"), figures.get(f"{name}_after")


def _share(value: float | None) -> Share | None:
    return None if value is None else Share(value)


def _before_after(pairs: Iterable[tuple[float | None, float | None]]) -> list[Series]:
    pairs = list(pairs)
    return [Series(name, [pair[side] for pair in pairs]) for side, name in enumerate(("before", "after"))]


def _change(pair: tuple[float | None, float | None]) -> str:
    before, after = (number(value) for value in pair)
    return before if before == after else f"{before} → {after}"


def _piece(text: str) -> Code:
    """A piece with its spaces to be seen, not too long."""
    seen = "".join("␣" if each.isspace() else each for each in text)
    return Code(seen if len(seen) <= LONGEST_PIECE else f"{seen[:LONGEST_PIECE]}… ({len(seen):,} characters)")
