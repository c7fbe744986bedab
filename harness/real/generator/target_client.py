"""A client of a server that is not ours: the same life and the same faults, in the words of a dialect.

From a target's URL and dialect to a connection. A connection is a session of its own: such a server has nothing that a
client could come back to. Some are canaries (`canaries.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from harness.real.dialects import Answer, Dialect, PeerGone, Ready, Refused, Who
from harness.real.frames import frame_of, message_of
from harness.real.generator.client import Client, ConnectRefused
from harness.real.generator.gateway_client import TIMEOUT_S, LoginRefused
from harness.real.generator.shared import Generator
from harness.real.generator.websocket import ConnectionEnded, WebSocketConnection
from reference_server.events import Cause, EventKind
from scenarios.faults import ClientGone, PageReloaded, PlannedFault
from scenarios.target import at_json_path, filled, filled_in

__all__ = ["TargetClient", "client_of"]

_CANARY = b"canary"
_REVIVAL = b"revival"
_AT_ONCE_S = 0.1  # real seconds: a kernel that knows a connection no more answers within a round trip
_CLIENT = re.compile(r"c(\d+)x\d+|user-(\d+)")


def client_of(index: int, run: Generator) -> Client:
    """The client of a plan, for the server that the scenario is about."""
    return Client(index, run) if run.scenario.target is None else TargetClient(index, run)


class TargetClient(Client):
    """One user of a server that is not ours."""

    __slots__ = ("_asks", "_connections", "_dialect", "_taken")

    def __init__(self, index: int, run: Generator) -> None:
        super().__init__(index, run)
        self._connections = 0
        self._dialect: Dialect | None = None
        self._taken: dict[str, str] = {}  # from the login's answer
        self._asks: tuple[PlannedFault, float] | None = None  # whether it is still held, and since when

    def _login(self) -> None:
        """Call the target's login, if it has one; else the handshake or the dialect says who it is."""
        target = self.run.scenario.target
        assert target is not None
        if target.login is None:
            return
        words = {"user": self.user_id, "index": self.index}
        answer = self.run.gateways.login_elsewhere(filled_in(target.login.json_body, words))
        found = {name: at_json_path(answer, path) for name, path in target.login.take.items()}
        if lacking := [target.login.take[name] for name, value in found.items() if value is None]:
            raise LoginRefused(f"no {', '.join(lacking)} in {answer}"[:200])
        self._taken = {name: str(value) for name, value in found.items()}

    def _connect(self) -> Iterator[Frame]:
        run = self.run
        assert run.scenario.target is not None and run.dialect is not None
        target = run.scenario.target
        began_s = run.now_s()
        self._connections += 1
        name = f"c{self.index}x{self._connections}"
        beat_s = float("inf") if run.beats_every_s is None else run.beats_every_s
        watched = tuple(f"user-{client}" for client in run.plan.watches.get(self.index, ()))
        who = Who(name, self.user_id, self.index, beat_s, watched, self._taken)
        dialect = run.dialect(who, **target.dialect_options)
        subprotocol = target.connect.subprotocol or dialect.subprotocol
        wire = WebSocketConnection.connect(
            parse_uri(filled(run.gateways.url, who.words)),
            TIMEOUT_S,
            run.gateways.source(self.index),
            {key: filled(value, who.words) for key, value in target.connect.headers.items()},
            subprotocol,
            run.gateways.tls,
        )
        try:
            for message in dialect.opening():
                wire.send(frame_of(message))
            at_once = dialect.ready_at_once  # a ping may have come with the handshake's answer
            frames = wire.frames(b"") if at_once else self._await_consent(wire, dialect, began_s)
            ends = {"address": _address(wire.sock.getsockname()), "server": _address(wire.sock.getpeername())}
        except BaseException as error:
            wire.sock.close()
            if isinstance(error, ConnectRefused):
                self.session_id = ""  # what the login gave may be over: the next attempt logs in again
            raise
        self.wire, self._dialect = wire, dialect
        self.on_heartbeat = self.hold_back = self._box = None
        self._healing = self._asks = None
        self.session_id = self.connection_id = name
        self.last_packet_s = self._heard_s = now_s = run.now_s()
        detail = {"client": self.index, "user_id": self.user_id, "resumed": False, "took_s": now_s - began_s}
        detail |= wire.about_tls
        if target.login is not None and target.login.known_as is not None:
            ends["known_as"] = self._taken[target.login.known_as]
        self._log(EventKind.CONNECTED, node="node-1", detail=detail | ends)
        run.on_request("WSC", "connect", (now_s - began_s) * 1000, None)
        if self.index in run.canaries:
            run.canaries.join(self, now_s)
        return frames

    def _await_consent(self, wire: WebSocketConnection, dialect: Dialect, began_s: float) -> Iterator[Frame]:
        """Follow the dialect until the server has taken the client in; return the frames after that."""
        while (left_s := began_s + TIMEOUT_S - self.run.now_s()) > 0:
            frames = iter(wire.wait(left_s))
            for frame in frames:
                if frame.opcode is Opcode.PING:
                    wire.send(Frame(Opcode.PONG, frame.data))
                elif frame.opcode is not Opcode.PONG:
                    items = dialect.receive(message_of(frame))
                    for item in items:
                        match item:
                            case Answer():
                                wire.send(frame_of(item.message))
                            case Refused():
                                raise ConnectRefused(item.reason)
                    if any(isinstance(item, Ready) for item in items):
                        return frames
        raise ConnectionEnded(Cause.PROTOCOL_ERROR, reason="the server has not taken the client in")

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._on_heartbeat(Frame(Opcode.PONG, frame.data))
            return
        self.last_packet_s = self._heard_s = now_s = self.run.now_s()
        if frame.opcode is Opcode.PONG:
            if self._asks is not None and frame.data == _REVIVAL:
                self._revived(False, "pong")
            elif self._is_canarys(frame):
                self.run.canaries.answered(self, now_s)
            elif self.beats_by_itself:
                self._heard()
            return
        assert self._dialect is not None
        items = self._dialect.receive(message_of(frame))
        if not any(isinstance(item, Answer) and item.heartbeat for item in items):
            if self._box is not None and not self._box.read(now_s, is_data=True):
                return
            if self.beats_by_itself:
                self._heard()
        for item in items:
            match item:
                case Answer(heartbeat=True):
                    self._on_heartbeat(frame_of(item.message))
                case Answer():
                    self._send(frame_of(item.message))
                case PeerGone():
                    self._told_of(item.who)
                case Refused():
                    assert self.wire is not None
                    self.wire.sock.close()
                    raise ConnectionEnded(Cause.PROTOCOL_ERROR, reason=item.reason)

    def _told_of(self, who: str) -> None:
        """Log that another one has gone, whether its connection was named or its user, if this client watches it."""
        client = _CLIENT.fullmatch(who)
        if client is not None and int(client[1] or client[2]) in self.run.plan.watches.get(self.index, ()):
            detail = {"user_id": who, "watcher": self.index}
            self.run.log(EventKind.PEER_NOTIFIED, session_id=who, detail=detail)

    def _send_heartbeat(self) -> None:
        assert self._dialect is not None
        if self.on_heartbeat is not None:
            super()._send_heartbeat()
            return
        message = self._dialect.beat()
        self._send(Frame(Opcode.PING, b"") if message is None else frame_of(message))

    # -- revival -----------------------------------------------------------------------------------

    def healed(self, fault: PlannedFault) -> None:
        """Log it, and ask whether the server still holds this client: a stream keeps its order, so a pong that comes
        before the end of the connection says that it did.
        """
        super().healed(fault)
        target = self.run.scenario.target
        if target is not None and target.witnesses.revival and self.wire is not None:
            self._asks = (fault, self.run.now_s())
            self._send(Frame(Opcode.PING, _REVIVAL))

    def _over(self, end: ClientGone | PageReloaded | ConnectionEnded) -> None:
        if self._asks is not None and isinstance(end, ConnectionEnded):
            self._revived(self._was_gone(end.cause), end.cause)
        super()._over(end)

    def _was_gone(self, cause: Cause) -> bool | None:
        """Whether the server had given it up when it asked, by how the connection ended then; None: that does not tell.

        An RST overtakes what is kept. At once it is the answer to the asking; later the server's kernel still had the
        connection, and whether it was waiting for the answer to a close frame nobody knows.
        """
        assert self._asks is not None and self.run.scenario.target is not None
        if cause in (Cause.CLOSE_FRAME, Cause.TCP_FIN):
            return True
        if cause in (Cause.TCP_RESET, Cause.SEND_ERROR):
            if self.run.now_s() - self._asks[1] <= _AT_ONCE_S:
                return True
            return None if self.run.scenario.target.heartbeat.socket_lag > 0 else False
        return None

    def _revived(self, gone: bool | None, how: str) -> None:
        assert self._asks is not None
        fault, self._asks = self._asks[0], None
        self._log(EventKind.REVIVED, detail={"fault_id": fault.fault_id, "gone": gone, "how": how})

    # -- canaries ----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether it has a connection."""
        return self.wire is not None and not self._gone

    def ping(self) -> bool:
        """Ping the server; whether that could be sent."""
        sent = False

        def send() -> None:
            nonlocal sent
            sent = self._send(Frame(Opcode.PING, _CANARY))

        self._guarded(send)
        return sent

    def _is_canarys(self, pong: Frame) -> bool:
        """Whether a pong answers a canary's ping, or says at least nothing else."""
        mine = pong.data == _CANARY or not (pong.data or self.beats_by_itself)
        return mine and self.index in self.run.canaries


def _address(name: Any) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
