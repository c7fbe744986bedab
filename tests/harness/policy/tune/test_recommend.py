"""Recommendations for three networks: what a reviewer would check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.policy.lint.sources import boxes_behind
from harness.policy.tune.conditions import conditions_of_profile
from harness.policy.tune.explain import explain, idle_timer_reason
from harness.policy.tune.recommend import PLOT_COLUMNS, Recommendation, recommend
from harness.policy.tune.requirements import parse_requirements
from harness.policy.tune.units import format_rate
from harness.theory.detectors import ping_deadline
from scenarios.client_rules import Reconnect
from tests.harness.theory.quadrature import false_suspicions_per_client_day

NETWORKS: dict[str, dict[str, Any]] = {
    "office-wifi-60s-lb": {"detect_p99": "60s", "false_suspicions": "1/client-month", "budget": "60/s"},
    "cellular-4min-nat": {"detect_p99": "4m", "false_suspicions": "1/client-week", "radio_wakeups": "30/h"},
    "data-centre": {"detect_p99": "10s", "false_suspicions": "1/client-year"},
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Recommendation]:
    return {
        name: recommend(conditions_of_profile(name), parse_requirements(**requirements, prefer="cost"))
        for name, requirements in NETWORKS.items()
    }


@pytest.fixture(params=list(NETWORKS))
def answer(request: pytest.FixtureRequest, answers: dict[str, Recommendation]) -> Recommendation:
    return answers[request.param]


def test_every_want_is_kept_with_its_headroom(answer: Recommendation) -> None:
    assert answer.feasible
    for limit in answer.requirements.limits:
        assert limit.ratio(answer.figures[limit.column]) <= 1, limit


def test_the_interval_is_below_the_idle_timer_with_margin(answer: Recommendation) -> None:
    nat, policy = answer.conditions.nat, answer.policy
    assert policy.heartbeat_interval is not None
    if nat is None:
        assert answer.conditions.name == "data-centre"
        return
    assert policy.heartbeat_interval <= 0.8 * nat.idle_timeout
    assert policy.retry_s <= policy.heartbeat_interval
    assert "keeps the mapping alive" in idle_timer_reason(answer)


def test_predictions_are_theorys(answer: Recommendation) -> None:
    """Latency by theory's law; false suspicions by theory's quadrature, answers late by the lag allowed for."""
    law = ping_deadline(answer.policy)
    for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        assert answer.figures[f"detect_{name}_s"] == pytest.approx(float(law.quantile(quantile)))
    lag_s, policy = answer.rules.lag_s, answer.policy
    earlier = policy.model_copy(
        update={"heartbeat_timeout": policy.heartbeat_timeout - lag_s, "session_timeout": None}
    )
    expected = false_suspicions_per_client_day(earlier, answer.conditions.network)
    assert answer.figures["false_per_client_day"] == pytest.approx(expected, rel=0.02)


def test_nothing_beside_the_heartbeat_gets_in_its_way(answer: Recommendation) -> None:
    policy = answer.policy
    assert policy.heartbeat_interval is not None
    assert policy.session_timeout is not None
    latest_s = policy.heartbeat_interval + policy.patience_s
    assert policy.session_timeout > latest_s  # the idle limit never wins
    assert policy.sweep_interval <= latest_s
    assert policy.status_ttl > 2 * latest_s  # refreshed at half, then a beat and the patience
    assert policy.session_ttl >= policy.status_ttl
    assert policy.resume_window <= latest_s  # no dead client's record is kept for it
    assert float(Reconnect().page_load.cdf(policy.resume_window)) == 1.0


def test_a_shorter_retry_is_what_makes_it_cheap(answers: dict[str, Recommendation]) -> None:
    for name in ("office-wifi-60s-lb", "cellular-4min-nat"):
        kinds = answers[name].probing.set_index("kind")
        assert kinds.loc["short", "feasible"]
        regular, short = kinds.loc["regular"], kinds.loc["short"]
        assert short["frames_per_s"] < 0.75 * regular["frames_per_s"]
        assert answers[name].policy.retry_interval is not None


def test_the_recommendation_is_in_its_pareto_set(answer: Recommendation) -> None:
    assert answer.pareto["recommended"].sum() == 1
    assert answer.candidates["recommended"].sum() == 1
    assert len(answer.candidates) >= 1000
    chosen = answer.candidates[answer.candidates["recommended"]].iloc[0]
    assert chosen["feasible"]


def test_rejections_add_up(answer: Recommendation) -> None:
    table = answer.rejected.set_index("reason")
    rejected = int((~answer.candidates["feasible"]).sum())
    assert table["only_this"].sum() <= rejected <= table["policies"].sum()
    assert (table["only_this"] <= table["policies"]).all()
    nearest = table[table["over"].notna()]
    assert (nearest["over"] > 1).all()
    assert len(nearest) >= 1


def test_figures_get_the_columns_they_take(answer: Recommendation) -> None:
    for table in (answer.heat, answer.candidates):
        assert set(PLOT_COLUMNS) <= set(table.columns)
    assert answer.heat["recommended"].sum() == 1
    cell = answer.heat[answer.heat["recommended"]].iloc[0]
    assert cell["feasible"]
    assert cell["false_per_client_day"] == pytest.approx(answer.figures["false_per_client_day"])
    assert not answer.heat.duplicated(["interval_s", "max_failures"]).any()


def change(answer: Recommendation, start: str) -> pd.Series[Any]:
    rows = answer.sensitivity[answer.sensitivity["change"].str.startswith(start)]
    assert len(rows) == 1, start
    return rows.iloc[0]


def test_sensitivity_changes_what_it_says(answers: dict[str, Recommendation]) -> None:
    answer = answers["office-wifi-60s-lb"]
    as_assumed = answer.sensitivity.iloc[0]
    assert as_assumed["meets"]
    assert as_assumed["false_per_client_day"] == pytest.approx(answer.figures["false_per_client_day"])
    # An outage of 4 s every 8 h: twice as often is a rate of exactly (8 h + 4 s) / (4 h + 4 s).
    assert change(answer, "outages twice as often")["times_false"] == pytest.approx(28804 / 14404, rel=1e-3)
    # Exponential of mean m, W = 13.36 s: exp(-W/2m)·2(1 − exp(−T/2m)) over exp(−W/m)(1 − exp(−T/m)).
    m, w, t = 4.0, 13.36, 46.0
    longer = (2 * np.exp(-w / 2 / m) * -np.expm1(-t / 2 / m)) / (np.exp(-w / m) * -np.expm1(-t / m))
    assert change(answer, "outages twice as long")["times_false"] == pytest.approx(longer, rel=0.02)
    half = change(answer, "idle timer half")
    assert not half["meets"]
    assert "rule idle-timer" in half["breaks"]
    assert half["false_per_client_day"] > 1000
    fewer = change(answer, "one failure less")
    assert fewer["max_failures"] == answer.policy.max_failures - 1
    assert fewer["detect_p99_s"] == pytest.approx(answer.figures["detect_p99_s"] - answer.policy.retry_s)
    assert change(answer, "no short probing")["detect_p99_s"] > 90


def test_the_text_tells_it_all(answer: Recommendation) -> None:
    told = explain(answer)
    for heading in (
        "# Policy for",
        "**Ping every",
        "## Three settings to choose from",
        "## Prediction",
        "## Why",
        "## What short probing gains",
        "## Rejected",
        "## Pareto set",
        "## If an assumption is wrong",
        "## Network",
    ):
        assert heading in told
    assert format_rate(answer.figures["false_per_client_day"]) in told
    assert "| recommended |" in told.replace("  ", " ") or "recommended" in told
    for note in answer.conditions.notes:
        assert note in told
    assert "nan" not in told
    assert max(len(row.split("|")) for row in told.splitlines()) <= 12


def test_wants_that_nobody_stated_are_told_and_move_where_the_network_cannot_keep_them() -> None:
    slower = recommend(conditions_of_profile("home-nat"), parse_requirements())
    assert explain(slower).count("(default)") == 2
    assert slower.feasible
    (sentence,) = slower.moved
    assert "default of 1m would throw out more healthy clients" in sentence
    assert slower.requirements.detect_p99 == 90.0
    # An outage that outlasts the balancer's minute ends the connection, whatever the gateway does.
    where = conditions_of_profile("mobile").behind(boxes_behind("aws-alb"))
    found = recommend(where, parse_requirements())
    assert found.feasible
    assert "No setting of the gateway helps" in " ".join(found.moved)
    stated = recommend(where, parse_requirements(false_suspicions="1/client-month"))
    assert not stated.feasible, "what somebody stated does not move"


def test_three_settings_and_what_each_step_buys(answers: dict[str, Recommendation]) -> None:
    for answer in answers.values():
        thrifty, balanced, safest = answer.choices
        assert thrifty.policy == answer.policy, "the cheapest was preferred"
        assert balanced.figures["frames_per_s"] <= 1.5 * thrifty.figures["frames_per_s"]
        assert balanced.figures["false_per_client_day"] <= thrifty.figures["false_per_client_day"]
        assert safest.figures["false_per_client_day"] <= 2 * balanced.figures["false_per_client_day"]
        for choice in (thrifty, balanced):
            for limit in answer.requirements.limits:
                assert limit.ratio(choice.figures[limit.column]) <= 1
    buying = recommend(conditions_of_profile("office-wifi-60s-lb"), parse_requirements())
    assert buying.policy == buying.choices[1].policy, "the balanced one is preferred where nothing is said"
    assert "39% more traffic than thrifty: healthy clients are thrown out 20.1 times more rarely" in explain(
        buying
    )
