"""Which heartbeat a gateway has, and what its verdicts do to a connection.

From the configuration's detector to one driver for all connections (`keepalive.py`, which counts missing
answers, or `socket_beats.py`, which looks at sockets), and from what that says to log lines and dropped
connections. Clients that beat by themselves need none: the sweep sees who is idle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reference_server.config import GatewayConfig
from reference_server.counters import Counters
from reference_server.events import Cause, EventKind
from reference_server.heartbeat.scheduler import Heartbeats, Peer, SocketBeats, SocketPeer
from reference_server.heartbeat.timer_wheel import LoopClock
from reference_server.liveness.socket_checks import ClientBeats, Ping, SendErrors, StateCheck
from reference_server.session_log import SessionLines
from reference_server.websocket.connection import GatewayConnection
from reference_server.websocket.frames import HEARTBEAT, PING

__all__ = ["Detection"]


class Detection:
    """The heartbeat of all connections.

    Args:
        config: its policy and detector.
        clock: the loop's.
        rng: draws the phase of each connection's first beat.
        counters, lines: told of missed heartbeats.
        log: writes an event about a connection.
        refresh: prolongs a connection's records, where the keepalive does that.
    """

    def __init__(
        self,
        config: GatewayConfig,
        clock: LoopClock,
        rng: np.random.Generator,
        counters: Counters,
        lines: SessionLines,
        *,
        log: Callable[..., None],
        refresh: Callable[[GatewayConnection], None],
    ) -> None:
        self._policy = policy = config.policy
        self._detector = detector = config.detector
        self._counters = counters
        self._lines = lines
        self._log = log
        self._refresh = refresh
        self._keepalive_refreshes = config.records.refreshed == "by_the_keepalive"
        self.lost: dict[str, GatewayConnection] = {}  # live ones whose socket has gone unheard
        self.heartbeats: Heartbeats | None = None
        self.socket_beats: SocketBeats | None = None
        if policy.heartbeat_interval is None or isinstance(detector, ClientBeats):
            pass  # the gateway sends nothing by itself
        elif isinstance(detector, Ping):
            self.heartbeats = Heartbeats(
                policy, clock, rng, on_missed=self._on_missed, on_suspected=self._on_silent
            )
        else:
            self.socket_beats = SocketBeats(
                detector, policy, clock, rng,
                on_failed=self._on_failed, on_suspected=self._on_dead_socket, on_kept=self._on_kept,
            )  # fmt: skip

    @property
    def frame(self) -> bytes:
        """The heartbeat as it is on the wire: a JSON message, or a protocol ping."""
        protocol_ping = isinstance(self._detector, StateCheck) or (
            isinstance(self._detector, Ping) and self._detector.frame == "ping"
        )
        return PING if protocol_ping else HEARTBEAT

    def lateness(self) -> dict[str, float] | None:
        """Return how late beats were since the last call; None: there were none."""
        beats = self.heartbeats or self.socket_beats
        return beats.lateness.take() if beats else None

    def begin(self, connection: GatewayConnection) -> None:
        """Start the beat of a connection that is in service now."""
        if self.heartbeats is not None:
            connection.beat = self.heartbeats.start(connection)
        elif self.socket_beats is not None:
            connection.socket_beat = self.socket_beats.start(connection)

    def end(self, connection: GatewayConnection) -> None:
        """End the beat of a connection, if it has one."""
        if connection.beat is not None and self.heartbeats is not None:
            self.heartbeats.end(connection.beat)
        if connection.socket_beat is not None:
            connection.socket_beat.peer = None
        if connection.record is not None:
            self.lost.pop(connection.record.owner, None)

    def stop(self) -> None:
        """Judge nobody any more."""
        for beats in (self.heartbeats, self.socket_beats):
            if beats is not None:
                beats.stop()
        for ghost in list(self.lost.values()):
            ghost.end(Cause.DRAIN)

    def on_socket_lost(self, connection: GatewayConnection) -> None:
        """Note a socket that is gone and whose end nobody acts on."""
        assert connection.record is not None
        self.lost[connection.record.owner] = connection

    def on_sweep(self) -> None:
        """Look at the state of all sockets: those that are closed are known."""
        if isinstance(self._detector, StateCheck) and self._detector.cleans_up:
            for ghost in list(self.lost.values()):
                ghost.drop(Cause.SWEEP)

    # -- missing answers ---------------------------------------------------------------------------

    def _on_missed(self, peer: Peer, failures: int) -> None:
        assert isinstance(peer, GatewayConnection)
        self._counters.missed += 1
        self._failed(peer, failures, f"no answer within {self._policy.heartbeat_timeout:g} s")

    def _on_silent(self, peer: Peer) -> None:
        assert isinstance(peer, GatewayConnection)
        peer.drop(Cause.HEARTBEAT)

    # -- sockets -----------------------------------------------------------------------------------

    def _on_failed(self, peer: SocketPeer, failures: int) -> None:
        assert isinstance(peer, GatewayConnection)
        self._failed(peer, failures, f"the socket is closed: {peer.lost or 'closing'}")

    def _on_dead_socket(self, peer: SocketPeer) -> None:
        assert isinstance(peer, GatewayConnection)
        counts = isinstance(self._detector, SendErrors)
        peer.drop(Cause.SEND_ERROR if counts else Cause.STATE_CHECK)

    def _on_kept(self, peer: SocketPeer) -> None:
        """Prolong the records of a socket that looks open, as keepalives do: half-open ones too."""
        assert isinstance(peer, GatewayConnection)
        if self._keepalive_refreshes:
            self._refresh(peer)

    def _failed(self, peer: GatewayConnection, failures: int, reason: str) -> None:
        detail: dict[str, Any] = {"failures": failures, "max_failures": self._policy.max_failures}
        self._log(EventKind.HEARTBEAT_MISSED, peer, **detail)
        if self._lines.wanted and peer.record is not None:
            self._lines.failed(peer.record.session_id, failures, self._policy.max_failures, reason)
