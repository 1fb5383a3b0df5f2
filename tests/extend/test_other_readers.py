"""Which files are written for other programs, and what is said of them."""

import json
import sys

import pytest
from conftest import make_texts
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from tp_ext.errors import TokenizerError
from tp_ext.extend.other_readers import NOT_COMPARED, FastTokenizer
from tp_ext.extend.transaction import Settings, extend_vocabulary
from tp_ext.tokens.fast import FAST, fast_files
from tp_ext.tokens.prove import cut
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.tokens.train import train_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.model"
    train_tokenizer([text for text in make_texts(600, 1) if text.isascii()], 420, path)
    return open_tokenizer(path)


def extended(base, folder, **changes):
    (folder / "words.txt").write_text("行政机关\n人民法院\n", encoding="utf-8")
    return extend_vocabulary(Settings(base=base.path, output=folder / "out", words=(folder / "words.txt",), **changes))


def test_tokenizer_json_is_compared_on_every_line_of_the_proof(base, tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "check.txt").write_text("人民 the module\n" * 5000, encoding="utf-8")
    made = extended(base, tmp_path, check=(tmp_path / "check.txt",))
    lines = sum(made.report["proof"]["compared"].values())
    assert lines > 5000
    assert made.report["merged"]["files"]["tokenizer.json"] == f"written, the same ids on {lines:,} lines"
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_difference_means_not_written_and_is_named(base, tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    from tp_ext.extend import other_readers

    def without_one_merge(tokenizer):
        files = fast_files(tokenizer)
        document = json.loads(files[FAST])
        document["model"]["merges"].remove(["t", "h"])
        return {**files, FAST: json.dumps(document)}

    monkeypatch.setattr(other_readers, "fast_files", without_one_merge)
    made = extended(base, tmp_path)
    state = made.report["merged"]["files"]["tokenizer.json"]
    assert state.startswith("not written: differs on ")
    assert "lines, first '" in state
    assert "became" in state
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert not (tmp_path / "out" / "tokenizer_config.json").exists()


def test_runs_of_equal_score_are_compared_too(base, tmp_path):
    """Leftmost first gives 3 + 2 of five; by rank all pairs are joined before any three."""
    pytest.importorskip("tokenizers")
    model = ModelProto.FromString(base.content)
    for length in (2, 3):
        model.pieces.add(piece="-" * length, score=-1e9)
    model.pieces.add(piece="-", score=-1e9)
    path = tmp_path / "runs.model"
    path.write_bytes(model.SerializeToString())
    state = FastTokenizer(open_tokenizer(path)).write(tmp_path)
    assert state == "not written: differs on 8 of 10 lines, first '----', where --- - became -- --"


def test_without_the_tokenizers_package_it_says_that_nothing_was_compared(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    made = extended(base, tmp_path)
    assert made.report["merged"]["files"]["tokenizer.json"] == NOT_COMPARED
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["type"] == "BPE"


def test_what_cannot_be_expressed_is_not_compared(base, tmp_path):
    model = ModelProto.FromString(base.content)
    model.pieces[300].type = ModelProto.SentencePiece.UNUSED
    path = tmp_path / "unused.model"
    path.write_bytes(model.SerializeToString())
    fast = FastTokenizer(open_tokenizer(path))
    fast.compare(list(cut(base, base, ["the module"])))
    assert fast.write(tmp_path).startswith("not written: has unused pieces (1, such as ")


def test_gguf_that_cannot_be_is_told_before_any_work(base, tmp_path):
    model = ModelProto.FromString(base.content)
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    path = tmp_path / "unigram.model"
    path.write_bytes(model.SerializeToString())
    said = []
    with pytest.raises(TokenizerError, match="--gguf: .*unigram.model is not a BPE model"):
        extend_vocabulary(Settings(base=path, output=tmp_path / "out", words=(path,), gguf=True), said.append)
    assert said == []
