import pytest
from conftest import make_texts

from tp_ext.errors import TokenizerError
from tp_ext.tokens import candidates
from tp_ext.tokens.candidates import Candidates, from_characters, from_model, from_words, sift
from tp_ext.tokens.train import train_tokenizer


def test_bpe_pieces_come_by_score_and_unigram_pieces_longest_first(tmp_path, spm_path):
    bpe = from_model(spm_path)
    assert bpe.pieces == bpe.worth
    assert bpe.refused == {candidates.SPECIAL: ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]}
    (tmp_path / "unigram.vocab").write_text("<unk>\t0\n的\t-2.5\n人民\t-3.25\n人民法院\t-9.5\n", encoding="utf-8")
    unigram = from_model(tmp_path / "unigram.vocab")
    assert unigram.worth == ["<unk>", "的", "人民", "人民法院"]
    assert unigram.pieces == ["<unk>", "人民法院", "人民", "的"]
    with pytest.raises(TokenizerError, match="holds unigram pieces, not bpe"):
        from_model(tmp_path / "unigram.vocab", "bpe")


def test_each_refusal_has_its_reason():
    offered = ["人", "人民", "人民", "的", "abc", "▁人", "人a", "他说：", "㍻", "”。", "，"]
    chosen = sift([Candidates(offered, offered, "test", {candidates.SPECIAL: ["<s>"]})], {"的"}.__contains__,
                  lambda text: text.replace("，", ","))  # fmt: skip
    assert chosen.pieces == ["人", "人民"]
    assert chosen.refused == {
        candidates.SPECIAL: ["<s>"], candidates.TWICE: ["人民"], candidates.IN_BASE: ["的"],
        candidates.NO_CHINESE: ["abc", "㍻"], candidates.MIXED: ["▁人", "人a", "”。"],
        candidates.PUNCTUATED: ["他说："], candidates.NORMALIZED: ["，"],
    }  # fmt: skip
    assert "他说：" in sift([Candidates(offered, offered, "test")], set().__contains__, str, mixed=True).pieces


def test_a_piece_of_hundreds_of_characters_is_refused_as_too_long():
    offered = ["国" * candidates.LONGEST, "国" * (candidates.LONGEST + 1)]
    chosen = sift([Candidates(offered, offered, "test")], set().__contains__, str)
    assert (chosen.pieces, chosen.refused) == (offered[:1], {candidates.TOO_LONG: offered[1:]})


def test_han_characters_newer_than_this_python_are_read(tmp_path, monkeypatch):
    """Extensions H to J are unassigned, category Cn, to older ones."""
    monkeypatch.setattr(candidates.unicodedata, "category", lambda character: "Cn" if ord(character) > 0x2FFFF else "Lo")
    (tmp_path / "list.txt").write_text("天\U000313b0\n\U000323af\n", encoding="utf-8")
    assert from_characters(tmp_path / "list.txt").pieces == ["天", "\U000313b0", "\U000323af"]
    assert from_words(tmp_path / "list.txt").worth == ["天\U000313b0", "\U000323af"]
    (tmp_path / "list.txt").write_text("\U000e0080\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"U\+E0080"):
        from_words(tmp_path / "list.txt")


def test_lists_of_characters_and_words_are_read(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeff天地玄黄\r\n宇宙\n\n洪\n", encoding="utf-8")
    assert from_characters(tmp_path / "list.txt").pieces == list("天地玄黄宇宙洪")
    words = from_words(tmp_path / "list.txt")
    assert words.worth == ["天地玄黄", "宇宙", "洪"]
    (tmp_path / "list.txt").write_text("洪\n宇宙\n", encoding="utf-8")
    assert from_words(tmp_path / "list.txt").pieces == ["宇宙", "洪"]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty"), (b"\n\n", "is empty"), ("天 地\n".encode(), r"line 1: '天 地' has U\+0020 \(SPACE\)"),
    ("天\n地\x01\n".encode(), r"line 2: .* U\+0001 \(a control character\)"), ("天\u200b\n".encode(), "ZERO WIDTH SPACE"),
    ("▁天\n".encode(), r"U\+2581"), ("天\n".encode("utf-16"), "byte 0: not UTF-8"),
])  # fmt: skip
@pytest.mark.parametrize("read", [from_characters, from_words])
def test_a_list_that_is_none_is_told(tmp_path, read, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        read(tmp_path / "list.txt")


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.model", b"no model", "is not a sentencepiece model"),
    ("a.vocab", "人民\n".encode(), "line 1: expected a piece, a tab"),
    ("a.vocab", "人民\tnan\n".encode(), "piece '人民' has the score nan; a finite number is needed"),
    ("a.vocab", "人\t-1\n人民\t-inf\n".encode(), "piece '人民' has the score -inf"),
    ("a.vocab", b"", "is empty"), ("absent.model", None, "no such tokenizer file"), ("absent.vocab", None, "cannot be read"),
])  # fmt: skip
def test_a_source_that_is_none_is_told(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        from_model(tmp_path / name)


def test_a_vocab_file_reads_as_the_model_it_was_written_with(tmp_path):
    train_tokenizer([text for text in make_texts(300, 6) if not text.isascii()], 450, tmp_path / "a.model")
    model = from_model(tmp_path / "a.model")
    lines = [f"{piece}\t{-place}" for place, piece in enumerate(model.pieces)]
    (tmp_path / "a.vocab").write_text("\n".join(lines), encoding="utf-8")
    assert from_model(tmp_path / "a.vocab").pieces == model.pieces
