"""One client's connection in virtual time, played event by event with the gateway's own detector.

Written from the rules, not from the formulas: pings go out when the detector says so, are lost while the way
is cut, are kept and sent again by a simple TCP, and answers come back. Time 0 is the fault.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from reference_server.liveness.detector import Action
from reference_server.liveness.heartbeat_policy import LivenessPolicy, PingDetector

__all__ = ["Life", "Way", "live_through"]


@dataclass(frozen=True)
class Way:
    """The way to the client, cut at time 0 (at the client's end), and what TCP does meanwhile.

    ``frozen``: the kernel acknowledges and keeps, the process answers when it thaws. ``ladder_s`` None: lost
    pings are there the moment it heals.
    """

    round_trip_s: float
    heals_s: float = math.inf
    ladder_s: Sequence[float] | None = None
    frozen: bool = False
    gives_up_s: float = math.inf
    sweep_phase_s: float = 0.0


@dataclass(frozen=True)
class Life:
    """What came of it: inf is never. ``last_life_s``: the last pong that the gateway had at its suspicion."""

    suspected_s: float
    cause: str
    recovered_s: float
    last_life_s: float


def live_through(policy: LivenessPolicy, phase_s: float, way: Way) -> Life:
    """Play one connection from three intervals before the fault; the next ping *arrives* at phase_s."""
    assert policy.heartbeat_interval is not None
    half_s = way.round_trip_s / 2
    start_s = phase_s - half_s - 3 * policy.heartbeat_interval
    detector = PingDetector(policy, first_ping_s=start_s)
    ties = count()
    events: list[tuple[float, int, str]] = [(start_s, next(ties), "timer")]
    if policy.session_timeout is not None:
        sweeps = math.ceil((start_s - way.sweep_phase_s) / policy.sweep_interval)
        first = way.sweep_phase_s + sweeps * policy.sweep_interval
        heapq.heappush(events, (first, next(ties), "sweep"))
    last_life, lost_since, recovered, idle_since = -math.inf, math.inf, math.inf, start_s
    queue_at = math.inf  # when what was lost gets through
    while events:
        now, _, kind = heapq.heappop(events)
        if kind == "pong":
            detector.on_inbound(now)
            last_life = idle_since = now
            if now > 0 and lost_since < math.inf:
                return Life(math.inf, "", recovered, last_life)
            if now > 0 and now > phase_s:
                return Life(math.inf, "", min(recovered, now), last_life)
            heapq.heappush(events, (detector.due_s, next(ties), "timer"))
        elif kind == "sweep":
            if policy.session_timeout is not None and now - idle_since >= policy.session_timeout:
                return Life(now, "session_timeout", recovered, last_life)
            heapq.heappush(events, (now + policy.sweep_interval, next(ties), "sweep"))
        elif kind == "tcp":
            return Life(now, "tcp_timeout", recovered, last_life)
        else:
            action = detector.on_time(now)
            if action is Action.SUSPECT:
                return Life(now, "heartbeat", recovered, last_life)
            if action in (Action.PING, Action.MISSED_AND_PING):
                arrives = now + half_s
                if arrives < 0 or arrives >= way.heals_s:
                    if lost_since == math.inf:
                        heapq.heappush(events, (now + way.round_trip_s, next(ties), "pong"))
                elif lost_since == math.inf:
                    lost_since = now
                    queue_at = _gets_through(now, half_s, way)
                    if queue_at < math.inf:
                        recovered = queue_at
                        heapq.heappush(events, (queue_at + half_s, next(ties), "pong"))
                    if way.gives_up_s < math.inf:
                        heapq.heappush(events, (now + way.gives_up_s, next(ties), "tcp"))
            if detector.due_s < math.inf and action is not Action.NOTHING:
                heapq.heappush(events, (detector.due_s, next(ties), "timer"))
    raise AssertionError("a connection's life ends with a verdict or a recovery")


def _gets_through(sent_s: float, half_s: float, way: Way) -> float:
    """When the client takes the first lost ping."""
    if way.heals_s == math.inf:
        return math.inf
    if way.frozen or way.ladder_s is None:
        return max(way.heals_s, sent_s + half_s)
    for step in way.ladder_s:
        if sent_s + step + half_s >= way.heals_s:
            return sent_s + step + half_s
    return math.inf
