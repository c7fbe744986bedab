"""incidents.csv of simulated runs whose course is known, and whom false suspicions are laid to."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from harness.judge.incidents import judge_incidents
from harness.judge.soundness import without_planned_stalls
from harness.judge.thresholds import ThresholdError, parse_threshold
from harness.measure.one_engine import Measured, measure
from harness.simulated import simulate
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.harness.simulated.support import scenario

TTL_S, RENEW_S, CHECK_S = 15.0, 5.0, 5.0


def three(*incidents: dict[str, Any], **changes: Any) -> Scenario:
    given = {"clients": 90, "duration": 190.0, "gateway": {"nodes": 3}, "incidents": list(incidents)}
    return scenario(**given | changes)


def measured(what: Scenario) -> tuple[pd.Series[Any], Measured]:
    """The table's first row with its bound, and everything."""
    plan = make_plan(what)
    found = measure(
        simulate(what, plan), plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=what.horizon_s
    )
    return judge_incidents(found.tables["incidents"], what, 0.0).iloc[0], found


def test_a_crash_of_a_process_everyone_is_back_soon_and_nobody_is_suspected() -> None:
    what = three({"kind": "node_crash", "at": 80.0, "node": 2, "restart_after": 30.0})
    row, found = measured(what)
    assert (row["incident_id"], row["node"], row["at_s"], row["lasts_s"]) == (
        "node_crash",
        "node-2",
        90.0,
        30.0,
    )
    homes = make_plan(what).first_nodes.count(2)
    assert row["clients_hit"] == row["clients_lost"] == row["clients_back"] == homes
    assert row["clients_away"] == 0
    # Full jitter up to 1 s, then three round trips of 1 ms.
    assert 0 < row["back_p50_s"] <= row["back_p99_s"] <= row["back_max_s"] <= 1.01
    assert row["ghosts_gone_s"] <= row["back_max_s"] + 0.25  # the watch's grain
    assert pd.isna(row["detected_s"]), "everyone was back before the lease ended"
    assert row["bound_s"] == TTL_S + CHECK_S
    assert not len(found.tables["false_suspicion_events"])


def test_who_died_with_the_node_is_a_ghost_until_the_lease_ends() -> None:
    at = {"uniform": {"low": 75.0, "high": 79.0}}
    crashes = [{"kind": "host_crash", "share": "30%", "at": at}]
    what = three({"kind": "node_crash", "at": 80.0, "node": 2}, faults=crashes)
    row, found = measured(what)
    assert row["clients_lost"] == row["clients_hit"] < make_plan(what).first_nodes.count(2)
    assert TTL_S - RENEW_S <= row["detected_s"] <= TTL_S + CHECK_S
    assert row["detected_s"] <= row["ghosts_gone_s"] <= row["detected_s"] + 0.25
    assert row["ghosts_gone_s"] <= row["bound_s"] + 0.25
    seen = found.tables["detections"].query("milestone == 'suspected' and cause == 'node_lease'")
    assert len(seen) > 5
    assert not len(found.tables["false_suspicion_events"]), (
        "what a peer says of a dead node's connections is true"
    )


def test_a_silent_host_keeps_its_clients_until_they_give_up_and_that_is_no_mistake_either() -> None:
    what = three({"kind": "node_crash", "at": 80.0, "node": 2, "by": "host"}, reconnect={"idle_limit": 60.0})
    row, found = measured(what)
    assert row["clients_lost"] > 0 and row["clients_away"] == 0
    assert row["back_max_s"] > 30.0
    assert not len(found.tables["false_suspicion_events"])


def test_a_node_reaped_alive_makes_mistakes_that_are_laid_to_the_stall() -> None:
    stall = {"kind": "gateway_stall", "at": 80.0, "length": 25.0, "name": "pause"}
    row, found = measured(three(stall))
    assert row["kind"] == "gateway_stall" and row["lasts_s"] == pytest.approx(25.0)
    assert TTL_S - RENEW_S <= row["detected_s"] <= TTL_S + CHECK_S
    assert row["false_suspicions"] == row["clients_hit"] == len(found.tables["false_suspicion_events"]) > 0
    assert set(found.tables["false_suspicion_events"]["incident"]) == {"pause"}
    assert set(found.tables["false_suspicion_events"]["node"]) == {"node-1"}, (
        "where the connections are, not who says so"
    )
    # Its records were reaped; it writes them again when it goes on.
    assert 25.0 <= row["store_agrees_s"] <= 25.25


def test_a_flush_is_mended_at_the_next_renewal() -> None:
    row, _ = measured(three({"kind": "store_flush", "at": 82.0}))
    assert row["clients_hit"] == 90 and row["clients_lost"] == 0
    assert 0 < row["store_agrees_s"] <= row["bound_s"] + 0.25 == RENEW_S + 0.25
    assert pd.isna(row["ghosts_gone_s"]) and pd.isna(row["lasts_s"])


@pytest.mark.parametrize("keeps", [True, False])
def test_a_restart_is_mended_when_the_store_is_back(keeps: bool) -> None:
    row, _ = measured(three({"kind": "store_restart", "at": 80.0, "down": 8.0, "keeps": keeps}))
    assert row["clients_lost"] == 0
    assert 8.0 <= row["store_agrees_s"] <= 8.25
    assert row["bound_s"] == 8.0 + RENEW_S


def test_without_incidents_there_is_no_row() -> None:
    what = three()
    plan = make_plan(what)
    found = measure(simulate(what, plan), plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=200.0)
    assert found.tables["incidents"].empty


def test_thresholds_know_incidents_by_their_label() -> None:
    found = parse_threshold("incidents{incident=flush}.store_agrees < 10s", [], ["flush"])
    assert (found.metric, found.aggregate, found.limit) == ("incidents", "store_agrees", 10.0)
    with pytest.raises(ThresholdError, match="unknown incident 'fluhs'; did you mean flush"):
        parse_threshold("incidents{incident=fluhs}.store_agrees < 10s", [], ["flush"])


def test_the_lag_of_a_planned_stall_is_not_held_against_the_run() -> None:
    lag = pd.DataFrame(
        [
            ("gateway", 1, 11.0, 5.0, "node-1"),
            ("gateway", 2, 11.0, 0.1, "node-2"),
            ("gateway", 1, 30.0, 0.2, "node-1"),
        ],
        columns=["role", "pid", "time_s", "max_lag_s", "node"],
    )
    stall = pd.DataFrame([("gateway_stall", "node-1", 5.0, 5.0)], columns=["kind", "node", "at_s", "lasts_s"])
    assert without_planned_stalls(lag, stall, clock=RunClock(10.0))["max_lag_s"].tolist() == [0.1, 0.2]
