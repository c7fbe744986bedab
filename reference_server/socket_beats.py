"""The heartbeats that look at sockets, not at answers: one timer wheel for all connections.

From detectors of `layers.py` and connections to heartbeats written, failures told and suspicions. The counterpart
of `keepalive.py` for them: there is no deadline, so nothing has to be looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from reference_server.keepalive import Lateness
from reference_server.layers import SendErrors, SocketDetector, StateCheck, socket_detector
from reference_server.liveness import Action, LivenessPolicy
from reference_server.wheel import Clock, TimerWheel

__all__ = ["SocketBeat", "SocketBeats", "SocketPeer"]


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
