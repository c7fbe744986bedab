"""Cases from practice in the model: each input has one right answer, derived beside it (`tests/cases/`)."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference_server.events import Cause
from reference_server.events import EventKind as K
from scenarios.load import load_scenario
from scenarios.plan import PlannedOutage
from scenarios.schema import Scenario
from tests.harness.simulated.support import Log, run, run_planned

CASES = Path(__file__).parents[2] / "cases"


def case(name: str, **changes: Any) -> Scenario:
    """The case; a key of ``changes`` replaces what stands there, a dict's keys one by one."""
    scenario = load_scenario(str(CASES / f"{name}.yaml"))
    for key, value in changes.items():
        if isinstance(value, dict):
            part = getattr(scenario, key)
            value = type(part).model_validate(part.model_dump(exclude_defaults=True) | value)
        scenario = scenario.model_copy(update={key: value})
    return scenario


@cache
def ran(name: str) -> Log:
    return run_planned(case(name))


def causes(log: Log, kind: K = K.SUSPECTED) -> Counter[str]:
    return Counter(event.cause for event in log.of(kind))


def within(found_s: list[float], low_s: float, high_s: float, mean_s: float) -> None:
    """Not outside the range, and its mean as a uniform law's of that width."""
    assert low_s <= min(found_s) and max(found_s) < high_s
    assert np.mean(found_s) == pytest.approx(mean_s, abs=4 * (high_s - low_s) / np.sqrt(12 * len(found_s)))


def with_crashes(scenario: Scenario) -> Scenario:
    """The same with half of the clients dead at a random phase."""
    given = scenario.model_dump(exclude_defaults=True, mode="json")
    crash = {"kind": "host_crash", "share": 0.5, "at": {"uniform": {"low": "20s", "high": "90s"}}}
    return Scenario.model_validate(given | {"faults": [crash], "duration": 300.0, "clients": 400})


# -- a box on the way ----------------------------------------------------------------------------


def test_pings_as_far_apart_as_the_idle_timer_lose_everybody_at_the_clients_end() -> None:
    """A gap is 60 s + (rtt2 - rtt1)/2: who survives n gaps has falling round trips, 1/(n+1)!: e - 1 gaps on average.

    The first ping comes at a random phase, half an interval after the connect.
    """
    log = ran("ping_equals_idle_timer")
    assert causes(log) == {Cause.TCP_RESET: 200}
    connected_s = {event.session_id: event.time_s for event in log.of(K.CONNECTED)}
    gaps = [(event.time_s - connected_s[event.session_id]) / 60.0 for event in log.of(K.SUSPECTED)]
    assert np.mean(gaps) == pytest.approx(np.e - 1 + 0.5, abs=0.25)
    assert not log.of(K.DISCONNECTED), "who is told nothing waits"


def test_next_to_the_gateway_the_gap_is_a_round_trip_shorter() -> None:
    nat = {"idle_timeout": 60.0, "expiry": "reset", "at": "gateway"}
    log = run_planned(case("ping_equals_idle_timer", network={"nat": nat}))
    assert not log.of(K.SUSPECTED)


def test_a_balancer_closes_both_sides_again_and_again() -> None:
    log = ran("balancer_closes_idle")
    assert causes(log) == causes(log, K.DISCONNECTED) == {Cause.TCP_FIN: 150}
    began_s = {event.session_id: event.time_s for event in log.of(K.CONNECTED)[:50]}
    ends: dict[str, float] = {}
    for event in log.of(K.SUSPECTED):
        ends.setdefault(event.session_id, event.time_s)
    assert [ends[one] - began_s[one] for one in ends] == pytest.approx([60.0] * 50, abs=0.01)


@pytest.mark.parametrize(
    ("counts", "frame", "lost"),
    [
        ("any", "ping", 0),
        ("data", "json", 0),
        ("data", "ping", 20),
        ("to_gateway", "json", 0),
        ("to_client", "json", 0),
    ],
)
@pytest.mark.parametrize("at", ["client", "gateway"])
def test_a_box_counts_what_it_is_told_to(at: str, counts: str, frame: str, lost: int) -> None:
    nat = {"idle_timeout": 40.0, "expiry": "close", "counts": counts, "at": at}
    what = Scenario.model_validate(
        {
            "name": "counting",
            "clients": 20,
            "ramp": 10.0,
            "duration": 100.0,
            "detector": {"kind": "ping", "frame": frame},
            "network": {"nat": nat},
        }
    )
    log = run_planned(what)
    assert len({event.session_id for event in log.of(K.SUSPECTED)}) == lost


@pytest.mark.parametrize(("counts", "lost"), [("to_client", 20), ("to_gateway", 0)])
def test_data_of_one_direction_keeps_a_box_that_counts_that_direction(counts: str, lost: int) -> None:
    what = Scenario.model_validate(
        {
            "name": "talking",
            "clients": 20,
            "ramp": 10.0,
            "duration": 100.0,
            "liveness": {"heartbeat_interval": None, "session_timeout": None},
            "network": {"nat": {"idle_timeout": 40.0, "expiry": "close", "counts": counts}},
            "traffic": {"to_gateway": {"every": {"exponential": {"mean": 3.0}}}},
        }
    )
    log = run_planned(what)
    assert len({event.session_id for event in log.of(K.DISCONNECTED)}) == lost


def test_a_box_ends_connections_of_an_age() -> None:
    log = run_planned(case("timeout_above_interval", network={"max_age": 20.0}))
    assert set(causes(log)) == set(causes(log, K.DISCONNECTED)) == {Cause.TCP_FIN}
    assert len(log.of(K.CONNECTED)) > 3 * 50


# -- clients' own beats --------------------------------------------------------------------------


def test_a_hidden_tab_beats_too_late_for_the_limit() -> None:
    """Last beat at -U(0, 15), the slow timer's first tick 60 s after hiding; 45 s are swept every second."""
    log = ran("client_beats_hidden_tab")
    assert causes(log) == {Cause.SESSION_TIMEOUT: 160}
    within(log.since_fault_s(K.SUSPECTED), 30.0, 46.0, 38.0)


@pytest.mark.parametrize(
    "name",
    ["client_beats_hidden_tab_in_time", "client_beats_within_idle_limit", "send_only_throttled_timers"],
)
def test_who_beats_in_time_or_is_not_listened_to_stays(name: str) -> None:
    assert not ran(name).of(K.SUSPECTED)


def test_late_beats_count() -> None:
    """Each beat 60 s late: the first gap ends 60 s + U(0, 15) after the last beat in time."""
    log = ran("client_beats_delayed")
    assert causes(log) == {Cause.SESSION_TIMEOUT: 160}
    within(log.since_fault_s(K.SUSPECTED), 30.0, 46.0, 38.0)


def test_lost_beats_count() -> None:
    """Two of three tries are lost: some wait for longer than the limit, as pings would."""
    log = ran("client_beats_lossy")
    assert set(causes(log)) == {Cause.SESSION_TIMEOUT}
    assert 30 < len(log.of(K.SUSPECTED)) < 120


def test_a_beat_into_an_outage_comes_with_tcps_next_try() -> None:
    """20 s may swallow two beats, but TCP's try after 26.7 s ends a gap of 41.7 s, below the limit of 45 s."""
    outages = [PlannedOutage(client, 100.0 + 15 * client / 200, 20.0) for client in range(200)]
    log = run(case("client_beats_delayed"), outages=outages)
    assert len(log.of(K.OUTAGE_ENDED)) == 200
    assert not log.of(K.SUSPECTED)


def test_who_speaks_on_a_connection_that_is_over_is_told_with_rst() -> None:
    """Thrown out in a cut that outlasts the gateway's FIN, its first beat to come through is answered with RST."""
    log = run(case("client_beats_delayed", duration=400.0), outages=[PlannedOutage(7, 100.0, 120.0)])
    assert log.one(K.SUSPECTED).cause == Cause.SESSION_TIMEOUT
    told = log.one(K.DISCONNECTED)
    assert told.cause == Cause.TCP_RESET
    assert 220.0 < told.time_s < 100.0 + 15.0 + 213.7
    assert len(log.of(K.CONNECTED, 7)) == 2


# -- layers --------------------------------------------------------------------------------------


def test_a_failing_write_is_noticed_when_tcp_gives_up() -> None:
    log = ran("send_only_every_3s")
    assert causes(log) == {Cause.TCP_TIMEOUT: 240}
    within(log.since_fault_s(K.SUSPECTED), 933.6 - 0.001, 936.6, 935.1)


def test_the_kernels_probes_alone() -> None:
    log = ran("kernel_keepalive_alone")
    assert causes(log) == {Cause.TCP_TIMEOUT: 320}
    within(log.since_fault_s(K.SUSPECTED), 3.0, 6.0, 4.5)


@pytest.mark.parametrize(
    ("name", "low_s", "high_s"),
    [("timeout_above_interval", 7.0, 10.0), ("timeout_above_interval_2", 60.0, 85.0)],
)
def test_a_timeout_above_the_interval(name: str, low_s: float, high_s: float) -> None:
    """Several pings in flight: k = 1, so T_D lies in [tau, T + tau); the healthy stay."""
    assert not ran(name).of(K.SUSPECTED)
    log = run_planned(with_crashes(case(name)))
    assert causes(log) == {Cause.HEARTBEAT: 200}
    within(log.since_fault_s(K.SUSPECTED), low_s - 0.001, high_s, (low_s + high_s) / 2)


@pytest.mark.parametrize("name", ["timeout_above_interval", "client_beats_hidden_tab"])
def test_the_first_beat_may_come_a_whole_interval_after_the_connect(name: str) -> None:
    """Then every client's beats are at its own connect's phase: those of a ramp of T are spread all the same."""
    what = case(name, ramp=1.0, clients=10, liveness={"first_ping": "interval"}, faults=())
    what = what.model_copy(update={"duration": 0.9 * what.liveness.interval_s})
    assert not any("heartbeat" in event.kind for event in run_planned(what).events)


def test_presence_goes_by_its_ttl_alone() -> None:
    log = ran("presence_by_ttl_alone")
    assert not log.of(K.SUSPECTED)
    within(log.since_fault_s(K.STORE_CLEARED), 30.0, 45.0, 37.5)
    late_s = np.array(log.since_fault_s(K.PEER_NOTIFIED)) - np.array(log.since_fault_s(K.STORE_CLEARED))
    assert late_s.min() > 0 and late_s.max() <= 2.01


@pytest.mark.parametrize("name", ["presence_written_once", "presence_written_once_status"])
def test_who_was_written_once_is_not_shown_after_the_ttl(name: str) -> None:
    log = ran(name)
    assert {event.session_id for event in log.of(K.STATUS_GONE)} == {f"session-{n}-1" for n in range(100)}
    connected_s = {event.session_id: event.time_s for event in log.of(K.CONNECTED)}
    lasted_s = [event.time_s - connected_s[event.session_id] for event in log.of(K.STATUS_GONE)]
    assert lasted_s == pytest.approx([120.0] * 100, abs=1.5)  # looked at about once a second


# -- many at once --------------------------------------------------------------------------------


def test_a_fixed_delay_brings_everybody_back_at_once() -> None:
    log = ran("fixed_reconnect_delay")
    back_s = [event.time_s for event in log.of(K.CONNECTED)[1000:]]
    assert len(back_s) == 1000
    assert [min(back_s), max(back_s)] == pytest.approx([51.0, 51.0], abs=0.02)


def test_a_drain_spreads_its_closes_over_the_window() -> None:
    log = ran("drain_over_a_window")
    closes_s = sorted(event.time_s for event in log.of(K.SUSPECTED, cause=Cause.DRAIN))
    assert 80 <= len(closes_s) <= 120
    assert closes_s[0] == pytest.approx(50.0) and 69.0 < closes_s[-1] < 70.0
    assert max(np.diff(closes_s)) < 0.3, "evenly"
    assert not any(e.node == "node-1" and 50.0 < e.time_s < 75.0 for e in log.of(K.CONNECTED))


def test_answers_behind_a_backlog_are_too_late_where_data_does_not_count() -> None:
    """2 s of work a second: a pong due at t is read at about 2t, so who is pinged after 20 s of that is thrown out."""
    log = ran("application_traffic")
    assert set(causes(log)) == {Cause.HEARTBEAT}
    assert {event.session_id for event in log.of(K.SUSPECTED)} >= {f"session-{n}-1" for n in range(20)}
    assert min(event.time_s for event in log.of(K.SUSPECTED)) > 40.0


def test_data_is_a_sign_of_life_where_it_counts() -> None:
    assert not run_planned(case("application_traffic", liveness={"data_counts": True})).of(K.SUSPECTED)


def test_a_full_gateway_refuses_newcomers_or_evicts() -> None:
    given = {"name": "full", "clients": 20, "ramp": 10.0, "duration": 60.0}
    for when_full, evicted in (("refuse", 0), ("evict", 10)):
        liveness = {"max_sessions": 10, "when_full": when_full}
        log = run_planned(Scenario.model_validate(given | {"liveness": liveness}))
        if when_full == "refuse":
            assert len(log.of(K.CONNECTED)) == 10 and not log.of(K.SUSPECTED)
        else:
            assert len(log.of(K.SUSPECTED, cause=Cause.MEMORY_PRESSURE)) >= evicted


# -- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("survives", [False, True])
def test_a_login_may_outlive_its_connection(survives: bool) -> None:
    """A suspicion hides the user at once, and its client comes back without a login where the session survives."""
    given = {
        "name": "survival",
        "clients": 10,
        "ramp": 10.0,
        "duration": 300.0,
        "sessions": {"survives_connection": survives},
        "reconnect": {"idle_limit": 150.0},
        "faults": [{"kind": "network_cut", "share": 1.0, "at": 20.0, "heal_after": 120.0}],
    }
    log = run_planned(Scenario.model_validate(given))
    assert log.since_fault_s(K.STORE_CLEARED) == pytest.approx(log.since_fault_s(K.SUSPECTED))
    assert len(log.of(K.SUSPECTED)) == 10
    assert len(log.of(K.LOGGED_IN)) == (10 if survives else 20)
    assert len(log.of(K.SESSION_UNKNOWN)) == (0 if survives else 10)


def test_after_a_close_the_user_is_shown_for_the_resume_window() -> None:
    given = {
        "name": "survival",
        "clients": 10,
        "ramp": 10.0,
        "duration": 100.0,
        "sessions": {"survives_connection": True},
        "faults": [{"kind": "orderly_close", "share": 1.0, "at": 20.0}],
    }
    log = run_planned(Scenario.model_validate(given))
    assert log.since_fault_s(K.STORE_CLEARED) == pytest.approx([10.0] * 10, abs=0.01)
