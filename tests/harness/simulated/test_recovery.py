"""What heals: cuts by TCP's retransmissions, frozen clients by their kernel's buffer, refreshes by the window."""

from __future__ import annotations

import pytest

from tests.harness.simulated.support import K, fault, run, scenario

HALF_S = 0.0005


@pytest.fixture(scope="module")
def ping_s() -> float:
    """When the only client is pinged for the first time after second 100: the same in each of these runs."""
    log = run(scenario(), fault("orderly_close", at_s=300.0, traced=True))
    return next(e.time_s for e in log.of(K.HEARTBEAT_SENT) if e.time_s > 100.0)


@pytest.mark.parametrize(
    ("length_s", "step_s", "kept"),
    [
        (1.1, 0.208, 1),
        (10.0, 13.36, 1),
        (30.0, 53.4, 2),  # a second ping queues behind the first
        (54.3, 53.4, 2),
    ],
)
def test_a_healed_cut_recovers_with_the_next_retransmission(
    ping_s: float, length_s: float, step_s: float, kept: int
) -> None:
    """The cut begins one second before a ping, which is retransmitted `step_s` after it was sent."""
    cut = fault("network_cut", at_s=ping_s - 1.0, heal_after_s=length_s, traced=True)
    log = run(scenario(), cut)
    recovered_s = log.one(K.FAULT_RECOVERED).time_s
    assert log.one(K.FAULT_HEALED).time_s == pytest.approx(ping_s - 1.0 + length_s)
    assert recovered_s == pytest.approx(ping_s + step_s + HALF_S)
    answered = [e for e in log.of(K.HEARTBEAT_ANSWERED) if e.time_s == recovered_s]
    assert len(answered) == kept, "all that TCP kept is there at once"
    assert not log.of(K.SUSPECTED) and not log.of(K.STORE_CLEARED)


def test_a_cut_that_heals_in_time_is_suspected_where_tcp_is_not_in_time(ping_s: float) -> None:
    """Healed 11 s before the verdict; the next retransmission would have come 36.8 s after it."""
    log = run(scenario(), fault("network_cut", at_s=ping_s - 1.0, heal_after_s=60.0))
    verdict = log.one(K.SUSPECTED, 0)
    assert verdict.time_s == pytest.approx(ping_s + 70.0)
    # The FIN waits for that retransmission, too, and for a closed socket the kernel does not try for so long.
    assert not log.of(K.DISCONNECTED) and not log.of(K.FAULT_RECOVERED)


def test_who_was_dropped_learns_it_with_tcp_s_next_try_and_resumes() -> None:
    """What TCP kept comes first, the FIN last: to answer the pings of a connection that is over is no recovery."""
    quick = {"heartbeat_interval": 5.0, "heartbeat_timeout": 2.0, "max_failures": 2, "resume_window": 100.0}
    cut = fault("network_cut", heal_after_s=20.0, traced=True)
    log = run(scenario(liveness=quick), cut)
    lost_s = next(e.time_s for e in log.of(K.HEARTBEAT_SENT) if e.time_s > 100.0)
    assert log.one(K.SUSPECTED, 0).time_s == pytest.approx(lost_s + 7.0)
    assert log.one(K.DISCONNECTED).time_s == pytest.approx(lost_s + 26.7 + HALF_S)
    back = log.of(K.CONNECTED)[-1]
    assert back.detail["resumed"]
    assert log.one(K.FAULT_RECOVERED).time_s == back.time_s
    assert not log.of(K.STORE_CLEARED)


def test_a_cut_between_two_pings_goes_unnoticed(ping_s: float) -> None:
    cut = fault("network_cut", at_s=ping_s + 5.0, heal_after_s=20.0, traced=True)
    log = run(scenario(), cut)
    assert not log.of(K.HEARTBEAT_MISSED)
    assert log.one(K.FAULT_RECOVERED).time_s == pytest.approx(ping_s + 30.0 + HALF_S)


def test_a_cut_that_outlasts_the_policy_leaves_the_client_unaware() -> None:
    """The gateway's FIN is lost in the cut, and its kernel has given up long before that heals."""
    log = run(scenario(), fault("network_cut", heal_after_s=150.0))
    assert log.one(K.SUSPECTED, 0).cause == "heartbeat"
    assert log.one(K.FAULT_HEALED)
    assert not log.of(K.FAULT_RECOVERED) and not log.of(K.DISCONNECTED)
    assert len(log.of(K.CONNECTED)) == 1


def test_its_own_idle_limit_brings_an_unaware_client_back() -> None:
    what = scenario(reconnect={"idle_limit": 200.0})
    log = run(what, fault("network_cut", heal_after_s=150.0, traced=True))
    heard_s = [e.time_s for e in log.of(K.HEARTBEAT_ANSWERED) if e.time_s < 100.0][-1]
    left = log.one(K.DISCONNECTED)
    assert left.time_s == pytest.approx(heard_s + 200.0)
    assert left.cause == "client_limit"
    assert log.one(K.SESSION_UNKNOWN).time_s > left.time_s
    assert [e.session_id for e in log.of(K.LOGGED_IN)] == ["session-0-1", "session-0-2"]
    assert len(log.of(K.CONNECTED)) == 2


def test_within_a_cut_no_connection_comes_about() -> None:
    what = scenario(reconnect={"idle_limit": 40.0})
    log = run(what, fault("network_cut", heal_after_s=300.0))
    again = [e.time_s for e in log.of(K.CONNECTED) if e.time_s > 100.0]
    # Back-off of at most 30 s, then a SYN that may wait 4 s for its next turn, for login and connection.
    assert 400.0 < again[0] < 400.0 + 30.0 + 10.0 + 30.0 + 1.0


def test_a_thawed_client_answers_what_its_kernel_kept() -> None:
    log = run(scenario(), fault("frozen", heal_after_s=65.0, traced=True))
    assert log.one(K.FAULT_RECOVERED).time_s == pytest.approx(165.0)
    assert not log.of(K.SUSPECTED)
    assert len([e for e in log.of(K.HEARTBEAT_ANSWERED) if e.time_s == 165.0]) >= 2


def test_a_client_that_thaws_too_late_finds_its_session_gone() -> None:
    log = run(scenario(), fault("frozen", heal_after_s=150.0))
    assert log.one(K.DISCONNECTED).time_s == pytest.approx(250.0)
    assert log.one(K.SESSION_UNKNOWN)
    assert not log.of(K.FAULT_RECOVERED)
    assert len(log.of(K.LOGGED_IN)) == 2


@pytest.mark.parametrize(("page_load_s", "resumes"), [(0.2, True), (9.9, True), (10.1, False)])
def test_a_refresh_resumes_within_the_window_and_only_then(page_load_s: float, resumes: bool) -> None:
    log = run(scenario(clients=2), fault("refresh", page_load_s=page_load_s), watches={1: (0,)})
    assert log.one(K.SUSPECTED, 0).cause == "close_frame"
    assert len(log.of(K.FAULT_RECOVERED)) == resumes
    assert len(log.of(K.SESSION_UNKNOWN)) == (not resumes)
    assert len(log.of(K.STORE_CLEARED)) == (not resumes)
    assert len(log.of(K.PEER_NOTIFIED)) == (not resumes)
    if resumes:
        back = log.of(K.CONNECTED, 0)[-1]
        assert back.detail["resumed"] and back.session_id == "session-0-1"
        assert back.time_s == pytest.approx(100.0 + page_load_s + 6 * HALF_S)
    else:
        assert log.one(K.STORE_CLEARED).time_s == pytest.approx(110.0 + HALF_S)
        assert log.of(K.CONNECTED, 0)[-1].session_id == "session-0-2"


def test_a_new_connection_takes_over_from_one_that_the_gateway_still_holds() -> None:
    """A NAT forgot the old one; the client's idle limit is below the gateway's detection."""
    what = scenario(reconnect={"idle_limit": 40.0})
    log = run(what, fault("nat_timeout", idle_timeout_s=20.0, expiry="drop"))
    assert [e.cause for e in log.of(K.SUSPECTED, 0)] == ["take_over"]
    assert log.of(K.CONNECTED, 0)[-1].detail["resumed"]
    assert not log.of(K.STORE_CLEARED), "the older connection must not clear the newer one's records"
