"""One WebSocket: what its frames mean to the gateway, how its end is seen, how it is ended.

From the callbacks of `websockets` to a few verbs of the gateway (`Owner`). Frames are handled where the
library parses them: no queue, no wake-up of the library's task for a frame, nothing awaited. Decides
nothing about sessions.

    OPENING ──handshake──► ANONYMOUS ──auth──► AUTHENTICATING ──records──► READY
       └────────────────────────┴──────────────────┴──────────── ended ─────┴──► ENDED ──► socket gone
"""

from __future__ import annotations

import errno
import logging
from asyncio import BaseTransport, TimerHandle, Transport
from enum import Enum, auto
from time import monotonic
from typing import Any, Protocol, cast

import orjson
from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from reference_server.events import Cause
from reference_server.heartbeat.scheduler import Beat, SocketBeat
from reference_server.sessions.records import Record
from reference_server.websocket.frames import PONG_TEXT, error_frame
from reference_server.websocket.overload import Door

__all__ = ["GatewayConnection", "Owner", "Phase", "cause_of_loss"]

_TEXT, _BINARY, _CONT, _CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE
# One for all connections: a LoggerAdapter each, as the library makes, costs half a kilobyte.
_LIBRARY_LOG = logging.getLogger("websockets.server")
# The answer to a heartbeat on the wire: final text frame, masked, 15 bytes; 4 bytes of mask; the text.
_ANSWER_HEAD = bytes((0x80 | _TEXT, 0x80 | len(PONG_TEXT)))
_ANSWER_SIZE = 2 + 4 + len(PONG_TEXT)
_ANSWER_BITS = int.from_bytes(PONG_TEXT)
_SLICE = 4096  # bytes parsed between two looks at the rate: 700 empty frames, a few milliseconds
_RATE_WINDOW_S = 1.0
_CLOSE_NOT_UTF8, _CLOSE_POLICY = 1007, 1008
_KERNEL_GAVE_UP = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


class Phase(Enum):
    """How far a connection has come."""

    OPENING = auto()
    ANONYMOUS = auto()
    AUTHENTICATING = auto()
    READY = auto()
    ENDED = auto()


class Owner(Protocol):
    """The gateway, as a connection sees it."""

    heartbeat_frame: bytes
    max_buffer_bytes: int
    max_messages_per_s: float
    close_timeout_s: float
    door: Door
    close_detection: str  # of LivenessPolicy

    def on_life(self, connection: GatewayConnection, now_s: float) -> None:
        """Take a frame of a READY connection, whatever it says."""

    def on_message(self, connection: GatewayConnection, message: dict[str, Any]) -> None:
        """Take a JSON message other than the exact answer to a heartbeat."""

    def on_traced_heartbeat(self, connection: GatewayConnection) -> None:
        """Take note that a heartbeat was written on a connection that is traced."""

    def on_ended(self, connection: GatewayConnection, was: Phase) -> None:
        """Take note of a connection's end, its ``cause`` being known; the socket may still stand."""

    def on_socket_gone(self, connection: GatewayConnection) -> None:
        """Take note that the socket is gone."""

    def on_socket_lost(self, connection: GatewayConnection) -> None:
        """Take note that the socket is gone and close detection does not act on it; see ``lost``."""


class _NoMessages:
    """Stands in for the library's queue of incoming messages, which nothing here reads."""

    def close(self) -> None:
        """Do nothing: there is nobody to wake."""


_NO_MESSAGES: Any = _NoMessages()


def _wire_size(frame: Frame) -> int:
    """Return how many bytes a client needs for a frame; one that wastes some is above it."""
    size = len(frame.data)
    return 6 + size + (0 if size < 126 else 2 if size < 65_536 else 8)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def cause_of_loss(error: BaseException | None) -> Cause:
    """Say which layer ended a TCP connection, from what the transport reports."""
    if error is None:
        return Cause.TCP_FIN
    if isinstance(error, ConnectionResetError):
        return Cause.TCP_RESET
    if isinstance(error, OSError) and error.errno in _KERNEL_GAVE_UP:
        return Cause.TCP_TIMEOUT
    return Cause.SEND_ERROR


class GatewayConnection(ServerConnection):
    """A connection of the gateway; `websockets.serve` makes them, see ``create_connection``."""

    __slots__ = ("_abort_timer", "_parts", "_taken", "_taken_since_s", "_unparsed", "beat", "cause",
                 "connected_s", "last_seen_s", "lost", "notes_beats", "owner", "phase", "record",
                 "refresh_due_s", "socket_beat", "trace")  # fmt: skip

    def __init__(
        self, protocol: ServerProtocol, server: Server, *, owner: Owner, **options: Any
    ) -> None:
        super().__init__(protocol, server, **options)
        self.protocol.logger = self.logger = _LIBRARY_LOG
        self.owner = owner
        self.phase = Phase.OPENING
        self.cause: Cause | None = None  # of its end
        self.record: Record | None = None  # from the moment that it authenticates
        self.beat: Beat | None = None
        self.socket_beat: SocketBeat | None = None
        self.lost: Cause | None = None  # how the peer's end was seen, where that is not acted on
        self.trace = False
        self.notes_beats = False  # each heartbeat is noted: traced, or log lines are wanted
        self.connected_s = 0.0  # when it became READY
        self.last_seen_s = 0.0  # the last frame, whatever it was
        self.refresh_due_s = float("inf")
        self._parts: bytearray | None = None  # of a fragmented message
        self._unparsed = 0  # bytes received that are not part of a parsed frame yet
        self._abort_timer: TimerHandle | None = None
        self._taken = 0  # frames that went through the parser, answers to heartbeats mostly do not
        self._taken_since_s = 0.0

    def connection_made(self, transport: BaseTransport) -> None:
        """Take the socket; the handshake is still to come."""
        self.owner.door.enter(self)
        super().connection_made(transport)

    def opened(self) -> str:
        """Begin, the handshake being over, and return the path asked for.

        What only the handshake needed is let go: it is a third of what a connection would weigh.
        """
        assert self.request is not None
        path = self.request.path
        if self.phase is Phase.OPENING:
            self.phase = Phase.ANONYMOUS
            self.owner.door.handshake_over(self)
        self.last_seen_s = monotonic()
        self.request = self.response = None
        self.request_rcvd = cast(Any, None)
        self.recv_messages = _NO_MESSAGES
        return path

    # -- what comes in -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if self.phase is Phase.OPENING:
            super().data_received(data)
            return
        protocol = self.protocol
        if (
            len(data) == _ANSWER_SIZE
            and not self._unparsed
            and data.startswith(_ANSWER_HEAD)
            and int.from_bytes(data[6:]) ^ int.from_bytes(data[2:6] * 4) >> 8 == _ANSWER_BITS
            and protocol.state is State.OPEN
            and self._parts is None
        ):
            # The answer to a heartbeat, whole and alone: nearly all that ever comes in. The parser,
            # which stands between two frames, need not see it: a fifth of a heartbeat's cost.
            self._on_frame()
            return
        for start in range(0, len(data), _SLICE):
            if not self._parse(data[start : start + _SLICE]):
                return

    def _parse(self, data: bytes) -> bool:
        """Take some bytes; False: they were too many frames, and no more are wanted."""
        protocol = self.protocol
        self._unparsed += len(data)
        protocol.receive_data(data)
        events = protocol.events_received()
        for event in events:
            self._unparsed -= _wire_size(cast(Frame, event))
            self.process_event(event)
        if protocol.writes:  # a pong or a close frame: rare, so the library's loop is not entered
            if protocol.state is State.OPEN and self._is_full():
                protocol.writes.clear()  # pongs for one who reads nothing
            else:
                self.send_data()
        if protocol.state is not State.OPEN and self.phase is not Phase.ENDED and self.lost is None:
            self._abort_later()
            self.end(Cause.PROTOCOL_ERROR)
        return not events or self._is_bearable(len(events))

    def _is_bearable(self, frames: int) -> bool:
        """Count frames, and close on one who sends too many of them in a second."""
        now_s = monotonic()
        if now_s - self._taken_since_s >= _RATE_WINDOW_S:
            self._taken, self._taken_since_s = 0, now_s
        self._taken += frames
        if self._taken <= self.owner.max_messages_per_s:
            return True
        if self.phase is Phase.ENDED:
            self.transport.abort()  # told already
        else:
            self.shut(Cause.PROTOCOL_ERROR, _CLOSE_POLICY, "too many messages")
            self.transport.pause_reading()  # the rest of the flood stays with its sender
        return False

    def process_event(self, event: Event) -> None:
        """Take a parsed frame, or the handshake's request."""
        if self.phase is Phase.OPENING:
            if self.request is None:
                super().process_event(event)
            else:
                self.transport.abort()  # frames before the handshake is over: no WebSocket client
            return
        frame = cast(Frame, event)
        self._on_frame()
        opcode = frame.opcode
        if opcode is _TEXT and frame.fin:
            if frame.data != PONG_TEXT:
                self._on_text(bytes(frame.data))
        elif opcode is _CLOSE:
            self._abort_later()  # the client may leave its end of TCP open for ever
            self._on_peer_end(Cause.CLOSE_FRAME)
        elif opcode is _TEXT or (opcode is _CONT and self._parts is not None):
            self._parts = parts = self._parts or bytearray()
            parts += frame.data  # max_size bounds the sum
            if frame.fin:
                self._parts = None
                self._on_text(bytes(parts))
        elif opcode is _BINARY:
            self.send_error("binary_unsupported", "messages are JSON in text frames")

    def _on_frame(self) -> None:
        self.last_seen_s = now_s = monotonic()
        if self.phase is Phase.READY:
            self.owner.on_life(self, now_s)

    def _on_text(self, text: bytes) -> None:
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            if _is_utf8(text):
                self.send_error("malformed", "the message is not JSON")
            else:
                self.shut(Cause.PROTOCOL_ERROR, _CLOSE_NOT_UTF8, "not UTF-8")
            return
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            self.send_error("malformed", 'a message is a JSON object with a "type"')
        elif self.phase is not Phase.ENDED and message["type"] != "pong":
            self.owner.on_message(self, message)

    # -- what goes out: nothing of this waits ----------------------------------------------------

    def send_frame(self, frame: bytes) -> bool:
        """Write a frame made beforehand; False: the connection is ending, or its buffer is full."""
        transport = self.transport
        if (
            self.protocol.state is not State.OPEN
            or transport.is_closing()
            or transport.get_write_buffer_size() > self.owner.max_buffer_bytes
        ):
            return False
        transport.write(frame)
        return True

    def _is_full(self) -> bool:
        return self.transport.get_write_buffer_size() > self.owner.max_buffer_bytes

    def send_error(self, code: str, message: str) -> None:
        """Tell the client what is wrong."""
        self.send_frame(error_frame(code, message))

    def send_heartbeat(self, now_s: float) -> None:
        """Write a heartbeat; one that cannot be written is one that nobody answers."""
        if self.send_frame(self.owner.heartbeat_frame) and self.notes_beats:
            self.owner.on_traced_heartbeat(self)

    # -- its end ---------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the socket looks open from here; a half-open one does."""
        return self.protocol.state is State.OPEN and not self.transport.is_closing()

    def end(self, cause: Cause) -> None:
        """Note the end once, by the layer that saw it first; the socket is left as it is."""
        if self.phase is Phase.ENDED:
            return
        was, self.phase, self.cause = self.phase, Phase.ENDED, cause
        if was is Phase.OPENING:
            self.owner.door.handshake_over(self)
        self.owner.on_ended(self, was)
        if self.connection_lost_waiter.done():  # the socket went before anybody acted on it
            self.owner.on_socket_gone(self)

    def drop(self, cause: Cause) -> None:
        """End a connection that is believed dead."""
        self.end(cause)
        # abort, not close: a closing handshake would wait for a peer that is silent.
        self.transport.abort()

    def shut(self, cause: Cause, code: int, reason: str) -> None:
        """End a connection that is believed alive: close frame, and abort if it takes too long."""
        self.end(cause)
        if self.protocol.state is State.OPEN and not self.transport.is_closing():
            self.protocol.send_close(code, reason)
            self.send_data()
        self._abort_later()

    def eof_received(self) -> None:
        """Take a FIN: after it the client can hear, but it has nothing more to say."""
        self._on_peer_end(Cause.TCP_FIN)
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the socket is gone."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
        self._on_peer_end(cause_of_loss(exc))
        super().connection_lost(exc)
        self.owner.door.leave()
        if self.phase is Phase.ENDED:
            self.owner.on_socket_gone(self)
        else:
            self.owner.on_socket_lost(self)

    def _on_peer_end(self, cause: Cause) -> None:
        """Take what the peer or the kernel says, as far as close detection acts on it."""
        if self.phase is Phase.ENDED:
            return
        acts_on = self.owner.close_detection
        if (
            acts_on == "all"
            or self.phase is not Phase.READY
            or (acts_on == "frames" and cause is Cause.CLOSE_FRAME)
        ):
            if cause is not Cause.TCP_TIMEOUT:
                self.last_seen_s = monotonic()  # the peer's kernel said so itself
            self.end(cause)
        elif self.lost is None:
            self.lost = cause

    def _abort_later(self) -> None:
        if self._abort_timer is None:
            transport: Transport = self.transport
            self._abort_timer = self.loop.call_later(self.owner.close_timeout_s, transport.abort)
