"""What a vocabulary merge came to, as JSON and as a page to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tp_ext.extend import pooled
from tp_ext.extend.pooled import Pair
from tp_ext.output import write_json
from tp_ext.page import Code, Page, Series, Share, large, number, write_page

JSON, PAGE = "vocab_report.json", "vocab_report.html"
EXAMPLES = 40
LONGEST_PIECE = 40
LENGTHS = 8
"""Longer pieces share a bar."""
STEP = 0.25
"""Characters per token that a bar of the histogram is wide, where the report does not say."""
ORIGINS = {
    "offered": "named by an input, or learned from the corpus",
    "character": "a character of an offered piece",
    "bridge": "a step on the way to an offered piece, to which no other pieces lead",
    "bytes": "a step on the way to a character: some of its bytes",
    "filled": "learned from text to fill the places that were left",
    "pad": "padding, which no text gives",
    "reserved": "kept free, so that the number of pieces divides evenly",
}
NORMS = {"embedding_old": "embedding, old rows", "embedding_new": "embedding, new rows",
         "head_old": "head, old rows", "head_new": "head, new rows"}  # fmt: skip

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
    """What one wants to know first, as tiles and in words."""
    facts = [fact for part in (_sizes, _gain, _safety) for fact in part(report)]
    page.tiles([(value, what) for value, what, _ in facts])
    page.paragraph(" ".join(said for _, _, said in facts if said) or "This report has no figures.")


def _sizes(report: Report) -> Iterable[tuple[str, str, str]]:
    base, merged = report.get("base"), report.get("merged")
    if base and merged:
        first, last = base["pieces"], merged["pieces"]
        said = f"{last - first:,} pieces were added to the {first:,} of {_name_of(base)}, which all keep their ids."
        yield f"+{last - first:,}", f"pieces: {first:,} became {last:,}", said


def _gain(report: Report) -> Iterable[tuple[str, str, str]]:
    texts = report.get("texts") or {}
    names = pooled.chinese_texts(texts)
    chosen = [texts[name] for name in names]
    before, after = pooled.characters_per_token(chosen, "Han")
    if before and after:
        where = _listed(map(pooled.short_names(texts).__getitem__, names))
        said = f"On {where} a token now holds {number(after)} Han characters; it held {number(before)} before."
        yield _change((before, after)), "Han characters per token", said
    if (saved := pooled.saved(chosen)) is not None:
        yield number(saved), "fewer tokens for Chinese text", f"The same text takes {_fewer(saved)}."
        yield _change(pooled.single_bytes(chosen)), "of these tokens are single bytes", ""


def _safety(report: Report) -> Iterable[tuple[str, str, str]]:
    if compared := (report.get("proof") or {}).get("compared"):
        total = sum(compared.values())
        said = (f"Text without Chinese keeps its token ids: {total:,} documents of {len(compared):,} texts were cut by both "
                "tokenizers and compared, with 0 differences.")  # fmt: skip
        yield "0 differences", f"in {total:,} documents compared, where there is no Chinese", said


def _texts(page: Page, report: Report) -> None:
    texts = pooled.own_first(report["texts"])
    short = pooled.short_names(texts)
    page.heading("Characters per token")
    page.paragraph("The more characters a token holds, the fewer tokens a text takes. Only what is written in Han "
                   "characters should change, Japanese included.")  # fmt: skip
    scripts = {script: pooled.characters_per_token(texts.values(), script) for script in pooled.scripts(texts)}
    page.bars("By script, over all texts", "Runs of one script, cut by themselves. Han should gain; the other pairs should "
              "be equally long, Chinese punctuation nearly so.", list(scripts), _before_after(scripts.values()))  # fmt: skip
    whole = [pooled.pair(each, "characters_per_token") for each in texts.values()]
    page.bars("By text", "Texts gain by the Chinese in them; those without any stay as they were.",
              [short[name] for name in texts], _before_after(whole))  # fmt: skip
    page.table(
        ["text", "documents", "bytes", "characters per token, before", "after", "tokens per byte, before", "after",
         "single-byte tokens, before", "after"],
        [[short[name], each.get("documents"), each.get("bytes"), *pooled.pair(each, "characters_per_token"),
          *pooled.pair(each, "tokens_per_byte"), *pooled.single_bytes([each])] for name, each in texts.items()],
        "Single-byte tokens are bytes of characters that are no piece; a model learns little from them.",
    )  # fmt: skip
    page.table(
        ["text", *scripts],
        [[short[name], *(_change(pooled.characters_per_token([each], script)) for script in scripts)]
         for name, each in texts.items()],
        "Characters per token by text and script, with an arrow where it changed.",
    )  # fmt: skip
    _histogram(page, report["texts"])


def _histogram(page: Page, texts: pooled.Texts) -> None:
    names = pooled.chinese_texts(texts)
    sides = pooled.histogram(texts[name] for name in names)
    if not sides:
        return
    where = _listed(map(pooled.short_names(texts).__getitem__, names))
    step = next((found["step"] for name in names if (found := texts[name].get("documents_by_characters_per_token"))), STEP)
    page.histogram(
        "Documents by characters per token",
        f"Documents of {where}. The hill should move to the right as a whole; what stays at the left is text that the new "
        "pieces do not help.",
        step, [Series(side, documents) for side, documents in sides.items()],
        x="characters per token", y="documents", open_end=True,
    )  # fmt: skip


def _pieces(page: Page, report: Report) -> None:
    pieces = report["pieces"]
    page.heading("Added pieces")
    if origins := pieces.get("by_origin"):
        rows = [[name, count, ORIGINS.get(name, "")] for name, count in origins.items()]
        page.table(["origin", "pieces", "what it means"], rows)
    _lengths(page, pieces.get("by_length") or {})
    if (unused := pieces.get("never_used")) is not None:
        page.paragraph(f"{unused:,} added pieces, bridges aside, occur in none of the texts measured here.")
    for name, caption in (
        ("most_useful", "The most useful pieces: those that save most tokens in all texts measured."),
        ("least_used", "The least used pieces: those that occur most rarely in all texts measured, bridges aside."),
    ):
        if listed := pieces.get(name):
            page.table(["piece", "id", "origin", "occurrences", "tokens before", "tokens saved"],
                       [[_piece(row["piece"]), str(row["id"]), row["origin"], row["used"], row["tokens_before"],
                         row["tokens_saved"]] for row in listed], caption)  # fmt: skip


def _lengths(page: Page, by_length: Mapping[str, int]) -> None:
    lengths: Counter[int] = Counter()
    for length, count in by_length.items():
        lengths[min(int(length), LENGTHS)] += count
    if lengths:
        labels = [f"{length}+" if length == LENGTHS else str(length) for length in sorted(lengths)]
        page.bars("By length", "How many characters the added pieces have; most Chinese words have two.", labels,
                  [Series("pieces", [lengths[length] for length in sorted(lengths)])], standing=True,
                  x="characters", y="pieces")  # fmt: skip


def _refused(page: Page, report: Report) -> None:
    refused = report["refused"]
    page.heading("Refused pieces")
    page.paragraph(f"{sum(map(len, refused.values())):,} offered pieces were left out, for these reasons.")
    rows = [[reason, len(pieces), [_piece(piece) for piece in pieces[:EXAMPLES]]] for reason, pieces in refused.items()]
    page.table(["reason", "pieces", f"the first {EXAMPLES}"], rows)


def _growth(page: Page, report: Report) -> None:
    growth = report["growth"]
    page.heading("The grown model, before any training")
    for doubt in growth.get("doubts") or []:
        page.paragraph(f"Warning: {doubt}")
    before, after, bound = (growth.get(f"english_{name}") for name in ("before", "after", "bound"))
    if None not in (before, after, bound):
        page.paragraph(f"English text costs {after:.4f} bits per byte under the grown model and {before:.4f} under its "
                       f"base, a difference of {after - before:+.4f}; {bound:g} is allowed.")  # fmt: skip
    if growth.get("parameters_added") is not None:
        tables = "embedding and head" if growth.get("head_old") else "the embedding, which is the head too,"
        first, last = (number(growth.get(f"rows_{side}")) for side in ("before", "after"))
        more = large(growth["parameters_added"])
        page.paragraph(f"The {first} rows of {tables} became {last}: {more} parameters more.")
    costs = _chinese_costs(growth)
    if any(value is not None for value in costs.values()):
        page.bars("Chinese text, bits per byte", "By the method that new rows begin with; less is better, if English holds, "
                  "which is proved for what was written only. The base reads "
                  "the same text in its own, smaller tokens and may be ahead until the new rows are trained.", list(costs),
                  [Series("bits per byte", list(costs.values()))])  # fmt: skip
    if rows := [[what, *map(growth[name].get, ("mean", "least", "greatest"))]
                for name, what in NORMS.items() if growth.get(name)]:  # fmt: skip
        page.table(["length of", "mean", "least", "greatest"], rows, "New rows that are means of several are shorter than "
                   "those; a head's row that is much longer than the old ones may draw probability.")


def _chinese_costs(growth: Report) -> dict[str, float | None]:
    method, head = growth.get("method"), growth.get("head_method")
    costs = {"the base": growth.get("chinese_before")}
    if head != method:
        costs[f"{method}, in the head {head} (written)"] = growth.get("chinese_after")
    for name, value in (growth.get("chinese_methods") or {}).items():
        costs[f"{name} (written)" if head == method == name else name] = value
    return costs


def _cost(page: Page, report: Report) -> None:
    cost = report["cost"]
    rows, parameters, saved = cost.get("rows_added"), cost.get("parameters_added"), cost.get("tokens_saved_share")
    page.heading("Cost against gain")
    if rows is not None:
        beside = "" if parameters is None else f", {large(parameters)} parameters"
        page.paragraph(f"Cost: {rows:,} rows more{beside}.")
    if saved is not None:
        text = pooled.short_names(report.get("texts") or {}).get(cost.get("text"), cost.get("text"))
        page.paragraph(f"Gain: {_fewer(saved)} for the same text{f' ({text})' if text else ''}.")
    _work(page, cost)
    _budgets(page, cost)


def _work(page: Page, cost: Report) -> None:
    before, after = pooled.pair(cost, "flops_per_token")
    saved, ratio = cost.get("tokens_saved_share"), cost.get("flops_ratio")
    if not (before and after):
        return
    bars = {"tokens of a text": None if saved is None else 1 - saved, "work for a token": after / before,
            "work for the text": ratio}  # fmt: skip
    page.bars("The work of training, with before as 1", "A token costs more, as there are more rows to choose from, but a "
              "text takes fewer tokens. The last pair is the outcome.", list(bars),
              _before_after((1.0, value) for value in bars.values()))  # fmt: skip
    page.paragraph(f"A token takes {large(after)} floating-point operations, {large(before)} before.")


def _budgets(page: Page, cost: Report) -> None:
    seen = cost.get("seen_times")
    if not seen:
        return
    page.points([_when(part.capitalize(), seen, cost.get(f"budget_{part.replace(' ', '_')}"))
                 for part in ("half", "nine tenths")])  # fmt: skip
    page.note(f"Assumed: a new row pays once its piece has been seen {seen:,} times, which is a round number and no "
              "measurement, and pieces will be as frequent as in this text. With a training budget below the first number "
              "most new rows stay half learned; a smaller vocabulary is then the better choice.")  # fmt: skip


def _when(part: str, seen: int, budget: float | None) -> str:
    if budget is None:
        return f"{part} of the added pieces are seen {seen:,} times: cannot be told, too few of them occur in this text."
    return f"{part} of the added pieces are seen {seen:,} times within {large(budget)} tokens of such text."


def _proof(page: Page, report: Report) -> None:
    proof = report["proof"]
    page.heading("The proof")
    page.paragraph("Compared were the pieces of the base, id by id, and each document as both tokenizers cut it. Text "
                   "without Chinese gives the same ids, text with Chinese comes back as it was, and each added piece is "
                   "what its own text gives; otherwise nothing would have been written.")  # fmt: skip
    for note in proof.get("notes") or ():
        page.note(f"{note[:1].upper()}{note[1:]}.")
    if compared := proof.get("compared"):
        short = pooled.short_names(compared)
        page.table(["text", "documents compared", "differences"],
                   [[short[name], n, 0] for name, n in pooled.own_first(compared).items()])  # fmt: skip


def _inputs(page: Page, report: Report) -> None:
    page.heading("Inputs and files")
    base, merged = report.get("base"), report.get("merged")
    sources: list[Report] = [*([{"as": "base", **base}] if base else []), *report["inputs"]]
    page.table(["as", "path", "bytes", "SHA-256 begins"],
               [[each.get("as", ""), each.get("path", ""), each.get("bytes"), _hash(each)] for each in sources])  # fmt: skip
    if merged:
        files = [[name, state] for name, state in (merged.get("files") or {}).items()]
        page.table(["file", "state"], files, f"The extended tokenizer; its SHA-256 begins {_hash(merged)}.")


SECTIONS: dict[str, Callable[[Page, Report], None]] = {
    "texts": _texts, "pieces": _pieces, "refused": _refused, "growth": _growth, "cost": _cost, "proof": _proof,
    "inputs": _inputs,
}  # fmt: skip
"""By the key that a section needs, in the order of the page."""


def _name_of(base: Report | None) -> str:
    """A tokenizer's file, with its folder."""
    return "/".join(Path(base.get("path", "")).parts[-2:]) if base else "a vocabulary"


def _hash(file: Report) -> Code:
    return Code(str(file.get("sha256") or "")[:12])


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _fewer(saved: float) -> str:
    return f"{number(Share(abs(saved)))} {'more' if saved < 0 else 'fewer'} tokens"


def _before_after(pairs: Iterable[Pair]) -> list[Series]:
    sides = list(pairs)
    return [Series(name, [each[side] for each in sides]) for side, name in enumerate(("before", "after"))]


def _change(sides: Pair) -> str:
    before, after = (number(value, 3) for value in sides)
    return before if before == after else f"{before} → {after}"


def _piece(text: str) -> Code:
    """A piece with its spaces to be seen, not too long."""
    seen = "".join("␣" if each.isspace() else each for each in text)
    return Code(seen if len(seen) <= LONGEST_PIECE else f"{seen[:LONGEST_PIECE]}… ({len(seen):,} characters)")
