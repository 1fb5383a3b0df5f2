"""Buckets, equal texts, near copies and stretches, each against a plain way to find the same."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tp_ext.clean import buckets as buckets_module
from tp_ext.clean import substrings
from tp_ext.clean.buckets import Buckets
from tp_ext.clean.exact import copies, digest_of
from tp_ext.clean.grams import codes_of, hashes_of
from tp_ext.clean.rows import Rows
from tp_ext.clean.substrings import repeated, stretches

WIDTH = 4
TEXT = st.text("ab文", max_size=25)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_equal_keys_come_together_whatever_the_number_of_files(tmp_path, monkeypatch, size):
    monkeypatch.setattr(buckets_module, "BUCKET_PAIRS", size)
    draw = np.random.default_rng(0)
    keys = draw.choice(draw.integers(0, 1 << 63, 60, dtype=np.uint64) * np.uint64(2), 100)
    found = Buckets(tmp_path / "b", 100)
    for start in range(0, 100, 30):
        part = keys[start : start + 30]
        found.add(part, np.arange(start, start + len(part)))
    groups = [tuple(each.tolist()) for numbers, starts in found.groups() for each in np.split(numbers, starts[1:])]
    by_key: dict[int, list[int]] = {}
    for number, key in enumerate(keys.tolist()):
        by_key.setdefault(key, []).append(number)
    assert sorted(groups) == sorted(tuple(numbers) for numbers in by_key.values() if len(numbers) > 1)
    assert not (tmp_path / "b").exists()


def test_equal_texts_are_found_even_where_half_of_the_hash_is_equal(tmp_path):
    rows = np.array([[1, 1], [1, 2], [2, 1], [1, 2], [1, 1], [1, 1]], dtype="<u8")
    for number, part in enumerate((rows[:2], rows[2:])):
        part.tofile(tmp_path / str(number))
    later, first = copies(Rows([tmp_path / "0", tmp_path / "1"], "<u8", 2), tmp_path / "work")
    assert (later.tolist(), first.tolist()) == ([3, 4, 5], [1, 0, 0])
    assert len(digest_of("文")) == 16


@given(st.text("ab文", max_size=40), st.integers(1, 12))
def test_hashes_are_equal_where_stretches_are(text, width):
    hashes = hashes_of(codes_of(text), width).tolist()
    pieces = [text[place : place + width] for place in range(len(text) - width + 1)]
    assert len(hashes) == len(pieces)
    assert len(set(hashes)) == len(set(pieces))
    assert len(set(zip(hashes, pieces, strict=True))) == len(set(pieces))


def plain(earlier, texts):
    """Places, over all texts, of windows that came before by at least the width."""
    first = {text[place : place + WIDTH]: -WIDTH for text in earlier for place in range(len(text) - WIDTH + 1)}
    found, start = [], 0
    for text in texts:
        for place in range(len(text) - WIDTH + 1):
            if start + place - first.setdefault(text[place : place + WIDTH], start + place) >= WIDTH:
                found.append(start + place)
        start += len(text)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, max_size=3), st.lists(TEXT, max_size=6), st.integers(1, 30))
def test_stretches_are_those_of_a_dictionary_of_windows(tmp_path_factory, earlier, texts, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(substrings, "_PIECE", piece)
        patch.setattr(substrings, "SPAN", 3 * piece)
        marks = repeated(earlier, texts, WIDTH, 100, tmp_path_factory.mktemp("work"))
        assert [place for each in marks for place in each.tolist()] == plain(earlier, texts)


def test_one_copy_of_a_repeated_character_stays():
    marks = np.arange(64, 1000 - 63)
    assert stretches(marks, 64) == [(64, 1000)]
    assert stretches(np.array([3, 5, 69, 200]), 64) == [(3, 133), (200, 264)]
    assert stretches(np.zeros(0, np.int64), 64) == []


def near(tmp_path, texts, similarity=0.7):
    fuzzy, minhash = pytest.importorskip("tp_ext.clean.fuzzy"), pytest.importorskip("tp_ext.clean.minhash")
    pytest.importorskip("rensa")
    (tmp_path / "s").write_bytes(minhash.signatures(texts).tobytes())
    later, first = fuzzy.near_copies(Rows([tmp_path / "s"], "<u2", minhash.SLOTS), similarity, tmp_path / "work")
    return dict(zip(later.tolist(), first.tolist(), strict=True))


def sentence(seed, length=300):
    draw = random.Random(seed)
    return "".join(chr(draw.randrange(0x4E00, 0x5E00)) for _ in range(length))


def changed(text, times, seed):
    draw, characters = random.Random(seed), list(text)
    for _ in range(times):
        characters[draw.randrange(len(characters))] = chr(draw.randrange(0x6000, 0x8000))
    return "".join(characters)


def jaccard(first, second):
    sets = [{text[place : place + 5] for place in range(len(text) - 4)} for text in (first, second)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_near_copies_are_found_and_others_never(tmp_path):
    base = [sentence(seed) for seed in range(300)]
    copies_of = [changed(text, seed % 25, seed) for seed, text in enumerate(base)]
    similar = [jaccard(*pair) for pair in zip(base, copies_of, strict=True)]
    found = near(tmp_path, [*base, *copies_of])
    assert all(later - 300 == first for later, first in found.items())
    high = [place for place, each in enumerate(similar) if each >= 0.8]
    assert len(high) > 40
    assert sum(place + 300 in found for place in high) >= 0.98 * len(high)
    assert not [place for place, each in enumerate(similar) if each < 0.5 and place + 300 in found]


def test_a_chain_ends_at_the_one_that_is_kept_and_later_ones_change_nothing(tmp_path):
    chain = [sentence(1)]
    for step in range(6):
        chain.append(changed(chain[-1], 4, step))
    assert near(tmp_path, chain) == dict.fromkeys(range(1, 7), 0)
    for count in range(2, 7):
        assert near(tmp_path, chain[:count]) == dict.fromkeys(range(1, count), 0)


def test_what_does_not_count_changes_nothing_and_texts_without_grams_are_alone(tmp_path):
    text = sentence(3)
    spaced = "，".join(text[place : place + 20] for place in range(0, 300, 20))
    assert near(tmp_path, [text, spaced, "", "", "好", "好", "一二三四", "一二三四"]) == {1: 0}
    assert near(tmp_path, ["一二三四五", "一二三四五。"]) == {1: 0}
