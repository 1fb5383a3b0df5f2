"""Cleaning: MB of text per CPU-second of each step, beside datatrove with FineWeb-2's Chinese settings, and recall.

    python benchmarks/cleaning.py --lines web.txt --long .cache/sample_text/zh.jsonl

`--lines` is a document a line, `--long` has documents of about 2,000 characters. A line of the table is a process of its
own, on one core.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tp_ext.corpus.readers import texts

MB = 1e6
PEER = "FineWeb-2's rules in datatrove"
FINEWEB = {
    "repetition": {"dup_n_grams": ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127)),
                   "dup_line_frac": 0.287, "top_n_grams": ((2, 0.256), (3, 0.201), (4, 0.171)), "dup_para_frac": 0,
                   "dup_line_char_frac": 0, "dup_para_char_frac": 0},
    "quality": {"line_punct_thr": 0.106, "new_line_ratio": 0.178, "short_line_thr": 999, "char_duplicates_ratio": 0.1},
    "gopher": {"max_avg_word_length": 5, "min_avg_word_length": 1, "max_non_alpha_words_ratio": 0.735,
               "min_stop_words": 2, "stop_words": list("的年在月是和日了於·為有被人中为他與後也而由")},
}  # fmt: skip
"""configs/cmn_Hani.yml of huggingface/fineweb-2; the settings that are not in it as in its pipeline."""


def size_of(documents: Sequence[str]) -> float:
    """MB of UTF-8."""
    return sum(len(text.encode()) for text in documents) / MB


def rules(documents: Sequence[str], folder: Path) -> dict[str, Any]:
    """All rules."""
    from tp_ext.clean.cleaner import Cleaner
    from tp_ext.clean.settings import CleanSettings

    cleaner = Cleaner(CleanSettings())
    cleaner.many(documents[:10])
    start = time.process_time()
    kept = sum(found.text is not None for place in range(0, len(documents), 500)
               for found in cleaner.many(documents[place : place + 500]))  # fmt: skip
    return {"seconds": time.process_time() - start, "kept": kept}


def fineweb(documents: Sequence[str], folder: Path) -> dict[str, Any]:
    """FineWeb-2's rules in datatrove."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    language = "cmn_Hani"
    filters = [GopherRepetitionFilter(language=language, **FINEWEB["repetition"]),
               FineWebQualityFilter(language=language, **FINEWEB["quality"]),
               GopherQualityFilter(language=language, **FINEWEB["gopher"])]  # fmt: skip

    def passes(text: str) -> bool:
        document = Document(text=text, id="")
        return all((verdict is True) for verdict in (each.filter(document) for each in filters))

    passes(documents[0])  # loads the dictionary of jieba
    start = time.process_time()
    kept = sum(map(passes, documents))
    return {"seconds": time.process_time() - start, "kept": kept}


def minhash(documents: Sequence[str], folder: Path) -> dict[str, Any]:
    """Signatures, bands on disk, clusters."""
    from tp_ext.clean.fuzzy import near_copies
    from tp_ext.clean.minhash import SLOTS, signatures
    from tp_ext.clean.rows import Rows

    signatures(documents[:1])
    start = time.process_time()
    with open(folder / "signatures", "wb") as file:
        for place in range(0, len(documents), 500):
            file.write(signatures(documents[place : place + 500]).tobytes())
    later, _ = near_copies(Rows([folder / "signatures"], "<u2", SLOTS), 0.7, folder / "work")
    return {"seconds": time.process_time() - start, "kept": len(documents) - len(later)}


def substrings(documents: Sequence[str], folder: Path) -> dict[str, Any]:
    """Stretches of 64 characters."""
    from tp_ext.clean.substrings import repeated

    start = time.process_time()
    marks = sum(map(len, repeated([], documents, 64, sum(map(len, documents)), folder)))
    return {"seconds": time.process_time() - start, "kept": len(documents), "marks": marks}


def whole(documents: Sequence[str], folder: Path) -> dict[str, Any]:
    """The whole command, from a .jsonl to the folder."""
    from tp_ext.clean.pipeline import clean
    from tp_ext.clean.settings import read_settings

    recipe = Path(__file__).resolve().parents[1] / "recipes" / "clean_zh.json"
    with open(folder / "in.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    start = time.process_time()
    counts = clean([folder / "in.jsonl"], read_settings(recipe), folder / "out")["all"]
    return {"seconds": time.process_time() - start, "kept": counts["kept"]}


def array(documents: Sequence[str], folder: Path) -> dict[str, Any]:
    """A JSON array as WuDao's, read to strings."""
    from tp_ext.corpus.blocks import read
    from tp_ext.corpus.files import Form, look_at

    with open(folder / "in.json", "w", encoding="utf-8") as file:
        json.dump([{"id": 1, "content": text} for text in documents], file, ensure_ascii=False, indent=4)
    del documents[:]  # type: ignore[attr-defined]
    start = time.process_time()
    kept = sum(len(block.texts()) for block in read(look_at(folder / "in.json", Form(text_key="content"))))
    return {"seconds": time.process_time() - start, "kept": kept}


STEPS: dict[str, Callable[[Sequence[str], Path], dict[str, Any]]] = {
    "rules": rules, PEER: fineweb, "MinHash": minhash, "stretches": substrings,
    "the whole command": whole, "JSON array": array,
}  # fmt: skip


def measure(step: str, path: Path, most: int) -> dict[str, Any]:
    """One line of the table."""
    documents = list(texts([path], most))
    size, count = size_of(documents), len(documents)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        found = STEPS[step](documents, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rate": size / found["seconds"], "kept": found["kept"] / count, "peak": peak / 1024,
            "more": (peak - before) / 1024}  # fmt: skip


def recall(documents: Sequence[str], count: int = 3000) -> Iterator[str]:
    """How many copies of a known similarity are found, and how many others."""
    from tp_ext.clean.fuzzy import near_copies
    from tp_ext.clean.minhash import SLOTS, signatures
    from tp_ext.clean.rows import Rows

    draw = random.Random(0)
    base = [text for text in documents if len(text) > 150][:count]
    changed = [_changed(text, draw) for text in base]
    similar = [_jaccard(*pair) for pair in zip(base, changed, strict=True)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "s").write_bytes(signatures([*base, *changed]).tobytes())
        later, first = near_copies(Rows([folder / "s"], "<u2", SLOTS), 0.7, folder / "work")
    found = {int(place) - len(base): int(lead) for place, lead in zip(later, first, strict=True) if place >= len(base)}
    for low, high in ((0.8, 1.01), (0.8, 0.85), (0.5, 0.7), (0.0, 0.5)):
        among = [place for place, each in enumerate(similar) if low <= each < high]
        hits = sum(place in found for place in among)
        yield f"similarity {low:.2f} to {min(high, 1):.2f}: {hits} of {len(among)} copies found"


def _changed(text: str, draw: random.Random) -> str:
    characters = list(text)
    for _ in range(draw.randint(0, max(1, len(text) // 12))):
        characters[draw.randrange(len(characters))] = chr(draw.randrange(0x4E00, 0x9000))
    return "".join(characters)


def _jaccard(first: str, second: str) -> float:
    sets = [{word[place : place + 5] for place in range(len(word) - 4)}
            for word in ("".join(filter(str.isalnum, text)).lower() for text in (first, second))]  # fmt: skip
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def main() -> None:
    """Measure each step on each text and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--long", type=Path, required=True)
    parser.add_argument("--bytes", type=int, default=12_000_000, help="of each text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        step, path = args.one
        print(json.dumps(measure(step, Path(path), args.bytes // (10 if step == PEER else 1))))
        return
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    print(f"{'':32} {'text':6} {'MB/CPU-s':>9} {'kept':>7} {'peak MB':>8} {'more MB':>8}")
    steps = [step for step in STEPS if step != PEER or find_spec("datatrove")]
    for step in steps:
        for name in ("lines", "long"):
            command = [sys.executable, __file__, "--lines", args.lines, "--long", args.long, "--bytes", str(args.bytes)]
            command += ["--one", step, str(getattr(args, name))]
            rounds = []
            for _ in range(args.rounds):
                done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=True)
                rounds.append(json.loads(done.stdout.splitlines()[-1]))
            middle = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
            shown = f"{middle['rate']:9.2f} {middle['kept']:7.1%} {middle['peak']:8.0f} {middle['more']:8.0f}"
            print(f"{step:32} {name:6} {shown}", flush=True)
    print("\n".join(recall(list(texts([args.lines], args.bytes)))))


if __name__ == "__main__":
    main()
