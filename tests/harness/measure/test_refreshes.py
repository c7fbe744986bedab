"""Records that refreshes write: what the model counts, what Redis counts, and what theory says."""

from __future__ import annotations

import math

import pytest

from harness.events.history import History
from harness.measure.cost import expected_cost, with_expected_refreshes
from harness.measure.one_engine import measure_history
from harness.simulated import simulate
from reference_server.events import EventKind, Source
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.harness.handmade import connected, event, frame_of_run, log, plan
from tests.harness.measure.test_sessions import cost_of, history_of


def scenario(refreshed: str, detector: str) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "beats",
            "clients": 200,
            "ramp": "30s",
            "duration": "90s",
            "detector": {"kind": detector},
            "liveness": {"heartbeat_interval": "30s", "heartbeat_timeout": "30s", "session_timeout": "120s"},
            "records": {"refreshed": refreshed},
        }
    )


@pytest.mark.parametrize("detector", ["client_beats", "ping"])
@pytest.mark.parametrize(
    ("refreshed", "rate"), [("at_each_frame", 2 * 200 / 30), ("when_half_gone", 0.0), ("never", 0.0)]
)
def test_the_model_writes_as_much_as_theory_says(refreshed: str, detector: str, rate: float) -> None:
    """Half of two hours is not gone within this run."""
    told = scenario(refreshed, detector)
    its_plan = make_plan(told)
    history = History(
        simulate(told, its_plan), its_plan, engine="simulated", clock=told.clock, horizon_s=its_plan.horizon_s
    )
    (row,) = with_expected_refreshes(measure_history(history).tables["cost"], told).to_dict("records")
    assert row["redis_watched_s"] > 50
    assert row["redis_operations_expected"] == pytest.approx(rate * row["redis_watched_s"])
    assert row["redis_operations"] == pytest.approx(row["redis_operations_expected"], rel=0.03)
    if refreshed == "when_half_gone":
        assert math.isnan(row["redis_operations_per_s"]), "0 would stand beside theory's rate of the long run"
    else:
        assert row["redis_operations_per_s"] == pytest.approx(rate, rel=0.03)


@pytest.mark.parametrize("seen", [{"suspected", "socket_closed"}, {"socket_closed"}])
def test_without_a_store_to_look_at_a_dead_client_is_held_until_it_is_suspected(seen: set[str]) -> None:
    told = Scenario.model_validate(
        {
            "name": "dead",
            "clients": 100,
            "ramp": "30s",
            "duration": "200s",
            "liveness": {"heartbeat_interval": "30s", "heartbeat_timeout": "10s", "resume_window": "0s"},
            "faults": [{"kind": "host_crash", "share": "80%", "at": "10s"}],
        }
    )
    its_plan = make_plan(told)
    events = simulate(told, its_plan)
    of_ours, of_theirs = (
        cost_of(
            History(
                events,
                its_plan,
                engine="simulated",
                clock=told.clock,
                horizon_s=its_plan.horizon_s,
                witnessed=who,
            )
        )["clients"]
        for who in (None, seen)
    )
    assert 50 < of_ours < 70, "80 of 100 are held for 70 to 100 of 200 s"
    assert of_theirs == pytest.approx(of_ours, rel=0.02) if "suspected" in seen else math.isnan(of_theirs)


def test_a_write_a_beat_is_two_records_a_beat() -> None:
    (row,) = expected_cost(scenario("at_each_frame", "client_beats"), 4000).to_dict("records")
    assert row["redis_operations_per_s"] == pytest.approx(2 * 4000 / 30)


def test_logins_leases_and_ends_are_no_refreshes() -> None:
    """A lease is renewed at 14 s (a SET, an HSET); somebody comes at 16.5 s; a fault ends the count at 20 s."""
    counts = {11: (100, 5), 12: (104, 5), 13: (108, 5), 14: (113, 6), 15: (117, 6), 16: (121, 6)}
    counts |= {17: (131, 7), 18: (135, 7), 25: (999, 7)}
    samples = [
        event(t, Source.STORE, EventKind.STORE_SAMPLE, "", "", commands={"set": n, "hset": m, "get": 7 * n})
        for t, (n, m) in counts.items()
    ]
    hit = event(20.0, Source.CLIENT, EventKind.FAULT_INJECTED)
    row = cost_of(
        history_of(log(connected(0.1, 0), connected(16.5, 1), samples, hit, frame_of_run()), plan())
    )
    assert row["redis_watched_s"] == 6.0, "11 to 16 and 17 to 18 s"
    assert row["redis_operations"] == 24
    assert row["redis_operations_per_s"] == 4.0
