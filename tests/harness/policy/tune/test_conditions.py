"""Boxes on the way count in what is recommended: their losses are no suspicions, and are counted all the same."""

from __future__ import annotations

import pytest

from harness.policy.lint.sources import boxes_behind
from harness.policy.tune.conditions import Rules, conditions_of_profile
from harness.policy.tune.explain import explain, idle_timer_reason
from harness.policy.tune.recommend import recommend
from harness.policy.tune.requirements import parse_requirements
from harness.policy.tune.search import policies_table, with_figures


def test_the_shortest_timer_of_all_boxes_counts() -> None:
    plain = conditions_of_profile("data-centre")
    assert (
        plain.nat is not None and plain.nat.idle_timeout == 432000.0
    )  # Linux conntrack, which the profile names
    behind = plain.behind(
        [*boxes_behind("haproxy"), *boxes_behind("2h:reset"), *boxes_behind("cgn-fixed-udp")]
    )
    assert behind.nat is not None and (behind.nat.idle_timeout, behind.nat.expiry) == (50.0, "close")
    assert any("50s of HAProxy" in note for note in behind.notes)
    assert plain.behind(boxes_behind("aws-api-gateway")).max_age_s == 7200.0


@pytest.mark.parametrize(("expiry", "life_s"), [("close", 50.0), ("reset", 60.0), ("drop", 70.0)])
def test_what_a_box_ends_is_counted_though_nobody_is_suspected(expiry: str, life_s: float) -> None:
    conditions = conditions_of_profile("data-centre").behind(boxes_behind(f"50s:{expiry}"))
    policies = policies_table([40.0, 50.0, 60.0], [1, 1, 1], [10.0, 10.0, 10.0], [40.0, 50.0, 60.0])
    lost = with_figures(policies, conditions, Rules())["middle_per_client_day"].tolist()
    assert lost[0] == 0
    assert lost[1] > 0
    assert lost[2] == pytest.approx(86400 / life_s)


def test_no_policy_at_or_above_a_timer_is_recommended_and_the_reason_is_told() -> None:
    conditions = conditions_of_profile("data-centre").behind(boxes_behind("50s"))
    found = recommend(conditions, parse_requirements(detect_p99="5m", prefer="cost"))
    assert found.feasible
    assert found.policy.interval_s <= 40.0
    assert found.figures["middle_per_client_day"] == 0.0
    assert "rule idle-timer" in set(found.rejected["reason"])
    assert "none of these losses is a suspicion" in idle_timer_reason(found)
    assert "T = 41 s breaks rule idle-timer" in found.next_interval
    assert "healthy clients lost to boxes on the way" in explain(found)


def test_a_maximum_age_is_told_and_does_not_make_every_policy_impossible() -> None:
    conditions = conditions_of_profile("data-centre").behind(boxes_behind("aws-api-gateway"))
    found = recommend(conditions, parse_requirements(detect_p99="60s"))
    assert found.feasible
    assert found.figures["middle_per_client_day"] == pytest.approx(12.0)
    assert "no policy prevents it, and each client loses 12 connections a day" in explain(found)
