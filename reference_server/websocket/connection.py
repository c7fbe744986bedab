"""One WebSocket: what its frames mean to the gateway, how its end is seen, how it is ended.

From an asyncio transport to a few verbs of the gateway (`Owner`). Bytes are parsed by the sans-I/O
`ServerProtocol` of `websockets`; frames are handled as soon as they are parsed: no task, no queue and no future a
connection, and nothing awaited. Decides nothing about sessions.

    OPENING ──handshake──► ANONYMOUS ──auth──► AUTHENTICATING ──records──► READY
       └────────────────────────┴──────────────────┴──────────── ended ─────┴──► ENDED ──► socket gone
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from contextlib import suppress
from enum import Enum, auto
from time import monotonic
from typing import Any, Protocol, cast

import orjson
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from reference_server.config import GatewayConfig
from reference_server.events import Cause
from reference_server.frames import PONG_TEXT, error_frame
from reference_server.heartbeat.scheduler import Heartbeat
from reference_server.sessions.records import Record
from reference_server.websocket.overload import ConnectionLimiter

__all__ = ["GatewayConnection", "Owner", "Phase", "cause_of_loss"]

_TEXT, _BINARY, _CONT, _CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE
_DATA = (_TEXT, _BINARY, _CONT)
_HEARTBEATS = ("pong", "heartbeat")  # types of messages: an answer, and the client's own
_LIBRARY_LOG = logging.getLogger("websockets.server")
_LIBRARY_LOG.setLevel(logging.WARNING)  # at DEBUG it writes out every frame, and so the tokens of clients
# The answer to a heartbeat on the wire: final text frame, masked, 15 bytes; 4 bytes of mask; the text.
_ANSWER_HEAD = bytes((0x80 | _TEXT, 0x80 | len(PONG_TEXT)))
_ANSWER_SIZE = 2 + 4 + len(PONG_TEXT)
_ANSWER_BITS = int.from_bytes(PONG_TEXT)
_HEAD_ENDS = b"\r\n\r\n"
_SLICE = 4096  # bytes parsed between two looks at the rate: 700 empty frames, a few milliseconds
_RATE_WINDOW_S = 1.0
_CLOSE_NO_CODE, _CLOSE_NOT_UTF8, _CLOSE_POLICY = 1005, 1007, 1008
_KERNEL_GAVE_UP = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


class Phase(Enum):
    """How far a connection has come."""

    OPENING = auto()
    ANONYMOUS = auto()
    AUTHENTICATING = auto()
    READY = auto()
    ENDED = auto()


# Asked at every heartbeat: Python 3.11 looks a member of an enum up slowly.
_OPENING, _READY, _OPEN = Phase.OPENING, Phase.READY, State.OPEN


class Owner(Protocol):
    """The gateway, as a connection sees it."""

    config: GatewayConfig
    limiter: ConnectionLimiter
    heartbeat_frame: bytes

    def refusal(self, target: str) -> tuple[int, str] | None:
        """Return the HTTP status and sentence that refuse a handshake for a path and query; None: accept it."""

    def on_handshake(self, connection: GatewayConnection, request: Request) -> None:
        """Take a connection whose handshake is over."""

    def on_refresh_due(self, connection: GatewayConnection, now_s: float) -> None:
        """Take note that a frame came on a READY connection after its ``refresh_due_s``."""

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


def _wire_size(frame: Frame) -> int:
    """Return how many bytes a client needs for a frame; one that wastes some is above it."""
    size = len(frame.data)
    return 6 + size + (0 if size < 126 else 2 if size < 65_536 else 8)


def _head_part(data: bytes) -> tuple[bytes, bytes]:
    """Return bytes that cannot go beyond the end of a request's head, and the rest."""
    end = data.find(_HEAD_ENDS) + len(_HEAD_ENDS)
    if end != len(data) or data[:1] in b"\r\n":  # nearly always it is one whole head; else line by line
        end = data.find(b"\n") + 1 or len(data)
    return data[:end], data[end:]


def cause_of_loss(error: BaseException | None) -> Cause:
    """Say which layer ended a TCP connection, from what the transport reports."""
    if error is None:
        return Cause.TCP_FIN
    if isinstance(error, ConnectionResetError):
        return Cause.TCP_RESET
    if isinstance(error, OSError) and error.errno in _KERNEL_GAVE_UP:
        return Cause.TCP_TIMEOUT
    return Cause.SEND_ERROR


class GatewayConnection(asyncio.Protocol):
    """A connection of the gateway."""

    __slots__ = (
        "__weakref__",
        "_behind",
        "_frames",
        "_frames_since_s",
        "_parser",
        "_parts",
        "_socket_is_gone",
        "_timer",
        "_unparsed",
        "cause",
        "close_code",
        "config",
        "connected_s",
        "heartbeat",
        "last_seen_s",
        "lost",
        "notes_beats",
        "owner",
        "phase",
        "record",
        "refresh_due_s",
        "trace",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, owner: Owner) -> None:
        self._parser = ServerProtocol(max_size=owner.config.max_message_bytes, logger=_LIBRARY_LOG)
        self.owner = owner
        self.config = owner.config
        self.phase = Phase.OPENING
        self.cause: Cause | None = None  # of its end
        self.close_code: int | None = None  # of the close frame that came
        self.record: Record | None = None  # from the moment that it authenticates
        self.heartbeat: Heartbeat | None = None
        self.lost: Cause | None = None  # how the peer's end was seen, where that is not acted on
        self.trace = False
        self.notes_beats = False  # each heartbeat is noted: traced, or log lines are wanted
        self.connected_s = 0.0  # when it became READY
        self.last_seen_s = 0.0  # the last frame, whatever it was
        self.refresh_due_s = float("inf")
        self._parts: bytearray | None = None  # of a fragmented message
        self._unparsed = 0  # bytes received that are not part of a parsed frame yet
        self._timer: asyncio.TimerHandle | None = None  # aborts: a handshake or a close too slow
        self._frames = 0  # since then, parsed ones; answers to heartbeats mostly are not
        self._frames_since_s = 0.0
        # Frames that wait for the loop's next turn; None: no work is done.
        self._behind: deque[Frame] | None = None
        self._socket_is_gone = False

    # -- the handshake -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket; the handshake is still to come."""
        self.transport = cast(asyncio.Transport, transport)
        self.owner.limiter.enter(self)
        self._abort_after(self.config.auth_timeout_s)

    def _shake_hands(self, data: bytes) -> None:
        parser = self._parser
        events: list[Any] = []
        # The parser would take what follows the request for frames, and it cannot bear those before its answer.
        while data and not (events or parser.close_expected()):
            part, data = _head_part(data)
            parser.receive_data(part)
            events = parser.events_received()
        if events and data:
            self.transport.abort()  # it does not wait for the answer: no WebSocket client
            return
        request: Request | None = None
        if events and not parser.close_expected():
            request = cast(Request, events[0])
            refusal = self.owner.refusal(request.path)
            parser.send_response(parser.reject(*refusal) if refusal else parser.accept(request))
        self._write(parser.data_to_send())
        if request is not None and parser.state is State.OPEN:
            self._cancel_timer()
            self.phase = Phase.ANONYMOUS
            self.last_seen_s = monotonic()
            self.owner.limiter.opening.discard(self)
            self.owner.on_handshake(self, request)
            request.headers.clear()  # the parser keeps the request for good: a third of a connection's memory
        elif parser.close_expected():
            self.transport.close()  # once the refusal is written

    # -- what comes in -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if self.phase is _OPENING:
            self._shake_hands(data)
            return
        if (
            len(data) == _ANSWER_SIZE
            and not self._unparsed
            and data.startswith(_ANSWER_HEAD)
            and int.from_bytes(data[6:]) ^ int.from_bytes(data[2:6] * 4) >> 8 == _ANSWER_BITS
            and self._parser.state is _OPEN
            and self._parts is None
        ):
            # The answer to a heartbeat, whole and alone: nearly all that ever comes in. The parser,
            # which stands between two frames, need not see it: a fifth of a heartbeat's cost.
            self._on_sign_of_life()
            return
        for start in range(0, len(data), _SLICE):
            if not self._parse(data[start : start + _SLICE]):
                return

    def _parse(self, data: bytes) -> bool:
        """Take some bytes; False: they were too many frames, and no more are wanted."""
        parser = self._parser
        self._unparsed += len(data)
        parser.receive_data(data)
        frames = cast(list[Frame], parser.events_received())
        for frame in frames:
            self._unparsed -= _wire_size(frame)
            if self._behind is None:
                self._on_frame(frame)
            else:
                self._behind.append(frame)
        answers = parser.data_to_send()  # pongs, or a close frame
        is_full = self.transport.get_write_buffer_size() > self.config.max_buffer_bytes
        if answers and not (parser.state is State.OPEN and is_full):
            self._write(answers)  # no pongs for one who reads nothing
        self._end_if_broken()
        return not frames or self._is_bearable(len(frames))

    def _end_if_broken(self) -> None:
        """End a connection whose parser has failed; a close frame that waits for its turn is none of that."""
        is_over = self.phase is Phase.ENDED or self.lost is not None or self._behind is not None
        if self._parser.state is not State.OPEN and not is_over:
            self._abort_after(self.config.close_timeout_s)
            self.end(Cause.PROTOCOL_ERROR)

    def work(self, seconds: float) -> None:
        """Keep the loop busy with a frame of this client; those behind it wait for the loop's next turn.

        So each client has one such frame a turn, in its own order, and timers and other clients have theirs.
        """
        until_s = monotonic() + seconds
        while monotonic() < until_s:
            pass
        if self._behind is None:
            self._behind = deque()
            if not self.transport.is_closing():
                self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Take the frames that wait, up to the next one that is work."""
        behind, self._behind = self._behind or deque(), None
        while behind and self._behind is None:
            self._on_frame(behind.popleft())
        if self._behind is None:
            self._end_if_broken()
            if not self.transport.is_closing():
                self.transport.resume_reading()
        else:
            self._behind = behind

    def _is_bearable(self, frames: int) -> bool:
        """Count frames, and close on one who sends too many of them in a second."""
        now_s = monotonic()
        if now_s - self._frames_since_s >= _RATE_WINDOW_S:
            self._frames, self._frames_since_s = 0, now_s
        self._frames += frames
        most = self.config.max_messages_per_s
        if most is None or self._frames <= most:
            return True
        if self.phase is Phase.ENDED:
            self.transport.abort()  # told already
        else:
            self.shut(Cause.PROTOCOL_ERROR, _CLOSE_POLICY, "too many messages")
            self.transport.pause_reading()  # the rest of the flood stays with its sender
        return False

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if self.config.policy.data_counts or opcode not in _DATA or frame.data == PONG_TEXT:
            self._on_sign_of_life()
        if opcode is _TEXT and frame.fin:
            if frame.data != PONG_TEXT:
                self._on_text(bytes(frame.data))
        elif opcode is _CLOSE:
            self.close_code = int.from_bytes(frame.data[:2]) if frame.data else _CLOSE_NO_CODE
            # The client may leave its end of TCP open for ever.
            self._abort_after(self.config.close_timeout_s)
            self._on_peer_end(Cause.CLOSE_FRAME)
        elif opcode is _TEXT or (opcode is _CONT and self._parts is not None):
            self._parts = parts = self._parts or bytearray()
            parts += frame.data  # max_size bounds the sum
            if frame.fin:
                self._parts = None
                self._on_text(bytes(parts))
        elif opcode is _BINARY:
            self.send_error("binary_unsupported", "messages are JSON in text frames")

    def _on_sign_of_life(self) -> None:
        self.last_seen_s = now_s = monotonic()
        if self.phase is _READY:
            if self.heartbeat is not None:
                self.heartbeat.on_inbound(now_s)
            if now_s >= self.refresh_due_s:
                self.owner.on_refresh_due(self, now_s)

    def _on_text(self, text: bytes) -> None:
        try:
            message = orjson.loads(text.decode())
        except UnicodeDecodeError:
            self.shut(Cause.PROTOCOL_ERROR, _CLOSE_NOT_UTF8, "not UTF-8")
            return
        except orjson.JSONDecodeError:
            self.send_error("malformed", "the message is not JSON")
            return
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            self.send_error("malformed", 'a message is a JSON object with a "type"')
            return
        if message["type"] in _HEARTBEATS and not self.config.policy.data_counts:
            self._on_sign_of_life()
        if self.phase is not Phase.ENDED and message["type"] != "pong":
            self.owner.on_message(self, message)

    # -- what goes out: nothing of this waits ----------------------------------------------------

    def send_frame(self, frame: bytes) -> bool:
        """Write a frame made beforehand; False: the connection is ending, or its buffer is full."""
        transport = self.transport
        if (
            self._parser.state is not _OPEN
            or transport.is_closing()
            or transport.get_write_buffer_size() > self.config.max_buffer_bytes
        ):
            return False
        transport.write(frame)
        return True

    def _write(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if piece != SEND_EOF:
                self.transport.write(piece)
            elif not self.transport.is_closing():
                with suppress(OSError, RuntimeError):  # the peer was faster
                    self.transport.write_eof()

    def send_error(self, code: str, message: str) -> None:
        """Tell the client what is wrong."""
        self.send_frame(error_frame(code, message))

    def send_heartbeat(self, now_s: float) -> None:
        """Write a heartbeat; one that cannot be written is one that nobody answers."""
        if self.send_frame(self.owner.heartbeat_frame) and self.notes_beats:
            self.owner.on_traced_heartbeat(self)

    # -- its end ---------------------------------------------------------------------------------

    def end(self, cause: Cause) -> None:
        """Note the end once, by the layer that saw it first; the socket is left as it is."""
        if self.phase is Phase.ENDED:
            return
        was, self.phase, self.cause = self.phase, Phase.ENDED, cause
        if was is Phase.OPENING:
            self.owner.limiter.opening.discard(self)
        self.owner.on_ended(self, was)
        if self._socket_is_gone:  # the socket went before anybody acted on it
            self.owner.on_socket_gone(self)

    def drop(self, cause: Cause) -> None:
        """End a connection that is believed dead."""
        self.end(cause)
        # abort, not close: a closing handshake would wait for a peer that is silent.
        self.transport.abort()

    def shut(self, cause: Cause, code: int, reason: str) -> None:
        """End a connection that is believed alive: close frame, and abort if it takes too long."""
        self.end(cause)
        if self._parser.state is State.OPEN and not self.transport.is_closing():
            self._parser.send_close(code, reason)
            self._write(self._parser.data_to_send())
        self._abort_after(self.config.close_timeout_s)

    def eof_received(self) -> None:
        """Take a FIN: after it the client can hear, but it has nothing more to say."""
        self._on_peer_end(Cause.TCP_FIN)  # and asyncio closes the transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the socket is gone."""
        self._cancel_timer()
        self._on_peer_end(cause_of_loss(exc))
        self._socket_is_gone = True
        # It refers to itself through these two, and full collections nearly never come (`__main__.py`).
        self._parser.parser.close()
        self._parser.parser_exc = None
        self.owner.limiter.leave(self)
        if self.phase is Phase.ENDED:
            self.owner.on_socket_gone(self)
        else:
            self.owner.on_socket_lost(self)

    def _on_peer_end(self, cause: Cause) -> None:
        """Take what the peer or the kernel says, as far as close detection acts on it."""
        if self.phase is Phase.ENDED:
            return
        acts_on = self.config.policy.close_detection
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
            if self.heartbeat is not None:
                self.heartbeat.detector.on_socket_closed()

    def _abort_after(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.transport.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
