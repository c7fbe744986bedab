"""Requirements that nothing keeps: the nearest ones that something does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.policy.lint.sources import boxes_behind
from harness.policy.tune.conditions import Conditions, conditions_of_profile
from harness.policy.tune.explain import explain
from harness.policy.tune.recommend import NotTunable, recommend, relax_requirements
from harness.policy.tune.requirements import parse_requirements
from harness.policy.tune.search import search
from scenarios.distributions import Distribution
from scenarios.network import Nat, Network
from tests.harness.policy.tune.test_search import SMALL, conditions

INFEASIBLE: list[dict[str, Any]] = [
    {"detect_p99": "10s", "false_suspicions": "1/client-year"},
    {"detect_p99": "60s", "false_suspicions": "1/client-month", "budget": "2/s"},
    {"detect_p99": "60s", "false_suspicions": "1/client-week", "radio_wakeups": "10/h"},
    {"detect_p50": "6s", "detect_p99": "40s", "false_suspicions": "1/client-week"},
]


@pytest.mark.parametrize("given", INFEASIBLE, ids=str)
def test_each_way_is_feasible_and_no_smaller_move_is(given: dict[str, Any]) -> None:
    requirements = parse_requirements(**given)
    found = search(conditions(), requirements, SMALL)
    assert not found.candidates["feasible"].any()
    ways = relax_requirements(found)
    assert [way.factor for way in ways] == sorted(way.factor for way in ways)
    for way in ways:
        assert recommend(conditions(), way.requirements, space=SMALL).feasible
        if len(way.moved) > 1:
            continue
        ((limit, now),) = way.moved
        tighter = requirements.relaxed(limit, limit.allowed + (now - limit.allowed) * 0.98)
        assert not search(conditions(), tighter, SMALL).candidates["feasible"].any()


@pytest.mark.parametrize("given", INFEASIBLE, ids=str)
def test_the_nearest_policy_keeps_the_relaxed_wants(given: dict[str, Any]) -> None:
    answer = recommend(conditions(), parse_requirements(**given), space=SMALL)
    assert not answer.feasible
    for limit in answer.relaxations[0].requirements.limits:
        assert limit.ratio(answer.figures[limit.column]) <= 1, limit
    told = explain(answer)
    assert "No policy keeps every requirement" in told
    assert f"- {answer.relaxations[0].sentence}" in told


def test_where_no_single_want_is_enough_several_move() -> None:
    # The longest interval costs 16.7 frames a second, the shortest is 5 s: neither requirement can be kept at all.
    requirements = parse_requirements(detect_p99="1s", false_suspicions="9/client-day", budget="2/s")
    found = search(conditions(), requirements, SMALL)
    (way,) = relax_requirements(found)
    assert len(way.moved) > 1
    # The smallest largest move, by looking at all of them.
    worst = found.ratios[found.sound].max(axis=1).min()
    assert way.factor == pytest.approx(float(worst), rel=0.01)


def test_a_network_on_which_nothing_is_sound_is_told() -> None:
    nowhere = Conditions("nowhere", Network(), Nat(idle_timeout=3.0))
    with pytest.raises(NotTunable, match="idle-timer"):
        recommend(nowhere, parse_requirements(), space=SMALL)
    slow = Conditions("slow", Network(round_trip=Distribution(constant=20.0)))
    with pytest.raises(NotTunable, match="slow-answers"):
        recommend(slow, parse_requirements(), space=SMALL)


def test_feasible_wants_are_left_alone() -> None:
    answer = recommend(conditions(), parse_requirements(detect_p99="3m"), space=SMALL)
    assert answer.feasible
    assert answer.relaxations == ()
    assert np.isfinite(answer.figures["false_per_client_day"])


def test_a_stated_bound_that_nothing_keeps_is_told_with_the_reason_and_the_default_gives_way_first() -> None:
    phone = conditions_of_profile("mobile").behind(boxes_behind("aws-alb"))
    both = explain(recommend(phone, parse_requirements(false_suspicions="1 per user-week", detect_p99="45s")))
    assert (
        "your bound for healthy clients thrown out, one in 7 client-days: on this network it is at least"
        in both
    )
    assert "an idle timer on the way that is longer than 1m would" in both
    assert "the first of these" not in both
    assert "2 times that still keep false-suspicions" in both
    assert both.count("keeps the relaxed requirements") == 2
    alone = recommend(phone, parse_requirements(false_suspicions="1 per user-week"))
    (way,) = alone.relaxations
    assert [limit.key for limit, _ in way.moved] == ["false-suspicions"]
    assert alone.requirements.detect_p99 is not None
    assert alone.requirements.detect_p99 >= 60
    least = alone.candidates["false_per_client_day"][alone.candidates["interval_s"] <= 48].min()
    assert way.moved[0][1] <= 1.26 * 2 * least


def test_of_two_ways_the_one_that_moves_a_default_comes_first() -> None:
    ways = relax_requirements(search(conditions(), parse_requirements(detect_p99="20s"), SMALL))
    assert [way.moved[0][0].key for way in ways] == ["false-suspicions", "detect-p99"]
    assert ways[0].factor > ways[1].factor, "the smaller move is of what was stated"
