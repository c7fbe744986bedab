from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from harness.theory.detectors import idle_limit, miss_at_next_tick, nat_prevented, nat_reset, ping_deadline
from harness.theory.law import FloatArray, Law
from harness.theory.literature.other_detectors import (
    close_seen,
    connection_check,
    nat_drop,
    next_retransmission_s,
    send_fails,
    ttl_only,
)
from harness.theory.literature.phi_accrual_laws import AkkaPhi, CassandraPhi, phi_accrual
from harness.theory.tcp import tcp_give_up_s, textbook_ladder_s
from reference_server.liveness.detector import Action
from reference_server.liveness.heartbeat_policy import LivenessPolicy, PingDetector
from scenarios.distributions import Distribution, Uniform
from tests.harness.theory.montecarlo import agrees

N = 20_000
CLASSIC = LivenessPolicy()
RETRY = LivenessPolicy(heartbeat_interval=20.0, heartbeat_timeout=4.0, max_failures=4, retry_interval=5.0)


def by_the_detector(policy: LivenessPolicy, phases_s: FloatArray) -> FloatArray:
    """Suspicion times of the gateway's own detector, silent from time 0, next ping at each phase."""
    found = []
    for phase_s in phases_s.tolist():
        detector = PingDetector(policy, first_ping_s=phase_s)
        while detector.on_time(now := detector.due_s) is not Action.SUSPECT:
            pass
        found.append(now)
    return np.array(found)


def ticks(t: float, k: int, r: np.random.Generator) -> FloatArray:
    """Count ticks: each pings, and counts a miss if the ping before it was not answered."""
    found = []
    for phase in r.uniform(0, t, N):
        missed, now, awaiting = 0, phase, False
        while True:
            missed += awaiting
            if missed == k:
                break
            awaiting, now = True, now + t
        found.append(now)
    return np.array(found)


def swept(last_s: FloatArray, limit_s: float, sweep_s: float, r: np.random.Generator) -> FloatArray:
    """First sweep, on a grid of random phase, that finds the limit exceeded."""
    grid = r.uniform(0, sweep_s, len(last_s))
    return grid + sweep_s * np.ceil((last_s + limit_s - grid) / sweep_s)


def by_retransmissions(sent_s: FloatArray, retries: int) -> FloatArray:
    """Play the kernel's timer: wait, double, wait, … until the last one has gone unanswered."""
    end, rto = sent_s.copy(), 0.2
    for _ in range(retries + 1):
        end += rto
        rto = min(2 * rto, 120.0)
    return end


Draw = Callable[[np.random.Generator], FloatArray]
TABLE: dict[str, tuple[Law, Draw]] = {
    "ping + deadline": (ping_deadline(CLASSIC), lambda r: by_the_detector(CLASSIC, r.uniform(0, 30, N))),
    "ping + deadline, short retries": (
        ping_deadline(RETRY),
        lambda r: by_the_detector(RETRY, r.uniform(0, 20, N)),
    ),
    "miss at the next tick": (miss_at_next_tick(30.0), lambda r: ticks(30.0, 1, r)),
    "third miss at the next tick": (miss_at_next_tick(10.0, 3), lambda r: ticks(10.0, 3, r)),
    "idle limit and sweep": (
        idle_limit(30.0, 60.0, 20.0),
        lambda r: swept(-r.uniform(0, 30, N), 60.0, 20.0, r),
    ),
    "send fails": (send_fails(30.0), lambda r: by_retransmissions(r.uniform(0, 30, N), 15)),
    "connection state and sweep": (
        connection_check(30.0, 60.0, tcp_give_up_s(5)),
        lambda r: swept(by_retransmissions(r.uniform(0, 30, N), 5), 0.0, 60.0, r),
    ),
    "TTL only": (ttl_only(7200.0, 60.0, 8.0), lambda r: 7200.0 - r.uniform(0, 60, N) + r.uniform(0, 8, N)),
    "close frame, FIN, RST": (
        close_seen(Distribution(uniform=Uniform(low=0.1, high=0.3))),
        lambda r: r.uniform(0.1, 0.3, N) / 2,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_law_of_each_detector(name: str) -> None:
    law, draw = TABLE[name]
    agrees(law, draw(np.random.default_rng(7)))


def test_the_classic_policy_has_its_reference_values() -> None:
    law = ping_deadline(CLASSIC)
    assert (law.lo_s, law.hi_s, law.mean_s) == (70, 100, 85)
    assert law.quantile(0.99) == pytest.approx(99.7)


@pytest.mark.parametrize(
    ("law", "lo_s", "hi_s", "mean_s"),
    [
        (
            ping_deadline(LivenessPolicy(heartbeat_interval=25.0, heartbeat_timeout=20.0, max_failures=1)),
            20,
            45,
            32.5,
        ),
        (idle_limit(30.0, 60.0), 30, 60, 45),
        (idle_limit(15.0, 30.0), 15, 30, 22.5),
        (idle_limit(54.0, 60.0), 6, 60, 33),
        (miss_at_next_tick(30.0), 30, 60, 45),
        (send_fails(30.0), 924.6, 954.6, 939.6),
    ],
    ids=["Engine.IO", "Phoenix", "SignalR", "gorilla", "Node ws", "send only"],
)
def test_known_products_have_their_ranges(law: Law, lo_s: float, hi_s: float, mean_s: float) -> None:
    assert (law.lo_s, law.hi_s, law.mean_s) == pytest.approx((lo_s, hi_s, mean_s))


@pytest.mark.parametrize(
    ("retries", "first_rto_s", "expected_s"),
    [(15, 0.2, 924.6), (5, 0.2, 12.6), (0, 0.2, 0.2), (8, 0.3, 153.3), (15, 1.0, 1207.0)],
)
def test_tcp_gives_up(retries: int, first_rto_s: float, expected_s: float) -> None:
    assert tcp_give_up_s(retries, first_rto_s) == pytest.approx(expected_s)


def test_an_impossible_tcp_is_refused() -> None:
    with pytest.raises(ValueError, match="retries2 >= 0"):
        tcp_give_up_s(-1)


def test_the_textbook_ladder() -> None:
    assert textbook_ladder_s(8) == pytest.approx((0.2, 0.6, 1.4, 3.0, 6.2, 12.6, 25.4, 51.0))


def test_a_lost_segment_arrives_at_the_first_retransmission_after_the_healing() -> None:
    found = next_retransmission_s((0.2, 0.6, 1.4), [-1.0, 0.0, 0.1, 0.2, 0.3, 1.4, 1.5])
    assert found.tolist() == [0, 0, 0.2, 0.2, 0.6, 1.4, np.inf]


def test_traffic_below_the_nat_timeout_prevents_the_failure() -> None:
    assert nat_prevented(30.0, 45.0) and not nat_prevented(30.0, 30.0)
    assert nat_drop(CLASSIC, 45.0).mass == 0
    assert nat_reset(CLASSIC, 45.0).mass == 0


def test_above_it_the_detection_is_not_random() -> None:
    """Expired 20 s after the last packet; the next ping vanishes, and the detector takes it from there."""
    law = nat_drop(CLASSIC, 20.0)
    expected = by_the_detector(CLASSIC, np.array([30.0 - 20.0]))[0]
    assert law.lo_s == law.hi_s == expected == 80.0
    assert nat_reset(CLASSIC, 20.0).mean_s == 10.0


def test_without_a_heartbeat_there_is_no_heartbeat_law() -> None:
    silent = LivenessPolicy(heartbeat_interval=None)
    for law_of in (ping_deadline, lambda p: nat_drop(p, 5.0), lambda p: nat_reset(p, 5.0)):
        with pytest.raises(ValueError, match="no heartbeat"):
            law_of(silent)


def test_a_ttl_that_ends_before_its_refresh_is_refused() -> None:
    with pytest.raises(ValueError, match="expires in between"):
        ttl_only(10.0, 20.0)


@pytest.mark.parametrize(
    ("detector", "silence_s"),
    [
        (AkkaPhi(), 4.5226),
        (AkkaPhi(exact=True), 4.5612),
        (CassandraPhi(), 18.4207),
        (CassandraPhi(mean_s=2.0), 36.8414),
    ],
)
def test_phi_reaches_its_threshold(detector: AkkaPhi | CassandraPhi, silence_s: float) -> None:
    assert detector.silence_s == pytest.approx(silence_s, abs=5e-5)
    assert detector.phi(detector.silence_s) == pytest.approx(detector.threshold)


def test_phi_is_the_tail_of_the_inter_arrivals() -> None:
    for t in (3.9, 4.0, 4.3, 4.6):
        assert AkkaPhi(exact=True).phi(t) == pytest.approx(-np.log10(stats.norm.sf(t, 4.0, 0.1)), rel=1e-9)
        assert CassandraPhi().phi(t) == pytest.approx(-np.log10(np.exp(-t)))
        # Bowling et al. (2009) give 1.4e-4 as the largest error of this logistic approximation.
        assert 10 ** -AkkaPhi().phi(t) == pytest.approx(stats.norm.sf(t, 4.0, 0.1), abs=1.5e-4)


@pytest.mark.parametrize("detector", [AkkaPhi(), CassandraPhi(threshold=1.0)])
def test_phi_accrual_by_a_ticking_observer(detector: AkkaPhi | CassandraPhi) -> None:
    """Beats every second until the death; φ is looked at every 50 ms on a grid of its own."""
    r = np.random.default_rng(8)
    age = r.uniform(0, 1.0, 2000)
    offset = r.uniform(0, 0.05, len(age))
    found = []
    for a, o in zip(age.tolist(), offset.tolist(), strict=True):
        tick = o
        while detector.phi(tick + a) < detector.threshold:
            tick += 0.05
        found.append(tick)
    agrees(phi_accrual(detector, 1.0, 0.05), np.array(found))
