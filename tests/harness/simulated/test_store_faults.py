"""The store fails: flushed, restarted, late to delete. What clients and watchers see of it."""

from __future__ import annotations

import pytest

from tests.harness.simulated.support import K, fault, incident, run, scenario

HALF_S = 0.0005
FLUSH = incident("store_flush", None, 101.0)  # nodes renew their leases at 100 and 105 s


def test_a_flush_is_silent_and_a_page_that_is_refreshed_finds_its_session_unknown() -> None:
    log = run(
        scenario(clients=2), fault("refresh", 0, 102.0, page_load_s=1.0), incidents=[FLUSH], watches={1: (0,)}
    )
    assert log.one(K.FAULT_INJECTED, 0) and not log.of(K.PEER_NOTIFIED)
    samples = {round(e.time_s): e.detail["sessions"] for e in log.of(K.STORE_SAMPLE)}
    assert samples[90] == 2 and samples[min(s for s in samples if s > 101)] == 0
    assert len(log.of(K.SESSION_UNKNOWN)) == 1 and len(log.of(K.LOGGED_IN)) == 3


def test_what_a_flush_took_its_node_brings_back_when_it_renews_its_lease() -> None:
    log = run(scenario(clients=3), incidents=[FLUSH])
    back = log.one(K.STORE_AGREES)
    assert back.detail["sessions"] == 3
    assert 105.0 <= back.time_s <= 105.25  # the store watch's grain
    assert back.detail["previous_poll_s"] < 105.0
    assert not log.of(K.SUSPECTED)


def test_while_the_store_is_down_logins_are_refused_and_clients_keep_their_session() -> None:
    what = scenario(clients=1, reconnect={"relogin": {"after": 1.0, "retry": 2.0}})
    down = incident("store_restart", None, lasts_s=20.0, keeps=True)
    crash = fault("process_crash", 0, 101.0, by="fin", relogin_after_s=1.0)
    log = run(what, crash, incidents=[down])
    refused = [e for e in log.of(K.LOGIN_REFUSED) if e.time_s < 120.0]
    assert len(refused) > 5 and {e.detail["code"] for e in refused} == {"store_unavailable"}
    assert log.of(K.LOGGED_IN)[-1].time_s > 120.0


@pytest.mark.parametrize("keeps", [True, False])
def test_who_comes_back_while_it_is_down_resumes_its_node_brings_back_what_is_lost(keeps: bool) -> None:
    down = incident("store_restart", None, lasts_s=6.0, keeps=keeps)
    log = run(scenario(clients=1), fault("refresh", 0, 101.0, page_load_s=1.0), incidents=[down])
    back = log.of(K.CONNECTED)[-1]
    assert back.time_s > 106.0
    assert not log.of(K.SESSION_UNKNOWN) and back.detail["resumed"]


def test_clean_ups_wait_for_the_store() -> None:
    down = incident("store_restart", None, lasts_s=50.0, keeps=True)
    log = run(scenario(clients=2), fault("orderly_close", 0, 101.0), incidents=[down], watches={1: (0,)})
    assert log.one(K.STORE_CLEARED).time_s == pytest.approx(150.0)
    assert log.one(K.PEER_NOTIFIED).time_s == pytest.approx(150.0 + HALF_S)
    assert log.one(K.SUSPECTED, 0).time_s == pytest.approx(101.0 + HALF_S), "the decision does not"


LEFT = {"heartbeat_interval": None, "session_timeout": None, "session_ttl": 80.0, "status_ttl": 60.0}


def test_redis_counts_what_has_expired_until_it_deletes_it_and_readers_do_not_see_it() -> None:
    log = run(scenario(clients=1, liveness=LEFT, store={"expiry_lag": 15.0}), fault("host_crash", 0, 20.0))
    authenticated_s = log.one(K.CONNECTED).time_s - HALF_S
    assert log.one(K.STORE_CLEARED).time_s == pytest.approx(authenticated_s + 60.0)
    counted = [e.time_s for e in log.of(K.STORE_SAMPLE) if e.detail["sessions"] == 1]
    # The watch's own look deletes nothing that the sample counts before its time; samples are 2.44 s apart.
    assert authenticated_s + 77.0 < max(counted) <= authenticated_s + 95.0


def test_the_news_of_an_expiry_is_as_late_as_the_deletion() -> None:
    given = {"expiry_lag": 15.0, "announces_expiry": True}
    what = scenario(clients=2, liveness=LEFT, store=given)
    log = run(what, fault("host_crash", 0, 20.0), watches={1: (0,)})
    authenticated_s = log.of(K.CONNECTED, 0)[0].time_s - HALF_S
    told = log.of(K.PEER_NOTIFIED)
    assert [e.session_id for e in told] == ["session-0-1"]
    assert told[0].time_s == pytest.approx(authenticated_s + 60.0 + 15.0 + HALF_S)


def test_no_news_of_records_that_are_refreshed_or_cleared_in_order() -> None:
    what = scenario(
        clients=3,
        liveness={"session_ttl": 90.0, "status_ttl": 60.0},
        store={"expiry_lag": {"exponential": {"mean": 2.0}}, "announces_expiry": True},
    )
    log = run(what, fault("orderly_close", 0, 100.0), watches={1: (0, 2), 2: (0,)})
    # One by each watcher, by the clean-up, and none by the expiry of anything.
    assert [e.session_id for e in log.of(K.PEER_NOTIFIED)] == ["session-0-1"] * 2
