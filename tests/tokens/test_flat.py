"""Flat encoding against the tokenizers themselves, which are the reference."""

from itertools import pairwise

import numpy as np
import pytest
from byte_level_bases import make_base
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from test_merge import CHINESE, ENGLISH, WORDS, merged_with, train

from tp_ext.tokens import battery, flat
from tp_ext.tokens.flat import FlatEncoder
from tp_ext.tokens.tokenizer import open_tokenizer

TEXTS = ENGLISH + battery.OTHERS.splitlines()
SYMBOLS = {"user_defined_symbols": ["<tool>", "〔", "人民法院", "a b", " 中 文", "▁▁x", "of the"]}
TRAINED = {
    "bpe": {},
    "without prefix": {"add_dummy_prefix": False},
    "without bytes": {"byte_fallback": False},
    "without bytes, little covered": {"byte_fallback": False, "character_coverage": 0.98},
    "with symbols": SYMBOLS,
    "with symbols, without bytes and prefix": {**SYMBOLS, "byte_fallback": False, "add_dummy_prefix": False},
    "across spaces": {"split_by_whitespace": False, "max_sentencepiece_length": 24, "vocab_size": 1200},
    "with controls of one character": {"control_symbols": ["é", "中", "<turn>"]},
    "unigram": {"model_type": "unigram", "vocab_size": 600},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "extra spaces": {"remove_extra_whitespaces": True},
    "suffix": {"treat_whitespace_as_suffix": True},
}
ASKED = {"unigram", "nfkc", "extra spaces", "suffix", "with unused pieces", "byte-level"}
"""Those whose text is not cut."""


def merged_of(folder, **changes):
    base = train(folder / "base.model", TEXTS, **changes)
    return merged_with(base, folder, WORDS, size=base.vocab_size + 300, corpus=CHINESE)[0]


def equal_scores(folder, unused=()):
    """Pieces appended with one score for all, some of which nothing leads to."""
    base = train(folder / "base.model", TEXTS)
    model = ModelProto.FromString(base.content)
    for piece in dict.fromkeys([*"".join(WORDS), *WORDS, "ab", "ba", "aba", "bab", "的人民", "民的"]):
        model.pieces.add(piece=piece, score=0.0)
    for index in unused:
        model.pieces[index].type = ModelProto.SentencePiece.UNUSED
    path = folder / "equal.model"
    path.write_bytes(model.SerializeToString())
    return open_tokenizer(path)


def without_space(folder):
    """As one trained on Chinese without spaces: a space is unknown, and one with what is unknown beside it."""
    settings = {"byte_fallback": False, "add_dummy_prefix": False, "vocab_size": 300, "character_coverage": 0.98}
    return train(folder / "t.model", ["".join(text.split()) for text in CHINESE], **settings)


MADE = {
    **{name: lambda folder, each=each: train(folder / "t.model", TEXTS, **each) for name, each in TRAINED.items()},
    "merged": merged_of,
    "merged without bytes": lambda folder: merged_of(folder, byte_fallback=False),
    "without a piece for space or bytes": without_space,
    "equal scores": equal_scores,
    "with unused pieces": lambda folder: equal_scores(folder, unused=(300, 400, -4)),
    "byte-level": lambda folder: open_tokenizer(make_base("prefixed", folder)),
}


@pytest.fixture(scope="module", params=MADE)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name, tmp_path_factory):
    return MADE[name](tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module", params=["compiled", "numpy"])
def compiled(request):
    if request.param == "compiled":
        pytest.importorskip("tp_ext.tokens._kernel", reason="the part in C was not built")
    return request.param == "compiled"


@pytest.fixture(scope="module")
def encoder(tokenizer, compiled):
    return FlatEncoder(tokenizer, compiled=compiled)


def laid_out(texts, gap=b"\n", begin=b"", end=b""):
    """The texts in one buffer, and where each starts and stops."""
    contents = [text.encode() for text in texts]
    lengths = np.array([len(content) for content in contents], np.int64)
    starts = len(begin) + np.cumsum(lengths + len(gap)) - lengths - len(gap)
    return begin + gap.join(contents) + end, starts, starts + lengths


def check(encoder, tokenizer, texts, around=(None, None), **layout):
    ids, lengths = encoder.encode(*laid_out(texts, **layout))
    before, behind = ([] if each is None else [each] for each in around)
    wanted = [before + each + behind for each in tokenizer.encode_batch(texts)]
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [len(each) for each in wanted]
    assert ids.tolist() == [index for each in wanted for index in each]


ODD = "\0\x01\t\n\r ▁\u3000\u200b\ufeff\ufffd\u0301\x85\xa0é中文人民法院的，。〔aab<>0123🙂𠮷\U0010ffff"
LETTER = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(ODD), st.sampled_from("  ▁ab中人民☃☄"))
PART = st.one_of(
    st.text(LETTER, max_size=12),
    st.sampled_from([*WORDS, *SYMBOLS["user_defined_symbols"], *"<s> </s> <unk> <0x0A> <turn> the 哈哈哈 ababa".split()]),
    st.builds(lambda letter, count: letter * count, LETTER, st.sampled_from([2, 3, 7, 8, 9, 16, 17, 24, 25, 300])),
)
TEXT = st.lists(PART, max_size=8).map("".join)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT, max_size=6), gap=st.sampled_from([b"\n", b"", b"\r\n", b"\xff\xff\xff"]))
def test_any_documents_get_the_ids_of_the_tokenizer(encoder, tokenizer, texts, gap):
    check(encoder, tokenizer, texts, gap=gap, begin=gap, end=gap)


def test_which_is_cut_and_which_is_asked(name, encoder):
    assert encoder.cuts_text == (name not in ASKED)


def test_texts_of_all_kinds(encoder, tokenizer):
    texts = [*TEXTS, *CHINESE, *(line for text in battery.TEXTS.values() for line in text.split("\n")), "", "", " "]
    check(encoder, tokenizer, texts)
    check(encoder, tokenizer, ["\n".join(texts)])
    check(encoder, tokenizer, [text for text in texts if text.isascii()])


@pytest.mark.parametrize("around", [(None, None), (7, None), (None, 8), (7, 8)])
@pytest.mark.parametrize("texts", [[], [""], ["", "", ""], ["", "ab", "", "", "人民 法院", ""], ["a"], ["中", "", "a\nb"]])
def test_ids_around_each_document(tokenizer, compiled, around, texts):
    encoder = FlatEncoder(tokenizer, around, compiled=compiled)
    check(encoder, tokenizer, texts, around)
    check(encoder, tokenizer, texts, around, gap=b"")


def random_texts(count, seed):
    """Texts over all of Unicode, and over ranges of it as wide as a script, of every length."""
    random = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        length = int(random.integers(0, [4, 30, 300][number % 3]))
        first = int(random.choice([0, 0x20, 0xC0, 0x400, 0x3000, 0x4E00, 0xFF00, 0x1F300]))
        codes = random.integers(0, 0x110000, length) if number % 4 == 0 else first + random.integers(0, 96, length)
        texts.append("".join(chr(code) for code in codes.tolist() if not 0xD800 <= code < 0xE000))
    return texts


def test_random_texts(encoder, tokenizer):
    check(encoder, tokenizer, random_texts(1500, 1))


@pytest.mark.parametrize("window", [1, 40, 700])
@pytest.mark.parametrize("cache", [0, 200_000])
def test_small_windows_and_a_small_cache_change_nothing(tokenizer, compiled, monkeypatch, window, cache):
    monkeypatch.setattr(flat, "WINDOW_BYTES", window)
    encoder = FlatEncoder(tokenizer, (None, 2), cache, compiled)
    texts = ["", "Of the 人民 法院", "a" * 900, "人民法院" * 30, "☃☄" * 70, " " * 90, "é中" * 9, "\0" * 40, ""]
    for _ in range(2):
        check(encoder, tokenizer, texts, (None, 2))
        check(encoder, tokenizer, ["".join(texts), "\n".join(texts)], (None, 2))


def test_a_full_cache_starts_anew(tmp_path):
    tokenizer = train(tmp_path / "t.model", TEXTS)
    encoder = FlatEncoder(tokenizer, cache_bytes=400_000)
    sizes = []
    random = np.random.default_rng(0)
    for _ in range(30):
        check(encoder, tokenizer, ["".join(map(chr, random.integers(97, 123, 9))) for _ in range(500)])
        sizes.append(encoder.cache_bytes)
    assert 200_000 < max(sizes) < 1_200_000
    assert any(later < earlier for earlier, later in pairwise(sizes))


def test_unigram_depends_on_all_the_text_before(tmp_path):
    """Why it is not cut: scores are added up in single precision, so a tie falls one way or another."""
    tokenizer = train(tmp_path / "t.model", [*TEXTS, *["哈哈 哈哈哈哈 哈哈哈"] * 30], model_type="unigram", vocab_size=700)
    assert len(tokenizer.encode("哈哈")) < len(tokenizer.encode("哈 哈"))
    texts = ["\x01" * count + "哈哈哈" for count in range(1, 400)]
    assert len({tuple(tokenizer.encode(text)[-2:]) for text in texts}) > 1
    check(FlatEncoder(tokenizer), tokenizer, texts)


def test_ids_are_as_narrow_as_the_vocabulary_allows(tmp_path):
    tokenizer = train(tmp_path / "t.model", TEXTS)
    assert FlatEncoder(tokenizer).encode(b"ab", np.array([0]), np.array([2]))[0].dtype == np.uint16
    model = ModelProto.FromString(tokenizer.content)
    for number in range(1 << 16):
        model.pieces.add(piece=f"<{number}>", type=ModelProto.SentencePiece.CONTROL)
    (tmp_path / "wide.model").write_bytes(model.SerializeToString())
    wide = FlatEncoder(open_tokenizer(tmp_path / "wide.model"))
    assert wide.encode(b"ab", np.array([0]), np.array([2]))[0].dtype == np.uint32
