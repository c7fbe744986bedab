"""The heartbeat of all connections: one timer wheel, no task and no timer of a connection's own.

From a policy and connections to heartbeats sent, missed answers and suspicions. Sends nothing itself
and drops nobody: the connection does the one, the gateway's callbacks the other.

    on time ──► ping due?      send it, look again at its deadline
           └──► deadline past? look once more after the loop has read its sockets, only then judge

The second look is what keeps a gateway that stalled from throwing out clients whose answers already lie
in its socket buffers: an event loop comes back from a stall to its timers first, and to its sockets
after. First pings are spread uniformly over the interval, so no tick meets all clients at once.

The heartbeats that look at sockets, not at answers: one timer wheel for all connections.

From detectors of `layers.py` and connections to heartbeats written, failures told and suspicions. The counterpart
of `keepalive.py` for them: there is no deadline, so nothing has to be looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from reference_server.heartbeat.timer_wheel import Clock, TimerWheel
from reference_server.liveness.heartbeat_policy import Action, LivenessPolicy, PingDetector, Verdict
from reference_server.liveness.socket_checks import (
    SendErrors,
    SocketDetector,
    StateCheck,
    socket_detector,
)

__all__ = ["Beat", "Heartbeats", "Lateness", "Peer", "SocketBeat", "SocketBeats", "SocketPeer"]


class Peer(Protocol):
    """A connection, as far as its heartbeat is concerned."""

    def send_heartbeat(self, now_s: float) -> None:
        """Write a heartbeat without waiting; one that cannot be written now stays unanswered."""
        ...


class Beat:
    """The heartbeat of one connection: its detector and its place in the wheel."""

    __slots__ = ("bucket", "detector", "peer")

    def __init__(self, peer: Peer, detector: PingDetector) -> None:
        self.peer: Peer | None = peer  # None: ended; a wheel entry left behind holds no connection
        self.detector = detector
        self.bucket = 0


class Lateness:
    """How late pings were sent after they were due: between two reports, and in all. Seconds.

    A beat costs one append; everything else is done in `take`, which somebody calls once a second.
    """

    BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

    def __init__(self) -> None:
        self._late_s: list[float] = []
        self.add = self._late_s.append
        self._counts = np.zeros(len(self.BOUNDS_S) + 1, dtype=np.int64)
        self.sum_s = 0.0  # as of the last report

    @property
    def total(self) -> int:
        """How many pings were sent since the beginning."""
        return int(self._counts.sum()) + len(self._late_s)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return, for each bound and for infinity, how many were no later, as of the last report."""
        counts = np.cumsum(self._counts).tolist()
        return list(zip((*self.BOUNDS_S, float("inf")), counts, strict=True))

    def take(self) -> dict[str, float] | None:
        """Return n, p50_s, p99_s and max_s since the last call; None when nothing was sent."""
        if not self._late_s:
            return None
        late_s = np.array(self._late_s)
        self._late_s.clear()
        places = np.searchsorted(self.BOUNDS_S, late_s)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self.sum_s += float(late_s.sum())
        p50, p99 = np.quantile(late_s, (0.5, 0.99))
        return {
            "n": late_s.size,
            "p50_s": round(float(p50), 6),
            "p99_s": round(float(p99), 6),
            "max_s": round(float(late_s.max()), 6),
        }


class Heartbeats:
    """Drives one detector a connection.

    Args:
        policy: its ``heartbeat_interval`` is not None.
        clock: the loop's, or a test's.
        rng: draws the phase of each connection's first ping.
        on_missed: called with a peer and its count of consecutive unanswered pings, the last included.
        on_suspected: called with a peer whose detector has decided; the beat has ended by then.
    """

    def __init__(
        self,
        policy: LivenessPolicy,
        clock: Clock,
        rng: np.random.Generator,
        *,
        on_missed: Callable[[Peer, int], None],
        on_suspected: Callable[[Peer], None],
    ) -> None:
        if policy.heartbeat_interval is None:
            raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
        self._policy = policy
        self._interval_s = policy.heartbeat_interval
        self._clock = clock
        self._rng = rng
        self._on_missed = on_missed
        self._on_suspected = on_suspected
        self._wheel: TimerWheel[Beat] = TimerWheel(clock, self._on_due)
        self._overdue: list[Beat] = []  # of the tick at _overdue_since_s
        self._overdue_since_s = 0.0
        self._stopped = False
        # Only with R > T does an answer bring the next ping forward: from the retry to the regular one.
        self._answers_hasten = policy.retry_s > policy.heartbeat_interval
        self._harmless_s = policy.heartbeat_interval - policy.heartbeat_timeout
        self.lateness = Lateness()
        self._retries = 0  # pings sent at the deadline of the one before

    @property
    def sent(self) -> int:
        """How many pings were sent since the beginning."""
        return self.lateness.total + self._retries

    def start(self, peer: Peer) -> Beat:
        """Begin the heartbeat of a connection, at a uniformly random phase."""
        first_s = self._clock.now_s() + self._rng.uniform(0.0, self._interval_s)
        beat = Beat(peer, PingDetector(self._policy, first_s))
        self._wheel.schedule(beat, first_s)
        return beat

    def on_inbound(self, beat: Beat, now_s: float) -> None:
        """Take any inbound frame of the connection: a sign of life."""
        detector = beat.detector
        detector.on_inbound(now_s)
        # A deadline that moves on is found out when the wheel gets there; an earlier one would be missed.
        if self._answers_hasten and detector.verdict is Verdict.ALIVE:
            self._wheel.schedule(beat, detector.due_s)

    def end(self, beat: Beat) -> None:
        """Stop the heartbeat of a connection that has ended."""
        beat.peer = None

    def stop(self) -> None:
        """Stop all heartbeats; nobody is judged any more."""
        self._wheel.stop()
        self._stopped = True

    def _on_due(self, beat: Beat, now_s: float) -> None:
        peer, detector = beat.peer, beat.detector
        if peer is None:
            return
        due_s = detector.due_s
        if now_s >= due_s:
            if detector.awaiting_answer:
                self._judge_later(beat, now_s)
                return
            detector.on_time(now_s)
            late_s = now_s - due_s
            self.lateness.add(late_s)
            peer.send_heartbeat(now_s)
            if late_s > self._harmless_s:
                # So late that the next ping is due before this one's deadline, if this one is answered.
                self._wheel.schedule(beat, min(detector.due_s, detector.regular_s))
                return
        self._wheel.schedule(beat, detector.due_s)

    def _judge_later(self, beat: Beat, tick_s: float) -> None:
        # A batch a tick: one that a later tick still added to would be judged too early for that.
        if tick_s != self._overdue_since_s or not self._overdue:
            self._overdue_since_s, self._overdue = tick_s, []
            self._clock.after_reading(partial(self._judge, self._overdue))
        self._overdue.append(beat)

    def _judge(self, overdue: list[Beat]) -> None:
        """Judge deadlines that had passed before the loop last read its sockets."""
        now_s = self._clock.now_s()
        for beat in overdue:
            peer, detector = beat.peer, beat.detector
            if peer is None or self._stopped:
                continue
            action = detector.on_time(now_s) if detector.awaiting_answer else Action.NOTHING
            if action in (Action.MISSED, Action.MISSED_AND_PING, Action.SUSPECT):
                self._on_missed(peer, detector.failures)
            if action is Action.SUSPECT:
                beat.peer = None
                self._on_suspected(peer)
                continue
            if action is Action.MISSED_AND_PING:
                self._retries += 1
                peer.send_heartbeat(now_s)
            if beat.peer is not None:
                self._wheel.schedule(beat, detector.due_s)


class SocketPeer(Protocol):
    """A connection, as far as such a heartbeat is concerned."""

    @property
    def is_open(self) -> bool:
        """Whether its socket looks open from here."""
        ...

    def send_heartbeat(self, now_s: float) -> None:
        """Write a heartbeat without waiting."""
        ...


class SocketBeat:
    """The heartbeat of one connection."""

    __slots__ = ("bucket", "detector", "peer")

    def __init__(self, peer: SocketPeer, detector: SocketDetector) -> None:
        self.peer: SocketPeer | None = peer  # None: ended
        self.detector = detector
        self.bucket = 0


class SocketBeats:
    """Drives one detector a connection.

    Args:
        kind: which detector.
        policy: its ``heartbeat_interval`` is not None.
        clock: the loop's, or a test's.
        rng: draws the phase of each connection's first look.
        on_failed: called with a peer and its count of failed writes, the last included.
        on_suspected: called with a peer whose detector has decided; the beat has ended by then.
        on_kept: called with a peer whose socket looked open, before it is pinged.
    """

    def __init__(
        self,
        kind: SendErrors | StateCheck,
        policy: LivenessPolicy,
        clock: Clock,
        rng: np.random.Generator,
        *,
        on_failed: Callable[[SocketPeer, int], None],
        on_suspected: Callable[[SocketPeer], None],
        on_kept: Callable[[SocketPeer], None],
    ) -> None:
        if policy.heartbeat_interval is None:
            raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
        self._kind = kind
        self._policy = policy
        self._interval_s = policy.heartbeat_interval
        self._clock = clock
        self._rng = rng
        self._on_failed = on_failed
        self._on_suspected = on_suspected
        self._on_kept = on_kept
        self._wheel: TimerWheel[SocketBeat] = TimerWheel(clock, self._on_due)
        self.lateness = Lateness()

    def start(self, peer: SocketPeer) -> SocketBeat:
        """Begin the heartbeat of a connection, at a uniformly random phase."""
        first_s = self._clock.now_s() + self._rng.uniform(0.0, self._interval_s)
        beat = SocketBeat(peer, socket_detector(self._kind, self._policy, first_s))
        self._wheel.schedule(beat, first_s)
        return beat

    def stop(self) -> None:
        """Stop all heartbeats."""
        self._wheel.stop()

    def _on_due(self, beat: SocketBeat, now_s: float) -> None:
        peer, detector = beat.peer, beat.detector
        if peer is None:
            return
        due_s = detector.due_s
        while now_s >= detector.due_s:
            action = detector.on_time(now_s, peer.is_open)
            if action is Action.PING:
                self.lateness.add(now_s - due_s)
                self._on_kept(peer)
                peer.send_heartbeat(now_s)
            elif detector.failures:
                self._on_failed(peer, detector.failures)
            if action is Action.SUSPECT:
                beat.peer = None
                self._on_suspected(peer)
        if detector.due_s == float("inf"):
            beat.peer = None
        elif beat.peer is not None:
            self._wheel.schedule(beat, detector.due_s)
