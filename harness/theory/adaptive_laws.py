"""What detectors that learn have learnt when a fault comes: the silence that φ-accrual allows, the interval probed.

From a detector's settings and the age of its connection to laws in scenario seconds, by driving the gateway's own
code with beats that come on time. Nothing is known, and the reason is returned instead, where what one client's
network did to its beats decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from harness.theory.law import Law, mixture
from reference_server.liveness.adaptive_interval import ProbedInterval, Probing
from reference_server.liveness.phi_accrual import PhiAkka, PhiCassandra

__all__ = ["phi_never_errs", "phi_silence", "probed_wait", "wait_for_ping"]

_PHASE_CELLS = 8  # of the first ping's phase, which is among what φ has learnt
_COUNT_CELLS = 64  # of how many beats it has learnt from
_EARLY_S = 1e9
_HANDSHAKE_TRIPS = 4.0  # login, TCP, upgrade, authentication; and half a trip to the first ping's arrival


def phi_silence(
    kind: PhiAkka | PhiCassandra, interval_s: float, round_trip: Law, age: Law, *, at_random: bool = True
) -> tuple[Law, str]:
    """The silence since the last frame at which φ reaches its threshold, and why it is not known.

    Once ``samples`` + 3 beats are learnt, every interval in the window is T give or take a difference of round trips:
    their mean is T + (last trip − first trip)/samples, and Akka's σ is its floor. Before that the window also holds
    the guess it began with and the first ping's phase, uniform in (0, T).

    Args:
        kind: the detector.
        interval_s: T.
        round_trip: its law.
        age: of the connection at the fault.
        at_random: the first ping comes at a random phase; else T after the connection.

    Returns:
        The law and "", or `Law.never` and a reason.
    """
    spread_s = round_trip.hi_s - round_trip.lo_s
    full = kind.samples + 3
    learns = age.lo_s < full * interval_s
    # Twice the deviation of a difference of two round trips: a sample's own hardly exceeds that.
    if isinstance(kind, PhiAkka) and 2 * _deviation_s(round_trip) * 2**0.5 > kind.min_sigma:
        return Law.never(), "the round trips decide which σ φ learns of each client"
    if age.lo_s < interval_s:
        return Law.never(), "some faults come before φ has learnt a first interval"
    if not learns:
        learnt = [_silences_s(kind, interval_s, interval_s / 2, full)[-1]]
        silence = Law.constant(learnt[0])
    else:
        silence = _while_learning(kind, interval_s, age, at_random)
    if not phi_never_errs(kind, interval_s, round_trip):
        return Law.never(), "φ may reach its threshold between two beats of a healthy client"
    if isinstance(kind, PhiCassandra) and spread_s > 0:
        slope = _silences_s(kind, 1.0, 0.5, full)[-1] / kind.samples
        silence = silence.plus(round_trip.scaled(slope)).plus(round_trip.scaled(-slope))
    return silence, ""


def phi_never_errs(kind: PhiAkka | PhiCassandra, interval_s: float, round_trip: Law) -> bool:
    """Whether φ stays below its threshold for a healthy client, whatever it has learnt of these round trips.

    Akka's silence is at least mean + pause + y × floor, Cassandra's threshold × ln 10 × mean; while one short first
    interval is among the learnt, the mean is (n − 1)/n of T or more.
    """
    spread_s = round_trip.hi_s - round_trip.lo_s
    if isinstance(kind, PhiCassandra):
        slope = _silences_s(kind, 1.0, 0.5, kind.samples + 3)[-1]
        return slope * (interval_s - spread_s) * (1 - 1 / kind.samples) > interval_s + spread_s
    beyond_s = _silences_s(kind, interval_s, interval_s, kind.samples + 3)[-1] - interval_s
    return kind.threshold >= 1.0 and beyond_s > 2 * spread_s


def _deviation_s(law: Law) -> float:
    """The standard deviation, seconds; what is linear between knots, taken at its middle."""
    middle = (law.times_s[1:] + law.times_s[:-1]) / 2
    return float(np.sqrt(np.sum((middle - law.mean_s) ** 2 * np.diff(law.cumulative))))


def _while_learning(kind: PhiAkka | PhiCassandra, interval_s: float, age: Law, at_random: bool) -> Law:
    """Mix over the first ping's phase and the number of beats: between neighbours the silence is taken as even."""
    most = min(int(age.hi_s / interval_s) + 1, kind.samples + 3)
    edges = np.linspace(0.0, interval_s, _PHASE_CELLS + 1) if at_random else np.full(2, interval_s)
    at_edge = np.array([_silences_s(kind, interval_s, max(u, 1e-9), most) for u in edges])
    first = max(1, int(age.lo_s / interval_s))
    counts = np.unique(np.linspace(first, most + 1, _COUNT_CELLS + 1).astype(int))
    parts: list[tuple[float, Law]] = []
    for i, (u, v) in enumerate(pairwise(edges)):
        begins = (u + v) / 2 + interval_s * (counts - 1)  # of the cell's first beat, as an age
        reached = age.cdf(begins)
        reached[0], reached[-1] = 0.0, 1.0
        for weight, low, high in zip(np.diff(reached), counts[:-1], counts[1:], strict=True):
            cell = at_edge[i : i + 2, low - 1 : high - 1]
            parts.append(
                (float(weight) / (len(edges) - 1), Law.uniform(float(cell.min()), float(cell.max())))
            )
    return mixture(parts)


def _silences_s(kind: PhiAkka | PhiCassandra, interval_s: float, first_s: float, beats: int) -> list[float]:
    """The silence allowed after each of so many beats, of which the first comes ``first_s`` after the connection."""
    arrivals = kind.arrivals(interval_s)
    allowed = []
    for beat in range(beats):
        arrivals.add(interval_s if beat else first_s)
        allowed.append(arrivals.patience_s)
    return allowed


def probed_wait(kind: Probing, round_trip: Law, age: Law) -> tuple[Law, float]:
    """From the fault to the next ping of a probing heartbeat that lost no connection yet, and the longest interval.

    The pings' times follow from the age: the interval grows by a step whenever ``answers`` were answered.
    The result is of the ping's arrival at the client.
    """
    learnt = ProbedInterval(kind)
    pings_s = [0.0, learnt.interval_s]
    while pings_s[-1] < age.hi_s:
        learnt.on_answer()
        pings_s.append(pings_s[-1] + learnt.interval_s)
    return wait_for_ping(pings_s[1:], round_trip, age), max(high - low for low, high in pairwise(pings_s))


def wait_for_ping(pings_s: Sequence[float], round_trip: Law, age: Law) -> Law:
    """From the fault to the next ping's arrival at the client, where pings come at certain times.

    Args:
        pings_s: when the gateway sends them, seconds from the connection; the last one after every fault.
        round_trip: its law.
        age: of the connection at the fault, as its client counts it.
    """
    seen = age.shifted(-_HANDSHAKE_TRIPS * round_trip.mean_s)
    gaps = [(seen.within(low, high), high) for low, high in pairwise((-_EARLY_S, *pings_s))]
    return mixture((1.0, part.scaled(-1.0).shifted(high)) for part, high in gaps if part.mass)
