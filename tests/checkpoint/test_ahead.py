import threading

import pytest

from tp_ext.checkpoint.ahead import read_ahead


def test_a_stream_is_made_in_another_thread_in_order_and_little_ahead():
    made, threads = [], set()

    def items():
        for number in range(20):
            made.append(number)
            threads.add(threading.current_thread())
            yield number

    with read_ahead(items()) as stream:
        for seen, number in enumerate(stream):
            assert number == seen
            assert len(made) <= seen + 3  # this one, one that waits, one that is being made
    assert len(made) == 20
    assert threading.current_thread() not in threads


def test_what_making_an_item_raises_is_raised_where_it_would_have_come():
    def items():
        yield 1
        raise ValueError("the second")

    with read_ahead(items()) as stream:
        assert next(stream) == 1
        with pytest.raises(ValueError, match="the second"):
            next(stream)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_the_thread_ends_with_the_block(taken):
    before = set(threading.enumerate())

    def leave():
        with read_ahead(iter(range(100))) as stream:
            assert [next(stream) for _ in range(taken)] == list(range(taken))
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert set(threading.enumerate()) == before
