"""Which detector a gateway's connections have, and what its verdicts do to them.

From the configuration's detector and what `heartbeat/scheduler.py` says of it to log lines and dropped
connections. Clients that beat by themselves have no detector: the sweep sees who is idle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from reference_server.config import GatewayConfig
from reference_server.counters import Counters
from reference_server.events import Cause, EventKind
from reference_server.frames import HEARTBEAT, PING
from reference_server.heartbeat.scheduler import Heartbeats, Peer
from reference_server.heartbeat.timer_wheel import LoopClock
from reference_server.liveness.kinds import ClientBeats, Detectors, StateCheck
from reference_server.session_log import SessionLines
from reference_server.websocket.connection import GatewayConnection

__all__ = ["Detection"]


class Detection:
    """The failure detection of all connections.

    Args:
        config: its policy and detector.
        clock: the loop's.
        rng: draws the phase of each connection's first heartbeat.
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
        self._policy = config.policy
        self._kind = kind = config.detector
        self._clock = clock
        self._counters = counters
        self._lines = lines
        self._log = log
        self._detectors = Detectors(kind, config.policy, rng)
        self.lost: dict[str, GatewayConnection] = {}  # live ones whose socket has gone unheard
        self.heartbeats: Heartbeats | None = None
        if config.policy.heartbeat_interval is not None and not isinstance(kind, ClientBeats):
            # As keepalives do: a socket that looks open is enough, half-open ones do.
            prolongs = kind.looks_at_sockets and config.records.refreshed == "by_the_keepalive"
            self.heartbeats = Heartbeats(
                clock,
                on_missed=self._on_missed,
                on_suspected=self._on_suspected,
                on_ping=cast(Callable[[Peer], None], refresh) if prolongs else None,
            )

    @property
    def frame(self) -> bytes:
        """The heartbeat as it is on the wire: a JSON message, or a protocol ping."""
        return PING if self._kind.protocol_ping else HEARTBEAT

    def lateness(self) -> dict[str, float] | None:
        """Return how late heartbeats were since the last call; None: there were none."""
        return self.heartbeats.lateness.take() if self.heartbeats is not None else None

    def begin(self, connection: GatewayConnection) -> None:
        """Start the heartbeat of a connection that is in service now."""
        assert connection.record is not None
        if self.heartbeats is not None:
            # By user, or by device where each has a connection: whoever comes back keeps what was learnt.
            detector = self._detectors.new(connection.record.slot, self._clock.now_s())
            assert detector is not None
            connection.heartbeat = self.heartbeats.start(connection, detector)

    def end(self, connection: GatewayConnection) -> None:
        """End the heartbeat of a connection, if it has one."""
        if connection.heartbeat is not None:
            assert connection.cause is not None
            connection.heartbeat.end(connection.cause)
        if connection.record is not None:
            self.lost.pop(connection.record.owner, None)

    def stop(self) -> None:
        """Judge nobody any more."""
        if self.heartbeats is not None:
            self.heartbeats.stop()
        for ghost in list(self.lost.values()):
            ghost.end(Cause.DRAIN)

    def on_socket_lost(self, connection: GatewayConnection) -> None:
        """Note a socket that is gone and whose end nobody acts on."""
        assert connection.record is not None
        self.lost[connection.record.owner] = connection

    def on_sweep(self) -> None:
        """Look at the state of all sockets: those that are closed are known."""
        if isinstance(self._kind, StateCheck) and self._kind.cleans_up:
            for ghost in list(self.lost.values()):
                ghost.drop(Cause.SWEEP)

    def _on_missed(self, peer: Peer, failures: int) -> None:
        connection = cast(GatewayConnection, peer)
        if self._kind.looks_at_sockets:
            reason = f"the socket is closed: {connection.lost or 'closing'}"
        else:
            reason = self._kind.why_missed(self._policy.heartbeat_timeout)
        if self._kind.counts_answers:
            self._counters.missed.inc()
        max_failures = self._policy.max_failures
        self._log(EventKind.HEARTBEAT_MISSED, connection, failures=failures, max_failures=max_failures)
        if connection.record is not None:
            self._lines.failed(connection.record.session_id, failures, max_failures, reason)

    def _on_suspected(self, peer: Peer) -> None:
        cast(GatewayConnection, peer).drop(self._kind.cause)
