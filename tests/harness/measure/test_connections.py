"""Who ended a healthy client's connection, by hand: every author, and what is no loss."""

from __future__ import annotations

from typing import Any

import pytest

from harness.events.history import History
from harness.measure.connections import expected_losses, healthy_connections, losses, table_of
from harness.measure.presence import presence_gaps
from harness.theory.law import Law
from reference_server.durations import DAY_S
from reference_server.events import Event, Source
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.distributions import Distribution, Uniform
from scenarios.plan import Plan
from tests.harness.handmade import (
    CLIENT,
    END_S,
    GATEWAY,
    STORE,
    K,
    connected,
    event,
    fault,
    frame_of_run,
    injected,
    log,
    plan,
)

LOST_S = 50.0


def rows_of(*parts: Any, of: Plan | None = None, clock: RunClock = SCENARIO_TIME) -> list[Any]:
    return list(healthy_connections(history_of(*parts, of=of, clock=clock)).itertuples(index=False))


def history_of(*parts: Any, of: Plan | None = None, clock: RunClock = SCENARIO_TIME) -> History:
    events = log(*parts, frame_of_run(END_S / clock.speedup))
    return History(events, of or plan(), engine="real", clock=clock, horizon_s=END_S)


def verdict(cause: str, time_s: float = LOST_S) -> Event:
    return event(time_s, GATEWAY, K.SUSPECTED, "s0", "c0", cause)


def told(cause: str, time_s: float = LOST_S) -> Event:
    return event(time_s, CLIENT, K.DISCONNECTED, "s0", "c0", cause)


def incident(kind: str, time_s: float = LOST_S, node: str = "") -> Event:
    detail = {"incident_id": kind, "kind": kind}
    return Event(time_s, Source.HARNESS, K.INCIDENT_STARTED, node=node, detail=detail)


@pytest.mark.parametrize(
    ("sentence", "events", "author", "cause"),
    [
        (
            "the gateway's own verdict",
            [verdict("heartbeat"), told("tcp_reset", 50.1)],
            "gateway",
            "heartbeat",
        ),
        ("the idle limit is one, too", [verdict("session_timeout")], "gateway", "session_timeout"),
        ("so is the kernel's patience", [verdict("tcp_timeout")], "gateway", "tcp_timeout"),
        (
            "a client on another host may seem to know first",
            [verdict("heartbeat"), told("tcp_fin", 49.9)],
            "gateway",
            "heartbeat",
        ),
        (
            "both ends are told by the middle",
            [verdict("tcp_fin"), told("tcp_fin", 50.1)],
            "middle",
            "tcp_fin",
        ),
        ("only the client is", [told("tcp_reset")], "middle", "tcp_reset"),
        ("the gateway finds out later", [told("tcp_fin"), verdict("sweep", 80.0)], "middle", "tcp_fin"),
        (
            "the client's own limit",
            [told("client_limit"), verdict("close_frame", 50.1)],
            "client",
            "client_limit",
        ),
        (
            "the same, and the clocks are a little apart",
            [told("client_limit", 50.1), verdict("tcp_fin")],
            "client",
            "client_limit",
        ),
        ("a newer connection", [verdict("take_over"), told("close_frame", 50.1)], "take_over", "take_over"),
        ("a drain", [verdict("drain"), told("close_frame", 50.1)], "drain", "drain"),
        (
            "its node died",
            [incident("node_crash", 49.9, "node-1"), told("tcp_reset")],
            "gateway_failure",
            "node_crash",
        ),
        (
            "its node died in silence",
            [incident("node_crash", LOST_S, "node-1")],
            "gateway_failure",
            "node_crash",
        ),
        (
            "another node did",
            [incident("node_crash", 49.9, "node-2"), told("tcp_reset")],
            "middle",
            "tcp_reset",
        ),
    ],
)
def test_who_ended_it(sentence: str, events: list[Event], author: str, cause: str) -> None:
    begun = [e if e.source is GATEWAY else _on(e, "node-1") for e in connected(10.0)]
    (row,) = rows_of(begun, events)
    assert (row.outcome, row.author, row.cause) == ("lost", author, cause), sentence
    assert row.until_s == pytest.approx(LOST_S, abs=0.11)
    assert row.offline_s == END_S - row.until_s


def _on(what: Event, node: str) -> Event:
    return Event(
        what.time_s, what.source, what.kind, what.session_id, what.connection_id, node, "", what.detail
    )


def test_who_comes_back_to_its_session_has_lost_a_connection_and_no_session() -> None:
    lost, kept = rows_of(connected(10.0), told("tcp_fin"), connected(55.0, 0, "s0", "c0-again"))
    assert not lost.session_lost
    assert lost.offline_s == pytest.approx(5.001)
    assert (kept.outcome, kept.until_s) == ("censored", END_S)
    lost, _ = rows_of(connected(10.0), told("tcp_fin"), connected(55.0, 0, "s0-new", "c0-again"))
    assert lost.session_lost
    unknown = event(52.0, CLIENT, K.SESSION_UNKNOWN, "s0", "")
    (lost,) = rows_of(connected(10.0), told("tcp_fin"), unknown)
    assert lost.session_lost


def test_a_fault_ends_the_row_and_what_hampers_begins_another() -> None:
    crash, slow = fault(0), fault(0, "noop")
    (dead,) = rows_of(connected(10.0), injected(crash), verdict("heartbeat", 185.0), of=plan(crash))
    assert (dead.outcome, dead.until_s, dead.cause) == ("ended", 100.0, "host_crash")
    before, after = rows_of(connected(10.0), injected(slow), verdict("heartbeat", 185.0), of=plan(slow))
    assert (before.outcome, before.until_s, before.hampered_by) == ("ended", 100.0, "")
    assert (after.outcome, after.author, after.hampered_by) == ("lost", "gateway", "noop")
    assert (after.connected_s, after.until_s) == (100.0, 185.0)
    recovered = event(120.0, CLIENT, K.FAULT_RECOVERED, fault_id=crash.fault_id)
    _, again = rows_of(connected(10.0), injected(crash), recovered, of=plan(crash))
    assert (again.connected_s, again.outcome, again.hampered_by) == (120.0, "censored", "host_crash")


def test_what_the_scenario_gives_a_reason_for_is_marked() -> None:
    storm = incident("reconnect_storm", 49.5)
    (row,) = rows_of(connected(10.0), storm, told("tcp_reset"))
    assert (row.author, row.incident) == ("middle", "reconnect_storm")
    begun = event(44.0, CLIENT, K.OUTAGE_STARTED, "", "", client=0)
    over = event(48.0, CLIENT, K.OUTAGE_ENDED, "", "", client=0)
    (row,) = rows_of(connected(10.0), begun, over, verdict("heartbeat"))
    assert row.in_outage  # TCP makes up for four seconds until 52 s
    (row,) = rows_of(connected(10.0), begun, over, verdict("heartbeat", 53.0))
    assert not row.in_outage


def test_losses_are_counted_for_all_and_by_author_in_scenario_time() -> None:
    """Two clients, five times as fast: 60 s and 300 s of 300 s are client-days of scenario time."""
    clock = RunClock(5.0)
    history = history_of(connected(0.0, 0), connected(0.0, 1), told("tcp_fin", 12.0), clock=clock)
    table = losses("real", table_of("real", healthy_connections(history)))
    everyone, middle = table.to_dict("records")
    assert (everyone["author"], middle["author"]) == ("", "middle")
    assert everyone["client_days"] == pytest.approx((60.0 + 300.0) / DAY_S, rel=1e-3)
    assert (everyone["healthy_clients"], everyone["connections"], everyone["clients"]) == (2, 1, 1)
    assert everyone["rate_per_client_day"] == pytest.approx(DAY_S / 360.0, rel=1e-3)
    assert everyone["rate_lo"] < everyone["rate_per_client_day"] < everyone["rate_hi"]
    assert everyone["offline_share"] == pytest.approx(240.0 / 600.0, rel=1e-3)


def test_a_gap_is_what_of_a_connection_s_life_the_store_did_not_show() -> None:
    def status(kind: K, time_s: float) -> Event:
        return event(time_s, STORE, kind, "s0", "", user_id="user-0", previous_poll_s=time_s - 1)

    history = history_of(
        connected(10.0),
        status(K.STATUS_GONE, 30.0),
        status(K.STATUS_SHOWN, 40.0),
        status(K.STATUS_GONE, 45.0),
        told("tcp_fin"),
        connected(60.0, 0, "s0", "c0-again"),
    )
    gaps = presence_gaps(history, healthy_connections(history))
    assert gaps[["begins_s", "lasts_s", "ended"]].to_numpy().tolist() == [
        [30.0, 10.0, True],
        [45.0, 5.0, False],
    ]
    assert gaps["after_s"].tolist() == pytest.approx([20.0, 35.0], abs=0.01)


def test_theory_s_row_counts_for_as_long_as_a_connection_could_have_been_watched() -> None:
    """Of U(0, 400): one lost at 40 s that had 290 s, one kept for 289 s; not the tenth that its own 40 s would give."""
    history = history_of(connected(10.0, 0), connected(11.0, 1), told("tcp_fin"))
    held = table_of("real", healthy_connections(history))
    law = Law.of(Distribution(uniform=Uniform(low=0.0, high=400.0)))
    (row,) = expected_losses(held, law, outages_per_day=0.0).itertuples()
    assert (row.engine, row.author, row.healthy_clients) == ("theory", "", 2)
    assert row.connections == pytest.approx((290.0 + 289.0) / 400.0, abs=1e-4)
    (row,) = expected_losses(held, Law.never(), outages_per_day=24.0).itertuples()
    assert row.rate_per_client_day == pytest.approx(24.0)
    hit = held.assign(outcome=held["outcome"].where(held["client"] != "1", "ended"))
    (row,) = expected_losses(hit, Law.never(), outages_per_day=24.0).itertuples()
    alone_s = float(held.loc[held["client"] != "1", "watched_s"].sum())
    assert row.connections == pytest.approx(24.0 * alone_s / 86_400.0), "whom a fault hits has no outages"
