import json
import os

import pytest
from conftest import LLAMA, command, make_texts
from test_weights import folder_of

from tp_ext.checkpoint.convert import convert
from tp_ext.errors import UserError
from tp_ext.extend.transaction import Settings, extend_vocabulary
from tp_ext.infer import load
from tp_ext.models import families
from tp_ext.output import MANIFEST, sha256_of
from tp_ext.tokens import candidates, learn
from tp_ext.tokens.characters import is_han
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.tokens.train import train_tokenizer

ENGLISH = [text for text in make_texts(600, 1) if text.isascii()]
CHINESE = [text for text in make_texts(600, 2) if not text.isascii()]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base tokenizer without Chinese, one with, a corpus, lists, a held-out text."""
    folder = tmp_path_factory.mktemp("inputs")
    train_tokenizer(ENGLISH, 420, folder / "base.model")
    train_tokenizer(CHINESE, 450, folder / "zh.model")
    (folder / "zh.txt").write_text("\n".join(CHINESE), encoding="utf-8")
    (folder / "check.txt").write_text("\n".join(make_texts(40, 9)), encoding="utf-8")
    (folder / "chars.txt").write_text("行政机关人民法院，。\n", encoding="utf-8")
    (folder / "words.txt").write_text("行政机关\n人民法院\n", encoding="utf-8")
    return folder


def settings(inputs, output, **changes):
    return Settings(base=inputs / "base.model", output=output, check=(inputs / "check.txt",), **changes)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"pieces": "zh.model"}, {"offered"}),
    ({"corpus": "zh.txt", "learn": 200}, {"offered"}),
    ({"corpus": "zh.txt", "learn": 150, "learn_type": "unigram"}, {"offered", "bridge"}),
    ({"corpus": "zh.txt", "jieba": 30}, {"offered", "character"}),
    ({"chars": "chars.txt"}, {"offered"}),
    ({"words": "words.txt"}, {"offered", "character"}),
    ({"fill": "zh.txt", "size": 600}, {"filled"}),
    ({"chars": "chars.txt", "words": "words.txt", "corpus": "zh.txt", "size": 640, "multiple_of": 64}, {"filled"}),
])  # fmt: skip
def test_every_source_gives_a_proved_vocabulary(inputs, tmp_path, changes, expected):
    files = {name: (inputs / value,) for name, value in changes.items() if isinstance(value, str) and "." in value}
    made = extend_vocabulary(settings(inputs, tmp_path / "out", **{**changes, **files}))
    origins = set(made.report["pieces"]["by_origin"])
    assert expected <= origins
    figures = made.report["texts"][str(inputs / "check.txt")]
    assert figures["tokens_after"] < figures["tokens_before"]
    assert made.report["proof"]["compared"][str(inputs / "check.txt")] == 40
    written = open_tokenizer(tmp_path / "out")
    assert written.sha256 == made.tokenizer.sha256
    if "size" in changes:
        assert written.vocab_size == changes["size"]


def test_the_folder_says_all_there_is_to_know(inputs, tmp_path):
    made = extend_vocabulary(settings(inputs, tmp_path / "out", pieces=(inputs / "zh.model",)))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "vocab_report.json", "vocab_report.html",
                     MANIFEST}  # fmt: skip
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["base"]["sha256"] == sha256_of(inputs / "base.model")
    assert manifest["inputs"][0]["sha256"] == sha256_of(inputs / "zh.model")
    assert set(manifest["files"]) == names - {MANIFEST}
    report = json.loads((tmp_path / "out" / "vocab_report.json").read_text())
    assert report == json.loads(json.dumps(made.report))
    assert "▁" in report["refused"]["without a Chinese character"]
    assert sum(report["pieces"]["by_origin"].values()) == made.tokenizer.vocab_size - made.base.vocab_size
    assert extend_vocabulary(settings(inputs, tmp_path / "again", pieces=(inputs / "zh.model",))).tokenizer.content == \
        made.tokenizer.content  # fmt: skip


def test_usefulness_is_counted_in_tokens_saved(inputs, tmp_path):
    (tmp_path / "check.txt").write_text("行政机关\n" * 7 + "人民法院\n", encoding="utf-8")
    made = extend_vocabulary(Settings(base=inputs / "base.model", output=tmp_path / "out", words=(inputs / "words.txt",),
                                      check=(tmp_path / "check.txt",)))  # fmt: skip
    best = made.report["pieces"]["most_useful"][0]
    assert (best["piece"], best["used"], best["tokens_before"], best["tokens_saved"]) == ("行政机关", 7, 12, 77)
    assert made.report["cost"]["text"] == str(tmp_path / "check.txt")


def test_the_model_grows_in_the_same_command(inputs, tmp_path):
    base = open_tokenizer(inputs / "base.model")
    model = folder_of(tmp_path / "model", base, LLAMA)
    line = ["scripts/merge_vocab.py", "--base", model, "--corpus", inputs / "zh.txt", "--size", 422, "--model", model,
            "--output", tmp_path / "out", "--proof_tokens", 40, "--min_count", 2]  # fmt: skip
    done = command(*line, "--method", "mean", "--pad_rows_to", 64)
    assert done.returncode == 0, done.stderr
    assert "422 pieces, 420 of them the base's" in done.stdout
    grown = load(tmp_path / "out")
    assert grown.tokenizer.vocab_size == 422
    assert (grown.model.config.rows, grown.model.config.vocab_padding) == (448, 26)
    report = json.loads((tmp_path / "out" / "vocab_report.json").read_text())
    assert report["growth"]["method"] == "mean"
    assert set(report["growth"]["chinese_methods"]) == {"mean_of_pieces", "mean", "gaussian", "weighted", "random"}
    assert report["cost"]["parameters_added"] == 2 * 28 * 64
    assert report["cost"]["flops_per_token_after"] > report["cost"]["flops_per_token_before"]
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["kind"] == "tp_ext model 1"
    assert manifest["tokenizer"]["sha256"] == grown.tokenizer.sha256


def test_jieba_and_learning_go_together(inputs, tmp_path):
    both = extend_vocabulary(settings(inputs, tmp_path / "out", corpus=(inputs / "zh.txt",), jieba=30, learn=100))
    alone = extend_vocabulary(settings(inputs, tmp_path / "alone", corpus=(inputs / "zh.txt",), learn=100))
    assert both.tokenizer.vocab_size > alone.tokenizer.vocab_size


def test_an_option_given_twice_names_all_files(inputs, tmp_path):
    line = ["scripts/merge_vocab.py", "--base", inputs / "base.model", "--words", inputs / "words.txt", "--words"]
    (tmp_path / "more.txt").write_text("合同\n", encoding="utf-8")
    assert command(*line, tmp_path / "more.txt", "--output", tmp_path / "out").returncode == 0
    merged = open_tokenizer(tmp_path / "out")
    assert {"行政机关", "合同"} <= {merged.piece(index) for index in range(merged.vocab_size)}


def test_padding_that_the_format_cannot_hold_is_refused_before_any_work(inputs, tmp_path):
    native = folder_of(tmp_path / "native", open_tokenizer(inputs / "base.model"), LLAMA)
    convert(native, tmp_path / "model", "huggingface", families)
    line = ["scripts/merge_vocab.py", "--base", inputs / "base.model", "--words", inputs / "words.txt", "--model",
            tmp_path / "model", "--output", tmp_path / "out", "--pad_rows_to", 64]  # fmt: skip
    done = command(*line)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pad_rows_to: " in done.stderr


@pytest.mark.parametrize("learn_type", ["bpe", "unigram"])
def test_a_learned_list_is_taken_best_first(inputs, tmp_path, learn_type):
    line = ["scripts/learn_pieces.py", "--corpus", inputs / "zh.txt", "--learn", 150, "--learn_type", learn_type]
    assert command(*line, "--output", tmp_path / "list").returncode == 0
    read = candidates.from_model(tmp_path / "list" / "pieces.vocab", learn_type)
    learned = learn.LEARNERS[learn_type](CHINESE, 150, 5, 0.9995)
    assert (read.pieces, read.worth) == (learned.pieces, learned.worth)
    done = command(*line[:4], -5, "--output", tmp_path / "other", "--character_coverage", "nan")
    assert done.returncode == 2
    assert "learn is -5; it must be at least 1\ncharacter_coverage is nan; it must be above 0" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("changes", [{"corpus": "zh.txt", "learn": 200}, {"fill": "zh.txt", "size": 600}])
def test_text_gives_its_punctuation_too(inputs, tmp_path, changes):
    files = {name: (inputs / value,) for name, value in changes.items() if isinstance(value, str)}
    made = extend_vocabulary(settings(inputs, tmp_path / "out", **{**changes, **files}))
    pieces = [made.tokenizer.piece(index) for index in range(420, made.tokenizer.vocab_size)]
    assert {"，", "。"} <= set(pieces)
    assert all(len(piece) == 1 or is_han(piece) for piece in pieces if piece != "<pad>")


def test_what_is_named_most_deliberately_comes_first(inputs, tmp_path):
    made = extend_vocabulary(settings(inputs, tmp_path / "out", pieces=(inputs / "zh.model",), chars=(inputs / "chars.txt",),
                                      words=(inputs / "words.txt",), size=435))  # fmt: skip
    pieces = {made.tokenizer.piece(index) for index in range(made.tokenizer.vocab_size)}
    assert set("行政机关人民法院，。") <= pieces
    assert made.report["refused"]["no room left"]


def test_options_that_nothing_would_use_are_refused(inputs, tmp_path):
    line = ["scripts/merge_vocab.py", "--base", inputs / "base.model", "--output", tmp_path / "out"]
    words = ["--words", inputs / "words.txt"]
    corpus = ["--corpus", inputs / "zh.txt"]
    for more, expected in [
        ([*words, "--learn_type", "bpe"], "--learn_type needs a --corpus that pieces are learned from"),
        ([*words, "--min_count", 3], "--min_count needs a --corpus, or a --fill"),
        ([*words, "--seed", 3], "--seed needs"), ([*words, "--pieces_type", "bpe"], "--pieces_type needs --pieces"),
        ([*corpus, "--jieba", 5, "--character_coverage", 0.9], "--character_coverage needs"),
        (["--preset", "chinese-llama"], "--preset chinese-llama learns pieces from text; name some with --corpus"),
        ([*words, "--check", inputs / "zh.model"], "is none of .txt, .jsonl"),
    ]:  # fmt: skip
        done = command(*line, *more)
        assert (done.returncode, done.stdout) == (2, ""), more
        assert expected in done.stderr
    assert command(*line, *corpus, "--learn", 150, "--learn_type", "unigram", "--seed", 3, "--min_count", 2).returncode == 0


def test_mistakes_are_told_and_leave_nothing(inputs, tmp_path):
    (tmp_path / "noise").write_bytes(b"\x00\x01 no model")
    (tmp_path / "english.txt").write_text("only english\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    usual = {"base": inputs / "base.model", "output": tmp_path / "out", "words": (inputs / "words.txt",)}
    for changes, expected in [
        ({"base": tmp_path / "noise"}, "noise: is not a sentencepiece model"),
        ({"base": tmp_path / "absent"}, "absent: no such tokenizer file"),
        ({"pieces": (tmp_path / "noise",)}, "noise: is not a sentencepiece model"),
        ({"pieces": (inputs / "zh.model",), "pieces_type": "unigram"}, "zh.model: holds bpe pieces, not unigram"),
        ({"words": (inputs / "zh.txt",)}, r"zh.txt: line 1: .* U\+0020 \(SPACE\)"),
        ({"words": (), "corpus": (tmp_path / "english.txt",)}, "the corpus has no Chinese text"),
        ({"words": (), "corpus": (tmp_path / "empty.txt",)}, "the corpus has no Chinese text"),
        ({"words": ()}, "nothing to add: name --pieces"),
        ({"words": (), "pieces": (inputs / "base.model",)}, r"none of the pieces offered can be added \(259 control"),
        ({"size": 420}, "leaves no room"),
        ({"size": 500, "multiple_of": 64}, "is no multiple of 64; 448 and 512 are"),
        ({"jieba": 5}, "--jieba needs a --corpus"),
        ({"corpus": (inputs / "zh.txt",)}, "--corpus beside other pieces needs --learn or --jieba"),
        ({"fill": (inputs / "zh.txt",)}, "--fill needs a --size"),
        ({"size": 500}, "makes 4[0-9][0-9] pieces, and --size is 500: name text to --fill"),
        ({"size": 1 << 40}, "size is 1099511627776; it must be at most"),
        ({"character_coverage": float("nan")}, "character_coverage is nan"),
        ({"words": (tmp_path / "pipe",)}, "pipe: is not a regular file"),
        ({"check": (tmp_path / "taken",)}, "taken: is a folder"),
        ({"learn": -3}, "learn is -3"), ({"multiple_of": 0}, "multiple_of is 0"), ({"character_coverage": 1.5}, "is 1.5"),
        ({"min_count": 0}, "min_count is 0"), ({"sample_bytes": 0}, "sample_bytes is 0"),
        ({"check": (tmp_path / "absent.txt",)}, "absent.txt: no such file"),
        ({"output": tmp_path / "taken"}, "taken: exists; name another folder"),
        ({"output": tmp_path / "noise"}, "is a file"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=expected):
            extend_vocabulary(Settings(**{**usual, **changes}))
        assert sorted(tmp_path.rglob("*")) == before, changes


def test_the_command_is_one_line_on_a_mistake(inputs, tmp_path):
    base = ["scripts/merge_vocab.py", "--base", inputs / "base.model", "--output", tmp_path / "out"]
    done = command(*base, "--words", inputs / "words.txt", "--method", "mean")
    assert (done.returncode, done.stderr) == (2, "error: --method is about a model; name one with --model\n")
    fitting = folder_of(tmp_path / "fitting", open_tokenizer(inputs / "base.model"), LLAMA)
    done = command(*base, "--words", inputs / "words.txt", "--model", fitting, "--method", "means")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'mean'?" in done.stderr
    other = open_tokenizer(inputs / "zh.model")
    model = folder_of(tmp_path / "model", other, LLAMA)
    done = command(*base, "--words", inputs / "words.txt", "--model", model)
    assert done.returncode == 2
    assert "the embedding has 450 rows" in done.stderr
    assert "has 420 pieces" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["chinese-llama", "linly"])
def test_presets_are_commands(inputs, tmp_path, preset):
    text = ["--corpus", inputs / "zh.txt"] if preset == "chinese-llama" else []
    rare = tmp_path / "rare.txt"
    rare.write_text("㐀\n", encoding="utf-8")
    done = command("scripts/merge_vocab.py", "--base", inputs / "base.model", "--preset", preset, *text, "--chars", rare,
                   "--output", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "vocab_report.json").read_text())
    lengths = report["pieces"]["by_length"]
    if preset == "linly":
        assert lengths == {"1": 8954}  # those given beside the preset come in addition
    else:
        assert sum(lengths[length] for length in lengths if length != "1") > 100


def test_a_byte_level_base_comes_with_its_padding_named(inputs, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer, library.decoder = tokenizers.pre_tokenizers.ByteLevel(), tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(ENGLISH, tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet,
                                special_tokens=["<|end_of_text|>"], show_progress=False))  # fmt: skip
    base = tmp_path / "base.json"
    library.save(str(base))
    made = extend_vocabulary(Settings(base=base, output=tmp_path / "out", words=(inputs / "words.txt",)))
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (config["pad_token"], config["eos_token"]) == ("<pad>", "<|end_of_text|>")
    assert made.report["merged"]["files"] == {"tokenizer.json": "written", "tokenizer_config.json": "written"}
    with pytest.raises(UserError, match="--gguf writes sentencepiece vocabularies; this one is byte-level"):
        extend_vocabulary(Settings(base=base, output=tmp_path / "gguf", words=(inputs / "words.txt",), gguf=True))
