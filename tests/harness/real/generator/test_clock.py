"""The offset of another clock, on virtual time: the stated bound holds whatever the network does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.real.generator.clock import MAX_DRIFT, ClockEstimator


def test_without_an_answer_there_is_no_offset() -> None:
    assert ClockEstimator().offset(0.0) is None


@pytest.mark.parametrize(
    ("there_s", "back_s"), [(0.0, 0.0), (0.01, 0.01), (0.02, 0.0), (0.0, 0.02), (1.0, 0.1)]
)
def test_half_the_round_trip_bounds_the_error(there_s: float, back_s: float) -> None:
    clock = ClockEstimator()
    clock.add(100.0, 100.0 + there_s + 1000.0, 100.0 + there_s + back_s)
    found = clock.offset(100.0 + (there_s + back_s) / 2)
    assert found is not None
    assert found.bound_s == pytest.approx((there_s + back_s) / 2, abs=1e-9)
    assert abs(found.offset_s - 1000.0) <= found.bound_s + 1e-9


def test_the_shortest_round_trip_says_most_until_it_is_old() -> None:
    clock = ClockEstimator()
    clock.add(0.0, 5.0005, 0.001)
    clock.add(10.0, 15.3, 0.4 + 10.0)
    now = clock.offset(10.4)
    assert now is not None
    assert now.offset_s == pytest.approx(5.0)
    assert now.bound_s == pytest.approx(0.0005 + 10.4 * MAX_DRIFT, rel=1e-3)
    much_later = clock.offset(2000.0)
    assert much_later is not None
    assert much_later.offset_s == pytest.approx(5.0)
    clock.add(1999.9, 2005.0, 2000.0)
    assert clock.offset(2000.0) != much_later


def test_an_answer_before_its_question_is_refused() -> None:
    with pytest.raises(ValueError, match="before it was asked"):
        ClockEstimator().add(1.0, 0.0, 0.5)


@given(
    offset_s=st.floats(-1e5, 1e5),
    drift=st.floats(-MAX_DRIFT, MAX_DRIFT),
    trips=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0, 60)), min_size=1, max_size=80),
)
def test_the_true_offset_is_always_within_the_bound(
    offset_s: float, drift: float, trips: list[tuple[float, float, float]]
) -> None:
    """Any delays, as unequal as they like, and any drift that is allowed."""

    def other_s(own_s: float) -> float:
        return own_s + offset_s + drift * own_s

    clock, now_s = ClockEstimator(), 0.0
    for there_s, back_s, pause_s in trips:
        clock.add(now_s, other_s(now_s + there_s), now_s + there_s + back_s)
        now_s += there_s + back_s + pause_s
    found = clock.offset(now_s)
    assert found is not None
    assert abs(found.offset_s - (other_s(now_s) - now_s)) <= found.bound_s * (1 + MAX_DRIFT) + 1e-6
