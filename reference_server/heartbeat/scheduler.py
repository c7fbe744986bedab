"""The heartbeats of all connections from one timer wheel: no task and no timer of a connection's own.

From one `Detector` a connection to heartbeats sent, failures and suspicions. Knows no kind of detector. Sends
nothing itself and drops nobody: the connection does the one, the callbacks the other.

    due ──► a ping, or a look at the socket?  at once
        └─► a judgement that a frame could avert?  once more after the loop has read its sockets, only then

The second look is what keeps a gateway that stalled from throwing out clients whose answers already lie
in its socket buffers: an event loop comes back from a stall to its timers first, and to its sockets
after.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from reference_server.events import Cause
from reference_server.heartbeat.timer_wheel import Clock, TimerWheel
from reference_server.liveness.detector import Action, Detector

__all__ = ["Heartbeat", "Heartbeats", "Lateness", "Peer"]

_NEVER_S = float("inf")
_PING, _MISSED = Action.PING, Action.MISSED  # Python 3.11 looks a member of an enum up slowly


class Peer(Protocol):
    """A connection, as far as its heartbeat is concerned."""

    def send_heartbeat(self, now_s: float) -> None:
        """Write a heartbeat without waiting; one that cannot be written now stays unanswered."""


class Heartbeat:
    """The heartbeat of one connection: its detector and its place in the wheel."""

    __slots__ = ("_wheel", "bucket", "detector", "peer")

    def __init__(self, peer: Peer, detector: Detector, wheel: TimerWheel[Heartbeat]) -> None:
        self.peer: Peer | None = peer  # None: ended; a wheel entry left behind holds no connection
        self.detector = detector
        self._wheel = wheel
        self.bucket = 0

    def on_inbound(self, now_s: float) -> None:
        """Take any inbound frame of the connection: a sign of life."""
        detector = self.detector
        due_s = detector.due_s
        detector.on_inbound(now_s)
        # What moves on is found out when the wheel gets there; what comes earlier would be missed.
        if detector.due_s < due_s:
            self._wheel.schedule(self, detector.due_s)

    def end(self, cause: Cause) -> None:
        """Stop: the connection has ended."""
        self.peer = None
        self.detector.on_end(cause)


class Lateness:
    """How late pings were sent after they were due: between two reports, and in all. Seconds.

    A beat costs one append; everything else is done in `take`, which somebody calls once a second.
    """

    BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

    def __init__(self) -> None:
        self._late_s: list[float] = []
        self.add = self._late_s.append
        # As of the last report: how many pings were no later than each bound, and the sum of all.
        self.counts = dict.fromkeys((*self.BOUNDS_S, float("inf")), 0)
        self.sum_s = 0.0

    @property
    def total(self) -> int:
        """How many pings were sent since the beginning."""
        return self.counts[float("inf")] + len(self._late_s)

    def take(self) -> dict[str, float] | None:
        """Return n, p50_s, p99_s and max_s since the last call; None when nothing was sent."""
        if not self._late_s:
            return None
        late_s = np.sort(self._late_s)
        self._late_s.clear()
        within = np.searchsorted(late_s, tuple(self.counts), side="right").tolist()
        self.counts = {
            bound_s: before + n for (bound_s, before), n in zip(self.counts.items(), within, strict=True)
        }
        self.sum_s += float(late_s.sum())
        p50, p99 = np.interp(
            (0.5 * (late_s.size - 1), 0.99 * (late_s.size - 1)), np.arange(late_s.size), late_s
        )
        return {
            "n": late_s.size,
            "p50_s": round(float(p50), 6),
            "p99_s": round(float(p99), 6),
            "max_s": round(float(late_s[-1]), 6),
        }


class Heartbeats:
    """Drives one detector a connection.

    Args:
        clock: the loop's, or a test's.
        on_missed: called with a peer and its count of consecutive failures, the last included.
        on_suspected: called with a peer whose detector has decided; the heartbeat has ended by then.
        on_ping: called with a peer that is about to be pinged; None: nobody wants to know.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        on_missed: Callable[[Peer, int], None],
        on_suspected: Callable[[Peer], None],
        on_ping: Callable[[Peer], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_missed = on_missed
        self._on_suspected = on_suspected
        self._on_ping = on_ping
        # No connection stands in it later than its detector is due.
        self._wheel: TimerWheel[Heartbeat] = TimerWheel(clock, self._on_due)
        self._overdue: list[Heartbeat] = []  # of the tick at _overdue_since_s
        self._overdue_since_s = 0.0
        self._stopped = False
        self.lateness = Lateness()
        self._retries = 0  # pings sent at the deadline of the one before

    @property
    def sent(self) -> int:
        """How many pings were sent since the beginning."""
        return self.lateness.total + self._retries

    def start(self, peer: Peer, detector: Detector) -> Heartbeat:
        """Begin the heartbeat of a connection."""
        heartbeat = Heartbeat(peer, detector, self._wheel)
        self._wheel.schedule(heartbeat, detector.due_s)
        return heartbeat

    def stop(self) -> None:
        """Stop all heartbeats; nobody is judged any more."""
        self._wheel.stop()
        self._stopped = True

    def _on_due(self, heartbeat: Heartbeat, now_s: float) -> None:
        peer, detector = heartbeat.peer, heartbeat.detector
        if peer is None:
            return
        if now_s < detector.due_s:
            self._wheel.schedule(heartbeat, detector.due_s)
        elif not detector.awaiting_answer:
            self._act(heartbeat, peer, now_s)
        else:
            # A batch a tick: one that a later tick still added to would be judged too early for that.
            if now_s != self._overdue_since_s or not self._overdue:
                self._overdue_since_s, self._overdue = now_s, []
                self._clock.after_reading(partial(self._judge, self._overdue))
            self._overdue.append(heartbeat)

    def _judge(self, overdue: list[Heartbeat]) -> None:
        """Judge deadlines that had passed before the loop last read its sockets."""
        now_s = self._clock.now_s()
        for heartbeat in overdue:
            peer, detector = heartbeat.peer, heartbeat.detector
            if peer is None or self._stopped:
                continue
            if detector.awaiting_answer:
                self._act(heartbeat, peer, now_s)
            else:
                self._wheel.schedule(heartbeat, detector.due_s)

    def _act(self, heartbeat: Heartbeat, peer: Peer, now_s: float) -> None:
        """Do what the detector wants done by now, and have it looked at when it is due next."""
        detector = heartbeat.detector
        due_s, action = detector.due_s, detector.on_time(now_s)
        while action is _MISSED:  # failures may be counted one after the other without a wait between them
            self._on_missed(peer, detector.failures)
            due_s, action = detector.due_s, detector.on_time(now_s)
        if action is _PING:
            self.lateness.add(now_s - due_s)
        elif action is not Action.NOTHING and detector.failures:
            self._on_missed(peer, detector.failures)
        if action is _PING or action is Action.MISSED_AND_PING:
            self._retries += action is not _PING
            if self._on_ping is not None:
                self._on_ping(peer)
            peer.send_heartbeat(now_s)
        elif action is Action.SUSPECT:
            heartbeat.peer = None
            self._on_suspected(peer)
        if (due_s := detector.due_s) != _NEVER_S:
            self._wheel.schedule(heartbeat, due_s)
