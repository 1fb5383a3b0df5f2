"""What different ways of extending a vocabulary give, on real tokenizers and text.

    python benchmarks/vocabulary.py --data DATA

DATA has tokenizers/llama.model, tokenizers/chinese_sp_ymcui.model, tokenizers/chinese_llama2_merged.model and
text/{zh_train,zh_test,en,code}.txt. Every way runs in its own process on one core. Printed for each: pieces added,
seconds and peak memory of the merge with its proof, Han characters per token on zh_test, added pieces that no text can
give, lines of English and of code, without Chinese, that are cut differently from the base, and Chinese lines that
`tokenizers` cuts differently from sentencepiece. "usual recipe" appends the source's pieces with score 0, as the scripts
in circulation do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS = {
    "LLaMA alone": None,
    "usual recipe": None,
    "Chinese-LLaMA-2 as released": None,
    "merge, no corpus": "--pieces {data}/tokenizers/chinese_sp_ymcui.model",
    "merge, filled": "--pieces {data}/tokenizers/chinese_sp_ymcui.model --fill {data}/text/zh_train.txt --size 49952",
    "corpus alone, continued BPE": "--fill {data}/text/zh_train.txt --size 49952",
    "jieba, 15,000 words": "--corpus {data}/text/zh_train.txt --jieba 15000",
    "--preset chinese-llama": "--preset chinese-llama --corpus {data}/text/zh_train.txt",
    "--preset linly": "--preset linly",
}


def make(way: str, data: Path, folder: Path) -> tuple[Path, float | None, float | None]:
    """The tokenizer of a way, with the seconds and the gigabytes it took."""
    if way == "Chinese-LLaMA-2 as released":
        return data / "tokenizers" / "chinese_llama2_merged.model", None, None
    if WAYS[way] is None:
        return folder / f"{way}.model", None, None
    output = folder / way.replace(" ", "_")
    words = [word.format(data=data) for word in WAYS[way].split()]
    line = ["taskset", "-c", "0", sys.executable, ROOT / "scripts" / "merge_vocab.py", "--base",
            data / "tokenizers" / "llama.model", *words, "--output", output]  # fmt: skip
    start = time.monotonic()
    child = subprocess.Popen([str(word) for word in line], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, way
    return output / "tokenizer.model", time.monotonic() - start, used.ru_maxrss / 1e6


def write_usual(data: Path, folder: Path) -> None:
    """The base as it is, and with the source's pieces behind it, score 0."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto.FromString((data / "tokenizers" / "llama.model").read_bytes())
    (folder / "LLaMA alone.model").write_bytes(model.SerializeToString())
    known = {piece.piece for piece in model.pieces}
    for piece in ModelProto.FromString((data / "tokenizers" / "chinese_sp_ymcui.model").read_bytes()).pieces:
        if piece.piece not in known:
            model.pieces.add(piece=piece.piece, score=0.0)
    (folder / "usual recipe.model").write_bytes(model.SerializeToString())


def measure(path: Path, data: Path) -> dict[str, float | int | None]:
    """The figures of a tokenizer."""
    import tokenizers

    from tp_ext.tokens.characters import count_han, han_runs, has_chinese
    from tp_ext.tokens.fast import FAST, fast_files
    from tp_ext.tokens.tokenizer import open_tokenizer

    base, found = open_tokenizer(data / "tokenizers" / "llama.model"), open_tokenizer(path)
    lines = {name: (data / "text" / f"{name}.txt").read_text().split("\n") for name in ("zh_test", "en", "code")}
    added = [index for index in range(base.vocab_size, found.vocab_size) if index not in found.special_ids]
    lost = sum(ids != [index] for index, ids in zip(added, found.encode_inside([found.text(i) for i in added]), strict=True))
    runs = [run for line in lines["zh_test"] for run in han_runs(line)]
    changed = {}
    for name in ("en", "code"):
        others = [line for line in lines[name] if not has_chinese(line)]
        pairs = zip(base.encode_batch(others), found.encode_batch(others), strict=True)
        changed[name] = sum(one != other for one, other in pairs) / len(others)
    fast = tokenizers.Tokenizer.from_str(fast_files(found)[FAST])  # also where write_fast refuses
    fast.encode_special_tokens = True
    ids = [each.ids for each in fast.encode_batch(lines["zh_test"], add_special_tokens=False)]
    ties = sum(one != other for one, other in zip(ids, found.encode_batch(lines["zh_test"]), strict=True))
    return {
        "added": len(added), "han": sum(map(count_han, runs)) / sum(map(len, found.encode_inside(runs))), "lost": lost,
        **changed, "ties": ties / len(lines["zh_test"]),
    }  # fmt: skip


def main() -> None:
    """Run every way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.data)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_usual(args.data, folder)
        columns = ["", "added", "s", "GB", "Han characters per token", "pieces no text gives", "English lines changed",
                   "code lines changed", "Chinese lines that tokenizers cuts otherwise"]  # fmt: skip
        print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
        for way in WAYS:
            path, seconds, memory = make(way, args.data, folder)
            line = [sys.executable, __file__, "--data", str(args.data), "--measure", str(path)]
            found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
            cost = f"{seconds:.1f} | {memory:.2f}" if seconds and memory else " | "
            print(f"| {way} | {found['added']:,} | {cost} | {found['han']:.3f} | {found['lost']:,} | {found['en']:.1%} | "
                  f"{found['code']:.1%} | {found['ties']:.1%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
