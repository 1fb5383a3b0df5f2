import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tp_ext.errors import TokenizerError
from tp_ext.tokens.continue_bpe import BORDER, continue_bpe


def text(seed, size=4000, letters=12):
    """Runs of tokens from 100 up, some much more frequent than others."""
    draw = random.Random(seed)
    tokens = [100 + min(int(draw.expovariate(0.3)), letters) for _ in range(size)]
    return [token if draw.random() > 0.1 else BORDER for token in tokens]


def merges_of(tokens, count, least):
    """BPE as it is defined, a whole pass over the text for every merge, with how often each was made."""
    runs, run = [], []
    for token in [*tokens, BORDER]:
        if token == BORDER:
            runs.append([(token,) for token in run])
            run = []
        else:
            run.append(token)
    made = []
    while len(made) < count:
        pairs = Counter(pair for run in runs for pair in pairwise(run))
        best = max(pairs.values(), default=0)
        if best < least:
            break
        first, second = min(pair for pair, times in pairs.items() if times == best)
        times = 0
        for run in runs:
            place = 0
            while place < len(run) - 1:
                if run[place] + run[place + 1] == first + second:
                    run[place : place + 2] = [first + second]
                    times += 1
                place += 1
        made.append((first + second, times))
    return made


@pytest.mark.parametrize(("count", "least"), [(5, 2), (60, 2), (60, 20), (400, 5)])
def test_merges_are_those_of_the_definition(count, least):
    tokens = text(count)
    expected = merges_of(tokens, count, least)
    found = continue_bpe(np.array(tokens, np.int32), count, least)
    # merges made equally often may come in another order, and then give others later
    alike = int(len(expected) * 0.7)
    assert len(found) == pytest.approx(len(expected), abs=max(2, 0.1 * len(expected)))
    assert [merge.frequency for merge in found][:alike] == pytest.approx(
        [times for _, times in expected][:alike], rel=0.1, abs=2)  # fmt: skip
    common = {merge.tokens for merge in found} & {merge for merge, _ in expected}
    assert len(common) >= 0.8 * len(expected)
    assert all(merge.frequency >= least for merge in found)
    assert found[0].tokens == expected[0][0]
    assert found[0].frequency == expected[0][1]


def test_nothing_is_joined_across_a_border():
    tokens = np.array([1, 2, BORDER, 2, 1, BORDER, 1, 2, BORDER] * 10, np.int32)
    assert [(merge.tokens, merge.frequency) for merge in continue_bpe(tokens, 9)] == [((1, 2), 20), ((2, 1), 10)]


def test_what_occurs_once_is_not_joined():
    assert continue_bpe(np.array([1, 2, 3, 4], np.int32), 9) == []


def test_many_different_tokens_are_told_apart():
    pairs = [[first, first + 1, BORDER] * 2 for first in range(0, 20000, 2)]
    tokens = np.array(pairs, np.int32).ravel()
    assert {merge.tokens for merge in continue_bpe(tokens, 30000)} == {(token, token + 1) for token in range(0, 20000, 2)}


@pytest.mark.parametrize("tokens", [[], [BORDER, BORDER]])
def test_no_text_is_told(tokens):
    with pytest.raises(TokenizerError, match="no text to learn pieces from"):
        continue_bpe(np.array(tokens, np.int32), 5)


def test_no_merges_are_wanted():
    assert continue_bpe(np.array([1, 2, 1, 2], np.int32), 0) == []
