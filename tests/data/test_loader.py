import threading
import time
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import store_of

from tp_ext.data.loader import Loader
from tp_ext.data.mixture import Epochs, Mixture
from tp_ext.data.order import Order
from tp_ext.data.pack import pack
from tp_ext.data.prefetch import Prefetch
from tp_ext.data.store import Store
from tp_ext.data.turns import Turns


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000, 1025])
def test_an_epoch_is_a_permutation_and_the_next_is_another(size):
    order = Order(size, seed=3)
    first, second = order.at(np.arange(size)), order.at(np.arange(size, 2 * size))
    assert sorted(first) == sorted(second) == list(range(size))
    if size > 3:
        assert first.tolist() != second.tolist()
        assert first.tolist() != Order(size, seed=4).at(np.arange(size)).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 12345, 10**9, 1 << 39])
def test_one_position_is_found_as_many_are(size):
    order = Order(size, 7)
    positions = np.random.default_rng(1).integers(0, size * 5, 200)
    assert [int(order.at(np.array([position]))[0]) for position in positions] == order.at(positions).tolist()


def test_the_order_looks_random():
    order = Order(10_000, seed=0).at(np.arange(10_000))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Two datasets whose instances have different numbers of targets, mixed 3 to 1."""
    folder = tmp_path_factory.mktemp("mixture")
    few = pack(store_of(folder / "few", [9] * 300), 16, "document", document_mask=True)
    full = pack(store_of(folder / "full", [17] * 100, seed=1), 16, "document", document_mask=True)
    return Mixture({"few": few, "full": full}, {"few": 3, "full": 1}, seed=1)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_all_processes_together_read_the_same_global_batch(dataset, mixture, world_size):
    instances = pack(Store(dataset), 32)
    position = len(instances) - 5  # over the end of an epoch, with the padded instance in it
    for stream in (Epochs(instances, seed=1), mixture):
        loaders = [Loader(stream, 16, 2, rank, world_size) for rank in range(world_size)]
        batches = [loader.global_batch(position) for loader in loaders]
        whole = stream.read(np.arange(position, position + 16))
        rows = [row.tobytes() for one in batches for micro in one.micro_batches for row in micro.batch.tgt]
        assert sorted(rows) == sorted(row.tobytes() for row in whole.tgt)
        assert {one.targets_num for one in batches} == {int(whole.seg.sum())}


def test_weights_make_the_mean_over_all_targets(dataset):
    instances = pack(Store(dataset), 32)
    stream = Epochs(instances, 0, shuffle=False)
    position = len(instances) - 4
    micros = [micro for rank in range(2) for micro in Loader(stream, 8, 2, rank, 2).global_batch(position).micro_batches]
    means = [micro.batch.tgt[micro.batch.seg == 1].mean() for micro in micros]
    whole = instances.read(np.arange(position, position + 8) % len(instances))
    expected = whole.tgt[whole.seg == 1].mean()
    assert np.mean([micro.weight * mean for micro, mean in zip(micros, means, strict=True)]) == pytest.approx(expected)


shares = st.lists(st.floats(1e-3, 1), min_size=1, max_size=8).map(lambda found: [one / sum(found) for one in found])


@given(shares, st.integers(0, 10**12))
def test_at_any_time_everyone_has_had_their_share_of_the_turns(shares, start):
    turns = Turns(shares)
    for first in (0, start):
        number, place = turns.at(np.arange(first, first + 2000))
        for who, share in enumerate(shares):
            mine = place[number == who]
            assert (np.diff(mine) == 1).all()
            had = mine[0] + np.arange(len(mine) + 1) if len(mine) else np.empty(0)
            at = np.concatenate([np.flatnonzero(number == who), [2000]])[: len(had)] + first
            # shares are multiples of 2^-30: over 10^12 turns that is a drift of 1000
            assert (np.abs(had - at * share) <= (1 if len(shares) <= 3 else 2) + at * 2.0**-29).all()


def test_a_mixture_has_its_shares_of_the_targets_and_each_dataset_its_epochs(mixture):
    batch = mixture.read(np.arange(4000))
    counts = mixture.targets(np.arange(4000))
    assert counts.tolist() == batch.seg.sum(1).tolist()
    assert counts[counts == 8].sum() / counts.sum() == pytest.approx(0.75, abs=0.002)
    assert mixture.passes(700) == pytest.approx({"few": 2.0, "full": 1.0})
    full = [row.tobytes() for row in batch.window[counts == 16]]
    assert len(set(full[:100])) == len(set(full[100:200])) == 100
    assert full[:100] != full[100:200]


def test_a_mixture_does_not_depend_on_the_order_of_its_names_or_on_how_it_is_read(mixture, tmp_path):
    few, full = (epochs.instances for epochs in mixture._epochs)
    other = Mixture({"full": full, "few": few}, {"full": 0.25, "few": 0.75}, seed=1)
    positions = np.arange(1000, 1064)
    whole = mixture.read(positions)
    assert (other.read(positions).window == whole.window).all()
    shuffled = np.random.default_rng(0).permutation(64)
    again = mixture.read(positions[shuffled])
    for name in ("window", "seg", "documents"):
        assert (getattr(again, name) == getattr(whole, name)[shuffled]).all()
    assert (Mixture({"few": few, "full": full}, {"few": 3, "full": 1}, seed=2).read(positions).window != whole.window).any()


def test_items_are_made_ahead_in_a_thread_and_not_too_many():
    made = []
    items = (made.append(number) or (number, threading.current_thread().name) for number in count())
    before = threading.active_count()
    with Prefetch(items, ahead=2) as ready:
        assert [next(ready) for _ in range(3)] == [(number, "prefetch") for number in range(3)]
        deadline = time.monotonic() + 10
        while len(made) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(made) == 6  # three used, two ready, one that waits for room
    assert threading.active_count() == before


def test_what_goes_wrong_in_the_thread_is_raised_where_its_item_would_be():
    def items():
        yield 1
        raise OSError("the disk is gone")

    with Prefetch(items()) as ready:
        assert next(ready) == 1
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                next(ready)
    with Prefetch(iter([1, 2])) as ready:
        assert list(ready) == [1, 2]


def test_the_thread_ends_when_the_user_fails():
    with pytest.raises(KeyError), Prefetch(count(), ahead=1):
        raise KeyError
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
