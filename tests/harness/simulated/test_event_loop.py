"""The gateway's event loop: a queue by Pollaczek and Khinchine, and stalls that throw nobody out."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from harness.measure.one_engine import measure
from harness.simulated import simulate
from harness.simulated.clock import Clock
from harness.simulated.event_loop import Loop
from harness.theory.literature.loop_stall import answer_wait_bound, stall_false_suspicion
from scenarios.clock import SCENARIO_TIME
from scenarios.distributions import Distribution, Exponential
from scenarios.gateway import Gateway
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.harness.simulated.support import K, Log, fault, incident, run, run_planned, scenario


def waits_s(service: Distribution, rate: float, jobs: int, seed: int) -> np.ndarray:
    """Waiting times of Poisson jobs on a loop, seconds, shape (jobs,)."""
    clock = Clock(math.inf)
    rng = np.random.default_rng(seed)
    loop = Loop(clock, Gateway(handshake_service=service), rng, busy=False)
    arrivals = np.cumsum(rng.exponential(1 / rate, jobs)).tolist()
    waited: list[float] = []

    def arrive() -> None:
        service_s = loop.handshake_s()
        waited.append(loop.reserve(service_s) - service_s - clock.now_s)

    for time_s in arrivals:
        clock.at(time_s, arrive)
    clock.env.run()
    return np.array(waited)


@pytest.mark.parametrize("load", [0.3, 0.8])
@pytest.mark.parametrize(
    ("service", "second_moment"),
    [(Distribution(constant=0.01), 1.0), (Distribution(exponential=Exponential(mean=0.01)), 2.0)],
    ids=["M/D/1", "M/M/1"],
)
def test_poisson_jobs_wait_as_pollaczek_and_khinchine_say(
    service: Distribution, second_moment: float, load: float
) -> None:
    """Mean wait λE[S²]/(2(1−ρ)), within 4.5 errors of batch means."""
    waited = waits_s(service, load / 0.01, 60_000, seed=11)[2000:]
    expected_s = load * second_moment * 0.01 / (2 * (1 - load))
    batches = waited.reshape(-1, 2000).mean(axis=1)
    assert abs(batches.mean() - expected_s) < 4.5 * batches.std(ddof=1) / math.sqrt(len(batches))


def busy(load: float, **changes: object) -> Scenario:
    """600 clients at T=10 s whose heartbeats take this share of the loop; answers after a random while."""
    service_s = load * 10.0 / 600
    given: dict[str, object] = {
        "clients": 600,
        "duration": 120.0,
        "liveness": {"heartbeat_interval": 10.0, "heartbeat_timeout": 5.0},
        "network": {"round_trip": {"uniform": {"low": 0.0, "high": 2.0}}},
        "gateway": {"heartbeat_service": service_s},
    }
    return scenario(**given | changes)


def test_heartbeats_are_late_by_no_more_than_an_m_d_1_queue() -> None:
    """Periodic pings of random phase wait a little less than Poisson jobs; by far more than no load."""
    late = {}
    for load in (0.1, 0.8):
        service_s = load * 10.0 / 600 / 2  # a frame's
        seen = [e.detail for e in run(busy(load)).of(K.HEARTBEAT_LATENESS) if e.time_s > 30.0]
        assert sum(e["n"] for e in seen) > 5_000
        late[load] = float(np.average([e["p50_s"] for e in seen], weights=[e["n"] for e in seen]))
        expected_s = load * service_s / (2 * (1 - load)) + service_s
        assert service_s - 1e-6 <= late[load] <= expected_s  # the log has microseconds
        decay = -math.log(answer_wait_bound(1200, 10.0, service_s, service_s)) / service_s
        bound_s = math.log(1e9) / decay
        assert max(e["max_s"] for e in seen) < bound_s + service_s
    assert late[0.8] > 8 * late[0.1]


def test_a_loop_that_keeps_up_neither_misses_nor_suspects() -> None:
    log = run(busy(0.8))
    assert not log.of(K.HEARTBEAT_MISSED) and not log.of(K.SUSPECTED)


def test_an_overloaded_loop_pings_late_but_reads_before_it_judges() -> None:
    """ρ = 1.2: pings fall behind, and nobody who answered is thrown out."""
    log = run(busy(1.2))
    late = [e.detail["p50_s"] for e in log.of(K.HEARTBEAT_LATENESS)]
    assert late[-1] > 1.0
    assert not log.of(K.SUSPECTED)


def one_strike(**changes: object) -> Scenario:
    """k = 1, answers after 5 s: the policy that a stalled gateway is a danger to."""
    given: dict[str, object] = {
        "clients": 300,
        "duration": 290.0,
        "liveness": {"max_failures": 1},
        "network": {"round_trip": 5.0},
    }
    return scenario(**given | changes)


STALL = incident("gateway_stall", at_s=100.0, lasts_s=25.0)


def test_answers_that_lie_in_the_sockets_after_a_stall_are_read_before_deadlines_are_judged() -> None:
    log = run(one_strike(), incidents=[STALL])
    assert not log.of(K.SUSPECTED) and not log.of(K.HEARTBEAT_MISSED)
    assert log.one(K.INCIDENT_STARTED).node == "node-1"
    assert log.one(K.INCIDENT_ENDED).time_s == pytest.approx(125.0)
    late = {math.ceil(e.time_s): e.detail["max_s"] for e in log.of(K.HEARTBEAT_LATENESS)}
    assert max(late.values()) == pytest.approx(25.0, abs=0.5)
    assert max(late[second] for second in late if second < 100) == 0.0


def test_negative_control_a_loop_that_judges_before_it_reads_throws_them_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Loop, "after_reading", lambda _loop, act: act())
    what = one_strike()
    victims = len({e.session_id for e in run(what, incidents=[STALL]).of(K.HEARTBEAT_MISSED)})
    expected = stall_false_suspicion(what.liveness, Distribution(constant=25.0), 5.0)
    low, high = stats.binom.interval(1 - 1e-6, 300, expected)
    assert low <= victims <= high and victims > 0


def test_a_client_that_died_before_a_stall_is_found_when_it_is_over() -> None:
    what = one_strike(liveness={"max_failures": 1, "heartbeat_timeout": 20.0})
    faults = [fault("host_crash", n, 95.0) for n in range(300)]
    plain = run(what, *faults).since_fault_s(K.SUSPECTED)
    log = run(what, *faults, incidents=[STALL])
    stalled = log.since_fault_s(K.SUSPECTED)
    assert len(stalled) == 300
    assert min(e.time_s for e in log.of(K.SUSPECTED)) >= 125.0
    assert all(a <= b + 1e-9 for a, b in zip(sorted(plain), sorted(stalled), strict=True))
    assert max(stalled) <= max(plain) + 25.0 + 1e-9


def test_closes_and_idle_limits_wait_for_the_loop_too() -> None:
    what = scenario(
        clients=2, liveness={"heartbeat_interval": None, "session_timeout": 105.0, "sweep_interval": 5.0}
    )
    log = run(what, fault("orderly_close", 0, 110.0), incidents=[STALL])
    assert log.of(K.SUSPECTED, 0)[0].time_s == pytest.approx(125.0)
    idle = log.of(K.SUSPECTED, 1)[0]
    assert idle.cause == "session_timeout" and idle.time_s == pytest.approx(125.0)


def test_a_loop_without_service_times_and_stalls_changes_nothing() -> None:
    """Answers step by step through an idle loop: the same suspicions as foretold ones."""
    what = scenario(clients=50, duration=400.0)
    faults = [fault("host_crash", n, 60.0 + n) for n in range(50)]
    nothing = incident("gateway_stall", at_s=20.0, lasts_s=0.0)

    def verdicts(log: Log) -> list[tuple[str, float]]:
        return [(e.session_id, e.time_s) for e in log.of(K.SUSPECTED)]

    plain, stepwise = (verdicts(run(what, *faults)), verdicts(run(what, *faults, incidents=[nothing])))
    assert [s for s, _ in plain] == [s for s, _ in stepwise]
    assert [t for _, t in plain] == pytest.approx([t for _, t in stepwise])


def test_random_stalls_are_planned_once_and_measured_like_anything_else() -> None:
    what = scenario(
        clients=20,
        gateway={"nodes": 2, "stalls": {"every": 60.0, "length": {"exponential": {"mean": 1.0}}}},
        faults=[{"kind": "host_crash", "share": "50%", "at": 30.0}],
    )
    plan = make_plan(what)
    assert plan == make_plan(what)
    assert {one.node for one in plan.incidents} == {1, 2}
    # Two Poisson processes of rate 1/61 over 610 s: 20 expected.
    assert 5 <= len(plan.incidents) <= 40
    events = simulate(what, plan)
    assert len(Log(events).of(K.INCIDENT_STARTED)) == len(plan.incidents)
    assert len(Log(events).of(K.FAULT_INJECTED)) == 10
    measured = measure(events, plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=what.horizon_s)
    suspected = measured.tables["detections"].query("milestone == 'suspected'")
    assert (suspected["outcome"] == "detected").all() and len(suspected) == 10
    assert run_planned(what).events == events


def test_a_busy_loop_accepts_one_newcomer_of_a_port_in_a_turn() -> None:
    """Three at each port behind work of 1 s a turn: the n-th has its turn after n of them."""
    clock = Clock(math.inf)
    loop = Loop(clock, Gateway(), np.random.default_rng(1), busy=True)
    accepted: list[tuple[str, float]] = []

    def work() -> None:
        if clock.now_s < 6:
            loop.submit(1.0, work)

    work()
    for _ in range(3):
        loop.accept("ws", lambda: accepted.append(("ws", clock.now_s)))
        loop.accept("http", lambda: accepted.append(("http", clock.now_s)))
    clock.env.run()
    assert accepted == [(port, float(n)) for n in (1, 2, 3) for port in ("ws", "http")]


def test_thousands_who_waited_for_a_busy_loop_are_accepted_one_after_the_other() -> None:
    clock = Clock(math.inf)
    loop = Loop(clock, Gateway(), np.random.default_rng(1), busy=True)
    accepted: list[int] = []
    loop.submit(1.0, lambda: None)
    for n in range(5_000):
        loop.accept("ws", partial(accepted.append, n))
    clock.env.run()
    assert accepted == list(range(5_000))


@pytest.mark.parametrize(("limit", "refused"), [(1.0, True), (None, False), (5.0, False)])
def test_who_comes_to_a_loop_that_was_late_a_moment_ago_is_refused(
    limit: float | None, refused: bool
) -> None:
    """All connections reach 8 s and are closed; the loop stalls from 7.9 to 11.4 s. A back-off is 1 s at most."""
    what = scenario(
        clients=50,
        ramp=1.0,
        duration=30.0,
        network={"max_age": 8.0},
        reconnect={"backoff_base": 1.0, "backoff_max": 1.0},
        gateway={"refuse_above_lag": limit},
        incidents=[{"kind": "gateway_stall", "at": 6.9, "length": 3.5}],
    )
    log = run_planned(what)
    first_back_s = min(e.time_s for e in log.of(K.CONNECTED) if e.time_s > 10.0)
    assert (first_back_s > 11.4 + 0.7) == refused
