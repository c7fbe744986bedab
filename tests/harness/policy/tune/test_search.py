"""The search against brute force, and what must hold of any search."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from harness.policy.tune.conditions import Conditions, Rules, conditions_of_profile
from harness.policy.tune.recommend import recommend
from harness.policy.tune.requirements import Requirements, parse_requirements
from harness.policy.tune.search import Space, indistinct, pareto_mask, search
from harness.theory.costs import cost
from scenarios.distributions import Distribution, Exponential, Lognormal
from scenarios.network import Nat, Network, Outages
from tests.harness.policy.tune.simple import best_simple

GRID = ((5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0), (1, 2, 3), (0.5, 2.0, 5.0, 8.0), (3.0, 7.0, 15.0, 30.0))
SMALL = Space(intervals_s=GRID[0], max_failures=GRID[1], timeouts_s=GRID[2], retries_s=GRID[3])


def conditions(mean_s: float = 6.0, nat: Nat | None = None, trip_s: float = 0.1) -> Conditions:
    length = Distribution(exponential=Exponential(mean=mean_s))
    return Conditions(
        "test",
        Network(round_trip=Distribution(constant=trip_s), outages=Outages(every=7200.0, length=length)),
        nat,
    )


@pytest.mark.parametrize("mean_s", [2.0, 6.0, 15.0])
@pytest.mark.parametrize("nat_s", [None, 40.0, 90.0])
@pytest.mark.parametrize(
    "given",
    [
        {"detect_p99": "60s", "false_suspicions": "1/client-month"},
        {"detect_p99": "60s", "false_suspicions": "1/client-day", "budget": "70/s"},
        {"detect_p99": "100s", "false_suspicions": "1/client-week", "min_failures": 3},
        {"detect_p99": "30s", "false_suspicions": "2/client-day", "min_failures": 1, "headroom": 1.0},
        {"detect_p99": "200s", "false_suspicions": "1/client-year"},
    ],
    ids=str,
)
def test_the_choice_is_the_one_of_brute_force(
    given: dict[str, Any], nat_s: float | None, mean_s: float
) -> None:
    where = conditions(mean_s, None if nat_s is None else Nat(idle_timeout=nat_s))
    requirements, rules = parse_requirements(**given, prefer="cost"), Rules()
    expected = best_simple(where, requirements, rules, GRID)
    found = recommend(where, requirements, space=SMALL, rules=rules)
    assert found.feasible is (expected is not None)
    if expected is not None:
        assert found.policy.heartbeat_interval == expected.interval_s
        assert found.figures["frames_per_s"] == pytest.approx(expected.frames_per_s)
        # Equal in false suspicions, as far as they are told apart (2.3 %).
        assert indistinct(found.figures["false_per_client_day"]) == pytest.approx(
            indistinct(expected.false_per_day), abs=0.0101
        )
        assert found.figures["detect_p99_s"] <= expected.p99_s + 1e-9


def test_the_small_grid_has_feasible_and_infeasible_cases() -> None:
    """The comparison above would prove little if all came out the same way."""
    outcomes = {
        recommend(conditions(m), parse_requirements(**w), space=SMALL).feasible
        for m, w in itertools.product(
            (2.0, 15.0),
            (
                {"detect_p99": "60s", "false_suspicions": "1/client-month"},
                {"detect_p99": "200s", "false_suspicions": "1/client-year"},
            ),
        )
    }
    assert outcomes == {True, False}


def test_every_policy_of_the_space_is_sound_and_there_once() -> None:
    table = Space().policies()
    assert len(table) >= 1000
    assert (table["timeout_s"] <= table["retry_s"]).all()
    assert (table["retry_s"] <= table["interval_s"]).all()
    assert not table.duplicated(["interval_s", "max_failures", "timeout_s", "retry_s"]).any()
    patience = (table["max_failures"] - 1) * table["retry_s"] + table["timeout_s"]
    assert np.allclose(patience, table["patience_s"])


def test_pareto_against_every_pair() -> None:
    r = np.random.default_rng(5)
    for levels in (4, 9, 1000):
        points = r.integers(0, levels, (300, 3)).astype(float)
        found = pareto_mask(*points.T)
        seen: set[tuple[float, ...]] = set()
        for i, point in enumerate(points):
            beaten = any((o <= point).all() and (o < point).any() for o in points)
            first = tuple(point) not in seen
            seen.add(tuple(point))
            assert found[i] == (not beaten and first), (levels, i)


LOOSER: list[tuple[str, list[str]]] = [
    ("detect_p99", ["20s", "30s", "45s", "60s", "61s", "90s", "3m", "10m"]),
    (
        "false_suspicions",
        ["1/client-year", "3/client-year", "1/client-month", "1/client-week", "1/client-day", "9/client-day"],
    ),
    ("budget", ["10/s", "30/s", "45/s", "60/s", "100/s", "500/s", "9000/s"]),
    ("radio_wakeups", ["20/h", "60/h", "80/h", "100/h", "999/h"]),
    ("store_operations", ["0.2/s", "1/s", "4/s", "50/s"]),
]
BASE = {"detect_p99": "80s", "false_suspicions": "1/client-week", "budget": "200/s"}
SHAKY = {"detect_p99": "4m", "false_suspicions": "1/client-week", "budget": "200/s"}


@pytest.mark.parametrize(("name", "values"), LOOSER, ids=[name for name, _ in LOOSER])
@pytest.mark.parametrize("profile", ["office-wifi-60s-lb", "cellular-4min-nat", "home-nat"])
def test_looser_wants_never_cost_more(name: str, values: list[str], profile: str) -> None:
    where = conditions_of_profile(profile)
    space = Space(
        intervals_s=tuple(np.arange(1.0, 200.0, 6.0).tolist()),
        retries_s=(2.0, 4.0, 7.0, 12.0, 25.0),
        timeouts_s=(0.5, 1.0, 2.0, 4.0, 7.0, 12.0, 25.0),
    )
    base = SHAKY if profile == "cellular-4min-nat" else BASE
    costs = []
    for value in values:
        found = search(where, parse_requirements(**{**base, name: value}, prefer="cost"), space)
        best = found.best(found.candidates["feasible"].to_numpy())
        costs.append(np.inf if best is None else float(found.candidates["frames_per_s"].iloc[best]))
    assert costs == sorted(costs, reverse=True)
    assert np.isfinite(costs[-1])


@pytest.mark.parametrize(
    ("prefer", "column"),
    [("cost", "frames_per_s"), ("latency", "detect_p99_s"), ("accuracy", "false_per_client_day")],
)
def test_the_preferred_figure_is_the_least_of_all_feasible(prefer: str, column: str) -> None:
    requirements = parse_requirements(
        detect_p99="60s", false_suspicions="1/client-week", budget="200/s", prefer=prefer
    )
    found = search(conditions(), requirements, SMALL)
    feasible = found.candidates[found.candidates["feasible"]]
    best = found.best(found.candidates["feasible"].to_numpy())
    assert best is not None
    assert found.candidates[column].iloc[best] <= feasible[column].min() * 1.024 + 1e-9


def test_costs_are_theorys() -> None:
    found = recommend(conditions(), parse_requirements(store_operations="2/s"), space=SMALL)
    expected = cost(found.policy, 1000, beat_bytes=found.rules.beat_bytes)
    assert found.figures["frames_per_s"] == pytest.approx(expected.frames_per_s)
    assert found.figures["bytes_per_s"] == pytest.approx(expected.bytes_per_s)
    assert found.figures["store_operations_per_s"] == pytest.approx(expected.store_operations_per_s)
    assert found.figures["store_operations_per_s"] <= 2
    assert found.figures["radio_wakeups_per_hour"] == pytest.approx(expected.radio_wakeups_per_hour)


def test_slow_answers_ask_for_a_longer_deadline() -> None:
    slow = Distribution(lognormal=Lognormal(median=1.0, sigma=0.5))
    where = Conditions("satellite", Network(round_trip=slow))
    found = search(where, Requirements(detect_p99=60.0, false_suspicions=1 / 30), SMALL)
    sound = found.candidates[found.sound]
    assert (sound["timeout_s"] - found.rules.lag_s >= slow.quantile(0.999)).all()
    assert set(found.candidates.loc[found.unsound["slow-answers"], "timeout_s"]) == {0.5, 2.0}
