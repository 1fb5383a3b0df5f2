import json
import os
import unicodedata
from pathlib import Path

import pytest
from byte_level_bases import NAMES, OTHERS, make_base, write_base
from conftest import SUBJECTS, VERBS, make_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from tp_ext.errors import TokenizerError
from tp_ext.tokens import byte_level_merge as reasons
from tp_ext.tokens.byte_level import piece_of
from tp_ext.tokens.byte_level_merge import merge_byte_level
from tp_ext.tokens.characters import han_runs, has_chinese, is_chinese, is_han
from tp_ext.tokens.growers import Added
from tp_ext.tokens.prove import Proof, cut
from tp_ext.tokens.tokenizer import open_tokenizer

PIECES = ["越来越", "意大利", "龘", "鱻龘", "中华人民共和国", "人民", "共和国", "国家", "𠀀𠀁", "农作物", "〇", "々", "，"]
TEXT = "越来越多的意大利人来到中华人民共和国。国家农作物，农作物种子，国家的种子；" * 3
RUNS = [run for line in [*make_texts(200, 9), TEXT] for run in han_runs(line)]
REAL = os.environ.get("TP_EXT_REAL_DATA")


def merged(base, *arguments, **settings):
    """The result of a merge, and its tokenizer opened."""
    result = merge_byte_level(base, *arguments, chinese=is_chinese, **settings)
    folder = base.path.parent / f"merged-{len(list(base.path.parent.iterdir()))}"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(result.content)
    return result, open_tokenizer(folder)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {name: open_tokenizer(make_base(name, folder / name)) for name in NAMES}


@pytest.fixture(scope="module")
def merges(bases):
    """Of each base: itself, a merge of pieces and corpus, and its tokenizer."""
    return {name: (base, *merged(base, PIECES, base.vocab_size + 150, RUNS)) for name, base in bases.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_bases_ids_stay_and_new_ones_follow(merges, name):
    base, result, new = merges[name]
    assert new.vocab_size == base.vocab_size + len(result.added) == base.vocab_size + 150
    for index in range(base.vocab_size):
        assert (new.piece(index), new.text(index)) == (base.piece(index), base.text(index))
    assert base.special_ids <= new.special_ids
    assert (new.bos_id, new.eos_id) == (base.bos_id, base.eos_id)
    names = [base.piece(index) for index in range(base.vocab_size)]
    assert not {new.piece(index) for index in range(base.vocab_size, new.vocab_size)} & set(names)


@pytest.mark.parametrize("name", NAMES)
def test_every_added_piece_is_reached_wherever_it_stands(merges, name):
    base, result, new = merges[name]
    for index, each in enumerate(result.added, base.vocab_size):
        if each.origin in ("offered", "character", "bridge", "filled"):
            assert new.encode_inside([each.piece]) == [[index]]
            assert new.text(index) == each.piece
        elif each.origin == "bytes":
            assert new.piece(index) == each.piece
            assert new.text(index) is None
        else:
            assert each == Added("<pad>", "pad")
            assert new.pad_id == index
    assert {"offered", "bridge", "filled"} <= {each.origin for each in result.added}
    offered = {each.piece for each in result.added if each.origin == "offered"}
    left_out = {piece for pieces in result.refused.values() for piece in pieces}
    assert offered | left_out == set(PIECES)
    assert offered >= {"越来越", "意大利", "鱻龘", "𠀀𠀁"}


CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
CLOSE = [*"　 。、「〈〉・ーかカ가각🙂𠀀ㄅㄱ㈠㐀龻\u0301\u2329", " ", "\n"]
"""Characters whose bytes begin or end as those of Chinese do, and what normalisation touches."""
PARTS = st.sampled_from([*PIECES, *SUBJECTS, *VERBS, *OTHERS, *CLOSE, "the module", "<pad>"])
MIXED = st.lists(PARTS | CHARACTERS, max_size=12).map("".join)


def as_seen_by(base, text):
    """The text as the base normalizes it."""
    return b"".join(map(base.token_bytes, base.encode(text))).decode()


def assert_only_chinese_changed(base, new, text):
    """That the new ids are the base's, but for tokens of nothing but Chinese that stand for several of the base's."""
    old = iter(base.encode_inside([text])[0])
    content = b"".join(base.token_bytes(index) for index in base.encode_inside([text])[0])
    chinese = [is_chinese(character) for character in content.decode() for _ in character.encode()]
    place = 0
    for index in new.encode_inside([text])[0]:
        length = len(new.token_bytes(index))
        if index < base.vocab_size:
            assert next(old) == index
        else:
            parts = b""
            while len(parts) < length:
                parts += base.token_bytes(next(old))
            assert parts == content[place : place + length] == new.token_bytes(index)
            assert all(chinese[place : place + length])
        place += length
    assert next(old, None) is None


@settings(max_examples=300, deadline=None)
@given(MIXED)
def test_only_chinese_is_cut_differently(merges, text):
    for base, _, new in merges.values():
        if not has_chinese(as_seen_by(base, text)):
            assert new.encode(text) == base.encode(text)
        assert len(new.encode(text)) <= len(base.encode(text))
        assert new.decode(new.encode(text)) == base.decode(base.encode(text))
        assert_only_chinese_changed(base, new, text)


@settings(max_examples=200, deadline=None)
@given(MIXED.map(lambda text: "".join(each for each in text if not has_chinese(unicodedata.normalize("NFC", each)))))
def test_text_without_chinese_keeps_its_ids(merges, text):
    for base, _, new in merges.values():
        assert new.encode(text) == base.encode(text)


@pytest.mark.parametrize("name", NAMES)
def test_chinese_becomes_shorter(merges, name):
    base, _, new = merges[name]
    for text in [TEXT, *(line for line in make_texts(40, 11) if has_chinese(line))]:
        assert len(new.encode(text)) < len(base.encode(text))


@pytest.mark.parametrize("name", NAMES)
def test_the_proof_accepts_it(merges, name):
    base, _, new = merges[name]
    proof = Proof(base, new)
    proof.vocabulary()
    for line in cut(base, new, [TEXT, *OTHERS, *make_texts(20, 13)]):
        proof.line("text", line)
    proof.finish()


def test_why_pieces_are_refused(bases):
    pieces = ["龘", "中a", "か", "龘", "国〇国", "第", "ㄅ", "齉"]
    result, _ = merged(bases["gpt2"], pieces)
    assert result.refused == {
        reasons.NOT_CHINESE: ["中a", "か"], reasons.TWICE: ["龘"], reasons.CUT: ["国〇国"], reasons.IN_BASE: ["第"],
        reasons.SHARED: ["ㄅ"],
    }  # fmt: skip
    assert [each for each in result.added if each.origin == "offered"] == [Added("龘", "offered"), Added("齉", "offered")]


def test_what_the_base_normalizes_is_refused(bases):
    pieces = ["\uf900龘", "\u3008", "龘"]  # U+F900 becomes U+8C48, and U+2329 becomes U+3008
    result, new = merged(bases["qwen"], pieces)
    assert result.refused == {reasons.NORMALIZED: ["\uf900龘"]}
    assert new.encode("\u2329") == new.encode("\u3008")  # what normalizes to Chinese is Chinese
    assert len(new.encode("\u2329")) < len(bases["qwen"].encode("\u2329"))
    result, _ = merged(bases["llama3"], ["\uf900龘"])
    assert result.refused == {}


@pytest.mark.parametrize("single_word", [False, True])
def test_added_tokens_of_the_base_that_are_chinese_are_left_alone(bases, tmp_path, single_word):
    """Alone 越 is the added token, even where the base takes it for one only as a word of its own."""
    document = json.loads(bases["gpt2"].content)
    for place, content in enumerate(("越", "意大利")):
        rules = {"single_word": single_word, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        document["added_tokens"].append({"id": bases["gpt2"].vocab_size + place, "content": content, **rules})
    base = open_tokenizer(write_base(document, tmp_path))
    result, new = merged(base, ["越", "越来", "意大利", "意大利人", "龘"], base.vocab_size + 40, RUNS)
    others = {reasons.SHARED: ["越来"]} if single_word else {reasons.ADDED: ["越来", "意大利人"]}
    assert result.refused == {reasons.IN_BASE: ["越", "意大利"], **others}
    proof = Proof(base, new)
    proof.vocabulary()
    for line in cut(base, new, [TEXT, "越", "越 越来", "意大利，意大利人 意大利", *make_texts(20, 13)]):
        proof.line("text", line)
    proof.finish()


def test_a_piece_of_the_base_that_no_merge_reaches_is_not_made(bases, tmp_path):
    document = json.loads(bases["llama3"].content)
    hidden = piece_of("龘".encode())
    index = len(document["model"]["vocab"])
    document["model"]["vocab"][hidden] = index
    for token in document["added_tokens"]:
        token["id"] += 1
    base = open_tokenizer(write_base(document, tmp_path))
    result, new = merged(base, ["龘", "龘鱻", "鱻"])
    assert base.encode("龘") == new.encode("龘") == [index]
    assert result.refused == {reasons.IN_BASE: ["龘"], reasons.SHARED: ["龘鱻"]}
    assert_only_chinese_changed(base, new, "龘龘鱻 龘, a龘")


def test_words_of_the_vocabulary_are_taken_whole_where_the_base_does_so(merges):
    base, result, new = merges["llama3"]
    assert json.loads(result.content)["model"]["ignore_merges"] is True
    text = "x 越来越，越来越多"
    assert new.encode_inside(["越来越"])[0][0] in new.encode(text)[2:]
    assert_only_chinese_changed(base, new, text)


@pytest.mark.parametrize(("name", "kind"), [("bloom", str), ("llama3", list)])
def test_merges_are_written_as_the_base_writes_them(merges, name, kind):
    base, result, _ = merges[name]
    before, after = (json.loads(each.content)["model"]["merges"] for each in (base, result))
    assert after[: len(before)] == before
    assert {type(pair) for pair in after} == {kind}
    assert len(after) > len(before) + 100


def test_padding_and_reserved_pieces(bases):
    base = bases["llama3"]
    result, new = merged(base, ["龘"], multiple_of=64)
    assert new.vocab_size % 64 == 0
    assert new.vocab_size - base.vocab_size < 64 + 5
    controls = [each.piece for each in result.added if each.origin in ("pad", "reserved")]
    assert controls == ["<pad>", *(f"<|reserved_{number}|>" for number in range(len(controls) - 1))]
    first = new.vocab_size - len(controls)
    assert new.special_ids == base.special_ids | set(range(first, new.vocab_size))
    assert new.pad_id == first
    assert new.encode("<pad><|reserved_0|>") == base.encode("<pad><|reserved_0|>")
    assert new.decode([first, first + 1]) == ""
    again, newer = merged(new, ["鱻"], multiple_of=64)
    assert newer.pad_id == new.pad_id
    assert again.added[-1].piece.startswith("<|reserved_")
    assert not {each.piece for each in again.added} & {each.piece for each in result.added}


BESIDE = {
    "none": {},
    "both": {"special_tokens_map.json": {"eos_token": {"content": "<|im_start|>"}, "pad_token": None},
             "tokenizer_config.json": {"model_max_length": 77, "tokenizer_class": "PreTrainedTokenizerFast"}},
    "map alone": {"special_tokens_map.json": {"eos_token": "<|im_start|>"}},
}  # fmt: skip


@pytest.mark.parametrize("files", BESIDE)
def test_the_files_beside_name_the_padding(bases, tmp_path, files):
    base_files = {name: json.dumps(values) for name, values in BESIDE[files].items()}
    write_base(json.loads(bases["qwen"].content), tmp_path)
    for name, content in base_files.items():
        (tmp_path / name).write_text(content)
    base = open_tokenizer(tmp_path)
    result = merge_byte_level(base, ["龘"], chinese=is_chinese)
    folder = tmp_path / "merged"
    folder.mkdir()
    for name, content in {"tokenizer.json": result.content, **result.beside}.items():
        (folder / name).write_bytes(content)
    new = open_tokenizer(folder)
    assert set(result.beside) == {*BESIDE[files], "tokenizer_config.json"}
    for name, values in BESIDE[files].items():
        assert json.loads(result.beside[name]) == {**values, "pad_token": "<pad>"}
    assert new.piece(new.pad_id) == "<pad>"
    assert new.eos_id == base.eos_id
    found = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))
    assert (found.pad_token, found.pad_token_id) == ("<pad>", new.pad_id)
    assert found.eos_token_id == new.eos_id
    without = merge_byte_level(base, ["龘"], chinese=is_chinese, pad=False).beside
    assert without == {"tokenizer_config.json": without["tokenizer_config.json"], **base.beside}
    assert "pad_token" not in json.loads(without["tokenizer_config.json"])


def test_no_padding_where_there_is_one_or_none_is_wanted(bases):
    assert [each.origin for each in merged(bases["bloom"], ["龘"])[0].added].count("pad") == 0
    assert [each.origin for each in merged(bases["gpt2"], ["龘"], pad=False)[0].added].count("pad") == 0
    assert [each.origin for each in merged(bases["gpt2"], ["龘"])[0].added].count("pad") == 1


def test_a_pad_that_is_not_padding_is_not_made_one(bases, tmp_path):
    document = json.loads(bases["gpt2"].content)
    document["model"]["vocab"]["<pad>"] = bases["gpt2"].vocab_size
    base = open_tokenizer(write_base(document, tmp_path))
    with pytest.raises(TokenizerError, match="has a piece <pad> that is not its padding"):
        merged(base, ["龘"])
    assert merged(base, ["龘"], pad=False)[1].piece(base.vocab_size - 1) == "<pad>"


def test_the_first_pieces_are_kept_when_there_is_little_room(bases):
    base = bases["gpt2"]
    result, new = merged(base, ["鱻龘", "意大利", "越来越"], base.vocab_size + 8)
    assert new.vocab_size <= base.vocab_size + 8
    assert Added("鱻龘", "offered") in result.added
    assert "越来越" in result.refused[reasons.NO_ROOM]


def test_the_corpus_fills_to_the_size_exactly(bases):
    for size in (20, 64):
        result, new = merged(bases["gpt2"], [], bases["gpt2"].vocab_size + size, RUNS)
        assert new.vocab_size == bases["gpt2"].vocab_size + size
        assert {each.origin for each in result.added} <= {"filled", "character", "bridge", "bytes", "pad"}
        assert [each.origin for each in result.added].count("filled") > size // 2
    assert merged(bases["gpt2"], [], bases["gpt2"].vocab_size + 64, RUNS)[0] == result


def test_nothing_is_learned_across_runs_and_pre_tokens(bases):
    runs = ["鱻齉", "龘", "龘〇鱻"] * 4000
    result, _ = merged(bases["gpt2"], [], bases["gpt2"].vocab_size + 12, runs + RUNS, pad=False)
    learned = [each.piece for each in result.added if each.origin == "filled"]
    assert "鱻齉" in learned
    assert [piece for piece in learned if not any(piece in run for run in runs + RUNS)] == []
    assert [piece for piece in learned if "〇" in piece] == ["〇"]


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [(650, {"multiple_of": 64}, "size 650 is no multiple of 64; 640 and 704 are"),
     (10, {}, "size 10 leaves no room: .* has 600 pieces and <pad> takes one"),
     (9000, {}, "the corpus fills .* of 8399 places with pieces that occur 2 times")],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(bases, size, settings, message):
    assert bases["gpt2"].vocab_size == 600
    with pytest.raises(TokenizerError, match=message):
        merged(bases["gpt2"], ["龘"], size, RUNS, **settings)


@pytest.mark.skipif(not REAL, reason="TP_EXT_REAL_DATA names no folder with real tokenizers and text")
def test_a_real_base_and_real_pieces(tmp_path):
    folder = Path(REAL)
    content = (folder / "tokenizers/gptneox_tokenizer.json").read_bytes()
    base = open_tokenizer(write_base(json.loads(content), tmp_path))
    source = SentencePieceProcessor(model_file=str(folder / "tokenizers/chinese_sp_ymcui.model"))
    pieces = [piece for piece in map(source.id_to_piece, range(source.vocab_size())) if is_han(piece)]
    result, new = merged(base, pieces)
    assert set(result.refused) == {reasons.IN_BASE}
    assert sum(each.origin == "offered" for each in result.added) > 17_000
    assert sum(each.origin in ("bridge", "bytes") for each in result.added) < 500
    texts = [each.piece for each in result.added if each.origin not in ("bytes", "pad")]
    assert [ids for ids in new.encode_inside(texts) if len(ids) != 1] == []
    for name, gain in (("zh_test", 1.9), ("ja", 1.0), ("en", 1.0), ("multi", 1.0), ("code", 1.0)):
        lines = (folder / f"text/{name}.txt").read_text(encoding="utf-8").split("\n")[:4000]
        before, after = base.encode_batch(lines), new.encode_batch(lines)
        for line, old, ids in zip(lines, before, after, strict=True):
            assert old == ids if not has_chinese(line) else len(ids) <= len(old)
            assert new.decode(ids) == base.decode(old)
        assert sum(map(len, before)) >= gain * sum(map(len, after))
        for line in lines[:300]:
            assert_only_chinese_changed(base, new, line)
