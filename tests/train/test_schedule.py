import math

import pytest

from tp_ext.train.schedule import SCHEDULES, Span, rate_at, warmup_steps

SPAN = Span(highest=1.0, lowest=0.1, total_steps=100, warmup_steps=10)


@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_the_warmup_rises_to_the_highest_rate(scheduler):
    assert [rate_at(step, scheduler, SPAN) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]


def test_each_schedule_is_its_formula():
    for step in (11, 37, 55, 99, 100):
        share = (step - 10) / 90
        assert rate_at(step, "constant", SPAN) == 1.0
        assert rate_at(step, "linear", SPAN) == pytest.approx(1 - 0.9 * share)
        assert rate_at(step, "cosine", SPAN) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * share)))


def test_the_last_step_has_the_floor_and_later_ones_stay_there():
    assert rate_at(100, "cosine", SPAN) == pytest.approx(0.1)
    assert rate_at(500, "cosine", SPAN) == pytest.approx(0.1)


def test_without_a_warmup_the_first_step_is_near_the_highest_rate():
    span = Span(1.0, 0.0, 100, 0)
    assert rate_at(1, "linear", span) == pytest.approx(0.99)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (0.01, 10), (0.0101, 11), (1, 1), (200, 200)])
def test_a_warmup_is_a_share_or_a_number(warmup, steps):
    assert warmup_steps(warmup, 1000) == steps
