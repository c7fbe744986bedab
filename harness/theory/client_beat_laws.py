"""Clients that beat by themselves, but late or not always. When does the idle limit throw them out?

    last beat ─ U ─ fault             next beat that gets there
    |<──── TO ─────────>| + to the next sweep: thrown out, if that comes first

From a policy and the fault to laws in scenario seconds; the limit is TO, swept every S, and beats are due every T. A
sweep's phase is uniform in (0, S) and independent of U, the age of the last beat, uniform in (0, T).

    throttled   from the fault on a beat every P, when the slow timer runs; P ≥ T
    delayed     each beat is held back by a draw of D
    lossy       each packet is lost with probability p; TCP sends it again, and later beats queue behind it
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.theory.law import FloatArray, Law
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.network import after_probe

__all__ = ["delayed_beats", "law_of_cells", "lossy_beats", "sweep_phases", "throttled_beats"]

_SWEEP_CELLS = 128


def throttled_beats(policy: LivenessPolicy, every_s: float, horizon_s: float) -> Law | None:
    """The suspicion of a client whose beats wait for a timer that runs at P, 2P, … after the fault.

    Nobody is thrown out where T + P is within the limit. None where P < T and it is not: which run of the timer a
    beat meets is the page's affair.

    Args:
        policy: T, TO and S.
        every_s: P.
        horizon_s: timer runs after it do not count.

    Raises:
        ValueError: no heartbeat or no idle limit.
    """
    interval_s, limit_s, sweep_s = _times(policy)
    if every_s + interval_s <= limit_s:
        return Law.never()
    if every_s < interval_s:
        return None
    cell_s, first_s = sweep_phases(sweep_s)
    found: list[tuple[FloatArray, FloatArray]] = []
    left = np.ones(_SWEEP_CELLS)
    # Up to the first run: the limit ends at TO − U, which lies between two sweeps with this probability.
    sweeps = math.ceil(min(every_s, limit_s + sweep_s) / sweep_s) + 1
    for n in range(sweeps):
        at_s = first_s + n * sweep_s
        between = np.clip(at_s, limit_s - interval_s, limit_s)
        since = np.clip(at_s - sweep_s, limit_s - interval_s, limit_s) if n else limit_s - interval_s
        share = np.where(at_s < every_s, (between - since) / interval_s, 0.0)
        found.append((at_s, share))
        left = left - share
    begins_s = every_s
    while begins_s < horizon_s and left.any():
        at_s = first_s + sweep_s * np.ceil((begins_s + limit_s - first_s) / sweep_s)
        out = at_s < begins_s + every_s
        found.append((at_s, np.where(out, left, 0.0)))
        left = np.where(out, 0.0, left)
        begins_s += every_s
    return law_of_cells(found, cell_s)


def delayed_beats(policy: LivenessPolicy, lateness: Law) -> Law | None:
    """From the last beat in time to the suspicion of a client whose beats are each late by a draw of D.

    The first gap is T + D, the next are T where D is constant. None where some draws of D decide.

    Raises:
        ValueError: no heartbeat or no idle limit.
    """
    interval_s, limit_s, sweep_s = _times(policy)
    swept = Law.uniform(limit_s, limit_s + sweep_s)
    if lateness.hi_s + interval_s <= limit_s:
        return Law.never()
    if lateness.lo_s == lateness.hi_s or lateness.lo_s + interval_s >= swept.hi_s:
        return swept.within(0.0, interval_s + lateness.lo_s)
    return None


def lossy_beats(policy: LivenessPolicy, rate: float, ladder: Sequence[float], horizon_s: float) -> Law:
    """From the last beat before the fault to the suspicion of a client whose packets get lost.

    Of a beat that finds nothing on its way, n tries are lost with probability rate^n (1 − rate); it arrives at the n-th
    step of TCP's ladder, with all beats that queued behind it. A beat right after one that the tail-loss probe has
    repaired has the ladder without that step (`after_probe`). From one such beat to the next it is carried on when the
    last frame arrived.

    Args:
        policy: T, TO and S.
        rate: above 0, below 1.
        ladder: TCP's tries after the first send, seconds, rising; the probe first.
        horizon_s: beats after it do not count.

    Raises:
        ValueError: no heartbeat or no idle limit.
    """
    interval_s, limit_s, sweep_s = _times(policy)
    cell_s, first_s = sweep_phases(sweep_s)
    tries = [(0.0, *ladder), (0.0, *after_probe(ladder))]
    beats = math.ceil(horizon_s / interval_s) + 1
    # By beat: (silent since, whether the one before was repaired by a probe) → probability, for each sweep phase.
    at_beat: list[dict[tuple[float, int], FloatArray]] = [{} for _ in range(beats + 1)]
    at_beat[1][(0.0, 0)] = np.ones(_SWEEP_CELLS)
    found: list[tuple[FloatArray, FloatArray]] = []
    for beat in range(1, beats + 1):
        for (heard_s, repaired), weight in at_beat[beat].items():
            out_s = first_s + sweep_s * np.ceil((heard_s + limit_s - first_s) / sweep_s)
            left = weight
            for n, step in enumerate(tries[repaired]):
                arrives_s = beat * interval_s + step
                arrives = np.where(arrives_s <= out_s, weight * rate**n * (1 - rate), 0.0)
                left = left - arrives
                then = beat + max(1, math.ceil(step / interval_s))
                if then <= beats and arrives.any():
                    state = (round(arrives_s, 9), int(n == 1 and not repaired))
                    at_beat[then][state] = at_beat[then].get(state, 0.0) + arrives
            found.append((out_s, left))
    return law_of_cells(found, cell_s)


def _times(policy: LivenessPolicy) -> tuple[float, float, float]:
    if policy.session_timeout is None:
        raise ValueError("no idle limit: session_timeout is null")
    return policy.interval_s, policy.session_timeout, policy.sweep_interval


def sweep_phases(sweep_s: float) -> tuple[float, FloatArray]:
    """The width of a cell of the sweep's phase, and the first sweep of each of 128 cells, shape (128,)."""
    cell_s = sweep_s / _SWEEP_CELLS
    return cell_s, np.asarray((np.arange(_SWEEP_CELLS) + 0.5) * cell_s, dtype=float)


def law_of_cells(found: Sequence[tuple[FloatArray, FloatArray]], cell_s: float) -> Law:
    """The law of times with their weights for each phase; each is smeared over two cells: the range is whole."""
    at_s = np.concatenate([times for times, _ in found])
    share = np.concatenate([weights for _, weights in found]) / _SWEEP_CELLS
    at_s, share = at_s[share > 1e-15], share[share > 1e-15]
    if not len(at_s):
        return Law.never()
    edges, where = np.unique(np.round(np.concatenate((at_s - cell_s, at_s + cell_s)), 9), return_inverse=True)
    slope = np.cumsum(np.bincount(where, np.concatenate((share, -share)) / (2 * cell_s), len(edges)))
    rises = np.maximum(slope[:-1], 0.0) * np.diff(edges)
    cumulative = np.concatenate(([0.0], np.cumsum(rises)))
    return Law.knots(edges, cumulative * min(1.0, share.sum()) / cumulative[-1])
