from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest

from harness.measure.one_engine import measure
from harness.simulated import simulate
from harness.theory.law import Law
from harness.theory.predict import predict
from reference_server.events import Event, EventKind, Source, decode, encode
from scenarios.clock import SCENARIO_TIME
from scenarios.load import built_in, load_scenario
from scenarios.plan import PlannedOutage, make_plan
from tests.harness.simulated.support import K, Log, run, run_planned, scenario
from tests.harness.theory.montecarlo import agrees, share_agrees
from tests.harness.theory.quadrature import false_suspicion_per_outage

MIXED = {"exponential": {"mean": 20.0}}
JITTER = {"lognormal": {"median": 0.05, "sigma": 0.5}}


def mixed(**changes: Any) -> Any:
    return load_scenario("mixed", clients=200, **changes)


def test_the_same_seed_gives_the_same_log_and_another_one_does_not() -> None:
    first, again = run_planned(mixed()).events, run_planned(mixed()).events
    assert first == again
    assert first != run_planned(mixed(seed=11)).events


def test_events_are_in_time_order_and_survive_the_file() -> None:
    events = run_planned(mixed()).events
    assert {event.source for event in events} == {Source.SIMULATION}
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(events))
    assert [decode(encode(event)) for event in events] == events


def test_the_log_says_when_the_run_began_was_steady_and_ended() -> None:
    log = run(scenario(clients=3))
    assert log.one(K.RUN_STARTED).time_s == 0.0
    assert log.one(K.STEADY).time_s == 10.0
    assert log.one(K.RUN_ENDED).time_s == log.events[-1].time_s == 610.0
    assert 200 <= len(log.of(K.STORE_SAMPLE)) <= 300


def test_progress_rises_to_one() -> None:
    what = scenario()
    seen: list[float] = []
    simulate(what, make_plan(what), progress=seen.append)
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == 1.0 and len(seen) > 100


@pytest.mark.parametrize(
    "policy", [{}, {"max_failures": 1}, {"retry_interval": 10.0}, {"retry_interval": 45.0}]
)
def test_nobody_healthy_is_suspected_on_a_network_that_works(policy: dict[str, Any]) -> None:
    what = scenario(clients=300, duration=1800.0, liveness=policy, network={"round_trip": JITTER})
    log = run_planned(what)
    assert not log.of(K.SUSPECTED) and not log.of(K.HEARTBEAT_MISSED)
    assert len(log.of(K.CONNECTED)) == 300


def test_foretelling_exchanges_changes_nothing() -> None:
    """Traced clients are simulated step by step; all of them traced, everything else stays the same."""
    what = mixed(
        network={"outages": {"every": 60.0, "length": MIXED}}, duration=300.0, reconnect={"idle_limit": 80.0}
    )
    plan = make_plan(what)
    by_steps = dataclasses.replace(
        plan, faults=tuple(dataclasses.replace(f, traced=True) for f in plan.faults)
    )
    heartbeats = {K.HEARTBEAT_SENT, K.HEARTBEAT_ANSWERED}

    def rest(events: list[Event]) -> list[tuple[EventKind, str, str, float]]:
        return sorted(
            (e.kind, e.session_id, e.cause, round(e.time_s, 6)) for e in events if e.kind not in heartbeats
        )

    assert rest(simulate(what, by_steps)) == rest(simulate(what, plan))


def test_outages_throw_out_as_many_healthy_clients_as_theory_says() -> None:
    """One outage each, at a random phase, T=25 s, k=1, τ=20 s, exponential of mean 10 s; TCP's ladder on top."""
    clients = 10_000
    policy = {"heartbeat_interval": 25.0, "heartbeat_timeout": 20.0, "max_failures": 1}
    what = scenario(clients=clients, ramp=25.0, duration=200.0, liveness=policy)
    lengths = np.random.default_rng(5).exponential(10.0, clients).tolist()
    outages = [PlannedOutage(n, 60.0, length) for n, length in enumerate(lengths)]
    log = run(what, outages=outages)
    law = scenario(network={"outages": {"every": 1.0, "length": {"exponential": {"mean": 10.0}}}})
    assert law.network.outages is not None
    expected = false_suspicion_per_outage(
        what.liveness,
        law.network.outages.length,
        ladder_s=what.network.rto_ladder,
        round_trip=what.network.round_trip,
    )
    share_agrees(len(log.of(K.SUSPECTED, cause="heartbeat")), clients, expected)
    assert expected > 0.049691, "the ladder's overshoot costs on top of the closed form without one"
    assert len(log.of(K.OUTAGE_STARTED)) == clients


def test_a_fine_ladder_gives_the_closed_form_without_overshoot() -> None:
    """exp(−((k−1)T + τ)/m)·(m/T)·(1 − exp(−T/m)) = 0.049691."""
    clients = 10_000
    policy = {"heartbeat_interval": 25.0, "heartbeat_timeout": 20.0, "max_failures": 1}
    fine = tuple(np.arange(1, 20_000) / 100)
    what = scenario(clients=clients, ramp=25.0, duration=200.0, liveness=policy, network={"rto_ladder": fine})
    lengths = np.random.default_rng(6).exponential(10.0, clients).tolist()
    log = run(what, outages=[PlannedOutage(n, 60.0, s) for n, s in enumerate(lengths)])
    # The grid of 10 ms and the round trip of 1 ms move the deadline by less than 0.02 s of a mean of 10 s.
    seen = len(log.of(K.SUSPECTED, cause="heartbeat")) / clients
    error = math.sqrt(0.049691 * (1 - 0.049691) / clients)
    assert seen == pytest.approx(0.049691, abs=0.049691 * 0.002 + 4.5 * error)


@pytest.mark.parametrize(
    "name", ["host_crash", "process_crash", "orderly_close", "frozen", "network_cut", "nat_timeout"]
)
def test_built_in_scenarios_agree_with_theory(name: str) -> None:
    """Law against law at seven quantiles, by the suspicions and by the clean-ups of the whole pipeline."""
    what = load_scenario(name, clients=2000)
    plan = make_plan(what)
    measured = measure(
        simulate(what, plan), plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=what.horizon_s
    )
    assert not len(measured.tables["false_suspicion_events"])
    compared = 0
    for prediction in predict(what, clock=SCENARIO_TIME):
        if prediction.law is None or prediction.milestone not in ("suspected", "store_cleared"):
            continue
        rows = measured.tables["detections"][
            (measured.tables["detections"]["fault"] == prediction.fault)
            & (measured.tables["detections"]["milestone"] == prediction.milestone)
            & (measured.tables["detections"]["outcome"] != "censored")
        ]
        durations = rows["duration_s"].where(rows["outcome"] == "detected").to_numpy(dtype=float)
        assert len(durations) > 300
        _agrees(prediction.law, durations)
        compared += 1
    assert compared


def _agrees(law: Law, durations_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    if law.mass and law.lo_s == law.hi_s:
        assert np.allclose(durations_s, law.lo_s, atol=1e-6)
    else:
        agrees(law, durations_s)


@pytest.mark.parametrize("name", sorted(built_in()))
def test_every_built_in_scenario_runs_without_false_suspicions(name: str) -> None:
    what = load_scenario(name)
    what = load_scenario(name, clients=min(what.clients, 2000))  # 20,000 are the bench's
    plan = make_plan(what)
    events = simulate(what, plan)
    measured = measure(events, plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=what.horizon_s)
    assert measured.complete
    # But for those of a node that is reaped alive: the scenario shows just that.
    assert set(measured.tables["false_suspicion_events"]["incident"]) <= {"longer_than_the_lease"}
    struck = Log(events).of(K.FAULT_INJECTED)
    kept = {"nat_above_heartbeat", "filter_kept", "nat_kept"}  # traffic keeps these mappings alive
    expected = [f for f in plan.faults if f.fault not in kept]
    assert len(struck) == len(expected)
