"""Scenario seconds and real ones: there and back, for numbers, arrays and laws."""

from __future__ import annotations

import numpy as np
import pytest

from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.distributions import Distribution, Uniform


def test_a_run_ten_times_as_fast_beats_every_three_seconds() -> None:
    clock = RunClock(10.0)
    assert clock.real_s(30.0) == 3.0
    assert clock.scenario_s(3.0) == 30.0
    assert clock.scenario_s(np.array([0.5, 2.0])).tolist() == [5.0, 20.0]


def test_what_cannot_be_sped_up_looks_longer_in_the_scenario() -> None:
    trip = Distribution(uniform=Uniform(low=0.01, high=0.02))
    assert RunClock(10.0).seen(trip) == Distribution(uniform=Uniform(low=0.1, high=0.2))
    assert SCENARIO_TIME.seen(trip) is trip
    assert SCENARIO_TIME.is_real_time and not RunClock(2.0).is_real_time


@pytest.mark.parametrize("speedup", [0.0, -1.0, float("nan")])
def test_time_neither_stands_still_nor_runs_back(speedup: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RunClock(speedup)
