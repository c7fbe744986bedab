"""Each fault against what the formulas say: exactly where nothing is random, else by range and mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.simulated.network import give_up_s
from tests.harness.simulated.support import K, fault, run, run_planned, scenario

HALF_S = 0.0005  # one-way delay of the default network
T_S, TAU_S = 30.0, 10.0


def spread(kind: str, **changes: Any) -> Any:
    """400 clients, all of them struck at a uniformly random phase."""
    at = {"uniform": {"low": 40.0, "high": 160.0}}
    struck = {"kind": kind, "share": 1.0, "at": at, **changes}
    return scenario(clients=400, ramp=60.0, faults=[struck])


@pytest.mark.parametrize("kind", ["host_crash", "network_cut", "frozen"])
@pytest.mark.parametrize(("k", "retry_s"), [(1, None), (3, None), (3, 12.0)])
def test_silent_death_is_detected_within_the_closed_forms_range(
    kind: str, k: int, retry_s: float | None
) -> None:
    what = spread(kind)
    policy = what.liveness.model_copy(update={"max_failures": k, "retry_interval": retry_s})
    log = run_planned(what.model_copy(update={"liveness": policy}))
    latencies = np.array(log.since_fault_s(K.SUSPECTED))
    lo, hi = (k - 1) * (retry_s or T_S) + TAU_S, T_S + (k - 1) * (retry_s or T_S) + TAU_S
    assert len(latencies) == 400
    # A ping that is on its way at the fault is lost with it.
    assert lo - HALF_S <= latencies.min() and latencies.max() < hi
    five_errors = 5 * T_S / math.sqrt(12 * len(latencies))
    assert latencies.mean() == pytest.approx((lo + hi) / 2, abs=five_errors)
    assert {event.cause for event in log.of(K.SUSPECTED)} == {"heartbeat"}


def test_negative_control_another_policy_is_seen() -> None:
    """A gateway that takes k for 2 does not stay in the range of k = 3."""
    what = spread("host_crash")
    policy = what.liveness.model_copy(update={"max_failures": 2})
    latencies = run_planned(what.model_copy(update={"liveness": policy})).since_fault_s(K.SUSPECTED)
    assert max(latencies) < 70.0


def test_tcp_info_tells_silence_from_a_client_that_does_not_answer() -> None:
    for kind, unacked in (("host_crash", 3), ("frozen", 0)):
        verdict = run(scenario(), fault(kind)).one(K.SUSPECTED, 0)
        assert verdict.detail["tcp_info"]["unacked"] == unacked
        assert (verdict.detail["tcp_info"]["retransmits"] > 0) is (unacked > 0)


@pytest.mark.parametrize(
    ("kind", "params", "cause"),
    [
        ("orderly_close", {}, "close_frame"),
        ("process_crash", {"by": "fin"}, "tcp_fin"),
        ("process_crash", {"by": "rst"}, "tcp_reset"),
    ],
)
def test_an_end_that_is_sent_is_seen_after_the_one_way_delay(
    kind: str, params: dict[str, Any], cause: str
) -> None:
    log = run(scenario(clients=2), fault(kind, at_s=100.0, **params), watches={1: (0,)})
    verdict = log.one(K.SUSPECTED, 0)
    assert verdict.time_s == pytest.approx(100.0 + HALF_S)
    assert verdict.cause == cause
    assert log.one(K.SOCKET_CLOSED, 0).time_s == verdict.time_s
    # The close was the last sign of life: the records stay for the resume window.
    assert log.one(K.STORE_CLEARED).time_s == pytest.approx(110.0 + HALF_S)
    told = log.one(K.PEER_NOTIFIED)
    assert told.time_s == pytest.approx(110.0 + 2 * HALF_S)
    assert told.detail == {"user_id": "user-0", "watcher": 1}


def test_after_a_silent_death_the_records_go_with_the_suspicion() -> None:
    log = run(scenario(clients=2), fault("host_crash"), watches={1: (0,)})
    verdict = log.one(K.SUSPECTED, 0)
    assert log.one(K.STORE_CLEARED).time_s == verdict.time_s
    assert log.one(K.PEER_NOTIFIED).time_s == pytest.approx(verdict.time_s + HALF_S)
    assert [e.detail["failures"] for e in log.of(K.HEARTBEAT_MISSED, 0)] == [1, 2, 3]


def test_nat_expiry_that_drops_is_detected_as_the_formula_says() -> None:
    """T_D = (T − N) + (k−1)R + τ, less the half round trip by which the pong left the client earlier."""
    faults = [fault("nat_timeout", n, 60.0 + n, idle_timeout_s=20.0, expiry="drop") for n in range(20)]
    latencies = run(scenario(clients=20), *faults).since_fault_s(K.SUSPECTED)
    assert latencies == pytest.approx([80.0 - HALF_S] * 20)


def test_nat_expiry_that_resets_is_detected_at_the_next_ping() -> None:
    faults = [fault("nat_timeout", n, 60.0 + n, idle_timeout_s=20.0, expiry="reset") for n in range(20)]
    log = run(scenario(clients=20), *faults)
    assert log.since_fault_s(K.SUSPECTED) == pytest.approx([10.0 + HALF_S] * 20)
    assert {event.cause for event in log.of(K.SUSPECTED)} == {"tcp_reset"}


@pytest.mark.parametrize("expiry", ["drop", "reset"])
def test_a_heartbeat_below_the_nats_timeout_prevents_the_failure(expiry: str) -> None:
    faults = [fault("nat_timeout", n, 60.0, idle_timeout_s=31.0, expiry=expiry) for n in range(20)]
    log = run(scenario(clients=20), *faults)
    assert not log.of(K.FAULT_INJECTED) and not log.of(K.SUSPECTED)


def test_the_mapping_is_made_by_the_first_packet_after_the_nat_came() -> None:
    log = run(scenario(), fault("nat_timeout", idle_timeout_s=20.0, expiry="drop", traced=True))
    first = next(e.time_s for e in log.of(K.HEARTBEAT_ANSWERED) if e.time_s > 100.0)
    injected = log.one(K.FAULT_INJECTED)
    assert injected.time_s == pytest.approx(first + 20.0)
    assert injected.detail["scheduled_s"] == injected.time_s  # when its timer was to run out


def test_idle_limit_without_heartbeat_is_found_by_the_next_sweep() -> None:
    what = scenario(
        clients=200, liveness={"heartbeat_interval": None, "session_timeout": 60.0, "sweep_interval": 15.0}
    )
    log = run(what)
    for client in range(200):
        connected = log.of(K.CONNECTED, client)[0]
        verdict = log.of(K.SUSPECTED, client)[0]
        assert verdict.cause == "session_timeout"
        assert 60.0 - HALF_S <= verdict.time_s - connected.time_s <= 75.0 + 1e-9
    # Whoever heard of it comes back, and finds a session that is over.
    assert len(log.of(K.DISCONNECTED)) >= 200
    assert len(log.of(K.SESSION_UNKNOWN)) >= 200


def test_tcp_user_timeout_counts_from_the_first_retransmission_after_the_probe() -> None:
    what = scenario(liveness={"tcp_user_timeout": 15.0})
    log = run(what, fault("host_crash", traced=True))
    first = next(e.time_s for e in log.of(K.HEARTBEAT_SENT) if e.time_s > 100.0 - HALF_S)
    verdict = log.one(K.SUSPECTED, 0)
    assert verdict.time_s == pytest.approx(first + what.network.rto_ladder[1] + 15.0)
    assert verdict.cause == "tcp_timeout"


def test_tcp_user_timeout_does_not_see_a_frozen_client() -> None:
    what = scenario(liveness={"tcp_user_timeout": 15.0})
    assert run(what, fault("frozen")).one(K.SUSPECTED, 0).cause == "heartbeat"


def test_where_no_answer_is_missed_the_kernel_gives_up() -> None:
    """A threshold far beyond TCP's patience: T_D = time to the next ping + give-up."""
    what = scenario(duration=1500.0, liveness={"max_failures": 100, "session_timeout": None})
    log = run(what, fault("host_crash", traced=True))
    first = next(e.time_s for e in log.of(K.HEARTBEAT_SENT) if e.time_s > 100.0 - HALF_S)
    verdict = log.one(K.SUSPECTED, 0)
    assert verdict.cause == "tcp_timeout"
    assert verdict.time_s == pytest.approx(first + give_up_s(what.network.rto_ladder))


def test_slow_answers_within_the_deadline_are_no_failure_and_later_ones_are() -> None:
    for round_trip_s, failures in ((9.99, 0), (10.01, 1)):
        log = run(scenario(duration=60.0, network={"round_trip": round_trip_s}))
        missed = log.of(K.HEARTBEAT_MISSED)
        assert bool(missed) is bool(failures)
        assert not log.of(K.SUSPECTED), "any answer resets the count"
