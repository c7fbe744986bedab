"""The gateway in the model: connections, heartbeats, the layers that decide, and cleaning up after them.

The heartbeat is decided by the very detector that the real gateway drives (`reference_server.liveness`);
there is no formula for a detection time in this package. The loop has no service time: whatever is due is
done at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from harness.simulated.clock import Alarm, Clock
from harness.simulated.connection import Connection
from harness.simulated.layers import IdleSweep, MemoryPressure
from harness.simulated.network import Network
from harness.simulated.presence import Presence
from harness.simulated.store import Store
from harness.simulated.witness import EventLog
from reference_server.events import Cause, EventKind
from reference_server.liveness import Action, LivenessPolicy, PingDetector

if TYPE_CHECKING:
    from harness.simulated.clients import Client

__all__ = ["Directory", "Gateway"]

_PINGS = (Action.PING, Action.MISSED_AND_PING)

# What the peer's own end sent is a sign of life of that moment.
_SENT_BY_PEER = frozenset({Cause.CLOSE_FRAME, Cause.TCP_FIN, Cause.TCP_RESET})
# With these there is nothing left to abort, so the client is told nothing.
_SOCKET_GONE = _SENT_BY_PEER | {Cause.TCP_TIMEOUT}
# A session that these end is not resumed.
_AT_ONCE = frozenset({Cause.SESSION_TIMEOUT, Cause.MEMORY_PRESSURE})
# With these the client is believed alive and told why.
_CLOSE_CODES = {Cause.TAKE_OVER: 4409, Cause.MEMORY_PRESSURE: 1013}


class Directory:
    """Which connection holds, or held last, each session that may still be resumed. For all nodes."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self._logins: dict[int, int] = defaultdict(int)

    def new_session_id(self, client: int) -> str:
        """The next session of a client's user: the same in every run."""
        self._logins[client] += 1
        return f"session-{client}-{self._logins[client]}"


class Gateway:
    """One gateway node.

    Args:
        node: its name.
        policy: what it pings and drops by, scenario seconds.
        refuse_second_login: a login of a user who is online is refused, or ends the older session.
        phases: draws of each first ping's phase, and of the sweep's.
    """

    def __init__(
        self, node: str, policy: LivenessPolicy, *, refuse_second_login: bool, clock: Clock,
        network: Network, store: Store, presence: Presence, directory: Directory, log: EventLog,
        phases: np.random.Generator,
    ) -> None:  # fmt: skip
        self.node = node
        self._policy = policy
        self._refuse = refuse_second_login
        self._clock = clock
        self._network = network
        self._store = store
        self._presence = presence
        self._directory = directory
        self._log = log
        self._phases = phases
        self._numbers = count(1)
        self._open = 0
        self._refresh_after_s = min(policy.session_ttl, policy.status_ttl) / 2
        self._idle: IdleSweep | None = None
        if policy.session_timeout is not None:
            self._idle = IdleSweep(
                clock, policy.session_timeout, policy.sweep_interval,
                phase_s=float(phases.uniform(0, policy.sweep_interval)),
                on_idle=partial(self.suspect, cause=Cause.SESSION_TIMEOUT),
            )  # fmt: skip
        self._pressure: MemoryPressure | None = None
        if policy.max_sessions is not None:
            self._pressure = MemoryPressure(
                clock, policy.max_sessions, partial(self.suspect, cause=Cause.MEMORY_PRESSURE)
            )

    # -- requests --------------------------------------------------------------------------------

    def login(self, client: Client) -> str | None:
        """Log a client's user in; None: refused, the user is online already."""
        now_s = self._clock.now_s
        online = self._store.status(client.user_id, now_s)
        if online is not None:
            if self._refuse:
                return None
            self._end_session(online.value, client.user_id)
        session_id = self._directory.new_session_id(client.index)
        self._store.write_login(session_id, client.user_id, now_s)
        return session_id

    def accept(self, client: Client, session_id: str) -> tuple[Connection, bool] | None:
        """Authenticate a new connection; returns it and whether it resumes; None: session unknown."""
        now_s = self._clock.now_s
        record = self._store.session(session_id, now_s)
        if record is None:
            return None
        resumed = bool(record.owner)
        older = self._directory.connections.get(session_id)
        number = next(self._numbers)
        connection = Connection(self, client, f"{self.node}-{number}", session_id, now_s)
        self._directory.connections[session_id] = connection
        if older is not None:
            older.records_kept = False
            if older.open:
                older.gateway.suspect(older, Cause.TAKE_OVER)
        online = self._store.status(client.user_id, now_s) is not None
        self._store.own(session_id, client.user_id, connection.connection_id, now_s)
        connection.refresh_due_s = now_s + self._refresh_after_s
        self._start_heartbeat(connection)
        self._open += 1
        if self._idle is not None:
            self._idle.add(connection)
        if self._pressure is not None:
            self._pressure.add(connection, number, self._open)
        if not online:
            self._presence.tell(EventKind.PEER_ONLINE, client.user_id, session_id)
        return connection, resumed

    def watch(self, connection: Connection, user_ids: Iterable[str]) -> None:
        """A client asks to be told about other users."""
        self.on_frame(connection)
        self._presence.watch(connection, user_ids)

    # -- heartbeats --------------------------------------------------------------------------------

    def on_frame(self, connection: Connection) -> None:
        """Take any inbound frame."""
        if connection.open:
            now_s = self._clock.now_s
            connection.settle(now_s)
            connection.heard_s = now_s
            if connection.detector is not None:
                due_s = connection.detector.due_s
                connection.detector.on_inbound(now_s)
                if (
                    connection.detector.due_s < due_s
                ):  # R > T: the regular ping comes before the retry
                    self.due_earlier(connection)
            if now_s >= connection.refresh_due_s:
                # Half of a TTL may be gone before it is refreshed, and only a frame has it refreshed.
                connection.refresh_due_s = now_s + self._refresh_after_s
                owner = connection.connection_id
                self._store.refresh(connection.session_id, connection.user_id, owner, now_s)

    def due_earlier(self, connection: Connection) -> None:
        """The detector is due before the moment that the connection's alarm waits for."""
        if connection.open and connection.detector is not None and connection.alarm is not None:
            connection.alarm.cancel()
            connection.alarm = Alarm(self._clock, self._beat, connection)
            connection.alarm.set_at(connection.detector.due_s)

    def _start_heartbeat(self, connection: Connection) -> None:
        interval_s = self._policy.heartbeat_interval
        if interval_s is not None:
            # In (0, T]: a burst of new connections must not become a burst of pings.
            first_ping_s = self._clock.now_s + interval_s * (1 - float(self._phases.random()))
            connection.detector = PingDetector(self._policy, first_ping_s)
            connection.alarm = Alarm(self._clock, self._beat, connection)
            connection.alarm.set_at(first_ping_s)

    def _beat(self, alarm: Alarm[Connection]) -> None:
        """Ask the detector what is due and do it."""
        connection = alarm.owner
        detector = connection.detector
        assert detector is not None
        now_s = self._clock.env.now
        connection.settle(now_s)
        action = detector.on_time(now_s)
        due_s = detector.due_s
        if action is not Action.PING and action is not Action.NOTHING:
            detail = {"failures": detector.failures, "max_failures": self._policy.max_failures}
            self._log.of_connection(EventKind.HEARTBEAT_MISSED, connection, detail=detail)
            if action is Action.SUSPECT:
                self.suspect(connection, Cause.HEARTBEAT)
                return
        if action in _PINGS:
            if connection.traced:
                self._log.of_connection(EventKind.HEARTBEAT_SENT, connection)
            if self._network.ping(connection, now_s, due_s):
                # The answer comes first, so the next thing to do is the next ping; the detector is
                # told of the answer before it is asked again.
                assert self._policy.heartbeat_interval is not None
                due_s = now_s + self._policy.heartbeat_interval
        alarm.set_at(due_s)

    # -- ends --------------------------------------------------------------------------------------

    def on_end(self, connection: Connection, cause: Cause) -> None:
        """The socket tells: close frame, FIN, RST, or the kernel gave up."""
        if connection.open:
            connection.settle(self._clock.now_s)
            if cause in _SENT_BY_PEER:
                connection.heard_s = self._clock.now_s
            self.suspect(connection, cause)

    def suspect(self, connection: Connection, cause: Cause) -> None:
        """Decide that a connection is over, drop it, and clean up when it may not be resumed any more."""
        now_s = self._clock.now_s
        self._network.recall(connection)
        detail = {"tcp_info": self._network.tcp_info(connection)}
        self._log.of_connection(EventKind.SUSPECTED, connection, cause, detail)
        self._log.of_connection(EventKind.SOCKET_CLOSED, connection, cause)
        connection.open = False
        self._open -= 1
        if connection.alarm is not None:
            connection.alarm.cancel()
        self._presence.forget(connection)
        if cause not in _SOCKET_GONE:
            self._network.end_by_gateway(connection, _CLOSE_CODES.get(cause))
        if connection.records_kept:
            resumable_until_s = connection.heard_s + self._policy.resume_window
            if resumable_until_s > now_s and cause not in _AT_ONCE:
                self._clock.at(resumable_until_s, lambda: self._clean_up(connection))
            else:
                self._clean_up(connection)

    def _clean_up(self, connection: Connection) -> None:
        """Delete the records and tell the watchers, unless the session was taken over or ended meanwhile."""
        if not connection.records_kept:
            return
        connection.records_kept = False
        session_id, user_id = connection.session_id, connection.user_id
        del self._directory.connections[session_id]
        if self._store.clean_up(session_id, user_id, connection.connection_id, self._clock.now_s):
            self._presence.tell(EventKind.PEER_NOTIFIED, user_id, session_id)

    def _end_session(self, session_id: str, user_id: str) -> None:
        """End a session at once, wherever it is connected: a newer login takes over."""
        connection = self._directory.connections.pop(session_id, None)
        if connection is not None:
            connection.records_kept = False
            if connection.open:
                connection.gateway.suspect(connection, Cause.TAKE_OVER)
        self._store.clean_up(session_id, user_id, None, self._clock.now_s)
        self._presence.tell(EventKind.PEER_NOTIFIED, user_id, session_id)
