"""Several nodes: crashes, leases, storms, deploys. Bounds follow from the lease and the back-off."""

from __future__ import annotations

import pytest

from harness.measure.one_engine import measure
from harness.simulated import simulate
from reference_server.events import Event
from scenarios.clock import SCENARIO_TIME
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.harness.simulated.support import K, Log, fault, incident, run, scenario

HALF_S = 0.0005
TTL_S, RENEW_S, CHECK_S = 15.0, 5.0, 5.0


def three(**changes: object) -> Scenario:
    given: dict[str, object] = {"clients": 300, "duration": 290.0, "gateway": {"nodes": 3}}
    return scenario(**given | changes)


def crash(by: str, **changes: float) -> Log:
    return run(three(), incidents=[incident("node_crash", 1, by=by, **changes)])


def on(log: Log, node: str, before_s: float = 100.0) -> list[Event]:
    return [e for e in log.of(K.CONNECTED) if e.node == node and e.time_s < before_s]


def test_clients_are_spread_over_the_nodes() -> None:
    log = run(three())
    for node in ("node-1", "node-2", "node-3"):
        assert 60 <= len(on(log, node)) <= 140  # binomial(300, 1/3): five errors
    assert not log.of(K.SUSPECTED)


def test_a_killed_process_sends_fin_and_its_clients_resume_elsewhere() -> None:
    log = crash("process")
    hit = {e.session_id for e in on(log, "node-1")}
    left = log.of(K.DISCONNECTED)
    assert {e.session_id for e in left} == hit
    assert {e.cause for e in left} == {"tcp_fin"}
    assert all(e.time_s == pytest.approx(100.0 + HALF_S) for e in left)
    back = [e for e in log.of(K.CONNECTED) if e.time_s > 100.0]
    assert {e.session_id for e in back} == hit and {e.node for e in back} == {"node-2", "node-3"}
    assert all(e.detail["resumed"] for e in back)
    # Full jitter: uniform up to the base of 1 s, then three round trips.
    assert all(100.0 < e.time_s <= 101.0 + 8 * HALF_S for e in back)
    assert not log.of(K.SUSPECTED) and not log.of(K.SESSION_UNKNOWN)
    assert not log.of(K.PEER_NOTIFIED), "who is back before the lease ends is never reaped"


def test_a_dead_hosts_sessions_are_reaped_within_the_leases_bounds() -> None:
    log = run(
        three(),
        incidents=[incident("node_crash", 1, by="host")],
        watches={n: tuple(range(300)) for n in range(10)},
    )
    hit = {e.session_id for e in on(log, "node-1")}
    assert not log.of(K.DISCONNECTED), "silence: its clients are told nothing"
    reaped = log.of(K.SUSPECTED)
    assert {e.session_id for e in reaped} == hit and len(reaped) == len(hit)
    assert {e.cause for e in reaped} == {"node_lease"}
    assert {e.node for e in reaped} <= {"node-2", "node-3"}
    assert len({e.time_s for e in reaped}) == 1, "one peer does it, in one go"
    assert 100.0 + TTL_S - RENEW_S <= reaped[0].time_s <= 100.0 + TTL_S + CHECK_S
    told = {e.session_id for e in log.of(K.PEER_NOTIFIED)}
    assert told == hit


def test_the_leases_bounds_hold_over_many_moments_of_the_crash_and_nearly_fill() -> None:
    what = three(clients=6, duration=60.0)
    delays = []
    for n in range(60):
        at_s = 30.0 + n * 0.37
        log = run(what.model_copy(update={"seed": n}), incidents=[incident("node_crash", 1, at_s, by="host")])
        delays += [e.time_s - at_s for e in log.of(K.SUSPECTED)[:1]]
    assert len(delays) > 40  # in the others the node had no client: (2/3)^6 of them
    assert TTL_S - RENEW_S <= min(delays) < TTL_S - RENEW_S + 2.5
    # With two peers looking, the mean is (ttl − renew/2) + check/3 = 14.2 s.
    assert TTL_S - 1.0 < max(delays) <= TTL_S + CHECK_S


def test_a_lone_node_has_no_peer_to_reap_for_it() -> None:
    log = run(scenario(clients=3), incidents=[incident("node_crash", 1, by="host")])
    assert not log.of(K.SUSPECTED)
    assert log.of(K.STORE_SAMPLE)[-1].detail["online"] == 3, "ghosts for as long as their TTL"


def test_where_no_node_is_left_clients_back_off_until_one_is_back() -> None:
    log = run(scenario(clients=40), incidents=[incident("node_crash", 1, lasts_s=60.0, by="process")])
    assert log.one(K.INCIDENT_ENDED).time_s == pytest.approx(160.0)
    back = [e for e in log.of(K.CONNECTED) if e.time_s > 100.0]
    assert len(back) == 40 and {e.node for e in back} == {"node-1"}
    # The cap of the back-off is 30 s: everyone tries again within it. The new node reaps the old one once its
    # own lease has held for a whole ttl: who is later than that has to log in first.
    told = {e.session_id: e.time_s for e in log.of(K.SESSION_UNKNOWN)}
    assert all(160.0 + TTL_S <= time_s <= 160.0 + 30.0 + 10 * HALF_S for time_s in told.values())
    assert all(160.0 < e.time_s <= 160.0 + 60.0 + 20 * HALF_S for e in back)
    resumed = [e for e in back if e.detail["resumed"]]
    assert 0 < len(told) == 40 - len(resumed)
    assert all(e.time_s <= 160.0 + TTL_S + CHECK_S for e in resumed)
    assert len({e.connection_id for e in log.of(K.CONNECTED)}) == 80


def test_a_storms_handshakes_queue_at_the_survivors() -> None:
    """About 100 clients on two nodes at 0.1 s a handshake: the last is in no earlier than the work is done."""
    slow = three(gateway={"nodes": 3, "handshake_service": 0.1}, ramp=60.0)
    log = run(slow, incidents=[incident("node_crash", 1, by="process")])
    count = len([e for e in log.of(K.DISCONNECTED) if e.time_s < 101.0])
    back_s = [e.time_s for e in log.of(K.CONNECTED) if e.time_s > 100.0]
    assert len(back_s) == count > 60
    assert max(back_s) >= 100.0 + count * 0.1 / 2
    assert max(back_s) <= 101.0 + count * 0.1 + 1.0


def test_clients_that_give_up_a_slow_handshake_make_the_storm_worse() -> None:
    """The work for those who gave up is done all the same: the storm lasts longer than with patience."""

    def over_s(timeout_s: float | None) -> tuple[float, int]:
        slow = three(
            gateway={"nodes": 3, "handshake_service": 0.1},
            ramp=60.0,
            reconnect={"connect_timeout": timeout_s},
        )
        log = run(slow, incidents=[incident("node_crash", 1, by="process")])
        back = [e.time_s for e in log.of(K.CONNECTED) if e.time_s > 100.0]
        return max(back), len(back)

    (patient_s, n), (hasty_s, m) = over_s(None), over_s(1.0)
    assert n == m
    assert hasty_s > patient_s + 1.0


def test_a_deploy_closes_in_order_and_everyone_resumes() -> None:
    what = three(
        faults=[{"kind": "host_crash", "share": "10%", "at": 200.0}],
        incidents=[{"kind": "node_drain", "at": 90.0, "node": 2, "restart_after": 5.0}],
    )
    plan = make_plan(what)
    events = simulate(what, plan)
    log = Log(events)
    hit = {e.session_id for e in on(log, "node-2")}
    drained = log.of(K.SUSPECTED, cause="drain")
    assert {e.session_id for e in drained} == hit
    assert {e.detail["code"] for e in log.of(K.DISCONNECTED)} == {1001}
    assert all(e.detail["resumed"] for e in log.of(K.CONNECTED) if e.time_s > 100.0)
    measured = measure(events, plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=what.horizon_s)
    assert not len(measured.tables["false_suspicion_events"])


def test_after_a_deploy_the_records_of_those_who_stay_away_expire_with_the_window() -> None:
    what = scenario(clients=2, gateway={"nodes": 2}, reconnect={"backoff_base": 50.0, "backoff_max": 50.0})
    log = run(
        what, fault("network_cut", 0, 99.0), incidents=[incident("node_drain", 1), incident("node_drain", 2)]
    )
    assert log.one(K.STORE_CLEARED).time_s == pytest.approx(110.0)


def test_a_loop_that_stalls_for_longer_than_its_lease_is_reaped_alive() -> None:
    what = three(clients=30)
    stall = incident("gateway_stall", 1, lasts_s=40.0)
    log = run(what, incidents=[stall], watches={n: tuple(range(30)) for n in range(30)})
    hit = {e.session_id for e in on(log, "node-1")}
    told = log.of(K.PEER_NOTIFIED)
    assert {e.session_id for e in told} == hit
    assert all(
        100.0 + TTL_S - RENEW_S <= e.time_s <= 100.0 + TTL_S + CHECK_S + HALF_S * 2 or e.time_s > 140.0
        for e in told
    )
    taken = log.of(K.SUSPECTED)
    assert {e.session_id for e in taken} == hit and {e.cause for e in taken} == {"node_lease"}
    assert not log.of(K.SOCKET_CLOSED), "their connections live"
    shorter = incident("gateway_stall", 1, lasts_s=TTL_S - RENEW_S - 0.1)
    calm = run(what, incidents=[shorter], watches={n: tuple(range(30)) for n in range(30)})
    assert not calm.of(K.PEER_NOTIFIED)


def test_the_same_seed_gives_the_same_log() -> None:
    what = three(
        clients=60,
        gateway={"nodes": 3, "heartbeat_service": {"exponential": {"mean": 0.001}}},
        incidents=[
            {
                "kind": "node_crash",
                "at": {"uniform": {"low": 50.0, "high": 90.0}},
                "restart_after": {"exponential": {"mean": 20.0}},
            }
        ],
    )
    first = simulate(what, make_plan(what))
    assert first == simulate(what, make_plan(what))
    other = what.model_copy(update={"seed": 2})
    assert first != simulate(other, make_plan(other))
