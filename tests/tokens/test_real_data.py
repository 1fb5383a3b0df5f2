"""The figures of docs/vocab.md, on real tokenizers and text; runs where TP_EXT_REAL_DATA names their folder."""

import os
from pathlib import Path

import pytest
from test_flat import check, random_texts

from tp_ext.extend.transaction import Settings, extend_vocabulary
from tp_ext.tokens.flat import FlatEncoder
from tp_ext.tokens.tokenizer import open_tokenizer

FOLDER = Path(os.environ.get("TP_EXT_REAL_DATA", "absent"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="TP_EXT_REAL_DATA names no folder of tokenizers and texts")

TEXTS = tuple(FOLDER / "text" / f"{name}.txt" for name in ("zh_test", "en", "code", "multi", "ja"))
SOURCE = (FOLDER / "tokenizers" / "chinese_sp_ymcui.model",)
TRAIN = (FOLDER / "text" / "zh_train.txt",)


def extend(output, base, **changes):
    settings = Settings(base=FOLDER / "tokenizers" / base, output=output, **{"pieces": SOURCE, "check": TEXTS, **changes})
    return extend_vocabulary(settings)


def han(made):
    return made.figures[str(TEXTS[0])].scripts["Han"].to_json()["characters_per_token_after"]


@pytest.mark.parametrize(("base", "changes", "most", "least"), [
    ("llama.model", {}, 17_300, 1.515), ("llama.model", {"fill": TRAIN, "size": 49_952}, 17_952, 1.57),
    ("mistral_v1.model", {"fill": TRAIN, "size": 49_984, "multiple_of": 64}, 17_984, 1.59),
    ("mistral_v3.model", {}, 16_600, 1.515), ("chinese_llama2_merged.model", {"pad": False}, 3_000, 1.5),
    ("cluecorpussmall_spm.model", {}, 20_000, 1.6),
    ("gptneox_tokenizer.json", {"fill": TRAIN, "size": 68_352, "multiple_of": 64}, 18_200, 1.54),
])  # fmt: skip
def test_every_property_holds_and_the_figure_is_reached(tmp_path, base, changes, most, least):
    made = extend(tmp_path / "merged", base, **changes)  # raises unless every line of every text is proved
    assert made.tokenizer.vocab_size - made.base.vocab_size <= most
    assert han(made) >= least
    if "size" in changes:
        assert made.tokenizer.vocab_size == changes["size"]
    for text in TEXTS[1:4]:
        figures = made.figures[str(text)]
        assert figures.whole.after <= figures.whole.before


def test_fast_tokenizers_agree_with_sentencepiece_on_every_line(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = extend(tmp_path / "merged", "llama.model", fill=TRAIN, size=49_952)
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "merged" / "tokenizer.json"))
    fast.encode_special_tokens = True
    for text in TEXTS:
        lines = text.read_text(encoding="utf-8").split("\n")
        found = [each.ids for each in fast.encode_batch(lines, add_special_tokens=False)]
        assert found == made.tokenizer.encode_batch(lines)


def test_llama_cpp_agrees_with_sentencepiece(tmp_path):
    pytest.importorskip("xllamacpp")
    from test_fast import ids_of_llama_cpp, write_model

    made = extend(tmp_path / "merged", "llama.model", fill=TRAIN, size=49_952)
    write_model(made.tokenizer, tmp_path / "model.gguf")
    lines = [line for text in TEXTS for line in text.read_text(encoding="utf-8").split("\n")[::5]]
    assert ids_of_llama_cpp(tmp_path / "model.gguf", lines) == made.tokenizer.encode_batch(lines)


@pytest.mark.parametrize("file", [*sorted(path.name for path in (FOLDER / "tokenizers").glob("*.model")), "merged"])
def test_flat_encoding_gives_the_ids_of_sentencepiece_for_every_line(tmp_path, file):
    if file == "merged":
        tokenizer = extend(tmp_path / "merged", "llama.model", fill=TRAIN, size=49_952, check=()).tokenizer
    else:
        tokenizer = open_tokenizer(FOLDER / "tokenizers" / file)
    encoder = FlatEncoder(tokenizer, (1, 2))
    assert encoder.cuts_text == tokenizer.is_bpe
    check(encoder, tokenizer, random_texts(20_000, 2), (1, 2))
    for path in (*TEXTS, *TRAIN):
        lines = path.read_text(encoding="utf-8").split("\n")
        for first in range(0, len(lines), 5000):
            check(encoder, tokenizer, lines[first : first + 5000], (1, 2))
        check(encoder, tokenizer, ["\n".join(lines[first : first + 50]) for first in range(0, len(lines), 50)], (1, 2))
