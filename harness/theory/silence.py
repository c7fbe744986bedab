"""Silent death under a whole policy: who notices first, and what if the cut heals or the client thaws first.

    fault                X: first lost ping                    X + M: suspicion
      |---- U − delay ----|---- heartbeat (k−1)R + τ ------------|
                          |---- TCP gives up --------------------------|
    last pong ---- idle limit TO ---- next sweep --------------------------|

Everything after the first lost ping is a race M of layers that is independent of the phase U. From a policy and
the way's laws to laws in seconds from the fault. Source: the rules of `reference_server.liveness`, RFC 6298.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.theory.law import FloatArray, Law, mixture
from harness.theory.layer_laws import after_lost_beat
from harness.theory.stack import Stack, first_of
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import DetectorKind, StateCheck
from scenarios.distributions import Distribution

__all__ = ["Healing", "race", "silent_death", "store_floor"]

_PHASES = 768
_NODES = 24  # of a random round trip, and of the moment of the sweep
_EXACT_PARTS = 4


@dataclass(frozen=True, slots=True)
class Healing:
    """When the cause ends, in seconds from the fault, and how what was lost gets through then.

    ``ladder_s``: TCP's retransmissions after the first send (a cut way); None: the client's kernel has kept
    the pings, and the client answers them as soon as it runs again (a frozen process).
    """

    after: Distribution
    ladder_s: Sequence[float] | None

    def must_outlast_s(self, patience: float, round_trip_s: float) -> float:
        """How long after the first lost ping's arrival it must still be cut for the suspicion to come first.

        The first retransmission at or after the healing takes the ping there, the answer takes the rest of
        a round trip: the healing is in time if some retransmission lies between it and patience − round trip.
        """
        latest = patience - round_trip_s
        if self.ladder_s is None:
            return max(0.0, latest)
        return max((step for step in self.ladder_s if step <= latest), default=0.0)


def race(
    policy: LivenessPolicy, round_trip: Law, tcp_give_up: Law | float | None, kind: DetectorKind | None = None
) -> Stack:
    """M: from the first lost ping to the suspicion, and which layer gives it.

    The layers are those of `layers.after_lost_beat`; ``tcp_give_up`` seconds, or their law, where the pings are not
    acknowledged (None: they are), ``kind`` None is ping and deadline. Looks and sweeps that both follow a random
    give-up are raced for 24 moments of it.

    Raises:
        ValueError: the policy has no heartbeat, or an idle limit below it that drops healthy clients.
    """
    interval_s = policy.interval_s
    if policy.session_timeout is not None and policy.session_timeout < interval_s:
        raise ValueError(
            f"session_timeout {policy.session_timeout:g}s is below heartbeat_interval "
            f"{interval_s:g}s: healthy clients are dropped between two pongs"
        )
    gives_up = Law.constant(tcp_give_up) if isinstance(tcp_give_up, float | int) else tcp_give_up
    if gives_up is None or gives_up.lo_s == gives_up.hi_s or not isinstance(kind, StateCheck):
        return first_of(after_lost_beat(policy, round_trip, gives_up, kind))
    nodes = _nodes(gives_up)
    stacks = [
        (weight, first_of(after_lost_beat(policy, round_trip, Law.constant(at_s), kind)))
        for weight, at_s in nodes
    ]
    wins = {name: sum(w * s.wins[name] for w, s in stacks) for name in stacks[0][1].wins}
    return Stack(mixture((weight, stack.law) for weight, stack in stacks), wins)


def store_floor(policy: LivenessPolicy, suspicion: Law, round_trip: Law) -> Law:
    """From the first lost ping to the clean-up: the suspicion, or the end of the resume window if later.

    The window counts from the last sign of life, the pong T before the first lost ping. Exact where either
    the round trip or the layer that decides is not random.
    """
    window = round_trip.shifted(policy.resume_window - policy.interval_s)
    if window.hi_s <= suspicion.lo_s:
        return suspicion
    if suspicion.lo_s == suspicion.hi_s:
        return window.at_least(suspicion.lo_s)
    return suspicion.at_least(window.mean_s)


def silent_death(
    interval_s: float,
    round_trip: Law,
    after_lost_ping: Law,
    healing: Healing | None = None,
    phase: Law | None = None,
) -> Law:
    """The law of U − one-way delay + M, with U ~ Uniform(0, T); below mass 1 where it may heal first.

    A ping that is on its way at the fault is lost with it, which takes the one-way delay off the lower end.
    Without healing exact; with it, quadrature over U, M, the round trip and the healing's law.

    Args:
        interval_s: T.
        round_trip: its law, in the same seconds as everything else.
        after_lost_ping: M, or what follows from it (`store_floor`).
        healing: the competing recovery.
        phase: U; None: uniform.
    """
    phase = phase or Law.uniform(0.0, interval_s)
    if healing is None:
        return phase.plus(after_lost_ping).plus(round_trip.scaled(-0.5))
    nodes = [
        (trip_share * share, patience - trip_s / 2, healing.must_outlast_s(patience, trip_s))
        for trip_share, trip_s in _nodes(round_trip)
        for share, patience in _nodes(after_lost_ping)
    ]
    noticed = _noticed(interval_s, phase, healing.after, {outlast_s for _, _, outlast_s in nodes})
    parts = []
    for share, shift_s, outlast_s in nodes:
        u, probability = noticed[outlast_s]
        parts.append((share, Law.knots(u + shift_s, probability)))
    if len(parts) <= _EXACT_PARTS:
        return mixture(parts)
    if not any(law.mass for _, law in parts):
        return Law.never()  # what is so unlikely that a float cannot tell
    t = np.linspace(
        min(law.lo_s for _, law in parts if law.mass),
        max(law.hi_s for _, law in parts if law.mass),
        2 * _PHASES,
    )
    p = np.sum([w * np.interp(t, x.times_s, x.cumulative) for w, x in parts if x.mass], axis=0)
    return Law.knots(t, np.concatenate(([0.0], p[1:])))


def _noticed(
    interval_s: float, phase: Law, heals: Distribution, outlasts_s: Iterable[float]
) -> dict[float, tuple[FloatArray, FloatArray]]:
    """For each outlast: phases u and ∫_0^u P(it heals later than v + outlast) dP(U ≤ v).

    Midpoint rule, the corners of the healing's law on the grid; its CDF is asked once for all of them.
    """
    corners = [heals.constant] if heals.constant is not None else []
    if heals.uniform is not None:
        corners = [heals.uniform.low, heals.uniform.high]
    even = np.linspace(0.0, interval_s, _PHASES + 1)
    grids = {
        outlast: np.unique(np.concatenate((even, np.clip(np.array(corners) - outlast, 0.0, interval_s))))
        for outlast in outlasts_s
    }
    asked = [u[:-1] + np.diff(u) / 2 + outlast for outlast, u in grids.items()]
    later = np.split(1 - heals.cdf(np.concatenate(asked)), np.cumsum([len(a) for a in asked])[:-1])
    return {
        outlast: (u, np.concatenate(([0.0], np.cumsum(share * np.diff(phase.cdf(u))))))
        for (outlast, u), share in zip(grids.items(), later, strict=True)
    }


def _nodes(law: Law) -> list[tuple[float, float]]:
    """(weight, time): every jump as it is, what is continuous by midpoints of equal probability."""
    jump = np.diff(law.times_s) == 0
    nodes = [
        (float(p), float(t))
        for p, t in zip(np.diff(law.cumulative)[jump], law.times_s[1:][jump], strict=True)
        if p > 0
    ]
    smooth = np.concatenate(([0.0], np.cumsum(np.where(jump, 0.0, np.diff(law.cumulative)))))
    if smooth[-1] > 1e-12:
        middle = (np.arange(_NODES) + 0.5) / _NODES * smooth[-1]
        weight = float(smooth[-1]) / _NODES
        nodes += [(weight, float(t)) for t in np.interp(middle, smooth, law.times_s)]
    return nodes
