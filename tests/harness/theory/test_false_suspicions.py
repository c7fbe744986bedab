"""False suspicion of healthy clients: outages over TCP, stalled gateways; and what a policy costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.theory.costs import bytes_per_beat, cost
from harness.theory.literature.loop_stall import (
    answer_wait_bound,
    harmless_stall_s,
    loop_utilisation,
    stall_false_suspicion,
)
from harness.theory.literature.other_detectors import false_suspicion_per_outage_exponential
from reference_server.liveness.detector import Action
from reference_server.liveness.heartbeat_policy import LivenessPolicy, PingDetector
from scenarios.distributions import Distribution, Exponential, Lognormal, Uniform
from scenarios.network import Network, Outages
from tests.harness.theory.montecarlo import mean_agrees, share_agrees
from tests.harness.theory.quadrature import false_suspicion_per_outage, false_suspicions_per_client_day
from tests.harness.theory.worlds import Way, live_through

LOOPBACK = (0.208, 0.416, 0.848, 1.68, 3.34, 6.70, 13.36, 26.7, 53.4, 106.8)
SHORT_RETRY = LivenessPolicy(
    heartbeat_interval=20.0, heartbeat_timeout=3.0, max_failures=3, retry_interval=5.0
)
TIGHT = LivenessPolicy(heartbeat_interval=25.0, heartbeat_timeout=20.0, max_failures=1)


def test_outages_have_their_reference_value() -> None:
    assert false_suspicion_per_outage_exponential(25, 20, 1, 10) == pytest.approx(0.049691, abs=5e-7)


@pytest.mark.parametrize(("t", "tau", "k", "m"), [(25.0, 20.0, 1, 10.0), (30.0, 10.0, 3, 40.0)])
def test_the_quadrature_meets_the_closed_form(t: float, tau: float, k: int, m: float) -> None:
    policy = LivenessPolicy(heartbeat_interval=t, heartbeat_timeout=tau, max_failures=k)
    found = false_suspicion_per_outage(policy, Distribution(exponential=Exponential(mean=m)))
    assert found == pytest.approx(false_suspicion_per_outage_exponential(t, tau, k, m), rel=1e-5)


@pytest.mark.parametrize("ladder", [None, LOOPBACK], ids=["datagrams", "TCP"])
@pytest.mark.parametrize("policy", [TIGHT, SHORT_RETRY], ids=["k=1", "short retries"])
@pytest.mark.parametrize(
    "length",
    [
        Distribution(exponential=Exponential(mean=15.0)),
        Distribution(lognormal=Lognormal(median=12.0, sigma=0.8)),
        Distribution(uniform=Uniform(low=5.0, high=60.0)),
        Distribution(constant=27.0),
    ],
    ids=["exponential", "lognormal", "uniform", "constant"],
)
def test_outages_against_the_gateways_own_detector(
    policy: LivenessPolicy, length: Distribution, ladder: tuple[float, ...] | None
) -> None:
    r = np.random.default_rng(21)
    n = 3000
    lengths = length.sample(r, n)
    phases = r.uniform(0, policy.heartbeat_interval or 0, n)
    suspected = sum(
        math.isfinite(live_through(policy, p, Way(0.2, heals_s=h, ladder_s=ladder)).suspected_s)
        for p, h in zip(phases.tolist(), lengths.tolist(), strict=True)
    )
    probability = false_suspicion_per_outage(
        policy, length, ladder_s=ladder, round_trip=Distribution(constant=0.2)
    )
    share_agrees(suspected, n, probability)


def test_tcp_overshoots_the_healing() -> None:
    """An outage of 14 s that begins with a ping: sent again at 13.36 s, too early, and then at 26.7 s."""
    length = Distribution(constant=14.0)
    assert false_suspicion_per_outage(TIGHT, length) == 0
    with_tcp = false_suspicion_per_outage(TIGHT, length, ladder_s=LOOPBACK)
    assert with_tcp == pytest.approx((14.0 - 13.36) / 25.0)


def test_outages_come_as_a_renewal_process() -> None:
    length = Distribution(exponential=Exponential(mean=30.0))
    network = Network(outages=Outages(every=3600.0, length=length))
    policy = TIGHT
    r = np.random.default_rng(22)
    counts = []
    for _ in range(600):
        at, count = r.exponential(3600.0), 0
        while at < 86400.0:
            lasts = r.exponential(30.0)
            way = Way(0.001, heals_s=lasts, ladder_s=network.rto_ladder)
            count += math.isfinite(live_through(policy, r.uniform(0, 25.0), way).suspected_s)
            at += lasts + r.exponential(3600.0)
        counts.append(count)
    mean_agrees(np.array(counts, dtype=float), false_suspicions_per_client_day(policy, network))


def test_without_outages_nobody_is_suspected() -> None:
    assert false_suspicions_per_client_day(TIGHT, Network()) == 0


@pytest.mark.parametrize("timers_first", [True, False])
def test_a_stalled_loop_against_the_gateways_own_detector(timers_first: bool) -> None:
    policy = LivenessPolicy(heartbeat_interval=4.0, heartbeat_timeout=2.0, max_failures=1)
    stall, round_trip_s, n = Distribution(exponential=Exponential(mean=2.0)), 1.0, 20_000
    r = np.random.default_rng(23)
    dropped = 0
    lengths = stall.sample(r, n).tolist()
    for age, lasts in zip(r.uniform(0, 4.0, n).tolist(), lengths, strict=True):
        detector = PingDetector(policy, first_ping_s=-age)
        detector.on_time(-age)
        answered_s = round_trip_s - age
        if answered_s <= 0:
            detector.on_inbound(answered_s)
        read_first = answered_s > 0 and not timers_first and answered_s <= lasts
        if read_first:
            detector.on_inbound(lasts)
        dropped += detector.on_time(lasts) is Action.SUSPECT
    expected = stall_false_suspicion(policy, stall, round_trip_s, timers_first=timers_first)
    share_agrees(dropped, n, expected)


def test_a_second_chance_survives_a_stall() -> None:
    patient = LivenessPolicy(heartbeat_interval=4.0, heartbeat_timeout=2.0, max_failures=2)
    assert stall_false_suspicion(patient, Distribution(constant=100.0), 1.0) == 0


@pytest.mark.parametrize("lasts", [0.5, 1.0, 2.0])
def test_a_harmless_stall_is_the_longest_whose_burst_is_served_in_time(lasts: float) -> None:
    """Serve the burst beat by beat: pings that came due in the stall, evenly spread, all sent at its end."""
    policy = LivenessPolicy(heartbeat_interval=10.0, heartbeat_timeout=0.5, max_failures=1)
    clients, service_s = 5000, 0.001
    due = np.arange(clients) * policy.heartbeat_interval / clients  # type: ignore[operator]
    burst = int(np.sum(due < lasts))
    last_read_s = burst * service_s
    limit = harmless_stall_s(policy, clients, service_s)
    assert (last_read_s <= policy.heartbeat_timeout) == (lasts <= limit)


def test_a_small_fleet_may_stall_for_ever() -> None:
    assert harmless_stall_s(LivenessPolicy(), 1000, 0.001) == math.inf


def test_the_waiting_bound_holds_over_a_simulated_queue() -> None:
    clients, interval_s, service_s = 800, 1.0, 0.001
    r = np.random.default_rng(24)
    gaps = r.exponential(interval_s / clients, 400_000)
    steps = np.cumsum(service_s - gaps)
    waits = steps - np.minimum.accumulate(np.minimum(steps, 0.0))
    for wait_s in (0.002, 0.005, 0.01):
        share = float(np.mean(waits[1000::400] > wait_s))
        bound = answer_wait_bound(clients, interval_s, service_s, wait_s)
        assert share <= bound
        assert bound < 1
    assert loop_utilisation(clients, interval_s, service_s) == pytest.approx(0.8)
    assert answer_wait_bound(1000, interval_s, service_s, 60.0) == 1.0


def test_bytes_of_a_beat() -> None:
    assert bytes_per_beat() == 120
    assert bytes_per_beat(pure_acks=1) == 172
    assert bytes_per_beat(tls=True) == 120 + 2 * 22
    with pytest.raises(ValueError, match="125"):
        bytes_per_beat(126, 4)


def test_costs_count_what_a_day_of_beats_counts() -> None:
    """One client, beat by beat for ten days: frames, bytes, records refreshed when half of a TTL is gone, wake-ups."""
    policy = LivenessPolicy(session_ttl=3600.0, status_ttl=500.0)
    days_s, beat_s = 864_000, 30
    refreshed = last = 0
    for now in range(beat_s, days_s + 1, beat_s):
        if now - last >= policy.status_ttl / 2:
            refreshed += 2  # the session's record with it
            last = now
    found = cost(policy, clients=1)
    beats = days_s / beat_s
    assert found.frames_per_s * days_s == pytest.approx(2 * beats)
    assert found.bytes_per_s * days_s == pytest.approx(120 * beats)
    assert found.store_operations_per_s * days_s == pytest.approx(refreshed, abs=2)
    assert found.radio_wakeups_per_hour == 120
    assert found.radio_on_share == pytest.approx(1 / 3)
    wasteful = cost(policy, clients=1, refresh_every_beat=True)
    assert wasteful.store_operations_per_s * days_s == pytest.approx(2 * beats)


def test_no_heartbeat_costs_nothing_and_a_dense_one_never_lets_the_radio_sleep() -> None:
    assert cost(LivenessPolicy(heartbeat_interval=None), 1000).frames_per_s == 0
    dense = cost(LivenessPolicy(heartbeat_interval=5.0, heartbeat_timeout=5.0), 1)
    assert (dense.radio_wakeups_per_hour, dense.radio_on_share) == (0, 1)
