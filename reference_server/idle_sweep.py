"""Periodic checks: idle sessions, more sessions than allowed, and resume windows that are over.

From the live connections and their last signs of life to the gateway's verdicts. A sweep over very many connections
lets the loop read its sockets in between. Sweeps do not drift: each is due one interval after the last was due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from itertools import islice

from psutil import Process

from reference_server.events import Cause
from reference_server.heartbeat.timer_wheel import Clock, TimerWheel
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.sessions.records import Record, Sessions
from reference_server.websocket.admission import CLOSE_TRY_AGAIN
from reference_server.websocket.connection import GatewayConnection

__all__ = ["ResumeWindows", "Sweeper"]

_CHUNK = 1000  # connections looked at without a pause: below a millisecond
_PRESSURE_EVERY_S = 0.05


class Sweeper:
    """Ends idle sessions, and the longest idle ones when there are too many.

    Args:
        policy: its ``session_timeout``, ``sweep_interval`` (seconds) and ``max_sessions`` are used.
        max_rss: memory of the process, in bytes, above which no more sessions are held than there are then; None: any.
        clock: the loop's, or a test's.
        live: the READY connections by connection id; the gateway adds and removes them.
        on_sweep: called at the start of each sweep.
    """

    def __init__(
        self,
        policy: LivenessPolicy,
        max_rss: int | None,
        clock: Clock,
        live: dict[str, GatewayConnection],
        *on_sweep: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._max_rss = max_rss
        self._process = Process()
        self._fitting = float("inf")  # sessions that there were when the memory had been used up
        self._clock = clock
        self._live = live
        self._on_sweep = on_sweep
        self._relief_is_set = False

    async def run(self, first_s: float) -> None:
        """Sweep every ``sweep_interval``, first after ``first_s`` seconds, until cancelled."""
        due_s = self._clock.now_s() + first_s
        while True:
            await asyncio.sleep(max(0.0, due_s - self._clock.now_s()))
            due_s += self._policy.sweep_interval
            for call in self._on_sweep:
                call()
            if self._policy.session_timeout is not None:
                await self._sweep(self._policy.session_timeout)

    async def _sweep(self, limit_s: float) -> None:
        idle: list[GatewayConnection] = []
        waiting = iter(list(self._live.values()))
        while chunk := list(islice(waiting, _CHUNK)):
            since_s = self._clock.now_s() - limit_s
            idle += (connection for connection in chunk if connection.last_seen_s < since_s)
            await asyncio.sleep(0)
        if idle:
            # After a stall their frames may lie unread in the sockets: let the loop read them first.
            read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._clock.after_reading(lambda: read.set_result(None))
            await read
            since_s = self._clock.now_s() - limit_s
            for connection in idle:
                if connection.last_seen_s < since_s:
                    connection.drop(Cause.SESSION_TIMEOUT)

    def most_sessions(self) -> float:
        """Return how many sessions there may be: `max_sessions`, or as many as the memory has been found to hold.

        Memory once used is seldom given back, so nobody is ended for it alone: a newcomer displaces another one.
        """
        if self._max_rss is not None:
            if self._process.memory_info().rss <= self._max_rss:
                self._fitting = float("inf")
            elif self._fitting == float("inf"):
                self._fitting = max(1, len(self._live))
        return min(self._policy.max_sessions or float("inf"), self._fitting)

    def on_connected(self) -> None:
        """Relieve the pressure soon if there are more sessions than there may be."""
        if not self._relief_is_set and len(self._live) > self.most_sessions():
            # Soon and not at once: to find the oldest costs a look at every connection.
            self._relief_is_set = True
            self._clock.call_later(_PRESSURE_EVERY_S, self._relieve)

    def _relieve(self) -> None:
        self._relief_is_set = False
        excess = len(self._live) - self.most_sessions()
        if excess > 0:
            oldest = heapq.nsmallest(int(excess), self._live.values(), key=lambda c: c.last_seen_s)
            for connection in oldest:
                connection.shut(Cause.MEMORY_PRESSURE, CLOSE_TRY_AGAIN, "too many sessions")


class _Window:
    """Records that stay until their session cannot be resumed any more."""

    __slots__ = ("bucket", "record")

    def __init__(self, record: Record) -> None:
        self.record: Record | None = record  # None: resumed
        self.bucket = 0


class ResumeWindows:
    """Clears the records of ended connections when their resume window is over."""

    def __init__(self, clock: Clock, sessions: Sessions) -> None:
        self._clock = clock
        self._sessions = sessions
        self._wheel: TimerWheel[_Window] = TimerWheel(clock, self._on_due)
        self._open: dict[str, _Window] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, record: Record, until_s: float) -> None:
        """Keep the records until then; a time that has passed clears them now."""
        if until_s <= self._clock.now_s():
            self._sessions.clear(record)
            return
        window = self._open[record.owner] = _Window(record)
        self._wheel.schedule(window, until_s)

    def resumed(self, owner: str) -> None:
        """Close a window: the records are another connection's now."""
        window = self._open.pop(owner, None)
        if window is not None:
            window.record = None

    def waiting(self) -> Iterator[Record]:
        """Return the records that wait to be resumed and whose user is known."""
        for window in self._open.values():
            if window.record is not None and window.record.user_id:
                yield window.record

    def close(self) -> Iterator[Record]:
        """End all windows early; the records that were kept are the caller's to see to."""
        self._wheel.stop()
        while self._open:
            _, window = self._open.popitem()
            if window.record is not None:
                yield window.record

    def _on_due(self, window: _Window, _now_s: float) -> None:
        if window.record is not None:
            del self._open[window.record.owner]
            self._sessions.clear(window.record)
