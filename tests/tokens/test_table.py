import numpy as np
import pytest

from tp_ext.tokens.table import MOST_WORDS, Table


def some_keys(count, words_num, seed):
    random = np.random.default_rng(seed)
    return [random.integers(0, 40 if words_num > 1 else 1 << 62, count).astype(np.uint64) for _ in range(words_num)]


@pytest.mark.parametrize("words_num", range(1, MOST_WORDS + 1))
def test_it_is_a_dictionary_of_whole_keys(words_num):
    table, known, size = Table(words_num), {}, 0
    for seed in range(30):
        keys = some_keys(700, words_num, seed)
        rows = list(zip(*(key.tolist() for key in keys), strict=True))
        found = table.find(keys)
        assert found.tolist() == [known.get(row, 0) for row in rows]
        missing = np.flatnonzero(found == 0)
        slots, owners = table.claim([key[missing] for key in keys])
        for place, owner, slot in zip(missing.tolist(), owners.tolist(), slots.tolist(), strict=True):
            assert rows[missing[owner]] == rows[place]
            table.numbers[slot] = known.setdefault(rows[place], len(known) + 1)
        assert table.nbytes >= size
        size = table.nbytes
        assert 2 * len(known) <= table.numbers.size
    assert table.find(keys).tolist() == [known[row] for row in rows]


def test_a_key_of_zeros_is_a_key():
    table = Table(1)
    key = [np.zeros(2, np.uint64)]
    assert table.find(key).tolist() == [0, 0]
    slots, owners = table.claim(key)
    assert slots[0] == slots[1] and len(set(owners.tolist())) == 1
    table.numbers[slots] = 5
    assert table.find(key).tolist() == [5, 5]


def test_keys_that_want_the_same_place_are_told_apart():
    table = Table(1)
    keys = [np.arange(1, 3000, dtype=np.uint64) << np.uint64(52)]  # their products with an odd factor share few top bits
    slots, _ = table.claim(keys)
    table.numbers[slots] = np.arange(1, 3000)
    assert table.find(keys).tolist() == list(range(1, 3000))
