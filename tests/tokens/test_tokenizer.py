import pytest
import sentencepiece
from conftest import LLAMA, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tp_ext.errors import CheckpointError, TokenizerError
from tp_ext.tokens.rows import check_rows
from tp_ext.tokens.tokenizer import open_tokenizer
from tp_ext.tokens.train import train_tokenizer

LINES = ["第1,234条 3.14 2023年", "  two  spaces ", "\ttab", "emoji 🙂 한국어 かな", "", "１２３ＡＢＣ", "a\u3000b"]


def test_ids_are_those_of_sentencepiece(tokenizer, spm_path):
    reference = sentencepiece.SentencePieceProcessor(model_file=str(spm_path))
    assert [tokenizer.encode(line) for line in LINES] == [reference.encode(line) for line in LINES]
    assert tokenizer.encode_batch(LINES) == [reference.encode(line) for line in LINES]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer, text):
    if "\0" in text or "▁" in text:  # sentencepiece's own mark for a space is read back as one
        return
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_ids_are_the_models(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, None)
    assert tokenizer.decode([1, *tokenizer.encode("abc"), 2]) == "abc"


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="is not a sentencepiece model"):
        open_tokenizer(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TokenizerError, match="no such tokenizer file"):
        open_tokenizer(tmp_path)


def test_too_little_text_for_the_size_is_told_and_leaves_no_file(tmp_path):
    with pytest.raises(TokenizerError, match="cannot train 5000 pieces"):
        train_tokenizer(["only this"], 5000, tmp_path / "t.model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [500, 512, 576, 960])
def test_rows_equal_or_padded_to_64_are_accepted(tokenizer, rows):
    check_rows(tiny(LLAMA, vocab_size=rows), tokenizer)


@pytest.mark.parametrize("rows", [499, 501, 448, 1024])
def test_other_rows_are_refused(tokenizer, rows):
    with pytest.raises(CheckpointError, match=f"the embedding has {rows} rows .* has 500 pieces"):
        check_rows(tiny(LLAMA, vocab_size=rows), tokenizer)


@pytest.mark.parametrize(("rows", "padding"), [(500, 1), (512, 11), (512, 13), (576, 12)])
def test_known_padding_must_be_all_that_is_beyond_the_pieces(tokenizer, rows, padding):
    check_rows(tiny(LLAMA, vocab_size=512, vocab_padding=12), tokenizer)
    with pytest.raises(CheckpointError, match=f"has {rows} rows, {padding} of them padding, .* has 500 pieces"):
        check_rows(tiny(LLAMA, vocab_size=rows, vocab_padding=padding), tokenizer)
