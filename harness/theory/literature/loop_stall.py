"""False suspicion by the gateway itself: an event loop that stalls or cannot keep up.

The loop is a server: each beat (a ping sent, its answer read) takes a service time of it. Seconds.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution

__all__ = ["answer_wait_bound", "harmless_stall_s", "loop_utilisation", "stall_false_suspicion"]

_STEPS = 4096


def stall_false_suspicion(
    policy: LivenessPolicy, stall: Distribution, round_trip_s: float, *, timers_first: bool = True
) -> float:
    """Probability that one stall of the loop makes it drop one given healthy client.

    A ping whose answer was not read yet when the stall began, and whose deadline passes in it, counts as a
    failure if the loop runs its timers before it reads (``timers_first``: libuv before 1.45). Then the answer
    is read and resets the count: only k = 1 is in danger. ∫_0^rtt P(stall > τ − a) da/T.
    Source: libuv design overview, "the I/O loop"; the detector's rules. Bursts: `harmless_stall_s`.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    if policy.max_failures > 1 or not timers_first:
        return 0.0
    age_s = (np.arange(_STEPS) + 0.5) / _STEPS * min(round_trip_s, policy.heartbeat_timeout)
    late = 1 - stall.cdf(policy.heartbeat_timeout - age_s)
    return float(np.mean(late) * age_s[-1] / (1 - 0.5 / _STEPS) / policy.interval_s)


def harmless_stall_s(
    policy: LivenessPolicy, clients: int, service_s: float, round_trip_s: float = 0.0
) -> float:
    """Longest stall after which no answer waits beyond its deadline; inf where even a whole round may.

    A stall of length B leaves N·B/T pings overdue; they go out in one burst, and the last answer is read when
    the burst, at ``service_s`` a beat, has been served: harmless up to B = (τ − rtt)·T/(N·s). Valid below
    full utilisation; the pings that come due meanwhile queue behind the burst. Source: a busy period's start in
    a single-server queue, first come first served (Kleinrock, Queueing Systems, vol. 1, section 5.8).

    Raises:
        ValueError: the policy has no heartbeat.
    """
    room_s = policy.heartbeat_timeout - round_trip_s
    if clients * service_s <= room_s:
        return math.inf
    return max(0.0, room_s * policy.interval_s / (clients * service_s))


def loop_utilisation(clients: int, interval_s: float, service_s: float) -> float:
    """ρ = N·s/T; at 1 and above answers wait longer and longer, and healthy clients are dropped.

    Source: the stability condition of a single-server queue (Kleinrock, as above).
    """
    return clients * service_s / interval_s


def answer_wait_bound(clients: int, interval_s: float, service_s: float, wait_s: float) -> float:
    """Upper bound of P(an answer waits longer than this for the loop): exp(−θ·wait), M/D/1.

    θ > 0 solves λ(e^{θs} − 1) = θ with λ = N/T. 1 at full utilisation.
    Source: Kingman, "Inequalities in the theory of queues", J. Royal Stat. Soc. B 32 (1970).
    """
    rate = clients / interval_s
    load = loop_utilisation(clients, interval_s, service_s)
    if load >= 1:
        return 1.0
    # In x = θs: ρ(eˣ − 1) = x. The root lies beyond the minimum of the difference, at −ln ρ.
    low = -math.log(load)
    x = brentq(lambda v: load * math.expm1(v) - v, low, 2 * low + 2, xtol=1e-13)
    return math.exp(-float(x) * rate / load * wait_s)
