import json
import sys

import pytest
import tokenizers
from byte_level_bases import NAMES, OTHERS, make_base, write_base
from conftest import make_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from tp_ext.errors import TokenizerError
from tp_ext.tokens.byte_level import ALPHABET, bytes_of, piece_of
from tp_ext.tokens.tokenizer import open_tokenizer

LINES = [*make_texts(6, 3), *OTHERS, "", " ", "  two  spaces ", "\ttab\n", "第1,234条 3.14", "e\u0301 a\u3000b"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {name: make_base(name, folder / name) for name in NAMES}


@pytest.fixture(scope="module")
def bases(paths):
    return {name: open_tokenizer(path) for name, path in paths.items()}


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_library(name, bases, paths):
    reference = Tokenizer.from_file(str(paths[name]))
    expected = [reference.encode(line, add_special_tokens=False).ids for line in LINES]
    assert bases[name].encode_batch(LINES) == expected
    assert [bases[name].encode(line) for line in LINES] == expected
    assert [bases[name].decode(ids) for ids in expected] == [reference.decode(ids) for ids in expected]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["<|endoftext|>", "<s>", "中"])))
def test_any_text_comes_back_and_no_special_id_comes_out(bases, parts):
    text = "".join(parts)
    for name in ("gpt2", "llama3", "bloom"):
        ids = bases[name].encode(text)
        assert bases[name].decode(ids) == text
        assert not bases[name].special_ids & set(ids)


def test_inside_a_text_there_is_no_prefix_space(bases):
    words = ["the", "第"]
    assert bases["prefixed"].encode_batch(words) == bases["gpt2"].encode_batch([" the", " 第"])
    assert bases["prefixed"].encode_inside(words) == bases["gpt2"].encode_batch(words) == bases["gpt2"].encode_inside(words)
    assert bases["prefixed"].encode_inside(words) != bases["prefixed"].encode_batch(words)


@pytest.mark.parametrize(
    ("name", "bos", "eos", "pad"),
    [("gpt2", None, "<|endoftext|>", None), ("llama3", "<|begin_of_text|>", "<|end_of_text|>", None),
     ("bloom", "<s>", "</s>", "<pad>"), ("qwen", None, "<|endoftext|>", None)],
)  # fmt: skip
def test_special_pieces_are_known_by_their_names(bases, name, bos, eos, pad):
    base = bases[name]
    found = [None if index is None else base.piece(index) for index in (base.bos_id, base.eos_id, base.pad_id)]
    assert found == [bos, eos, pad]


@pytest.mark.parametrize(
    ("files", "bos", "eos", "pad"),
    [({"tokenizer_config.json": {"bos_token": "</s>", "eos_token": "<s>", "pad_token": None}}, "</s>", "<s>", "<pad>"),
     ({"special_tokens_map.json": {"eos_token": {"content": "<unk>"}}}, "<s>", "<unk>", "<pad>"),
     ({"special_tokens_map.json": {"pad_token": "<unk>"}, "tokenizer_config.json": {"pad_token": "</s>"}},
      "<s>", "</s>", "</s>"),
     ({"tokenizer_config.json": {"bos_token": "</s>", "eos_token": "</s>"}}, None, "</s>", "<pad>")],
)  # fmt: skip
def test_files_beside_name_special_pieces(paths, tmp_path, files, bos, eos, pad):
    write_base(json.loads(paths["bloom"].read_text()), tmp_path)
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values))
    base = open_tokenizer(tmp_path)
    found = [None if index is None else base.piece(index) for index in (base.bos_id, base.eos_id, base.pad_id)]
    assert found == [bos, eos, pad]
    assert {name: json.loads(content) for name, content in base.beside.items()} == files


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"eos_token": "<end>"}', "has no piece '<end>', which the files beside it name as eos_token"),
     ("[1, 2]", "tokenizer_config.json: is not a JSON object"), ("{", "tokenizer_config.json: is not a JSON object")],
)  # fmt: skip
def test_wrong_files_beside_are_named(paths, tmp_path, content, message):
    write_base(json.loads(paths["bloom"].read_text()), tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(tmp_path)


def numbered(path, folder, last):
    document = json.loads(path.read_text())
    document["model"]["vocab"]["zzzz"] = last
    return write_base(document, folder)


def test_ids_with_absurd_gaps_are_told(paths, tmp_path):
    with pytest.raises(TokenizerError, match="'zzzz' is 1,000,000,000, so that 601 ids .* and 999,999,400 have none"):
        open_tokenizer(numbered(paths["bloom"], tmp_path, 10**9))


def test_small_gaps_are_rows_kept_free(paths, tmp_path):
    base = open_tokenizer(numbered(paths["bloom"], tmp_path, 700))
    assert base.vocab_size == 701
    assert set(range(600, 700)) <= base.special_ids
    assert base.piece(650) == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_piece(bases, name):
    base = bases[name]
    for line in LINES[:6]:
        ids = base.encode_inside([line])[0]
        texts = [base.text(index) for index in ids]
        if None not in texts:
            assert "".join(texts) == line
        assert b"".join(map(base.token_bytes, ids)) == line.encode()
    assert base.vocab_size == 1 + max(base._library.get_vocab().values())
    for index in range(base.vocab_size):
        content = bytes_of(base.piece(index))
        if index in base.special_ids:
            assert base.text(index) is base.token_bytes(index) is None
        elif base.text(index) is None:
            assert "\ufffd" in content.decode(errors="replace")
        else:
            assert base.text(index) == ("<tool>" if base.piece(index) == "<tool>" else content.decode())
    with pytest.raises(IndexError, match=f"no piece {base.vocab_size}; ids run from 0"):
        base.piece(base.vocab_size)


def test_ids_without_a_piece_are_special_and_counted(paths, tmp_path):
    document = json.loads(paths["gpt2"].read_text())
    size = len(document["model"]["vocab"])
    document["model"]["vocab"]["Ġhole"] = size + 2
    base = open_tokenizer(write_base(document, tmp_path))
    assert base.vocab_size == size + 3
    assert base.special_ids == {0, size, size + 1}
    assert (base.piece(size), base.text(size)) == ("", None)
    assert base.decode([size, size + 2]) == " hole"


@pytest.mark.parametrize(
    ("index", "message"), [(610, "says that '<tool>' is 602, but to the tokenizers library it is 603"),
                           (602, "'<tool>' is 602, but .* it is 603"), (599, "gives the id 599 to two pieces, ")],
)  # fmt: skip
def test_ids_the_library_would_change_are_refused(paths, tmp_path, index, message):
    document = json.loads(paths["llama3"].read_text())
    assert [token["id"] for token in document["added_tokens"]] == [600, 601, 602]
    document["model"]["vocab"]["Ġmore"] = index
    if index == 599:
        document["added_tokens"] = []
    else:
        document["added_tokens"] = document["added_tokens"][2:]
        document["model"]["vocab"] |= {"Ġa1": 600, "Ġa2": 601}
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(write_base(document, tmp_path))


def test_a_file_that_truncates_and_pads_does_neither(paths, tmp_path):
    library = Tokenizer.from_file(str(paths["gpt2"]))
    library.enable_truncation(3)
    library.enable_padding(length=64)
    base = open_tokenizer(write_base(json.loads(library.to_str()), tmp_path))
    assert base.decode(base.encode(LINES[0])) == LINES[0]


def test_the_alphabet_is_the_librarys():
    assert sorted(ALPHABET.values()) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    every = bytes(range(256))
    assert bytes_of(piece_of(every)) == every
    assert piece_of("\u4e2d ".encode()) == "ä¸ŃĠ"
    assert bytes_of("中") is None


def changed(**values):
    def change(document):
        for path, value in values.items():
            *parents, last = path.split("__")
            place = document
            for parent in parents:
                place = place[parent]
            place[last] = value

    return change


def drop_a_byte(document):
    del document["model"]["vocab"]["ä"]
    document["model"]["merges"] = []


@pytest.mark.parametrize(
    ("change", "message"),
    [(changed(model__type="WordPiece"), "is WordPiece; the tokenizer.json of a byte-level BPE tokenizer .* is needed"),
     (changed(model={"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 0}), "converted to JSON; use its tokenizer.model"),
     (changed(model__byte_fallback=True), "converted to JSON; use its tokenizer.model"),
     (changed(pre_tokenizer={"type": "Metaspace"}), "converted to JSON; use its tokenizer.model"),
     (changed(pre_tokenizer={"type": "Whitespace"}), "is BPE, but not over bytes"),
     (changed(decoder=None), "is BPE, but not over bytes"),
     (changed(model__dropout=0.1), r"has a dropout \(0.1\)"),
     (changed(model__end_of_word_suffix="</w>"), r"has a end_of_word_suffix \('</w>'\)"),
     (changed(model__merges=[["q", "q"]]), "the tokenizers library cannot read it"),
     (changed(model=None), "has no model with a vocabulary"),
     (drop_a_byte, "has no piece for 1 bytes .the first is 0xE4., so that text would be lost")],
)  # fmt: skip
def test_what_is_no_byte_level_bpe_is_refused(paths, tmp_path, change, message):
    document = json.loads(paths["gpt2"].read_text())
    change(document)
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(write_base(document, tmp_path))


@pytest.mark.parametrize(
    ("content", "message"), [(b"not json", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "has no model")]
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(tmp_path)


def test_a_word_level_tokenizer_is_refused(tmp_path):
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="is WordLevel"):
        open_tokenizer(tmp_path)


def test_without_the_library_the_extra_is_named(paths, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerError, match=r"pip install 'tp_ext\[byte-level\]'"):
        open_tokenizer(paths["gpt2"])
