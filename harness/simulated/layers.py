"""The gateway's slow layers: the sweep for idle sessions, and memory pressure. They decide; the gateway acts.

Both look at a connection only when it can matter, not at every connection every time; what they decide is
what looking at all of them would.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection

__all__ = ["IdleSweep", "MemoryPressure"]


class IdleSweep:
    """Finds, every interval, the connections on which no frame came for the limit. Scenario seconds."""

    def __init__(
        self, clock: Clock, limit_s: float, interval_s: float, phase_s: float,
        on_idle: Callable[[Connection], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._limit_s = limit_s
        self._interval_s = interval_s
        self._phase_s = phase_s
        self._on_idle = on_idle
        self._due: dict[int, list[Connection]] = defaultdict(list)  # by sweep
        clock.at(phase_s, lambda: self._sweep(0))

    def add(self, connection: Connection) -> None:
        """Look at a connection in the first sweep by which it can have been idle for the limit."""
        self._due[self._first_sweep(connection)].append(connection)

    def _first_sweep(self, connection: Connection) -> int:
        idle_s = connection.heard_s + self._limit_s
        return math.ceil((idle_s - self._phase_s) / self._interval_s)

    def _sweep(self, number: int) -> None:
        for connection in self._due.pop(number, ()):
            if connection.open:
                connection.settle(self._clock.now_s)
                if self._first_sweep(connection) <= number:
                    self._on_idle(connection)  # which may take it in again
                else:
                    self.add(connection)
        next_s = self._phase_s + (number + 1) * self._interval_s
        self._clock.at(next_s, lambda: self._sweep(number + 1))


class MemoryPressure:
    """Names the connection to go when there are more than `max_sessions`: the one idle for longest."""

    def __init__(
        self, clock: Clock, max_sessions: int, on_pressure: Callable[[Connection], None]
    ) -> None:
        self._clock = clock
        self._max_sessions = max_sessions
        self._on_pressure = on_pressure
        # With what was known when it was put here; heard of since then, it goes back to its place.
        self._idle: list[tuple[float, int, Connection]] = []

    def add(self, connection: Connection, number: int, connections: int) -> None:
        """Take a new connection, the gateway's ``number``-th, into account; ``connections`` are open now."""
        heapq.heappush(self._idle, (connection.heard_s, number, connection))
        excess = connections - self._max_sessions
        while excess > 0:
            heard_s, number, oldest = heapq.heappop(self._idle)
            oldest.settle(self._clock.now_s)
            if oldest.heard_s > heard_s:
                heapq.heappush(self._idle, (oldest.heard_s, number, oldest))
            elif oldest.open:
                excess -= 1
                self._on_pressure(oldest)
