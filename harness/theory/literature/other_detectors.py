"""Reference values beside the laws that the product uses: detectors that no scenario has, outages without TCP.

Each function is one formula of a document or a paper, named there; nothing else here calls them but notebooks and
tests. Seconds from the fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.theory.detectors import nat_prevented
from harness.theory.law import FloatArray, Law
from harness.theory.tcp import tcp_give_up_s
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution

__all__ = [
    "close_seen",
    "connection_check",
    "false_suspicion_per_outage_exponential",
    "nat_drop",
    "next_retransmission_s",
    "send_fails",
    "ttl_only",
]


def send_fails(interval_s: float, give_up_s: float | None = None) -> Law:
    """Only a failing `send` tells: U + TCP's give-up, however many failures the policy counts.

    `send` on a dead peer succeeds until the kernel gives up; ``give_up_s`` None is Linux's default,
    924.6 s after the first unacknowledged ping; a TCP_USER_TIMEOUT replaces it.
    Source: Linux `tcp_retries2`; tcp(7) TCP_USER_TIMEOUT.
    """
    give_up = tcp_give_up_s() if give_up_s is None else give_up_s
    return Law.uniform(give_up, give_up + interval_s)


def connection_check(interval_s: float, check_s: float, give_up_s: float | None = None) -> Law:
    """The connection's state is looked at every S: as `send_fails`, + Uniform(0, S). Source: as there."""
    return send_fails(interval_s, give_up_s).plus(Law.uniform(0.0, check_s))


def ttl_only(ttl_s: float, refresh_s: float, expiry_lag_s: float = 0.0) -> Law:
    """Nothing but the store's TTL: TTL − age of the last refresh, the age uniform on (0, refresh_s).

    ``expiry_lag_s``: Redis deletes late; uniform on (0, lag), for who waits for its notification instead of
    polling. Source: Redis documentation, EXPIRE ("How Redis expires keys") and keyspace notifications.

    Raises:
        ValueError: refreshed less often than it expires.
    """
    if refresh_s > ttl_s:
        raise ValueError(f"a TTL of {ttl_s:g} s refreshed every {refresh_s:g} s expires in between")
    return Law.uniform(ttl_s - refresh_s, ttl_s).plus(Law.uniform(0.0, expiry_lag_s))


def close_seen(round_trip: Distribution) -> Law:
    """Close frame, FIN or RST: the one-way delay, half a round trip. Source: RFC 6455 section 7, RFC 9293."""
    return Law.of(round_trip).scaled(0.5)


def nat_drop(policy: LivenessPolicy, nat_idle_s: float) -> Law:
    """A NAT that forgets and drops: T_D = (T − N) + (k−1)R + τ from the expiry, not random; T < N: never.

    The mapping goes N after the last packet; the next ping, T after it, vanishes. Source: RFC 5382.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    interval_s = policy.interval_s
    if nat_prevented(interval_s, nat_idle_s):
        return Law.never()
    return Law.constant(interval_s - nat_idle_s + policy.patience_s)


def false_suspicion_per_outage_exponential(
    interval_s: float, timeout_s: float, max_failures: int, mean_outage_s: float
) -> float:
    """exp(−((k−1)T + τ)/m)·(m/T)·(1 − exp(−T/m)): R = T, L ~ Exp(mean m), no overshoot, no idle limit.

    0.049691 at (T, k, τ, m) = (25, 1, 20, 10). Source: ∫_0^T P(L > u + (k−1)T + τ) du/T.
    """
    t, m = interval_s, mean_outage_s
    return math.exp(-((max_failures - 1) * t + timeout_s) / m) * (m / t) * -math.expm1(-t / m)


def next_retransmission_s(ladder_s: Sequence[float], wait_s: npt.ArrayLike) -> FloatArray:
    """First entry of the ladder at or after each wait, the shape of ``wait_s``; inf beyond its end.

    A segment sent at the start of an outage of this length arrives then: TCP turns loss into delay, and
    overshoots the healing by up to the last back-off. A wait of zero or less is the first send itself.
    """
    wait = np.asarray(wait_s, dtype=float)
    steps = np.array([*ladder_s, np.inf])
    found = steps[np.searchsorted(steps[:-1], wait, side="left")]
    return np.asarray(np.where(wait <= 0, 0.0, found), dtype=float)
