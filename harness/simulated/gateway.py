"""The gateway in the model: connections, the layers that decide, and cleaning up after them.

Heartbeats are in `heartbeats.py`; there is no formula for a detection time in this package. What reaches the node or
comes due waits for its loop (`event_loop.py`), where that takes time at all; what the node does in one turn takes
effect at the turn's end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from harness.simulated.connection import ClientEnd, Connection
from harness.simulated.event_loop import Loop
from harness.simulated.heartbeats import Beats, IdleSweep, KernelProbes, MemoryPressure
from harness.simulated.model import Model
from harness.simulated.store import StoreDown
from reference_server.events import Cause, EventKind
from reference_server.liveness.kinds import StateCheck
from reference_server.record_rules import refresh_after_s

__all__ = ["Gateway"]

# What the peer's own end sent is a sign of life of that moment.
_SENT_BY_PEER = frozenset({Cause.CLOSE_FRAME, Cause.TCP_FIN, Cause.TCP_RESET})
# With these there is nothing left to abort, so the client is told nothing.
_SOCKET_GONE = _SENT_BY_PEER | {Cause.TCP_TIMEOUT}
# A session that these end is not resumed.
_AT_ONCE = frozenset({Cause.SESSION_TIMEOUT, Cause.MEMORY_PRESSURE})
# With these the client is believed alive and told why.
_CLOSE_CODES = {Cause.TAKE_OVER: 4409, Cause.MEMORY_PRESSURE: 1013, Cause.DRAIN: 1001}


class Gateway:
    """One gateway node.

    Args:
        node: its name.
        model: what it shares with the other nodes and the clients.
        numbers: of its connections; a node that comes back under the same name goes on counting.
    """

    def __init__(self, node: str, model: Model, numbers: Iterator[int]) -> None:
        scenario, clock = model.scenario, model.clock
        policy, kind, rules = scenario.liveness, scenario.detector, scenario.records
        self.node = node
        self.loop = Loop(clock, scenario.gateway, model.services, busy=model.busy)
        self.alive = True
        self._model = model
        self._policy = policy
        target = model.scenario.target
        self._socket_lag_s = 0.0 if target is None else target.heartbeat.socket_lag
        self._rules = rules
        self._clock = clock
        self._network = model.network
        self._store = model.store
        self._presence = model.presence
        self._log = model.log
        self._lost: dict[Connection, None] = {}  # open ones whose socket is gone
        prolongs = kind.looks_at_sockets and rules.refreshed == "by_the_keepalive"
        self._beats = Beats(
            node,
            model,
            self.loop,
            on_suspected=partial(self.suspect, cause=kind.cause),
            on_ping=self._refresh if prolongs else None,
        )
        self._probes = KernelProbes(clock, policy.tcp_keepalive) if policy.tcp_keepalive else None
        self._draining = False
        self._fair = scenario.traffic.takes_time
        self._survives = scenario.sessions.survives_connection
        self._numbers = numbers
        self._connections: dict[Connection, None] = {}  # the open ones; a set that keeps its order
        self._refresh_after_s = refresh_after_s(policy, rules)
        looks_at_states = isinstance(kind, StateCheck) and kind.cleans_up
        if policy.session_timeout is not None or looks_at_states:
            phase_s = float(model.phases.uniform(0, policy.sweep_interval))
        if looks_at_states:
            clock.at(phase_s, partial(self._sweep_states, phase_s))
        self._idle: IdleSweep | None = None
        if policy.session_timeout is not None:
            self._idle = IdleSweep(
                clock, policy.session_timeout, policy.sweep_interval, phase_s, on_idle=self._on_idle
            )
        self._pressure: MemoryPressure | None = None
        if policy.max_sessions is not None and policy.when_full == "evict":
            self._pressure = MemoryPressure(
                clock, policy.max_sessions, partial(self.suspect, cause=Cause.MEMORY_PRESSURE)
            )

    @property
    def accepts(self) -> bool:
        """Whether it lets anybody in."""
        return self.alive and not self._draining

    @property
    def full(self) -> bool:
        """Whether it turns newcomers away."""
        most = self._policy.max_sessions
        return self._pressure is None and most is not None and len(self._connections) >= most

    # -- requests --------------------------------------------------------------------------------

    def login(self, client: ClientEnd) -> str | None:
        """Log a client's user in; None: refused, the user is online already.

        Raises:
            StoreDown: the store does not answer.
        """
        if not self._store.available:
            raise StoreDown
        online = self._store.status(client.user_id)
        if online is not None:
            if self._model.scenario.sessions.second_login == "refuse":
                return None
            self._end_session(online.value, client.user_id)
        client.logins += 1
        session_id = f"session-{client.index}-{client.logins}"
        self._store.write_login(session_id, client.user_id)
        if self._rules.status_written == "at_login":
            self._store.write_status(session_id, client.user_id)
        return session_id

    def accept(self, client: ClientEnd, session_id: str) -> tuple[Connection, bool] | None:
        """Authenticate a new connection; returns it and whether it resumes; None: session unknown.

        Raises:
            StoreDown: the store does not answer.
        """
        if not self._store.available:
            raise StoreDown
        now_s = self._clock.now_s
        record = self._store.session(session_id)
        if record is None:
            return None
        resumed = bool(record.owner)
        older = self._model.connections.get(session_id)
        number = next(self._numbers)
        connection = Connection(self, client, f"{self.node}-{number}", session_id, now_s)
        self._model.connections[session_id] = connection
        if older is not None:
            older.records_kept = False
            if older.open:
                older.gateway.suspect(older, Cause.TAKE_OVER)
        status = self._store.status(client.user_id)
        online = status is not None and bool(status.owner)
        self._store.own(*connection.record_key)
        connection.refresh_due_s = now_s + self._refresh_after_s
        self._beats.start(connection)
        self._connections[connection] = None
        if self._fair:
            connection.unread = deque()
        if self._model.scenario.traffic.to_client is not None:
            self._clock.after(self._model.to_client.next_s(), partial(self._push, connection))
        if self._idle is not None:
            self._idle.add(connection)
        if self._probes is not None:
            self._probes.start(connection)
        if self._pressure is not None:
            self._pressure.add(connection, number, len(self._connections))
        if not online:
            self._presence.tell(EventKind.PEER_ONLINE, client.user_id, session_id)
        return connection, resumed

    def watch(self, connection: Connection, user_ids: Iterable[str]) -> None:
        """A client asks to be told about other users; it is told at once who of them is online."""
        self.on_frame(connection)
        online = self._store.online if self._store.available else ()
        for user_id in self._presence.watch(connection, user_ids):
            if user_id in online:
                status = self._store.status(user_id)
                self._presence.tell_one(
                    connection, EventKind.PEER_ONLINE, user_id, status.value if status else ""
                )

    # -- frames ------------------------------------------------------------------------------------

    def on_frame(self, connection: Connection) -> None:
        """An answer, a beat or a request is in the socket; it is read in its turn."""
        if not connection.open:
            if self.alive:
                self._network.refuse(connection)
        elif not self.loop.takes_time:
            self._read(connection)
        elif connection.unread is None:
            service_s = self.loop.frame_s()
            # Nothing comes between on an idle loop, so it is as good as read; but records are refreshed in their time.
            if self.loop.idle and self._clock.env.now + service_s < connection.refresh_due_s:
                self._read(connection, self.loop.reserve(service_s))
            else:
                self.loop.submit(service_s, partial(self._read, connection))
        else:
            self._in_turn(connection, self.loop.frame_s(), partial(self._read, connection))

    def on_data(self, connection: Connection) -> None:
        """A frame of application data is in the socket."""
        if not connection.open:
            self.on_frame(connection)
        elif connection.unread is None:
            self._read_data(connection)
        else:
            self._in_turn(
                connection, self._model.frame_service.next_s(), partial(self._read_data, connection)
            )

    def _in_turn(self, connection: Connection, service_s: float, read: Callable[[], None]) -> None:
        """Reading is fair: one frame that is work in each turn of the loop, in the order of its socket.

        Frames that take no time are read with the one before them.
        """
        unread = connection.unread
        assert unread is not None

        def turn() -> None:
            while unread:
                unread[0][1]()
                unread.popleft()
                if not connection.open or (unread and unread[0][0] > 0):
                    break
            if unread and connection.open:
                self.loop.submit(unread[0][0], turn)

        unread.append((service_s, read))
        if len(unread) == 1:
            self.loop.submit(service_s, turn)

    def _read_data(self, connection: Connection) -> None:
        if self._policy.data_counts:
            self._read(connection)

    def _push(self, connection: Connection) -> None:
        """Send the client a burst of application data."""
        if self.alive and connection.open and connection.lost is None:
            if self.loop.takes_time:
                self.loop.submit(0.0, partial(self._network.send, connection, _unheard))
            else:
                self._network.send(connection, _unheard)
            self._clock.after(self._model.to_client.next_s(), partial(self._push, connection))

    def _read(self, connection: Connection, at_s: float | None = None) -> None:
        """Take any inbound frame, now or so soon that nothing comes between."""
        if connection.open:
            now_s = self._clock.env.now
            connection.apply_due_answer(now_s)
            if at_s is not None:
                now_s = at_s
            connection.heard_s = now_s
            if connection.detector is not None:
                due_s = connection.detector.due_s
                connection.detector.on_inbound(now_s)
                if connection.detector.due_s < due_s:  # R > T: the regular ping comes before the retry
                    self.due_earlier(connection)
            if now_s >= connection.refresh_due_s:
                # Half of a TTL may be gone before it is refreshed, and only a frame has it refreshed.
                connection.refresh_due_s = now_s + self._refresh_after_s
                self._refresh(connection)

    def on_client_beat(self, connection: Connection) -> None:
        """A client's own beat is here: it is answered when it has been read."""
        self.on_frame(connection)
        if connection.open and connection.lost is None:
            self._network.send(connection, partial(connection.client.on_pong, connection))

    def _refresh(self, connection: Connection) -> None:
        """Prolong its records, as soon as the store answers; the keepalive does so for half-open ones, too."""

        def refresh() -> None:
            if self.alive:
                self._store.refresh(*connection.record_key)

        self._store.when_available(refresh)

    def due_earlier(self, connection: Connection) -> None:
        """The detector is due before the moment that the connection's alarm waits for."""
        self._beats.due_earlier(connection)

    # -- ends --------------------------------------------------------------------------------------

    def on_end(self, connection: Connection, cause: Cause) -> None:
        """The socket tells, in its turn: close frame, FIN, RST, or the kernel gave up."""
        if self.loop.takes_time:
            self.loop.submit(0.0, partial(self._ended, connection, cause))
        else:
            self._ended(connection, cause)

    def _ended(self, connection: Connection, cause: Cause) -> None:
        if connection.open and not self._acts_on(cause):
            connection.apply_due_answer(self._clock.now_s)
            connection.unacked.clear()
            connection.unacked_since_s = None
            connection.lost = connection.lost or cause
            if connection.detector is not None:
                connection.detector.on_socket_closed()
            self._lost[connection] = None
        elif connection.open:
            connection.apply_due_answer(self._clock.now_s)
            if cause in _SENT_BY_PEER:
                connection.heard_s = self._clock.now_s
            self.suspect(connection, cause)

    def _acts_on(self, cause: Cause) -> bool:
        """Whether close detection acts on an end that was seen."""
        acts_on = self._policy.close_detection
        return acts_on == "all" or (acts_on == "frames" and cause is Cause.CLOSE_FRAME)

    def _sweep_states(self, due_s: float) -> None:
        """Look at all sockets: those that are gone are known."""
        if self.alive:
            for connection in list(self._lost):
                self.suspect(connection, Cause.SWEEP)
            due_s += self._policy.sweep_interval
            self._clock.at(due_s, partial(self._sweep_states, due_s))

    def _on_idle(self, connection: Connection) -> None:
        """The sweep found nothing heard for the limit; where the loop was busy, its sockets are read first."""
        if not self.loop.takes_time:
            self.suspect(connection, Cause.SESSION_TIMEOUT)
            return
        heard_s = connection.heard_s

        def look_again() -> None:
            assert self._idle is not None
            if connection.open and connection.heard_s == heard_s:
                self.suspect(connection, Cause.SESSION_TIMEOUT)
            elif connection.open:
                self._idle.add(connection)

        self.loop.after_reading(look_again)

    def suspect(self, connection: Connection, cause: Cause) -> None:
        """Decide that a connection is over, drop it, and clean up when it may not be resumed any more."""
        now_s = self._clock.now_s
        self._network.cancel_predicted(connection)
        detail = {"tcp_info": self._network.tcp_info(connection)}
        self._log.of_connection(EventKind.SUSPECTED, connection, cause, detail)
        if self._socket_lag_s > 0 and cause not in _SOCKET_GONE:
            said = partial(self._log.of_connection, EventKind.SOCKET_CLOSED, connection, cause)
            self._clock.after(self._socket_lag_s, said)
        else:
            self._log.of_connection(EventKind.SOCKET_CLOSED, connection, cause)
        if connection.detector is not None:
            connection.detector.on_end(cause)
        del self._connections[connection]
        self._lost.pop(connection, None)
        self._silence(connection)
        if cause not in _SOCKET_GONE and connection.lost is None:
            self._network.end_by_gateway(connection, _CLOSE_CODES.get(cause))
        else:
            self._network.forget(connection)
        if connection.records_kept and self._draining:
            self._release(connection)
        elif connection.records_kept:
            resumable_until_s = connection.heard_s + self._policy.resume_window
            # Where the session outlives its connection, only the end of what a client said by itself waits.
            at_once = cause not in _SENT_BY_PEER if self._survives else cause in _AT_ONCE
            if resumable_until_s > now_s and not at_once:
                self._clock.at(resumable_until_s, lambda: self._clean_up(connection))
            else:
                self._clean_up(connection)

    def _silence(self, connection: Connection) -> None:
        connection.open = False
        if connection.alarm is not None:
            connection.alarm.cancel()
        self._presence.forget(connection)

    def _clean_up(self, connection: Connection) -> None:
        """Delete the records and tell the watchers, unless the session was taken over or ended meanwhile."""
        if not self.alive or not connection.records_kept:
            return
        if not self._store.available:
            self._store.when_available(partial(self._clean_up, connection))
            return
        connection.records_kept = False
        del self._model.connections[connection.session_id]
        self._delete_records(connection)

    def _delete_records(self, connection: Connection) -> None:
        if self._store.clean_up(*connection.record_key, keeps_session=self._survives):
            self._presence.tell(EventKind.PEER_NOTIFIED, connection.user_id, connection.session_id)

    def _end_session(self, session_id: str, user_id: str) -> None:
        """End a session at once, wherever it is connected: a newer login takes over."""
        connection = self._model.connections.pop(session_id, None)
        if connection is not None:
            connection.records_kept = False
            if connection.open:
                connection.gateway.suspect(connection, Cause.TAKE_OVER)
        self._store.clean_up(session_id, user_id, None)
        self._presence.tell(EventKind.PEER_NOTIFIED, user_id, session_id)

    # -- the node itself ---------------------------------------------------------------------------

    def crash(self, *, host: bool) -> None:
        """The node dies: its memory is gone, its records stay.

        A process's kernel closes its sockets, so its clients hear of it; a host's are silent.
        """
        self.alive = False
        self._beats.stop()
        for connection in self._connections:
            self._network.cancel_predicted(connection)
            self._silence(connection)
            connection.orphaned = True
            if not host:
                self._network.end_by_gateway(connection, None)
        self._connections.clear()
        self._lost.clear()

    def reset_connections(self) -> None:
        """Something in between resets every connection: both ends are told, as far as they can hear."""
        for connection in list(self._connections):
            self._network.reset(connection)

    def drain(self, spread_s: float, ended: Callable[[], None]) -> None:
        """Let nobody in, close the connections in order, spread over a time, and end.

        The records expire with the resume window.
        """
        self._draining = True
        leaving = self._kept()

        def leave() -> None:
            self.alive = False
            self._beats.stop()
            ended()

        for n, connection in enumerate(leaving):
            self._soon(spread_s * n / len(leaving), partial(self._send_away, connection))
        self._soon(spread_s, leave)

    def _soon(self, delay_s: float, act: Callable[[], None]) -> None:
        if delay_s:
            self._clock.after(delay_s, act)
        else:
            act()

    def _send_away(self, connection: Connection) -> None:
        if connection.open:
            self.suspect(connection, Cause.DRAIN)
        elif connection.records_kept:
            self._release(connection)

    def _release(self, connection: Connection) -> None:
        if self._store.available:  # else they are left to their TTL
            expires_s = self._clock.now_s + self._policy.resume_window
            self._store.release(*connection.record_key, expires_s, keeps_session=self._survives)

    def reap(self, gone: Gateway) -> None:
        """End every session that a gone node held, as a peer that took its lease away."""
        for connection in gone._kept():
            if connection.orphaned or connection.open:  # open: of a node that stands still
                self._log_reaped(EventKind.SUSPECTED, connection)
            if connection.orphaned:
                connection.orphaned = False
                self._log_reaped(EventKind.SOCKET_CLOSED, connection)
            if not gone.alive:
                connection.records_kept = False
                del self._model.connections[connection.session_id]
            self._delete_records(connection)

    def assert_records(self) -> None:
        """Write the records of all its connections again, resumable ones too: the store has lost them."""
        for connection in self._kept():
            self._store.refresh(*connection.record_key)

    def _kept(self) -> list[Connection]:
        """Its connections, open or not, whose records are still theirs."""
        everyone = self._model.connections.values()
        return [one for one in everyone if one.gateway is self and one.records_kept]

    def _log_reaped(self, kind: EventKind, connection: Connection) -> None:
        self._log.write(
            kind,
            session_id=connection.session_id,
            connection_id=connection.connection_id,
            node=self.node,
            cause=Cause.NODE_LEASE,
        )


def _unheard() -> None:
    """Application data has arrived: the client does nothing for it."""
