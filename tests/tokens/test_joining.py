from collections import defaultdict

import pytest
from byte_level_bases import make_base

from tp_ext.tokens.byte_level import words_of
from tp_ext.tokens.characters import is_chinese
from tp_ext.tokens.joining import Joining, Ownership
from tp_ext.tokens.tokenizer import open_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return open_tokenizer(make_base("gpt2", tmp_path_factory.mktemp("base")))


@pytest.fixture
def joining(base):
    return Joining([base.piece(index) for index in range(base.vocab_size)], Ownership(is_chinese))


def test_beginnings_are_owned_when_every_character_they_begin_is():
    expected = defaultdict(lambda: True)
    for code in [*range(0xD800), *range(0xE000, 0x40000)]:
        content = chr(code).encode()
        chinese = is_chinese(chr(code))
        for stop in range(1, len(content) + 1):
            expected[content[:stop]] &= chinese
    owned = Ownership(is_chinese)
    assert [start for start in expected if owned(start) != expected[start]] == []
    assert sum(expected.values()) > 100_000
    assert not owned("\U0010ffff".encode()[:1])


@pytest.mark.parametrize(
    ("content", "expected"),
    [("中国".encode(), True), ("中国".encode()[:4], True), ("中国".encode()[1:], False), ("中a".encode(), False),
     ("中".encode() + "か".encode()[:2], False), ("𠀀".encode()[:2], True), ("🙂".encode()[:2], False)],
)  # fmt: skip
def test_byte_strings(content, expected):
    assert Ownership(is_chinese)(content) is expected


def test_a_text_becomes_one_token_and_stays_one(base, joining):
    texts = ["龘龘", "鱻龘鱻", "龘鱻", "鱻鱻鱻鱻"]
    cuts = dict(zip(texts, (words[0] for words in words_of(base.inside, texts)), strict=True))
    assert all(len(joining.cut(cut)) > 1 for cut in cuts.values())
    for number, text in enumerate(texts, 1):
        assert joining.join(cuts[text], set(), None) is True
        for earlier in texts[:number]:
            ids = joining.cut(cuts[earlier])
            assert len(ids) == 1
            assert joining.content(ids[0]) == earlier.encode()


def test_the_way_of_a_long_text_is_not_searched_before_every_pair(base, joining, monkeypatch):
    """It takes the cube of the length."""
    searched = []
    search = Joining._way
    monkeypatch.setattr(Joining, "_way", lambda self, ids, wanted: searched.append(len(ids)) or search(self, ids, wanted))
    text = "".join(map(chr, range(0x9F00, 0x9F20)))
    words = words_of(base.inside, [text])
    assert joining.join(words[0][0], set(), None)
    assert len(searched) <= 2  # anew once: first bytes that the characters share are joined at all of their places
    assert [joining.content(index) for index in joining.cut(words[0][0])] == [text.encode()]


@pytest.mark.parametrize(("wanted", "other"), [("龘鱻", "鱻齉"), ("鱻齉", "龘鱻")])
def test_what_is_wanted_is_made_on_the_way(base, joining, wanted, other):
    cut = words_of(base.inside, ["龘鱻齉"])[0][0]
    assert joining.join(cut, {wanted.encode()}, None)
    assert wanted.encode() in joining
    assert other.encode() not in joining


def test_the_earliest_merge_is_made_first_and_the_leftmost_of_one_kind(base, joining):
    second, first, text = (words[0] for words in words_of(base.inside, ["鱻齉", "龘鱻", "龘鱻齉龘龘龘"]))
    joining.join(second, set(), None)
    joining.join(first, set(), None)
    joining.join(words_of(base.inside, ["龘龘"])[0][0], set(), None)
    assert [joining.content(index).decode() for index in joining.cut(text)] == ["龘", "鱻齉", "龘龘", "龘"]


def test_there_is_no_way_over_bytes_of_other_scripts(base, joining):
    words = words_of(base.inside, ["ㄅ", "か"])
    assert len(words[0][0]) == 3
    assert [joining.join(word[0], set(), None) for word in words] == [False, False]
    assert not joining.can_join(words[0][0])
    assert len(joining) == 0
    assert joining.merges == []


def test_what_finds_no_room_is_taken_back(base, joining):
    first, second = (words[0] for words in words_of(base.inside, ["龘", "鱻齉"]))
    assert joining.join(first, set(), None)
    made = joining.tokens, joining.merges
    assert joining.join(second, set(), len(joining) + 2) is None
    assert (joining.tokens, joining.merges) == made
    assert len(joining.cut(second)) == len(second)
    assert joining.join(first, set(), 0) is True
    assert joining.join(second, set(), None) is True
