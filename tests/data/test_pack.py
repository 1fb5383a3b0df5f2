from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import documents_of, store_of

from tp_ext.data.best_fit import best_fit
from tp_ext.data.pack import instances_num, pack
from tp_ext.data.store import Store
from tp_ext.errors import DatasetError

LENGTHS = [5, 2, 40, 17, 16, 18, 33, 1, 3, 9, 12, 2, 65, 4]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("small") / "d", LENGTHS)


def pairs(batch):
    """Every id with the target after it, and their numbers [n, 2]."""
    counted = batch.seg == 1
    return np.stack([batch.src[counted], batch.tgt[counted]], 1)


@pytest.mark.parametrize("seq_length", [1, 7, 32, 1000, 100000])
def test_contiguous_has_every_token_but_the_first_as_target_once_and_padding_never(dataset, seq_length):
    store = Store(dataset)
    instances = pack(store, seq_length)
    batch = instances.read(np.arange(len(instances)))
    counted = batch.seg == 1
    assert batch.tgt[counted].tolist() == store.tokens[1:].tolist()
    assert batch.src[counted].tolist() == store.tokens[:-1].tolist()
    assert instances.targets(np.arange(len(instances))).tolist() == counted.sum(1).tolist()
    assert instances.targets_num == counted.sum()
    assert instances_num(len(store.tokens), seq_length) == (len(instances), counted[-1].sum())


@pytest.mark.parametrize("packing", ["document", "best_fit"])
@pytest.mark.parametrize("seq_length", [1, 7, 16, 64, 1000])
def test_whole_documents_have_every_token_but_their_first_as_target_once(small, packing, seq_length):
    instances = pack(small, seq_length, packing)
    batch = instances.read(np.arange(len(instances)))
    expected = [pair for ids in documents_of(small) for pair in pairwise(ids)]
    assert sorted(map(tuple, pairs(batch).tolist())) == sorted(expected)
    counts = instances.targets(np.arange(len(instances)))
    assert counts.tolist() == (batch.seg == 1).sum(1).tolist()
    assert counts.min() >= 1
    assert instances.targets_num == len(expected)
    assert batch.documents is None


@pytest.mark.parametrize("packing", ["contiguous", "best_fit"])
def test_the_longest_instance_costs_no_more_than_the_dataset(small, packing):
    instances = pack(small, (1 << 31) - 1, packing)
    assert len(instances) == 1
    assert sum(length for _, length in instances.spans(0)) >= sum(LENGTHS) - 1  # a document of one token has no target


@pytest.mark.parametrize("packing", ["document", "best_fit"])
def test_only_documents_longer_than_a_window_are_cut(small, packing):
    instances = pack(small, 16, packing, document_mask=True)
    batch = instances.read(np.arange(len(instances)))
    pieces = []
    for window, seg, numbers in zip(batch.window, batch.seg, batch.documents, strict=True):
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            if seg[places].any():
                stop = places[-1] + 1 + seg[places[-1]]  # the last target of a full window
                pieces.append(window[places[0] : stop].tolist())
    short = [ids for ids in documents_of(small) if 2 <= len(ids) <= 17]
    assert all(ids in pieces for ids in short)
    cut = [piece for piece in pieces if piece not in short]
    assert len(cut) == sum(-(-(length - 1) // 16) for length in LENGTHS if length > 17)
    if packing == "document":
        assert len(instances) == len(pieces)


def test_best_fit_leaves_hardly_any_position_empty(dataset):
    instances = pack(Store(dataset), 256, "best_fit")
    batch = instances.read(np.arange(len(instances)))
    assert (batch.window > 0).mean() > 0.99
    assert len(instances) < len(pack(Store(dataset), 256, "document")) / 4


@pytest.mark.parametrize("packing", ["contiguous", "document", "best_fit"])
def test_document_numbers_change_where_documents_begin_and_where_padding_does(small, packing):
    instances = pack(small, 16, packing, document_mask=True)
    batch = instances.read(np.arange(len(instances))[::-1])
    assert (batch.documents[:, 0] == 1).all()
    changes = np.diff(batch.documents, axis=1)
    padding = np.cumsum(batch.src[:, ::-1], axis=1)[:, ::-1] == 0
    begins = (batch.src[:, 1:] == 1) | (padding[:, 1:] & ~padding[:, :-1])
    rest = packing == "best_fit"  # the rest of a document that was cut begins without bos
    assert ((changes == 1) >= begins).all() if rest else ((changes == 1) == begins).all()
    assert set(np.unique(changes)) <= {0, 1}
    assert (batch.documents.max() <= 17) and (batch.src < 500).all()


@pytest.mark.parametrize("packing", ["contiguous", "document", "best_fit"])
def test_instances_are_the_same_in_any_order_and_number(small, packing):
    instances = pack(small, 16, packing, document_mask=True)
    order = np.random.default_rng(0).permutation(len(instances))
    together = instances.read(order)
    for row, index in enumerate(order):
        alone = instances.read(np.array([index]))
        for name in ("window", "seg", "documents"):
            assert (getattr(alone, name)[0] == getattr(together, name)[row]).all()
    empty = instances.read(np.arange(0))
    assert empty.window.shape == (0, 17) and empty.seg.shape == empty.documents.shape == (0, 16)


def test_a_dataset_without_a_target_is_refused(tmp_path):
    store = store_of(tmp_path / "d", [1, 1, 1])
    assert len(pack(store, 4)) == 1
    for packing in ("document", "best_fit"):
        with pytest.raises(DatasetError, match="no document has two tokens"):
            pack(store, 4, packing)


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 60).flatmap(lambda room: st.tuples(st.just(room), st.lists(st.integers(1, room), min_size=1))))
def test_best_fit_is_best_fit_decreasing(case):
    capacity, sizes = case
    expected: list[list[int]] = []
    for size in sorted(sizes, reverse=True):
        fits = [held for held in expected if sum(held) + size <= capacity]
        if fits:
            max(fits, key=sum).append(size)
        else:
            expected.append([size])
    order, bounds = best_fit(np.array(sizes, dtype=np.uint32), capacity)
    assert sorted(order) == list(range(len(sizes)))
    found = [sorted(sizes[item] for item in order[a:b]) for a, b in pairwise(bounds)]
    assert sorted(map(sum, found)) == sorted(map(sum, expected))
    assert max(map(sum, found)) <= capacity
