"""A client that knows its server from the outside only, and the witness of revival.

    client           |  server
    answers          |  pings
    cut or frozen    |  …                       the kernel drops what arrives, or its process reads nothing
    asks: one ping   |                          after a moment that somebody chose
    pong             |  it still held the client                                       held
    close frame, FIN |  it had decided before, or its kernel knows the connection no more  gone
    or RST at once   |

One bit a client. A stream keeps its order, so a pong before a close frame or FIN says that the server decided after it
was asked. After a cut an answer comes with TCP's next retransmission. An RST overtakes what is kept: one that comes
later than a round trip says that the server's kernel still had the connection when it was asked.

Own sockets in one asyncio loop, no thread; knows no run, no scenario and no event log. Decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from harness.real.dialects import Answer, Dialect, Message, Ready, Refused, Who
from harness.real.frames import FrameReader, frame_of, message_of
from harness.real.network.silence import attach, detach
from scenarios.target import filled

__all__ = [
    "End",
    "Manners",
    "NobodyListens",
    "OutsideClient",
    "OutsideServer",
    "Refusal",
    "Revival",
    "Silence",
    "declares_beat",
]

Silence = Literal["cut", "freeze"]
"""How a client falls silent: its kernel drops what arrives; or its process reads nothing, and its kernel goes on."""

CONNECT_TIMEOUT_S = 10.0
_CHUNK = 65536
_SAMPLE = 120  # characters of a message that nobody answers
_SAMPLES = 5
_AT_ONCE_S = 0.1  # beyond a round trip: the answer of a kernel that knows the connection no more


class Refusal(Exception):
    """No connection: the sentence says what came instead."""


class NobodyListens(Refusal):
    """The port refuses: the server was not started, or is gone."""


@dataclass(frozen=True, slots=True)
class OutsideServer:
    """Where a server is and how it is spoken to.

    Attributes:
        url: ws://…, with {client}, {user}, {index} in it where the server wants names.
        address: what its host was resolved to: IP address and port.
        tls: whom to trust, where the URL says wss; None: no TLS.
    """

    url: str
    address: tuple[str, int]
    dialect: type[Dialect]
    options: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    subprotocol: str | None = None
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Manners:
    """What a client does of itself: it answers pings of the protocol, answers heartbeats of the dialect, beats.

    Attributes:
        beat_s: how often it beats; None: never.
        first_beat_s: when it does so first; None: after ``beat_s``.
    """

    pongs: bool = True
    answers: bool = True
    beat_s: float | None = None
    first_beat_s: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended as its client saw it; times on the client's clock.

    Attributes:
        how: close_frame, fin or reset.
        time_s: when the server's word came: a close frame, or the end of the stream.
        code: of the close frame.
        socket_s: when TCP ended; equal to ``time_s`` without a close frame, infinite where it has not yet.
    """

    how: Literal["close_frame", "fin", "reset", "protocol_error"]
    time_s: float
    code: int | None = None
    reason: str = ""
    socket_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class Revival:
    """What a revived client was told: whether the server had given it up; None: nothing came, or nothing that tells."""

    gone: bool | None
    silent_s: float
    how: str
    code: int | None = None


class OutsideClient:
    """One connection. `open` it; then it lives by itself, until it is silenced, revived or closed."""

    def __init__(self, server: OutsideServer, index: int, manners: Manners, declared_beat_s: float) -> None:
        self.manners = manners
        self.end: End | None = None
        self.over = asyncio.Event()  # with the end of the stream
        self.connected_s = self.sent_s = float("nan")
        self.heard_s: dict[str, list[float]] = {"ping": [], "heartbeat": [], "message": []}
        self.samples: list[str] = []
        self.frames: Counter[str] = Counter()  # in, out, bytes_in, bytes_out
        self.round_trips_s: list[float] = []
        self._server = server
        self._who = Who(f"c{index}x1", f"user-{index}", index, declared_beat_s)
        self._dialect = server.dialect(self._who, **server.options)
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._reader = FrameReader()
        self._tls: _Tls | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._beat: asyncio.TimerHandle | None = None
        self._opened: list[Message] = []
        self._first: list[Message] = []
        self._silent: Silence | None = None
        self._silenced_s = 0.0
        self._asked: tuple[bytes, float, asyncio.Future[None]] | None = None

    # -- life ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and follow the dialect until the server has taken the client in.

        Raises:
            Refusal: it has not.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                rest = await self._shake_hands()
                assert self._sock is not None
                self.connected_s = self.sent_s = time.monotonic()
                self._opened = list(self._dialect.opening())
                for message in self._opened:
                    self._send(frame_of(message))
                if self._dialect.ready_at_once:
                    self._ready.set_result(None)
                self._loop.add_reader(self._sock, self._on_readable)
                if rest:
                    self._take(rest)
                await self._ready
        except TimeoutError as error:
            self.close()
            raise Refusal(f"no answer within {CONNECT_TIMEOUT_S:g} s") from error
        except Refusal:
            self.close()
            raise
        if self.manners.beat_s is not None:
            first_s = self.manners.first_beat_s or self.manners.beat_s
            self._beat = self._loop.call_later(first_s, self._send_beat)

    async def _shake_hands(self) -> bytes:
        """Connect and upgrade; return what came after the server's consent."""
        server, who = self._server, self._who
        words = {"client": who.client, "user": who.user, "index": who.index}
        uri = parse_uri(filled(server.url, words))
        family = socket.AF_INET6 if ":" in server.address[0] else socket.AF_INET
        self._sock = sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        wanted = server.subprotocol or server.dialect.subprotocol
        protocol = ClientProtocol(uri, subprotocols=None if wanted is None else [Subprotocol(wanted)])
        request = protocol.connect()
        for name, value in server.headers.items():
            request.headers[name] = filled(value, words)
        protocol.send_request(request)
        data = b""
        try:
            await self._loop.sock_connect(sock, server.address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.tls is not None:
                self._tls = _Tls(server.tls, uri.host)
                await self._tls.shake_hands(self._loop, sock)
            await self._loop.sock_sendall(sock, self._sealed(b"".join(protocol.data_to_send())))
            while b"\r\n\r\n" not in data:
                chunk = await self._loop.sock_recv(sock, _CHUNK)
                if chunk and self._tls is not None:
                    data += self._tls.opened(chunk)
                    continue
                if not chunk:
                    raise Refusal(
                        f"it closed the connection instead of an answer to the handshake{_said(data)}"
                    )
                data += chunk
                if not data.startswith(b"HTTP/"[: len(data)]):
                    raise Refusal(f"it speaks no HTTP{_said(data)}")
        except ssl.SSLError as error:
            raise Refusal(f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}") from error
        except ConnectionRefusedError as error:
            raise NobodyListens(
                "nobody listens there (connection refused): start the server first, or mend the host or the port"
            ) from error
        except OSError as error:
            raise Refusal(str(error.strerror or error)) from error
        head, end, rest = data.partition(b"\r\n\r\n")
        accepted = head.split(b" ")[1:2] == [b"101"]
        protocol.receive_data(head + end if accepted else data)
        if not accepted:
            protocol.receive_eof()
            raise Refusal(
                f"it answers the handshake with {head.splitlines()[0].decode(errors='replace')[:100]}"
            )
        events = protocol.events_received()
        if protocol.handshake_exc is not None:
            raise Refusal(str(protocol.handshake_exc)) from protocol.handshake_exc
        if not events or not isinstance(events[0], Response):
            raise Refusal(f"it answers no handshake{_said(data)}") from InvalidHandshake()
        return rest

    def ends(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """The server's and the client's address; None: it is not connected."""
        if self._sock is None or self._sock.fileno() < 0:
            return None
        with suppress(OSError):
            return self._sock.getpeername()[:2], self._sock.getsockname()[:2]
        return None

    def ping(self) -> None:
        """Send a ping of the protocol, to see how long the answer takes."""
        if self.end is None and self._asked is None and self._silent is None:
            self._asked = (os.urandom(4), time.monotonic(), self._loop.create_future())
            self._send(Frame(Opcode.PING, self._asked[0]))

    @property
    def is_echoed(self) -> bool:
        """Whether the server has said nothing but what this client had said: that is no consent."""
        return bool(self._first) and set(self._first) <= set(self._opened)

    @property
    def is_ready(self) -> bool:
        """Whether the server has taken it in."""
        return self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None

    def stop_beating(self) -> None:
        """Send no heartbeat of its own any more."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def silence(self, how: Silence) -> None:
        """Fall silent: from now on nothing is read and nothing is sent.

        Raises:
            OSError: the kernel refuses a filter.
        """
        assert self._sock is not None
        self._silent, self._silenced_s = how, time.monotonic()
        self.stop_beating()
        self._loop.remove_reader(self._sock)
        if how == "cut":
            attach(self._sock)

    async def revive(self, *, round_trip_s: float, closes_in_order: bool) -> Revival:
        """Hear and speak again, ask once, and return what the server says.

        Args:
            round_trip_s: a usual one: what comes within it and a little more is an answer to the asking.
            closes_in_order: whether this server sends close frames: an RST that comes late may then be the end of a
                close that was decided before.
        """
        assert self._sock is not None and self._silent is not None
        how, self._silent = self._silent, None
        if how == "cut":
            with suppress(OSError):
                detach(self._sock)
        asked_s = time.monotonic()
        silent_s = asked_s - self._silenced_s
        pong: asyncio.Future[None] = self._loop.create_future()
        self._asked = (os.urandom(4), asked_s, pong)
        # Answers to what was kept would be late ones of a client that had never gone: none is sent.
        self.manners = Manners(pongs=False, answers=False)
        self._send(Frame(Opcode.PING, self._asked[0]))
        if self.end is None:
            self._loop.add_reader(self._sock, self._on_readable)
        # TCP doubles its patience: the next try comes within as much again.
        patience_s = 2.0 + 10 * round_trip_s + (1.2 * silent_s if how == "cut" else 0.0)
        over = self._loop.create_task(self.over.wait())
        both: list[asyncio.Future[Any]] = [pong, over]
        try:
            await asyncio.wait(both, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            return self._told(pong, silent_s, asked_s + round_trip_s + _AT_ONCE_S, closes_in_order)
        finally:
            over.cancel()
            self.close()

    def _told(
        self, pong: asyncio.Future[None], silent_s: float, at_once_s: float, closes_in_order: bool
    ) -> Revival:
        if pong.done():
            return Revival(False, silent_s, "pong")
        match self.end:
            case None:
                return Revival(None, silent_s, "nothing came")
            case End(how="close_frame", code=code):
                return Revival(True, silent_s, "close_frame", code)
            case End(how=how, time_s=time_s) if how == "fin" or time_s <= at_once_s:
                return Revival(True, silent_s, how)
            case End(how=how) if closes_in_order:
                return Revival(None, silent_s, f"a late {how}")
            case End(how=how):
                return Revival(False, silent_s, f"a late {how}")

    def close(self, *, in_order: bool = True) -> None:
        """Go for good."""
        self.stop_beating()
        sock, self._sock = self._sock, None
        if sock is None or sock.fileno() < 0:
            return
        self._loop.remove_reader(sock)
        with suppress(OSError):
            if in_order and self.end is None and self._silent is None:
                sock.send(self._sealed(Frame(Opcode.CLOSE, (1000).to_bytes(2)).serialize(mask=True)))
            elif self._silent is not None:  # the server is not to wait for it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    # -- what comes and goes -----------------------------------------------------------------------

    def _on_readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._ended("reset")
            return
        if not data:
            self._ended("fin")
            return
        self.frames["bytes_in"] += len(data)
        if self._tls is None:
            self._take(data)
            return
        try:
            self._take(self._tls.opened(data))
        except ssl.SSLError as error:
            self._ended("protocol_error", str(error.reason))

    def _take(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except (ProtocolError, PayloadTooBig) as error:
            self._ended("protocol_error", str(error))
            return
        for frame in frames:
            self.frames["in"] += 1
            self._on_frame(frame, time.monotonic())
            if self._sock is None:
                return

    def _on_frame(self, frame: Frame, now_s: float) -> None:
        match frame.opcode:
            case Opcode.PING:
                self.heard_s["ping"].append(now_s)
                if self.manners.pongs:
                    self._send(Frame(Opcode.PONG, frame.data))
            case Opcode.PONG:
                if self._asked is not None and bytes(frame.data) == self._asked[0]:
                    self.round_trips_s.append(now_s - self._asked[1])
                    if self.end is None and not self._asked[2].done():  # a closing server may answer yet
                        self._asked[2].set_result(None)
                    self._asked = None
            case Opcode.CLOSE:
                self._on_close(bytes(frame.data), now_s)
            case _:
                self._on_message(message_of(frame), now_s)

    def _on_message(self, message: Message, now_s: float) -> None:
        if len(self._first) < _SAMPLES:
            self._first.append(message)
        items = self._dialect.receive(message)
        answers = [item for item in items if isinstance(item, Answer)]
        for item in items:
            if isinstance(item, Refused) and not self._ready.done():
                self._ready.set_exception(Refusal(f"it does not take a client in: {item.reason}"))
            elif isinstance(item, Ready) and not self._ready.done():
                self._ready.set_result(None)
        if any(one.heartbeat for one in answers):
            self.heard_s["heartbeat"].append(now_s)
        elif not answers:
            self.heard_s["message"].append(now_s)
            if len(self.samples) < _SAMPLES:
                self.samples.append(str(message)[:_SAMPLE])
        for one in answers:
            if self.manners.answers or not one.heartbeat:
                self._send(frame_of(one.message))

    def _on_close(self, data: bytes, now_s: float) -> None:
        code = int.from_bytes(data[:2]) if len(data) >= 2 else 1005
        reason = data[2:].decode(errors="replace")
        if self.end is None:
            self.end = End("close_frame", now_s, code, reason)
        if not self._ready.done():
            self._ready.set_exception(Refusal(f"it closes with code {code} {reason}".strip()))
        if (
            self.manners.pongs
        ):  # who is silent answers no close frame either, and sees how long the server waits
            self._send(Frame(Opcode.CLOSE, data[:2]))
        elif self._asked is not None:
            self.over.set()

    def _ended(self, how: Literal["fin", "reset", "protocol_error"], reason: str = "") -> None:
        now_s = time.monotonic()
        if self.end is None:
            self.end = End(how, now_s, None, reason, now_s)
        else:
            self.end = End(self.end.how, self.end.time_s, self.end.code, self.end.reason, now_s)
        self.over.set()
        if not self._ready.done():
            self._ready.set_exception(Refusal(f"it ends the connection ({how} {reason})".replace(" )", ")")))
        self.stop_beating()
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _send(self, frame: Frame) -> None:
        if self._sock is None:
            return
        data = self._sealed(frame.serialize(mask=True))
        try:
            self._sock.send(data)
        except BlockingIOError:  # it does not read; a heartbeat more or less says no more
            return
        except OSError:
            return  # reading says how it ended
        if self.end is None:
            self.sent_s = time.monotonic()
        self.frames["out"] += 1
        self.frames["bytes_out"] += len(data)

    def _sealed(self, data: bytes) -> bytes:
        return data if self._tls is None else self._tls.sealed(data)

    def _send_beat(self) -> None:
        assert self.manners.beat_s is not None
        self._beat = self._loop.call_later(self.manners.beat_s, self._send_beat)
        message = self._dialect.beat()
        self._send(Frame(Opcode.PING, b"") if message is None else frame_of(message))


class _Tls:
    """TLS above a socket of ours, sans I/O: faults act on the TCP connection below it."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)

    async def shake_hands(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Shake hands.

        Raises:
            ssl.SSLError: the server speaks no TLS, or is not trusted.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(sock, self._out.read())
                data = await loop.sock_recv(sock, _CHUNK)
                if not data:
                    raise ssl.SSLError(0, "the server closed the connection in the handshake") from None
                self._in.write(data)
            else:
                await loop.sock_sendall(sock, self._out.read())
                return

    def sealed(self, data: bytes) -> bytes:
        """Return the records that carry some bytes."""
        self._tls.write(data)
        return self._out.read()

    def opened(self, data: bytes) -> bytes:
        """Return the bytes that are whole by now."""
        self._in.write(data)
        found = []
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):  # after a close_notify comes the FIN
            while part := self._tls.read(_CHUNK):
                found.append(part)
        return b"".join(found)


def declares_beat(dialect: type[Dialect], options: Mapping[str, Any]) -> bool:
    """Whether a client of this dialect tells the server how often it beats, as MQTT's does."""

    def opening(beat_s: float) -> Iterable[Message]:
        return list(dialect(Who("c0x1", "user-0", 0, beat_s), **options).opening())

    return opening(7.0) != opening(float("inf"))


def _said(data: bytes) -> str:
    return f": {data[:60]!r}" if data else ""
