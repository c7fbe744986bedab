"""The gateway: which connection is whose, and what becomes of a session when its connection ends.

Wires the parts together and holds the one table of live connections. Frames are read in `connection.py`,
deadlines watched in `keepalive.py`, records kept in `sessions.py`; HTTP is in `http.py`.

Every end of a connection comes through :meth:`Gateway.on_ended`, whichever layer saw it: it is logged with
its cause, the heartbeat stops, and the records stay for the resume window, counted from the last sign of
life. A frame is one, and so are a FIN and a RST: the peer's host sent them. Silence is none, so after a
heartbeat suspicion the window is usually over already.
"""

from __future__ import annotations

import logging
from asyncio import Event, Task, create_task, get_running_loop, sleep, timeout
from collections.abc import Callable, Iterator
from time import monotonic, time
from typing import Any, cast

import numpy as np
import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.server import ServerProtocol

from reference_server.admission import CLOSE_KICKED, CLOSE_TAKEN_OVER, CLOSE_TRY_AGAIN, Admission
from reference_server.channels import listen_to
from reference_server.cluster import Cluster
from reference_server.codes import CODE_SCRIPTS, Codes
from reference_server.config import GatewayConfig
from reference_server.connection import GatewayConnection, Phase
from reference_server.counters import Counters
from reference_server.door import Door, TurnedAway, most_sockets
from reference_server.events import Cause, EventKind
from reference_server.flush import flush_records
from reference_server.frames import HEARTBEAT, PING, PONG, text_frame
from reference_server.keepalive import Heartbeats, Peer
from reference_server.layers import ClientBeats, Ping, SendErrors, StateCheck
from reference_server.ledger import Ledger, LedgerSettings
from reference_server.ledger_rows import AddressFull, LedgerUnavailable, Login
from reference_server.lines import SessionLines
from reference_server.listen import BACKLOG, listen
from reference_server.node_scripts import NODE_SCRIPTS
from reference_server.online_set import ONLINE_SET_SCRIPTS, PlainOnlineSet
from reference_server.origin import Origin
from reference_server.owners import Owners
from reference_server.presence import Presence
from reference_server.rebuild import rebuild
from reference_server.routing import Router
from reference_server.scripts import SCRIPTS
from reference_server.sessions import Record, Sessions
from reference_server.socket_beats import SocketBeats, SocketPeer
from reference_server.store import StoreWriter, open_redis
from reference_server.sweeper import ResumeWindows, Sweeper
from reference_server.tcp_info import read_tcp_info
from reference_server.telemetry import Telemetry
from reference_server.wheel import LoopClock

__all__ = ["Gateway"]

_CLOSE_NORMAL = 1000
_CLOSE_GOING_AWAY = 1001
_MOST_WATCHED = 1000  # users that one client may watch
_MOST_ID_LENGTH = 128
_AT_ONCE = frozenset(
    {Cause.SESSION_TIMEOUT, Cause.MEMORY_PRESSURE}
)  # a session ended, not resumable
_RECORDS_ARE_ANOTHERS = frozenset({Cause.TAKE_OVER, Cause.LOGOUT})
_DRAIN_CHUNK = 100
_STORE_DRAIN_S = 1.5
_RETIRE_S = 0.5
_LEDGER_DRAIN_S = 1.5
_FOR_EVER_S = 1e9  # a session's life where records do not expire
_SUBSCRIBE_S = 2.0

_log = logging.getLogger(__name__)


class Gateway:
    """One gateway process. Use: ``await start()``, wait, ``await drain()``."""

    def __init__(self, config: GatewayConfig) -> None:
        policy = config.policy
        phase_rng, sweep_rng, lease_rng = np.random.default_rng(config.seed).spawn(3)
        self.config = config
        self.live: dict[str, GatewayConnection] = {}  # READY ones, by connection id
        self.clock = LoopClock(get_running_loop())
        self.redis = open_redis(config.redis_url)
        self.counters = Counters()
        self.lines = SessionLines()
        self.store = StoreWriter(
            self.redis, (*SCRIPTS, *NODE_SCRIPTS, *CODE_SCRIPTS, *ONLINE_SET_SCRIPTS)
        )
        self.codes = Codes(self.store, config.key_prefix, policy.code_ttl, config.code_secret)
        self.owners = Owners(config.node)
        self.sessions = Sessions(
            self.store, config.key_prefix, self.owners, policy,
            refuse=config.second_login == "refuse",
            per_device=config.one_connection_per == "device",
            rules=config.records, on_cleared=self._on_cleared,
        )  # fmt: skip
        self._online: PlainOnlineSet | None = None
        if config.records.online_set == "plain":
            self._online = PlainOnlineSet(self.store, config.key_prefix)
        self.presence = Presence(self.store, config.key_prefix)
        self.cluster = Cluster(
            self.store, config.key_prefix, self.sessions, config, self,
            first_check_s=float(lease_rng.uniform(0.0, config.lease_check_s)),
        )  # fmt: skip
        self.router = Router(self.store, config.key_prefix, self.sessions, self)
        self.store.on_back = self.cluster.on_store_back
        self.store_lost: list[Callable[[], None]] = []  # called when Redis has lost records
        self.heartbeats: Heartbeats | None = None
        self.socket_beats: SocketBeats | None = None
        self.lost: dict[str, GatewayConnection] = {}  # live ones whose socket has gone unheard
        detector = config.detector
        if policy.heartbeat_interval is None or isinstance(detector, ClientBeats):
            pass  # the gateway sends nothing by itself
        elif isinstance(detector, Ping):
            self.heartbeats = Heartbeats(
                policy, self.clock, phase_rng,
                on_missed=self._on_missed, on_suspected=self._on_silent,
            )  # fmt: skip
        else:
            self.socket_beats = SocketBeats(
                detector, policy, self.clock, phase_rng,
                on_failed=self._on_failed, on_suspected=self._on_dead_socket, on_kept=self._on_kept,
            )  # fmt: skip
        beats = self.heartbeats or self.socket_beats
        lateness = beats.lateness.take if beats else lambda: None
        self.telemetry = Telemetry(
            config.event_log, config.origin_s, config.node, self.clock, lateness
        )
        self.sweeper = Sweeper(
            policy, self.clock, self.sessions, self.live,
            on_idle=lambda idle: idle.drop(Cause.SESSION_TIMEOUT),
            on_pressure=lambda oldest: oldest.shut(
                Cause.MEMORY_PRESSURE, CLOSE_TRY_AGAIN, "too many sessions"
            ),
            on_sweep=self._on_sweep, prunes=config.records.expire,
        )  # fmt: skip
        self.windows = ResumeWindows(self.clock, self.sessions)
        self.ledger: Ledger | None = None
        if config.ledger_url is not None:
            self.ledger = Ledger(_ledger_settings(config), self.live.values)
            self.store_lost.append(self._rebuild_soon)
        self._rebuilding: Task[int] | None = None
        self.door = Door(
            config.max_connections or most_sockets(),
            config.max_handshakes,
            config.refuse_above_lag_s,
            self.telemetry.recent_lag_s,
            self.counters.refused,
        )
        self.port = 0  # once it listens
        self._admission = Admission(
            self.clock, self.sessions, self, config.auth_timeout_s, self.counters.refused,
            user_id_handshake=config.records.user_id_handshake,
        )  # fmt: skip
        # What a connection asks of its owner on every frame is kept where it is found at once.
        protocol_ping = isinstance(detector, StateCheck) or (
            isinstance(detector, Ping) and detector.frame == "ping"
        )
        self.heartbeat_frame = PING if protocol_ping else HEARTBEAT
        self.close_detection: str = policy.close_detection
        self._keepalive_refreshes = config.records.refreshed == "by_the_keepalive"
        self.max_buffer_bytes = config.max_buffer_bytes
        self.max_messages_per_s = config.max_messages_per_s or float("inf")
        self.close_timeout_s = config.close_timeout_s
        self._sweep_phase_s = float(sweep_rng.uniform(0.0, policy.sweep_interval))
        self._refresh_after_s = self.sessions.refresh_after_s
        self._tasks: list[Task[None]] = []
        self._server: Server | None = None
        self.draining = False

    # -- start and end -----------------------------------------------------------------------------

    async def start(self) -> int:
        """Listen; return the port.

        Raises:
            OSError: the address is in use.
            LedgerUnfit: the ledger's table is of another make.
        """
        config, policy = self.config, self.config.policy
        if config.records.user_id_handshake:
            _log.warning("records.user_id_handshake: whoever names a user is let in as that user")
        if config.records.flush_at_start:
            _log.warning("flushed %d keys", await flush_records(self.redis, config.key_prefix))
        if self.ledger is not None:
            await self.ledger.start()
        sock = listen(
            config.host, config.port, policy.tcp_user_timeout, policy.tcp_keepalive,
            reuse_port=config.reuse_port,
        )  # fmt: skip
        self._server = await serve(
            self._handle,
            sock=sock,
            backlog=BACKLOG,
            # A factory does as well as the class that the annotation asks for.
            create_connection=cast(Any, self._make_connection),
            process_request=self._admission.route,
            compression=None,  # 64 KiB a connection, to save nothing on messages of 20 bytes
            open_timeout=config.auth_timeout_s,
            close_timeout=config.close_timeout_s,
            ping_interval=None,  # the library's own keepalive would race ours
            max_size=config.max_message_bytes,
            server_header=None,
        )
        self.telemetry.start()
        subscribed = Event()

        def on_subscribed() -> None:
            subscribed.set()
            self.cluster.on_subscribed()

        channels = {
            self.presence.channel: self.presence.deliver,
            self.router.channel: self.router.deliver,
        }
        self._tasks = [
            create_task(self.store.run()),
            create_task(listen_to(self.redis, channels, on_subscribed)),
            create_task(self.sweeper.run(self._sweep_phase_s)),
            create_task(self.cluster.run()),
        ]
        for task in self._tasks:
            task.add_done_callback(_report_failure)
        try:
            async with timeout(_SUBSCRIBE_S):
                await subscribed.wait()
                await self.cluster.settled.wait()
        except TimeoutError:
            _log.warning("Redis does not answer yet: starting without it")
        self.port = sock.getsockname()[1]
        return self.port

    async def drain(self) -> None:
        """Close every connection in order, within ``drain_timeout_s``; leave the records to expire.

        Health is red first, for ``drain_notice_s``, so that a load balancer sends nobody any more; then
        nobody is let in; then those inside are told to go elsewhere (1001). What is still open
        ``drain_timeout_s`` later is aborted; Redis then has 1.5 s for what it has to be told. A second
        call does nothing.
        """
        if self.draining:
            return
        self.draining = True
        await sleep(self.config.drain_notice_s)
        self.door.shut = True
        assert self._server is not None
        self._server.close(close_connections=False)
        self._admission.stop()
        if self.heartbeats is not None:
            self.heartbeats.stop()
        if self.socket_beats is not None:
            self.socket_beats.stop()
        for ghost in list(self.lost.values()):
            ghost.end(Cause.DRAIN)
        deadline_s = monotonic() + self.config.drain_timeout_s
        everyone = self._server.all_connections
        for n, connection in enumerate(list(everyone)):
            assert isinstance(connection, GatewayConnection)
            connection.shut(Cause.DRAIN, _CLOSE_GOING_AWAY, "shutting down")
            if n % _DRAIN_CHUNK == 0:
                await sleep(0)
        while everyone and monotonic() < deadline_s:
            await sleep(0.01)
        for left in (*everyone, *self.door.opening):
            left.transport.abort()
        for record in self.windows.close():
            self.sessions.release(record)
        if not await self.store.drain(_STORE_DRAIN_S):
            _log.warning("Redis does not answer: records are left to their TTL")
        await self.cluster.retire(self.config.policy.resume_window, _RETIRE_S)
        if self.ledger is not None and not await self.ledger.close(_LEDGER_DRAIN_S):
            _log.warning("the ledger: %d rows stay open until the next start", self.ledger.duties)
        for task in (*self._tasks, self._rebuilding):
            if task is not None:
                task.cancel()
        await self.redis.aclose()
        self.telemetry.close()

    def health(self) -> dict[str, Any]:
        """Return how the gateway is: ``status`` is `ok`, `degraded` or `draining`; what ails it beside it."""
        parts = {"store": self.store.available}
        if self.ledger is not None:
            parts["ledger"] = self.ledger.available
        up = all(parts.values())
        status = "draining" if self.draining else "ok" if up else "degraded"
        return {
            "status": status,
            "node": self.config.node,
            **{part: "up" if works else "down" for part, works in parts.items()},
            "refusing": self.door.closed_because(),
        }

    # -- a connection begins -----------------------------------------------------------------------

    def _make_connection(
        self, protocol: ServerProtocol, server: Server, **options: Any
    ) -> GatewayConnection | TurnedAway:
        code = self.door.closed_because()
        if code is not None:
            return TurnedAway(self.door, code)
        return GatewayConnection(protocol, server, owner=self, **options)

    async def _handle(self, connection: ServerConnection) -> None:
        """Stay as long as the connection does; all the rest happens in callbacks."""
        assert isinstance(connection, GatewayConnection)
        path = connection.opened()
        if self.door.shut:  # its handshake was over just before
            connection.shut(Cause.DRAIN, _CLOSE_GOING_AWAY, "shutting down")
        else:
            self._admission.on_handshake(connection, path)
        await connection.connection_lost_waiter

    def take_over(self, owner: str) -> None:
        """End the connection that had the records until now, or what is left of it."""
        self.windows.resumed(owner)
        self.lines.resumed(owner)
        older = self.live.get(owner)
        if older is not None:
            older.shut(Cause.TAKE_OVER, CLOSE_TAKEN_OVER, "taken over")

    def on_stranger(self, connection: GatewayConnection, session_id: str, user_id: str) -> None:
        """Note a login that nobody asked for; it is committed soon, not first."""
        if self.ledger is not None:
            peer = (connection.remote_address or ("",))[0]
            self.ledger.note_login(Login(session_id, user_id, "web", peer, "", "", time()))

    def begin(self, connection: GatewayConnection, record: Record, resumed: bool) -> None:
        """Put a connection into service that has its session's records."""
        now_s = monotonic()
        connection.phase = Phase.READY
        connection.connected_s = connection.last_seen_s = now_s
        connection.refresh_due_s = now_s + self._refresh_after_s
        self.live[record.owner] = connection
        self.counters.connects += 1
        self.counters.resumes += resumed
        self._log(EventKind.CONNECTED, connection, user_id=record.user_id, resumed=resumed)
        if self.ledger is not None:
            self.ledger.connected(record)
        ready = {
            "type": "ready",
            "user_id": record.user_id,
            "connection_id": record.owner,
            "resumed": resumed,
        }
        connection.send_frame(text_frame(orjson.dumps(ready)))
        connection.notes_beats = connection.trace or self.lines.sends_wanted
        if self.heartbeats is not None:
            connection.beat = self.heartbeats.start(connection)
        elif self.socket_beats is not None:
            connection.socket_beat = self.socket_beats.start(connection)
        if self._online is not None:
            self._online.add(record.user_id)
        self.sweeper.on_connected()

    # -- what a connection tells -----------------------------------------------------------------

    def on_life(self, connection: GatewayConnection, now_s: float) -> None:
        """Take any frame of a READY connection."""
        if self.heartbeats is not None and connection.beat is not None:
            self.heartbeats.on_inbound(connection.beat, now_s)
        if now_s >= connection.refresh_due_s:
            connection.refresh_due_s = now_s + self._refresh_after_s
            self._refresh(connection)

    def on_message(self, connection: GatewayConnection, message: dict[str, Any]) -> None:
        """Take a JSON message: authentication, or whom to watch."""
        match message:
            case {"type": "auth", "session_id": str(session_id)} if _are_ids(
                [session_id, message.get("user_id", session_id)]
            ):
                if connection.phase is Phase.ANONYMOUS:
                    self._admission.authenticate(
                        connection, session_id,
                        user_id=message.get("user_id", ""), trace=message.get("trace") is True,
                    )  # fmt: skip
                else:
                    connection.send_error("already_authenticated", "one session a connection")
            case _ if connection.phase is not Phase.READY:
                connection.send_error(
                    "not_authenticated", 'send {"type":"auth","session_id":…} first'
                )
            case {"type": "heartbeat"}:
                connection.send_frame(PONG)
            case {"type": "watch", "user_ids": list(user_ids)} if _are_ids(user_ids):
                count = self.presence.watch(connection, user_ids, _MOST_WATCHED)
                if count is None:
                    connection.send_error("too_many", f"at most {_MOST_WATCHED} users")
                else:
                    answer = {"type": "watching", "count": count}
                    connection.send_frame(text_frame(orjson.dumps(answer)))
            case {"type": "send", "user_id": str(user_id), "payload": payload} if _are_ids(
                [user_id]
            ):
                self.router.pass_on(connection, user_id, payload)
            case _:
                connection.send_error("unknown_message", f"not understood: {message['type']:.40}")

    def on_traced_heartbeat(self, connection: GatewayConnection) -> None:
        """Log one heartbeat."""
        if connection.trace:
            self._log(EventKind.HEARTBEAT_SENT, connection)
        if connection.record is not None:
            self.lines.sent(connection.record.session_id)

    # -- a connection ends -------------------------------------------------------------------------

    def _on_missed(self, peer: Peer, failures: int) -> None:
        assert isinstance(peer, GatewayConnection)
        self.counters.missed += 1
        limit = self.config.policy.max_failures
        self._log(EventKind.HEARTBEAT_MISSED, peer, failures=failures, max_failures=limit)
        if self.lines.wanted and peer.record is not None:
            reason = f"no answer within {self.config.policy.heartbeat_timeout:g} s"
            self.lines.failed(peer.record.session_id, failures, limit, reason)

    def _on_silent(self, peer: Peer) -> None:
        assert isinstance(peer, GatewayConnection)
        peer.drop(Cause.HEARTBEAT)

    def _on_failed(self, peer: SocketPeer, failures: int) -> None:
        assert isinstance(peer, GatewayConnection) and peer.record is not None
        limit = self.config.policy.max_failures
        self._log(EventKind.HEARTBEAT_MISSED, peer, failures=failures, max_failures=limit)
        reason = f"the socket is closed: {peer.lost or 'closing'}"
        self.lines.failed(peer.record.session_id, failures, limit, reason)

    def _on_dead_socket(self, peer: SocketPeer) -> None:
        assert isinstance(peer, GatewayConnection)
        counts = isinstance(self.config.detector, SendErrors)
        peer.drop(Cause.SEND_ERROR if counts else Cause.STATE_CHECK)

    def _on_kept(self, peer: SocketPeer) -> None:
        """Prolong the records of a socket that looks open, as keepalives do: half-open ones too."""
        assert isinstance(peer, GatewayConnection)
        if self._keepalive_refreshes:
            self._refresh(peer)

    def _on_sweep(self) -> None:
        """Look at the state of all sockets: those that are closed are known."""
        detector = self.config.detector
        if isinstance(detector, StateCheck) and detector.cleans_up:
            for ghost in list(self.lost.values()):
                ghost.drop(Cause.SWEEP)

    def on_socket_lost(self, connection: GatewayConnection) -> None:
        """Note a socket that is gone and whose end nobody acts on."""
        assert connection.record is not None
        self.lost[connection.record.owner] = connection

    def on_ended(self, connection: GatewayConnection, was: Phase) -> None:
        """Take a connection out of service; its socket may stand a little longer."""
        if connection.beat is not None and self.heartbeats is not None:
            self.heartbeats.end(connection.beat)
        if connection.socket_beat is not None:
            connection.socket_beat.peer = None
        if was is not Phase.READY or connection.record is None:
            return  # no session has ended: none was begun, or the store's answer is still to come
        record = connection.record
        del self.live[record.owner]
        self.lost.pop(record.owner, None)
        self.presence.forget(connection)
        if self._online is not None:
            self._online.remove(record.user_id)
        sock = connection.transport.get_extra_info("socket")  # None: it is gone already
        info = read_tcp_info(sock) if sock is not None else None
        detail: dict[str, Any] = {"tcp_info": info.as_detail()} if info is not None else {}
        if connection.protocol.close_rcvd is not None:
            detail["code"] = connection.protocol.close_rcvd.code
        self.counters.decided[connection.cause or ""] += 1
        self._log(EventKind.SUSPECTED, connection, **detail)
        self.lines.disconnected(record.session_id, connection.cause or "")
        if self.ledger is not None and connection.cause is not None:
            self.ledger.ended(record, connection.cause, connection.last_seen_s)
        if connection.cause not in _RECORDS_ARE_ANOTHERS:
            self.keep_for_resume(connection, record)

    def on_socket_gone(self, connection: GatewayConnection) -> None:
        """Note the end of a socket that had a session."""
        if connection.record is not None and connection.connected_s:
            self.counters.closed[connection.cause or ""] += 1
            self._log(EventKind.SOCKET_CLOSED, connection)
            if connection.cause not in _RECORDS_ARE_ANOTHERS:
                self.lines.socket_gone(connection.record.session_id, connection.record.owner)

    def _on_cleared(self, record: Record, gone: bool) -> None:
        """Note that the records of an ended connection are gone, or another connection's."""
        if gone:
            self.lines.removed(record.session_id, record.owner)
        else:
            self.lines.resumed(record.owner)

    def keep_for_resume(self, connection: GatewayConnection, record: Record) -> None:
        """Keep the records of an ended connection for as long as its session may be resumed."""
        if self.ledger is not None and not connection.connected_s and record.user_id:
            # It never was in service, but the store has it as the session's.
            cause = connection.cause or Cause.PROTOCOL_ERROR
            self.ledger.ended(record, cause, connection.last_seen_s, unannounced=True)
        if self.draining and record.user_id:
            self.sessions.release(record)
        elif connection.cause in _AT_ONCE:
            self.sessions.clear(record)
        else:
            window_s = self.config.policy.resume_window
            self.windows.open(record, connection.last_seen_s + window_s)

    def _refresh(self, connection: GatewayConnection) -> None:
        assert connection.record is not None
        self.sessions.refresh(connection.record, self.take_over)

    # -- one node among others ---------------------------------------------------------------------

    def held(self) -> Iterator[Record]:
        """Return the records that this node answers for."""
        for connection in self.live.values():
            assert connection.record is not None
            yield connection.record
        yield from self.windows.waiting()

    def on_reaped(self, record: Record, dead: str, drained: bool) -> None:
        """Log a session of a dead node that this one has ended; one that drained has logged it itself."""
        if self.ledger is not None:
            self.ledger.ended(record, Cause.NODE_LEASE, None)
        if not drained:
            self.counters.decided[Cause.NODE_LEASE] += 1
            self.telemetry.log(
                EventKind.SUSPECTED,
                session_id=record.session_id,
                connection_id=record.owner,
                cause=Cause.NODE_LEASE,
                detail={"user_id": record.user_id, "incarnation": dead},
            )

    def on_store_lost(self) -> None:
        """Pass it on: logins that never connected, say, are brought back by whoever knows them."""
        for call in self.store_lost:
            call()

    def _rebuild_soon(self) -> None:
        """Bring logins back that the ledger knows; a loss during it begins it anew."""
        assert self.ledger is not None
        if self._rebuilding is not None:
            self._rebuilding.cancel()
        life_s = _session_life_s(self.config)
        self._rebuilding = create_task(rebuild(self.ledger, self.sessions, life_s))

    def reconcile(self) -> None:
        """Tell watchers what has changed while announcements may have been lost."""
        self.presence.reconcile()

    async def login(self, user_id: str, origin: Origin, device_id: str = "") -> str | None:
        """Make a session; return its id, or None: the user is online and a second login is refused.

        With a ledger it is committed there first. ``device_id`` tells devices of one type apart.

        Raises:
            StoreUnavailable: Redis does not answer.
            LedgerUnavailable: the ledger cannot be written.
            AddressFull: the origin has too many open sessions.
        """
        if self.ledger is not None:
            self.ledger.check()
        session_id = await self.sessions.login(user_id, device_id or origin.device_type)
        if session_id is None or self.ledger is None:
            return session_id
        row = Login(
            session_id, user_id, origin.device_type, origin.ip_address, origin.user_agent,
            device_id, time(),
        )  # fmt: skip
        try:
            await self.ledger.login(row)
        except (LedgerUnavailable, AddressFull):
            self.sessions.forget(session_id)
            raise
        return session_id

    async def logout(self, session_id: str, user_id: str = "") -> None:
        """End a session at once, its connection with it; an unknown one is no error.

        Args:
            session_id: lets whoever has it do this.
            user_id: whose it has to be; empty: whoever's it is.

        Raises:
            StoreUnavailable: Redis does not answer.
            WrongUser: the session is another user's.
            LedgerUnavailable: it has ended, but that is not committed yet.
        """
        await self._end(session_id, user_id, "logged_out")

    async def kick(self, *, user_id: str = "", session_id: str = "") -> int:
        """End a session, or those that a user is online with, on whichever node; return how many.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        sessions = [session_id] if session_id else await self.router.sessions_of(user_id)
        return sum([await self._end(session, user_id, "kicked") for session in sessions])

    async def _end(self, session_id: str, user_id: str, how: str) -> bool:
        record = await self.sessions.logout(session_id, user_id, how)
        if record is not None:
            self.end_session(record.owner, how)
        if self.ledger is not None:
            await self.ledger.logout(session_id, user_id)
        return record is not None

    def end_session(self, owner: str, how: str) -> None:
        """End a connection whose session was ended here or on another node."""
        self.windows.resumed(owner)
        connection = self.live.get(owner)
        if connection is not None:
            kicked = how == "kicked"
            code, reason = (CLOSE_KICKED, "kicked") if kicked else (_CLOSE_NORMAL, "logged out")
            connection.shut(Cause.LOGOUT, code, reason)

    def _log(self, kind: EventKind, connection: GatewayConnection, **detail: Any) -> None:
        assert connection.record is not None
        self.telemetry.log(
            kind,
            session_id=connection.record.session_id,
            connection_id=connection.record.owner,
            cause=connection.cause,
            detail=detail,
        )


def _ledger_settings(config: GatewayConfig) -> LedgerSettings:
    assert config.ledger_url is not None
    policy = config.policy
    return LedgerSettings(
        config.ledger_url, config.node, config.ledger_flush_interval_s,
        _session_life_s(config), policy.resume_window, config.max_sessions_per_ip,
    )  # fmt: skip


def _session_life_s(config: GatewayConfig) -> float:
    return config.policy.session_ttl if config.records.expire else _FOR_EVER_S


def _report_failure(task: Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("a part of the gateway has failed", exc_info=error)


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(value, str) and 0 < len(value) <= _MOST_ID_LENGTH for value in values)
