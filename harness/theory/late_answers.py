"""Clients that answer, but late: hidden pages with slow timers, long ways. When are they thrown out?

    throttled   |--V--ping----- (k−1)R + τ -----suspected        if that comes before the timer at P,
                0                                 P              else the answers then wipe the slate
    delayed     ping ---- D ---- answer                          suspected where D > (k−1)R + τ, never below

    lossy       ping --✗ again --✗ again ---- answer             suspected where every try within (k−1)R + τ is lost

From the policy and the fault to laws in scenario seconds from the fault. Exact where said; None elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.theory.law import Law, mixture
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.network import after_probe

__all__ = ["bundled_answers", "late_answers", "resent_pings"]

_Piece = tuple[float, float]  # of the phase: from, to


def late_answers(policy: LivenessPolicy, lateness: Law, round_trip: Law) -> bool | None:
    """Whether each ping's answer always comes too late (True), never (False), or now and then (None).

    The answer to the first ping of a row of misses comes before the k-th deadline where it is no later than
    (k−1)R + τ less a round trip, and any frame resets the count.
    """
    patience = policy.patience_s
    if lateness.hi_s + round_trip.hi_s < patience:
        return False
    return True if lateness.lo_s + round_trip.lo_s > patience else None


def bundled_answers(
    policy: LivenessPolicy, every_s: float, round_trip: Law, horizon_s: float, phase: Law | None = None
) -> Law | None:
    """The law of the suspicion of a client that answers at multiples of ``every_s`` after the fault.

    The phase U of the first ping after the fault is uniform in [0, T). In the n-th period pings arrive first at
    V = (U − nP) mod T, and the suspicion comes at V + (k−1)R + τ less half a round trip, if that is before the
    answers of the period's end. The pieces of U that are left go to the next period. With R = T exact, with the
    round trip's mean for its law; with another R only where every phase, or none, is suspected at once.

    Args:
        policy: with a heartbeat.
        every_s: P.
        round_trip: its law.
        horizon_s: periods that begin later do not count.
        phase: U; None: uniform.
    """
    interval_s = policy.interval_s
    trip_s = round_trip.mean_s
    # V below this is suspected before the period's answers are back at the gateway.
    longest_s = every_s + trip_s - policy.patience_s
    if longest_s <= 0:
        return Law.never()
    wait_s = policy.patience_s - trip_s / 2
    phase = phase or Law.uniform(0.0, interval_s)
    if longest_s >= interval_s:
        return phase.shifted(wait_s)
    if policy.retry_s != interval_s:
        return None
    left: list[_Piece] = [(0.0, interval_s)]
    parts: list[tuple[float, Law]] = []
    n = 0
    while left and n * every_s < horizon_s:
        starts_s = math.fmod(n * every_s, interval_s)
        for low, high in _wrapped(starts_s, longest_s, interval_s):
            for begin, end in _common(left, low, high):
                first_s = n * every_s + math.fmod(begin - starts_s + interval_s, interval_s) + wait_s
                parts.append((1.0, phase.within(begin, end).shifted(first_s - begin)))
            left = _without(left, low, high)
        n += 1
    return mixture(parts)


def resent_pings(
    policy: LivenessPolicy,
    rate: float,
    ladder: Sequence[float],
    round_trip: Law,
    horizon_s: float,
    phase: Law | None = None,
) -> Law | None:
    """The law of the suspicion of a client to whom each packet is lost with probability ``rate``.

    Of a ping that is sent when nothing else is on its way, N tries are lost: P(N = n) = rate^n (1 − rate). Its
    answer comes a round trip after the n-th step of the ladder, and with it those of the pings that were sent
    meanwhile, which queue behind it. So the next throw is a heartbeat's, or a few heartbeats', later; where no
    step within (k−1)R + τ gets through, the client is suspected. One that comes after a ping which TCP's tail-loss
    probe has repaired (N = 1) is not probed, and has the ladder without that step (`after_probe`): a chain of
    two states. Exact where all answers in time come before the first deadline, or R = T; None elsewhere, and
    where one try may come on either side of a deadline.

    Args:
        policy: with a heartbeat.
        rate: above 0, below 1.
        ladder: TCP's tries after the first send, seconds, rising; the probe first.
        round_trip: its law.
        horizon_s: heartbeats that begin later do not count.
        phase: from the fault to the next ping; None: uniform.
    """
    interval_s, patience = policy.interval_s, policy.patience_s
    assert interval_s is not None
    steps: list[list[float]] = []  # in time: of a ping that is probed, of one that is not
    for after in (ladder, after_probe(ladder)):
        tries = (0.0, *after)
        in_time = [step for step in tries if step + round_trip.hi_s < patience]
        if sum(step + round_trip.lo_s <= patience for step in tries) != len(in_time):
            return None
        if not in_time or (
            in_time[-1] + round_trip.hi_s >= policy.heartbeat_timeout and policy.retry_s != interval_s
        ):
            return None
        steps.append(in_time)
    beats = math.ceil(horizon_s / interval_s)
    # How likely each heartbeat after the fault finds nothing on its way, and would be probed or not.
    fresh = np.zeros((beats, 2))
    fresh[0, 0] = 1.0
    parts: list[tuple[float, Law]] = []
    wait_s = patience - round_trip.mean_s / 2
    phase = phase or Law.uniform(0.0, interval_s)
    for beat in range(beats):
        for state, in_time in enumerate(steps):
            for n, step in enumerate(in_time):
                then = beat + max(1, math.ceil(step / interval_s))
                if then < beats:
                    unprobed = int(n == 1 and state == 0)
                    fresh[then, unprobed] += fresh[beat, state] * rate**n * (1 - rate)
        lost = sum(fresh[beat, state] * rate ** len(steps[state]) for state in (0, 1))
        first_s = beat * interval_s + wait_s
        parts.append((float(lost), phase.shifted(first_s)))
    return mixture(parts)


def _wrapped(start: float, length: float, period: float) -> list[_Piece]:
    """[start, start + length) on a circle."""
    end = start + length
    return [(start, end)] if end <= period else [(start, period), (0.0, end - period)]


def _common(pieces: list[_Piece], low: float, high: float) -> list[_Piece]:
    met = [(max(low, a), min(high, b)) for a, b in pieces]
    return [(a, b) for a, b in met if b - a > 1e-9]


def _without(pieces: list[_Piece], low: float, high: float) -> list[_Piece]:
    kept = [part for a, b in pieces for part in ((a, min(b, low)), (max(a, high), b))]
    return [(a, b) for a, b in kept if b - a > 1e-9]
