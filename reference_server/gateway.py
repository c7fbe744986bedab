"""The gateway: which connection is whose, and what becomes of a session when its connection ends.

Wires the parts together and holds the one table of live connections. Six files explain a gateway:

    gateway.py                      a connection begins and ends; who is told
    websocket/connection.py         bytes of a socket become frames, and its end gets a cause
    heartbeat/scheduler.py          when which connection is pinged and judged
    liveness/heartbeat_policy.py    interval, timeout, failures: the detector, with the time as an argument
    sessions/records.py             what Redis holds of a session, and whose it is
    cluster/lease.py                how nodes learn that one of them has died

Every end of a connection comes through :meth:`Gateway.on_ended`, whichever layer saw it. It is logged with its cause,
the heartbeat stops, and the records stay for the resume window, counted from the last sign of life. A frame is a sign
of life, and so are a FIN and a RST: the peer's host sent them. Silence is none, so after a heartbeat suspicion the
window is usually over already. Where sessions survive their connections, the session record stays longer: a login is
good for `session_ttl`, whoever sees the user online or not.
"""

from __future__ import annotations

import logging
from asyncio import Event, Protocol, Server, Task, create_task, get_running_loop, sleep, timeout, wait
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from ssl import SSLContext
from time import monotonic
from typing import Any

import numpy as np
import orjson

from reference_server.cluster.lease import Cluster
from reference_server.cluster.routing import Router
from reference_server.config import GatewayConfig
from reference_server.counters import Counters
from reference_server.detection import Detection
from reference_server.event_log import Telemetry
from reference_server.events import Cause, EventKind
from reference_server.frames import PONG, text_frame
from reference_server.heartbeat.timer_wheel import LoopClock
from reference_server.idle_sweep import ResumeWindows, Sweeper
from reference_server.ledger.ledger import Ledger
from reference_server.logins import Logins
from reference_server.session_log import SessionLines
from reference_server.sessions.channels import Channels
from reference_server.sessions.codes import Codes
from reference_server.sessions.owner_tokens import Owners
from reference_server.sessions.presence import PlainOnlineSet, Presence
from reference_server.sessions.records import Record, Sessions, flush_records, session_id_of
from reference_server.sessions.redis_writer import StoreWriter, open_redis
from reference_server.sessions.scripts import Script
from reference_server.websocket.admission import CLOSE_KICKED, CLOSE_TAKEN_OVER, MOST_ID_LENGTH, Admission
from reference_server.websocket.connection import GatewayConnection, Phase
from reference_server.websocket.listener import BACKLOG, listen
from reference_server.websocket.overload import SENTENCES, ConnectionLimiter, RejectedConnection
from reference_server.websocket.tcp_info import read_tcp_info
from reference_server.websocket.tls import TlsProtocol, server_context

__all__ = ["Gateway"]

_CLOSE_NORMAL = 1000
_CLOSE_GOING_AWAY = 1001
_NOT_RESUMABLE = frozenset({Cause.SESSION_TIMEOUT, Cause.MEMORY_PRESSURE})
# With these the client is alive, for all that is known, and may be back at once.
_CLIENT_LIVES = frozenset({Cause.CLOSE_FRAME, Cause.TCP_FIN, Cause.TCP_RESET, Cause.PROTOCOL_ERROR})
_RECORDS_ARE_ANOTHERS = frozenset({Cause.TAKE_OVER, Cause.LOGOUT})
_MOST_WATCHED = 1000  # users that one client may watch
_DRAIN_CHUNK = 100
_STORE_DRAIN_S = 1.5
_RETIRE_S = 0.5
_LEDGER_DRAIN_S = 1.5
_SUBSCRIBE_S = 2.0
_CANCELS = 3

_log = logging.getLogger(__name__)


class Gateway:
    """One gateway process. Use: ``await start()``, wait, ``await drain()``."""

    def __init__(self, config: GatewayConfig) -> None:
        policy = config.policy
        phase_rng, sweep_rng, lease_rng, push_rng = np.random.default_rng(config.seed).spawn(4)
        self.config = config
        self.live: dict[str, GatewayConnection] = {}  # READY ones, by connection id
        self.clock = LoopClock(get_running_loop())
        self.redis = open_redis(config.redis_url)
        self.counters = Counters()
        self.lines = SessionLines()
        self._store_redis = open_redis(config.redis_url, None)
        self.store = StoreWriter(self._store_redis, Script, config.key_prefix)
        self.codes = Codes(self.store, policy.code_ttl, config.code_secret)
        self.owners = Owners(config.node)
        self.sessions = Sessions(self.store, self.owners, config, self._on_cleared)
        self._online = PlainOnlineSet(self.store) if config.records.online_set == "plain" else None
        self.channels = Channels(self.redis)
        self.presence = Presence(self.store, self.channels)
        first_check_s = float(lease_rng.uniform(0.0, config.lease_check_s))
        self.cluster = Cluster(self.store, self.sessions, config, self, first_check_s)
        self.router = Router(self.store, self.sessions, self)
        self.store.on_back = self._on_store_back
        self.detection = Detection(
            config, self.clock, phase_rng, self.counters, self.lines, log=self._log, refresh=self._refresh
        )
        self.telemetry = Telemetry(
            config.event_log, config.origin_s, config.node, self.clock, self.detection.lateness
        )
        on_sweep = [self.detection.on_sweep, *([self.sessions.prune] if config.records.expire else [])]
        self.sweeper = Sweeper(policy, config.max_rss_bytes, self.clock, self.live, *on_sweep)
        self.windows = ResumeWindows(self.clock, self.sessions)
        self.ledger = None if config.ledger_url is None else Ledger(config, self.live.values)
        self.logins = Logins(config, self.sessions, self.ledger, self.router, self.end_session, self.held)
        self.limiter = ConnectionLimiter(config, self.telemetry.recent_lag_s, self.count_refused)
        self.port = 0  # once it listens
        self.tls: SSLContext | None = None
        self.read_certificate()
        self._admission = Admission(self.sessions, self, config)
        self.heartbeat_frame = self.detection.frame
        self._pushes = _Pushes(config, push_rng) if config.push_every_s else None
        # What others ask of the gateway and a part of it answers.
        self.on_handshake = self._admission.on_handshake
        self.on_socket_lost = self.detection.on_socket_lost
        self.on_stranger = self.logins.note_stranger
        self.on_store_lost = self.logins.bring_back
        self.reconcile = self.presence.reconcile
        self._sweep_phase_s = float(sweep_rng.uniform(0.0, policy.sweep_interval))
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
            config.host,
            config.port,
            policy.tcp_user_timeout,
            policy.tcp_keepalive,
            reuse_port=config.reuse_port,
        )
        self._server = await get_running_loop().create_server(
            self._make_connection, sock=sock, backlog=BACKLOG
        )
        self.telemetry.start()
        subscribed = Event()

        def on_subscribed(_channel: str) -> None:
            subscribed.set()
            self.cluster.on_subscribed()

        self.channels.hear(self.router.channel, self.router.deliver, on_subscribed)
        self._tasks = [
            create_task(self.store.run()),
            create_task(self.channels.run()),
            create_task(self.sweeper.run(self._sweep_phase_s)),
            create_task(self.cluster.run()),
            create_task(self.logins.repair()),
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
        """Close every connection in order; leave the records to expire.

        Health is red first, for ``drain_notice_s``, so that a load balancer sends nobody any more; then
        nobody is let in; then those inside are told to go elsewhere (1001), all at once or evenly over
        ``drain_spread_s``. What is still open ``drain_timeout_s`` later is aborted; Redis then has 1.5 s for
        what it has to be told. A second call does nothing.
        """
        if self.draining:
            return
        self.draining = True
        await sleep(self.config.drain_notice_s)
        self.limiter.shut = True
        assert self._server is not None
        self._server.close()
        sockets, opening = self.limiter.sockets, self.limiter.opening
        inside = sockets - opening
        began_s, apart_s = monotonic(), self.config.drain_spread_s / max(1, len(inside))
        for n, connection in enumerate(inside):
            if n % _DRAIN_CHUNK == 0 or apart_s:
                await sleep(max(0.0, began_s + n * apart_s - monotonic()))
            assert isinstance(connection, GatewayConnection)
            connection.shut(Cause.DRAIN, _CLOSE_GOING_AWAY, "shutting down")
        self.detection.stop()
        deadline_s = monotonic() + self.config.drain_timeout_s
        while len(sockets) > len(opening) and monotonic() < deadline_s:
            await sleep(0.01)
        for left in tuple(sockets):
            left.transport.abort()
        for record in self.windows.close():
            self.sessions.release(record)
        if not await self.store.drain(_STORE_DRAIN_S):
            _log.warning("Redis does not answer: records are left to their TTL")
        await self.cluster.retire(self.config.policy.resume_window, _RETIRE_S)
        if self.ledger is not None and not await self.ledger.close(_LEDGER_DRAIN_S):
            _log.warning("the ledger: %d rows were not written", self.ledger.pending)
        self.logins.stop()
        for _ in range(_CANCELS):  # Python 3.11's `wait_for`, below redis-py, may swallow one
            if alive := [task for task in self._tasks if not task.done()]:
                for task in alive:
                    task.cancel()
                await wait(alive, timeout=0.1)
        await self.redis.aclose()
        await self._store_redis.aclose()
        self.telemetry.close()

    def health(self) -> dict[str, Any]:
        """Return how the gateway is: ``status`` is `ok`, `degraded`, `refusing` or `draining`; what ails it beside it.

        With all but `ok` a login would fail.
        """
        parts = {"store": self.store.available}
        unwritten: dict[str, int] = {}
        if self.ledger is not None:
            parts["ledger"] = self.ledger.available
            unwritten["ledger_waiting"] = self.ledger.pending
            unwritten["ledger_dropped"] = self.ledger.dropped
        up = all(parts.values())
        refusing = self.limiter.closed_because(strangers=False)
        bad = {"draining": self.draining, "degraded": not up, "refusing": refusing is not None}
        status = next((name for name, is_so in bad.items() if is_so), "ok")
        return {
            "status": status,
            "node": self.config.node,
            **{part: "up" if works else "down" for part, works in parts.items()},
            **unwritten,
            "refusing": refusing,
        }

    # -- a connection begins -----------------------------------------------------------------------

    def _make_connection(self) -> Protocol:
        code = self.limiter.closed_because()
        if code is None:
            return self._accept()
        return RejectedConnection(self.limiter, code, self._accept, unheard=self.tls is not None)

    def _accept(self) -> GatewayConnection | TlsProtocol:
        limiter = self.limiter
        if self.tls is None:
            return GatewayConnection(self)
        connection = partial(GatewayConnection, self)
        return TlsProtocol(self.tls, connection, limiter.enter, limiter.leave, self.config.auth_timeout_s)

    def read_certificate(self) -> None:
        """Read the certificate, again perhaps: connections that stand keep the one that they have.

        Raises:
            OSError: it cannot be used; the older one stays.
        """
        config = self.config
        if config.tls_certificate is not None and config.tls_key is not None:
            self.tls = server_context(config.tls_certificate, config.tls_key)

    def refusal(self, target: str) -> tuple[int, str] | None:
        """Return the HTTP status and sentence that refuse a handshake; None: accept it."""
        if self.limiter.shut:  # since the socket came in
            return 503, SENTENCES["draining"]
        return self._admission.refusal(target)

    def is_full(self) -> bool:
        """Tell whether nobody new gets a session: too many, or too little memory, where newcomers are refused."""
        refuses = self.config.policy.when_full == "refuse"
        return refuses and len(self.live) + len(self._admission.asking) >= self.sweeper.most_sessions()

    def count_refused(self, code: str) -> None:
        """Count somebody who was not let in."""
        self.counters.refusals.labels(code).inc()

    def note_refused(self, connection: GatewayConnection, code: str) -> None:
        """Count and log an authentication that failed."""
        self.count_refused(code)
        of = connection.record
        self.lines.refused(*(of.session_id, of.user_id, of.owner) if of else ("", "", ""), code)

    def take_over(self, owner: str, by: str = "") -> None:
        """End the connection that had the records until now, or what is left of it.

        Args:
            owner: the connection.
            by: the session that has its records now; empty: not known here.
        """
        self._note_ended(owner, "taken_over")
        self.lines.resumed(owner)
        older = self.live.get(owner)
        if older is not None:
            older.shut(Cause.TAKE_OVER, CLOSE_TAKEN_OVER, "taken over")
            if by and older.record is not None and by != older.record.session_id:
                self._on_cleared(older.record, gone=True)

    def begin(self, connection: GatewayConnection, record: Record, resumed: bool) -> None:
        """Put a connection into service that has its session's records."""
        now_s = monotonic()
        connection.phase = Phase.READY
        connection.connected_s = connection.last_seen_s = now_s
        connection.refresh_due_s = now_s + self.sessions.refresh_after_s
        self.live[record.owner] = connection
        self.counters.connects.inc()
        self.counters.resumes.inc(resumed)
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
        self.detection.begin(connection)
        if self._online is not None:
            self._online.add(record.user_id)
        self.sweeper.on_connected()
        if self._pushes is not None:
            self._pushes.begin(connection)

    # -- what a connection tells -----------------------------------------------------------------

    def on_refresh_due(self, connection: GatewayConnection, now_s: float) -> None:
        """Prolong the records of a connection that lives."""
        connection.refresh_due_s = now_s + self.sessions.refresh_after_s
        self._refresh(connection)

    def on_message(self, connection: GatewayConnection, message: dict[str, Any]) -> None:
        """Take a JSON object with a ``type``; the exact answer to a heartbeat does not come here."""
        match message:
            case {"type": "auth", "token": str(token)} if _are_ids([token, message.get("user_id", token)]):
                if connection.phase is Phase.ANONYMOUS:
                    session_id = session_id_of(token)
                    user_id, trace = message.get("user_id", ""), message.get("trace") is True
                    self._admission.authenticate(connection, session_id, user_id=user_id, trace=trace)
                else:
                    connection.send_error("already_authenticated", "one session a connection")
            case _ if connection.phase is not Phase.READY:
                connection.send_error("not_authenticated", 'send {"type":"auth","token":…} first')
            case {"type": "heartbeat"}:
                connection.send_frame(PONG)
            case {"type": "data"}:
                work_s = message.get("work_s")
                if self.config.data_work and isinstance(work_s, int | float):
                    connection.work(work_s)
            case {"type": "watch", "user_ids": list(user_ids)} if _are_ids(user_ids):
                if not self.presence.watch(connection, user_ids, _MOST_WATCHED):
                    connection.send_error("too_many", f"at most {_MOST_WATCHED} users")
            case {"type": "send", "user_id": str(user_id), "payload": payload} if _are_ids([user_id]):
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

    def on_ended(self, connection: GatewayConnection, was: Phase) -> None:
        """Take a connection out of service; its socket may stand a little longer."""
        self.detection.end(connection)
        if was is not Phase.READY or connection.record is None:
            return  # no session has ended: none was begun, or the store's answer is still to come
        record = connection.record
        del self.live[record.owner]
        self.presence.forget(connection)
        if self._online is not None:
            self._online.remove(record.user_id)
        sock = connection.transport.get_extra_info("socket")  # None: it is gone already
        info = read_tcp_info(sock) if sock is not None else None
        detail: dict[str, Any] = {"tcp_info": asdict(info)} if info is not None else {}
        if connection.close_code is not None:
            detail["code"] = connection.close_code
        self.counters.suspicions.labels(connection.cause).inc()
        self._log(EventKind.SUSPECTED, connection, **detail)
        self.lines.disconnected(record.session_id, connection.cause or "")
        if self.ledger is not None and connection.cause is not None:
            self.ledger.ended(record, connection.cause, connection.last_seen_s)
        if connection.cause not in _RECORDS_ARE_ANOTHERS:
            self.keep_for_resume(connection, record)

    def on_socket_gone(self, connection: GatewayConnection) -> None:
        """Note the end of a socket that had a session."""
        if connection.record is not None and connection.connected_s:
            self.counters.ends.labels(connection.cause).inc()
            self._log(EventKind.SOCKET_CLOSED, connection)
            session, owner = connection.record.session_id, connection.record.owner
            self.lines.socket_gone(session, owner, has_records=connection.cause not in _RECORDS_ARE_ANOTHERS)

    def _on_cleared(self, record: Record, gone: bool) -> None:
        """Note that the records of an ended connection are gone, or another connection's."""
        if gone:
            self.lines.removed(record.session_id, record.owner, record.user_id)
        else:
            self.lines.resumed(record.owner)

    def keep_for_resume(self, connection: GatewayConnection, record: Record) -> None:
        """Keep the records of an ended connection for as long as its session may be resumed.

        With sessions that survive their connections a suspicion clears status and presence at once; after a close
        they stay for the resume window, so that a refresh is not seen by anybody.
        """
        if self.ledger is not None and not connection.connected_s and record.user_id:
            # It never was in service, but the store has it as the session's.
            cause = connection.cause or Cause.PROTOCOL_ERROR
            self.ledger.ended(record, cause, connection.last_seen_s)
        if self.draining and record.user_id:
            self.sessions.release(record)
        elif connection.cause in _NOT_RESUMABLE or (
            self.config.session_survives_connection and connection.cause not in _CLIENT_LIVES
        ):
            self.sessions.clear(record)
        else:
            window_s = self.config.policy.resume_window
            self.windows.open(record, connection.last_seen_s + window_s)

    def _refresh(self, connection: GatewayConnection) -> None:
        assert connection.record is not None
        self.sessions.refresh(connection.record, self.take_over)

    # -- one node among others ---------------------------------------------------------------------

    def _on_store_back(self) -> None:
        self.cluster.on_store_back()
        self.presence.on_store_back()

    def held(self) -> Iterator[Record]:
        """Return the records that this node answers for."""
        for connection in self.live.values():
            assert connection.record is not None
            yield connection.record
        yield from self.windows.waiting()

    def on_reaped(self, record: Record, dead: str, drained: bool) -> None:
        """Log a session of a node that ended, which this one has cleaned up; a suspicion, unless that node drained."""
        session, owner = record.session_id, record.owner
        if self.ledger is not None:
            self.ledger.ended(record, Cause.NODE_LEASE, None)
        if not drained:
            self.counters.suspicions.labels(Cause.NODE_LEASE).inc()
            about = {"user_id": record.user_id, "incarnation": dead}
            self.telemetry.log(EventKind.SUSPECTED, session, owner, Cause.NODE_LEASE, **about)
        self.lines.socket_gone(session, owner)
        self.lines.removed(session, owner, record.user_id)

    def end_session(self, owner: str, how: str) -> None:
        """End a connection whose session was ended here or on another node."""
        self._note_ended(owner, how)
        connection = self.live.get(owner)
        if connection is not None:
            kicked = how == "kicked"
            code, reason = (CLOSE_KICKED, "kicked") if kicked else (_CLOSE_NORMAL, "logged out")
            connection.shut(Cause.LOGOUT, code, reason)
            if connection.record is not None:
                self._on_cleared(connection.record, gone=True)

    def _note_ended(self, owner: str, how: str) -> None:
        self.windows.resumed(owner)
        if owner in self._admission.asking:
            self._admission.asking[owner] = how

    def _log(self, kind: EventKind, connection: GatewayConnection, **detail: Any) -> None:
        record = connection.record
        assert record is not None
        self.telemetry.log(kind, record.session_id, record.owner, connection.cause, **detail)


class _Pushes:
    """Application traffic to clients: data frames that nobody asked for, at random times on each connection.

    It stands for what an application says to its clients: load for a test.

    Args:
        config: its ``push_every_s`` (draws of the time between two bursts, real seconds), ``push_bytes`` (payload of
            a frame) and ``push_burst`` (frames together).
        rng: takes one of the draws for each burst.
    """

    def __init__(self, config: GatewayConfig, rng: np.random.Generator) -> None:
        self._every_s = np.array(config.push_every_s)
        frame = text_frame(orjson.dumps({"type": "data", "pad": "x" * config.push_bytes}))
        self._burst = [frame] * config.push_burst
        self._rng = rng

    def begin(self, connection: GatewayConnection) -> None:
        """Send to a connection from now on, until it ends."""
        get_running_loop().call_later(float(self._rng.choice(self._every_s)), self._push, connection)

    def _push(self, connection: GatewayConnection) -> None:
        if connection.phase is Phase.READY:
            for frame in self._burst:
                connection.send_frame(frame)
            self.begin(connection)


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(value, str) and 0 < len(value) <= MOST_ID_LENGTH for value in values)


def _report_failure(task: Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("a part of the gateway has failed", exc_info=error)
