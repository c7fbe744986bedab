"""A stalled generator does not shorten latencies unseen: on virtual time, with the gateway's own detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from harness.events.history import History
from harness.judge.soundness import Soundness, assess
from harness.measure.detections import find_outcomes
from harness.measure.omission import longest_durations, omission
from harness.measure.series import injections, lag
from reference_server.events import Event, Source
from reference_server.liveness.detector import Action
from reference_server.liveness.heartbeat_policy import LivenessPolicy, PingDetector
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.faults import PlannedFault
from scenarios.plan import Plan
from tests.harness.handmade import CLIENT, GATEWAY, K, connected, event, fault, injected, log, plan

POLICY = LivenessPolicy(heartbeat_interval=30.0, heartbeat_timeout=10.0, max_failures=3)
LO_S, HI_S = POLICY.detection_range_s or (0.0, 0.0)
CLIENTS = 60
RAMP_S, END_S = 10.0, 400.0
NO_STALL = (1000.0, 0.0)
FIRST_S, LAST_S = 100.0, 160.0  # faults are due between them

Stall = tuple[float, float]  # start and length, seconds


def world(stall: Stall, speedup: float = 1.0) -> tuple[list[Event], Plan]:
    """Run the detector against clients whose generator stands still for a while."""
    rng = np.random.default_rng(5)
    faults = [fault(n, at_s=float(at)) for n, at in enumerate(rng.uniform(FIRST_S, LAST_S, CLIENTS))]
    phases = rng.uniform(0, 30, CLIENTS)
    events = [e for one, phase in zip(faults, phases, strict=True) for e in life(one, phase, stall)]
    stands = (stall[0], stall[0] + stall[1])
    lags = [(t, 0.001) for t in np.arange(20.0, END_S, 20.0) if not stands[0] <= t <= stands[1]]
    if stall[1]:
        lags.append((stands[1], stall[1]))  # the loop's timer has its turn before the clients have
    for role, source in (("generator", CLIENT), ("gateway", GATEWAY)):
        for t, late in lags:
            late_s = (late if role == "generator" else 0.001) / speedup
            events.append(event(t, source, K.LOOP_LAG, "", "", role=role, pid=1, max_lag_s=late_s))
    events.append(event(1.0, Source.STORE, K.STORE_SAMPLE, "", "", sessions=CLIENTS))
    events.append(event(END_S, CLIENT, K.RUN_ENDED, "", ""))
    fast = [faster(e, speedup) for e in log(events)]
    return fast, dataclasses.replace(plan(*faults), horizon_s=END_S)


def faster(one: Event, speedup: float) -> Event:
    detail = dict(one.detail)
    if "scheduled_s" in detail:
        detail["scheduled_s"] /= speedup
    return structs.replace(one, time_s=one.time_s / speedup, detail=detail)


def life(planned: PlannedFault, phase_s: float, stall: Stall) -> list[Event]:
    """One client: it answers at once unless its generator stalls; what is due is done before what came."""
    start_s, end_s = stall[0], stall[0] + stall[1]
    dies_s = end_s if start_s <= planned.at_s < end_s else planned.at_s
    detector = PingDetector(POLICY, RAMP_S + phase_s)
    n = planned.client
    events = [*connected(5.0, n), injected(planned, dies_s, scheduled_s=planned.at_s)]
    answer_s = np.inf
    while detector.due_s < END_S:
        now_s = detector.due_s
        if answer_s <= now_s:
            detector.on_inbound(answer_s)
            answer_s = np.inf
            continue
        match detector.on_time(now_s):
            case Action.SUSPECT:
                events.append(event(now_s, GATEWAY, K.SUSPECTED, f"s{n}", f"c{n}", "heartbeat"))
                break
            case Action.PING | Action.MISSED_AND_PING:
                free_s = end_s if start_s <= now_s < end_s else now_s
                answer_s = free_s if free_s < dies_s else np.inf
            case _:
                pass
    return events


def history_of(stall: Stall, speedup: float = 1.0) -> History:
    events, of = world(stall, speedup)
    return History(events, of, engine="real", clock=RunClock(speedup), horizon_s=END_S)


def soundness(history: History) -> Soundness:
    return assess(
        lag=lag(history),
        detections=find_outcomes(history).detections,
        injections=injections(history),
        witnesses=history.witnesses,
        silent={"host_crash"},
        clock=history.clock,
        one_way_delay_s=0.0005,
        grain_s=0.01,
        between_samples_s=0.0,
        heartbeat_interval_s=30.0,
        ramp_s=RAMP_S,
    )


def table_of(history: History) -> dict[Hashable, Any]:
    (row,) = omission(history, find_outcomes(history).detections).to_dict("records")
    return row


def test_without_a_stall_both_ways_of_counting_agree() -> None:
    history = history_of(NO_STALL)
    detections = find_outcomes(history).detections
    took = detections.loc[detections["milestone"] == "suspected", "duration_s"]
    assert took.between(LO_S, HI_S).all()
    row = table_of(history)
    assert (row["planned"], row["injected"], row["late_max_s"]) == (CLIENTS, CLIENTS, 0.0)
    assert row["p50_longest_s"] == pytest.approx(row["p50_s"], abs=0.002)
    assert row["p99_longest_s"] == pytest.approx(row["p99_s"], abs=0.002)
    assert soundness(history).sound


@given(start_s=st.floats(60.0, LAST_S), length_s=st.floats(1.0, 60.0), speedup=st.sampled_from([1.0, 5.0]))
@example(start_s=100.0, length_s=25.0, speedup=5.0)
@settings(max_examples=15, deadline=None)
def test_a_stall_omits_no_fault_and_hides_no_latency(start_s: float, length_s: float, speedup: float) -> None:
    history = history_of((start_s, length_s), speedup)
    outcomes = find_outcomes(history)
    ours = outcomes.detections[outcomes.detections["milestone"] == "suspected"]
    assert len(ours) == CLIENTS, "every planned fault has its row"
    seen = ours[ours["outcome"] != "not_applicable"]
    assert (longest_durations(history, seen) >= LO_S - 1e-6).all(), "no stall makes it look faster"
    assert (seen["duration_s"] >= LO_S - length_s - 1e-6).all(), "and ε = the stall bounds the rest"
    assert (seen["duration_s"] >= LO_S - soundness(history).epsilon_s).all()


def test_a_stall_does_shorten_what_is_stamped_so_the_run_is_unsound() -> None:
    """The test's own control: without the remedy there is something to hide."""
    history = history_of((110.0, 25.0))
    detections = find_outcomes(history).detections
    took = detections.loc[detections["milestone"] == "suspected", "duration_s"]
    assert took.min() < LO_S - 5
    row = table_of(history)
    assert row["late_max_s"] > 20
    assert row["p99_longest_s"] > row["p99_s"]
    verdict = soundness(history)
    assert not verdict.sound
    assert any("could not keep up" in reason for reason in verdict.reasons)


def test_clients_that_a_long_stall_had_given_up_are_counted_not_dropped() -> None:
    history = history_of((100.0, 95.0))
    outcomes = find_outcomes(history)
    reasons = outcomes.not_applicable.set_index(["milestone", "reason"])["count"]
    given_up = int(reasons.loc[("suspected", "the gateway had given the connection up before the fault")])
    row = table_of(history)
    assert given_up > 0
    assert row["planned"] == CLIENTS
    assert not soundness(history).sound


def test_a_run_without_faults_has_an_empty_table() -> None:
    events = log(connected(1.0), event(50.0, CLIENT, K.RUN_ENDED, "", ""))
    history = History(events, plan(), engine="real", clock=SCENARIO_TIME, horizon_s=50.0)
    assert omission(history, find_outcomes(history).detections).empty


def test_a_fault_that_never_took_effect_is_planned_and_not_injected() -> None:
    events = log(connected(1.0), event(50.0, CLIENT, K.RUN_ENDED, "", ""))
    history = History(events, plan(fault()), engine="real", clock=SCENARIO_TIME, horizon_s=50.0)
    row = table_of(history)
    assert (row["planned"], row["injected"]) == (1, 0)
    assert np.isnan(row["p50_s"])


def test_a_simulation_is_never_late() -> None:
    """Its NAT mappings expire after they are due: that is the network's time, not a generator's."""
    late = injected(fault(), 140.0, scheduled_s=100.0)
    events = [*connected(1.0), late, event(300.0, CLIENT, K.RUN_ENDED, "", "")]
    model = [structs.replace(e, source=Source.SIMULATION) for e in events]
    history = History(model, plan(fault()), engine="simulated", clock=SCENARIO_TIME, horizon_s=300.0)
    row = table_of(history)
    assert (row["injected"], row["late_max_s"]) == (1, 0.0)
