"""Users: second logins, lock-out, memory pressure, records that expire, watchers."""

from __future__ import annotations

import pytest

from scenarios.plan import PlannedOutage
from tests.harness.simulated.support import K, fault, run, scenario

HALF_S = 0.0005
TRIP_S = 0.001


def test_a_refused_user_is_locked_out_until_the_store_is_cleared() -> None:
    what = scenario(sessions={"second_login": "refuse"}, reconnect={"relogin": {"after": 2.0, "retry": 5.0}})
    log = run(what, fault("host_crash", relogin_after_s=2.0))
    cleared_s = log.one(K.STORE_CLEARED).time_s
    refused = log.of(K.LOGIN_REFUSED)
    let_in = log.of(K.LOGGED_IN)[-1]
    assert refused[0].time_s == pytest.approx(102.0 + TRIP_S)
    assert {e.detail["code"] for e in refused} == {"already_online"}
    assert refused[-1].time_s - HALF_S < cleared_s <= let_in.time_s - HALF_S
    assert let_in.time_s - refused[-1].time_s == pytest.approx(5.0 + TRIP_S)
    assert let_in.detail == {
        "client": 0,
        "user_id": "user-0",
        "fault_id": "host_crash-00000",
        "relogin": True,
        "waited_s": pytest.approx(let_in.time_s - 100.0),
    }


def test_a_login_that_takes_over_ends_the_older_session_at_once() -> None:
    what = scenario(clients=2, reconnect={"relogin": {"after": 3.0}})
    log = run(what, fault("host_crash", relogin_after_s=3.0), watches={1: (0,)})
    verdict = log.one(K.SUSPECTED, 0)
    assert verdict.time_s == pytest.approx(103.0 + HALF_S)
    assert verdict.cause == "take_over"
    assert log.one(K.STORE_CLEARED).time_s == verdict.time_s
    assert log.one(K.PEER_NOTIFIED).session_id == "session-0-1"
    assert not log.of(K.LOGIN_REFUSED)
    assert log.of(K.LOGGED_IN)[-1].session_id == "session-0-2"


def test_memory_pressure_ends_the_session_that_was_idle_longest() -> None:
    """Without heartbeats the first to connect has been idle longest."""
    what = scenario(
        clients=5,
        duration=5.0,
        liveness={"heartbeat_interval": None, "max_sessions": 4, "session_timeout": None},
    )
    log = run(what)
    first = log.of(K.SUSPECTED)[0]
    assert (first.session_id, first.cause) == ("session-0-1", "memory_pressure")
    assert first.time_s == pytest.approx(8.0 + TRIP_S + 2.5 * TRIP_S), "the fifth client connects at 8 s"
    assert log.of(K.DISCONNECTED, 0)[0].detail == {"code": 1013}


def test_an_evicted_client_that_comes_back_evicts_another_one() -> None:
    what = scenario(
        clients=5,
        duration=60.0,
        liveness={"heartbeat_interval": None, "max_sessions": 4, "session_timeout": None},
    )
    log = run(what)
    evicted = [e.session_id for e in log.of(K.SUSPECTED, cause="memory_pressure")]
    assert evicted[:3] == ["session-0-1", "session-1-1", "session-2-1"]


def test_records_that_nobody_refreshes_expire() -> None:
    """A resume window longer than the TTL: the store forgets first, and tells nobody."""
    what = scenario(clients=2, liveness={"resume_window": 300.0, "session_ttl": 90.0, "status_ttl": 60.0})
    log = run(what, fault("process_crash", by="fin"), watches={1: (0,)})
    cleared_s = log.one(K.STORE_CLEARED).time_s
    # Refreshed by an answer at most T + 30 s before the crash, or by none since half of the TTL was gone.
    assert 100.0 + 90.0 - 60.0 <= cleared_s <= 100.0 + 90.0
    assert log.one(K.PEER_NOTIFIED).time_s == pytest.approx(400.0 + 2 * HALF_S)


def test_answers_keep_the_records_of_a_live_client() -> None:
    what = scenario(liveness={"session_ttl": 90.0, "status_ttl": 90.0})
    log = run(what)
    connected_s = log.one(K.CONNECTED).time_s
    samples = [e for e in log.of(K.STORE_SAMPLE) if e.time_s > connected_s]
    assert len(samples) > 200
    assert {(e.detail["sessions"], e.detail["online"]) for e in samples} == {(1, 1)}


def test_without_answers_the_records_expire_under_an_open_connection() -> None:
    """Nothing but the TTL: no heartbeat, no idle limit; what says that a user is online is the status record."""
    what = scenario(
        liveness={
            "heartbeat_interval": None,
            "session_timeout": None,
            "session_ttl": 300.0,
            "status_ttl": 200.0,
        }
    )
    log = run(what, fault("host_crash"))
    authenticated_s = log.one(K.CONNECTED).time_s - HALF_S
    assert log.one(K.STORE_CLEARED).time_s == pytest.approx(authenticated_s + 200.0)
    assert not log.of(K.SUSPECTED)


def test_a_watcher_in_an_outage_is_told_when_tcp_gets_through() -> None:
    what = scenario(clients=2, liveness={"heartbeat_interval": None, "session_timeout": None})
    outage = PlannedOutage(client=1, at_s=105.0, length_s=10.0)
    log = run(what, fault("orderly_close"), outages=[outage], watches={1: (0,)})
    sent_s = log.one(K.STORE_CLEARED).time_s
    assert 105.0 < sent_s < 115.0
    assert log.one(K.PEER_NOTIFIED).time_s == pytest.approx(sent_s + 6.70 + HALF_S)


def test_watchers_are_told_who_comes_online_after_they_asked() -> None:
    log = run(scenario(clients=2, duration=60.0), watches={0: (1,)})
    online = log.one(K.PEER_ONLINE)
    assert online.detail == {"user_id": "user-1", "watcher": 0}
    assert online.time_s == pytest.approx(log.one(K.CONNECTED, 1).time_s)


def test_watchers_are_told_who_is_online_when_they_ask() -> None:
    log = run(scenario(clients=2, duration=60.0), watches={1: (0,)})
    online = log.one(K.PEER_ONLINE)
    assert online.detail == {"user_id": "user-0", "watcher": 1}
    assert online.time_s == pytest.approx(log.one(K.CONNECTED, 1).time_s + 2 * HALF_S)
