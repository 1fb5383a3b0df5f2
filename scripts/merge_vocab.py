"""Extend a tokenizer with Chinese pieces, prove the result, and grow a model to it.

    python scripts/merge_vocab.py --base llama.model --pieces chinese.model --fill zh.txt --size 49952 --output merged
    python scripts/merge_vocab.py --base models/llama-7b --corpus zh.jsonl --size 52032 --multiple_of 64 \
        --model models/llama-7b --output models/llama-7b-zh

What is written has been proved: text without Chinese gives the ids it gave, every added piece can be reached, every text
comes back, and a grown model is the base model on English. Otherwise nothing is written.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from tp_ext.errors import TokenizerError, raise_all, run_command
from tp_ext.extend.transaction import Settings, extend_vocabulary
from tp_ext.progress import Progress
from tp_ext.tokens.learn import LEARNERS

CHARACTERS = Path(__file__).resolve().parents[1] / "vocab" / "common_characters" / "characters.txt"
PRESETS: dict[str, dict[str, Any]] = {
    # as Chinese-LLaMA did, 20,000 pieces learned from Chinese text; as Linly did, nothing but common characters
    "chinese-llama": {"learn": 20000},
    "linly": {"chars": (CHARACTERS,), "method": "mean_of_pieces"},
}
FILES: dict[str, Any] = {"nargs": "+", "action": "extend", "type": Path}
"""What options that name files have in common; given twice, they name all."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", type=Path, required=True, help="tokenizer to extend: a sentencepiece model, a byte-level tokenizer.json, "
        "or the model folder it is in")  # fmt: skip
    add("--output", type=Path, required=True, help="folder to write: tokenizer, report, and the grown model with --model")
    add("--preset", choices=PRESETS, help="chinese-llama: learn 20,000 pieces from --corpus; linly: common characters only")
    what = parser.add_argument_group("what is added (any of these together)").add_argument
    what("--pieces", **FILES, help="sentencepiece models, or .vocab lists, whose Chinese pieces are offered")
    what("--pieces_type", choices=LEARNERS, help="refuse --pieces of the other type")
    what("--chars", **FILES, help="text files, every character of which is offered")
    what("--words", **FILES, help="word lists, a word a line, the most useful first")
    what("--corpus", **FILES, help="Chinese text to learn pieces from: .txt or .jsonl, plain, .gz or .zst")
    what("--learn", type=int, help="pieces to learn from the corpus; by default as --size has room for, or 20000")
    what("--learn_type", choices=LEARNERS, help="how they are learned (bpe)")
    what("--jieba", type=int, metavar="N", help="offer the N most frequent words of the corpus as jieba cuts them")
    what("--fill", **FILES, help="text from which places left in --size are filled (default: the corpus)")
    what("--size", type=int, help="pieces of the result in all, with <pad> and reserved ones")
    rules = parser.add_argument_group("rules").add_argument
    rules("--min_count", type=int, help="least occurrences of what is learned from text (5)")
    rules("--character_coverage", type=float, help="share of a corpus that the characters learned from it cover (0.9995)")
    rules("--sample_bytes", type=int, help="text of a corpus that is held in memory, drawn at random (67108864)")
    rules("--seed", type=int, help="of that draw, and of methods that draw rows (0)")
    rules("--mixed", action="store_true", default=None, help="also pieces that join characters with Chinese punctuation")
    rules("--no_pad", dest="pad", action="store_false", default=None, help="add no <pad>")
    rules("--multiple_of", type=int, help="round the size up with reserved pieces: 64 times the tensor-parallel degree")
    proof = parser.add_argument_group("proof, and other files").add_argument
    proof("--check", **FILES, help="more text on which the tokenizers are compared and measured")
    proof("--gguf", action="store_true", default=None, help="also write vocabulary.gguf for llama.cpp")
    model = parser.add_argument_group("the model").add_argument
    model("--model", type=Path, help="model to grow with the tokenizer; written in its own format")
    model("--config_path", type=Path, help="its JSON, for a .bin that has no config.json beside it")
    model("--method", help="how new rows are made: mean_of_pieces, or one of those in docs/vocab.md")
    model("--head_method", help="the same for the head (as --method)")
    model("--pad_rows_to", type=int, help="fill the rows up to a multiple of this with rows that stand for no piece")
    model("--english", **FILES, help="held-out text on which the grown model must equal its base")
    model("--chinese", **FILES, help="held-out text on which the methods are compared")
    model("--proof_tokens", type=int, help="tokens of each that are used (2048, or 256 above 1B parameters)")
    return parser


def _check_used(given: dict[str, Any]) -> None:
    """Raise TokenizerError on an option that nothing would use."""
    others = {"pieces", "chars", "words", "jieba"} & given.keys()
    learns = "corpus" in given and ("learn" in given or not others)
    reads = bool({"corpus", "fill"} & given.keys())
    used = {"pieces_type": "pieces" in given, "learn_type": learns, "character_coverage": learns, "min_count": reads,
            "sample_bytes": reads, "seed": reads or "model" in given}  # fmt: skip
    needs = {"pieces_type": "--pieces", "learn_type": "a --corpus that pieces are learned from (--learn)",
             "character_coverage": "a --corpus that pieces are learned from (--learn)"}  # fmt: skip
    unused = [name for name, is_used in used.items() if name in given and not is_used]
    raise_all(TokenizerError, [f"--{name} needs {needs.get(name, 'a --corpus, or a --fill')}" for name in unused])


def _taken(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values that are settings of this kind."""
    return {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}


def main() -> None:
    """Parse the command line, extend, print what was written."""
    say = partial(print, flush=True)
    args = arguments().parse_args()
    given = {name: value for name, value in vars(args).items() if value is not None}
    preset = PRESETS.get(given.pop("preset", ""), {})
    if "learn" in preset and "corpus" not in given:
        raise TokenizerError("--preset chinese-llama learns pieces from text; name some with --corpus")
    _check_used({**preset, **given})
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    both = {name: mine + values[name] for name, mine in preset.items() if name in values and isinstance(mine, tuple)}
    values = {**preset, **values, **both}
    settings = Settings(**_taken(Settings, values))
    if "model" not in values:
        if of_model := [name for name in given if name not in {field.name for field in dataclasses.fields(Settings)}]:
            raise TokenizerError(f"--{of_model[0]} is about a model; name one with --model")
        made = extend_vocabulary(settings, say)
    else:
        from tp_ext.extend.weights import GrowthSettings, ModelSettings, extend_model

        growth = GrowthSettings(**_taken(GrowthSettings, values))
        with Progress("grow", " tensors") as progress:
            made = extend_model(settings, ModelSettings(**_taken(ModelSettings, values), growth=growth), say, progress)
    report = made.report
    for name, what in report["merged"]["files"].items():
        if what != "written":
            print(f"{name}: {what}")
    print(f"wrote {args.output}: {report['merged']['pieces']:,} pieces, {report['base']['pieces']:,} of them the base's; "
          f"proved on {sum(report['proof']['compared'].values()):,} documents; see vocab_report.html")  # fmt: skip


if __name__ == "__main__":
    run_command(main)
