"""One WebSocket connection of a generator client: a handshake in a greenlet, then a socket that never blocks.

From bytes to messages and back: handshake and frames are the sans-I/O ones of `websockets`, without its protocol
object, which would be most of what a client weighs that lives for hours on 21 bytes every half minute. Knows nothing of
sessions, heartbeats or faults.
"""

from __future__ import annotations

import _socket  # the bare descriptor: gevent's socket object brings watchers, a hub and a kilobyte
import errno
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import gevent.socket
import orjson
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.headers import build_host
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI
from websockets.utils import accept_key, generate_key

from harness.real.frames import FrameReader
from harness.real.generator.tls_socket import TlsSocket
from reference_server.events import Cause
from reference_server.websocket.tcp_info import read_tcp_info

__all__ = ["ConnectionEnded", "WebSocketConnection"]

_CHUNK = 448  # a heartbeat has 21 bytes; small objects come from Python's own pools
_HANDSHAKE_CHUNK = 4096
_CONSENT = (b"Upgrade: websocket", b"Connection: Upgrade")
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
_CAUSES = {
    errno.ECONNRESET: Cause.TCP_RESET,
    errno.EPIPE: Cause.TCP_RESET,
    errno.ETIMEDOUT: Cause.TCP_TIMEOUT,
}


class ConnectionEnded(Exception):
    """The connection is over: by which layer, and the close code if there was a close frame."""

    def __init__(self, cause: Cause, code: int | None = None, reason: str = "") -> None:
        super().__init__(f"{cause} {code or ''} {reason}".strip())
        self.cause = cause
        self.code = code


class WebSocketConnection:
    """An open WebSocket. `connect` makes one; every method may raise :class:`ConnectionEnded`."""

    __slots__ = ("_reader", "sock")

    def __init__(self, sock: Any) -> None:
        self.sock = sock  # or a `TlsSocket`
        self._reader: FrameReader | None = None  # None: between two frames

    @classmethod
    def connect(
        cls,
        uri: WebSocketURI,
        timeout_s: float,
        source: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        subprotocol: str | None = None,
        tls: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> WebSocketConnection:
        """Open a TCP connection, with TLS where the URI says wss, and shake hands; blocks the greenlet.

        Args:
            uri: where to.
            timeout_s: for each step.
            source: address to come from; None: the kernel's choice. A port is chosen at the connect only, so
                each pair of addresses has the whole ephemeral range.
            headers: of the request, besides those of the handshake.
            subprotocol: the only one that is offered; None: none is.
            tls: whom to trust; None: TLS is not spoken.
            session: of TLS, to be resumed; None: a full handshake.

        Raises:
            OSError: no TCP connection (refused, timed out), or no TLS (a certificate that is not trusted).
            ConnectionEnded: the server ended it during the handshake.
            InvalidHandshake: it answered something else than 101.
        """
        family = socket.AF_INET6 if ":" in uri.host else socket.AF_INET
        plain = gevent.socket.socket(family, socket.SOCK_STREAM)
        sock: Any = plain
        try:
            sock.settimeout(timeout_s)
            if source is not None:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
            sock.connect((uri.host, uri.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if uri.secure:
                assert tls is not None
                sock = TlsSocket(plain, tls, uri.host, session)
                sock.handshake()
            key, protocol = generate_key(), None
            if headers or subprotocol is not None or uri.username is not None:
                offered = None if subprotocol is None else [Subprotocol(subprotocol)]
                protocol = _protocol(uri, key, offered)
                request = protocol.connect()
                for name, value in headers.items():
                    request.headers[name] = value
                protocol.send_request(request)
                sock.sendall(b"".join(protocol.data_to_send()))
            else:
                sock.sendall(_plain_request(uri, key))
            rest = _answer(sock, uri, key, protocol)
            bare = _socket.socket(family, socket.SOCK_STREAM, 0, plain.detach())
            wire = cls(bare if sock is plain else sock.onto(bare))
        except BaseException:
            plain.close()
            raise
        wire.sock.setblocking(False)
        if rest:
            wire._reader = FrameReader(rest)
        return wire

    def wait(self, timeout_s: float) -> Iterator[Frame]:
        """Block the greenlet until something has come in; return the frames that are whole by now.

        Raises:
            TimeoutError: nothing came.
        """
        if self._reader is not None and (whole := self._whole(b"")):
            return self._until_close(whole)
        gevent.socket.wait_read(self.sock.fileno(), max(timeout_s, 0.0), TimeoutError())
        return self.frames(self.read())

    def read(self) -> bytes:
        """Return what has come in, as it is; empty when nothing has."""
        try:
            data: bytes = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._ended(error) from error
        if not data:
            self.sock.close()
            raise ConnectionEnded(Cause.TCP_FIN)
        return data

    def ended(self) -> bool:
        """Whether the other end's FIN or RST is here, read or not."""
        info = read_tcp_info(self.sock)
        return info is not None and info.state != "established"

    @property
    def between_frames(self) -> bool:
        """Whether nothing of a frame is waiting for its rest."""
        return self._reader is None

    def frames(self, data: bytes) -> Iterator[Frame]:
        """Return the frames that are whole by now. A close frame is answered and ends the connection, in its turn:
        what was sent before it may well have come with it, and says why.
        """
        return self._until_close(self._whole(data))

    @property
    def about_tls(self) -> dict[str, str]:
        """For the log: which kind of TLS handshake it was; nothing without TLS."""
        if not isinstance(self.sock, TlsSocket):
            return {}
        return {"tls": "resumed" if self.sock.resumed else "full"}

    def _whole(self, data: bytes) -> list[Frame]:
        reader = self._reader or FrameReader()
        try:
            frames = reader.feed(data)
        except (ProtocolError, PayloadTooBig) as error:
            self.sock.close()
            raise ConnectionEnded(Cause.PROTOCOL_ERROR, 1002, str(error)) from error
        self._reader = None if reader.idle else reader
        return frames

    def _until_close(self, frames: list[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if frame.opcode is Opcode.CLOSE:
                data = bytes(frame.data)
                self.send(Frame(Opcode.CLOSE, data[:2]))
                self.sock.close()
                code = int.from_bytes(data[:2]) if len(data) >= 2 else 1005
                raise ConnectionEnded(Cause.CLOSE_FRAME, code, data[2:].decode(errors="replace"))
            yield frame

    def send(self, frame: Frame) -> None:
        """Send a frame, masked."""
        data = frame.serialize(mask=True)
        try:
            sent = self.sock.send(data)
        except OSError as error:
            raise self._ended(error) from error
        if sent < len(data):
            raise self._ended(BlockingIOError(errno.EAGAIN, "the send buffer is full"))

    def send_json(self, message: dict[str, Any]) -> None:
        """Send one JSON message in a text frame."""
        self.send(Frame(Opcode.TEXT, orjson.dumps(message)))

    def close(self, code: int) -> None:
        """Close in order: close frame, then FIN. Does not wait for the answer: a page that goes away doesn't."""
        try:
            self.send(Frame(Opcode.CLOSE, code.to_bytes(2)))
            if isinstance(self.sock, TlsSocket):
                self.sock.say_goodbye()
        finally:
            self.sock.close()

    def reset(self) -> None:
        """Send RST instead of FIN: linger 0 throws away what is buffered."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _ended(self, error: OSError) -> ConnectionEnded:
        self.sock.close()
        return ConnectionEnded(_CAUSES.get(error.errno or 0, Cause.SEND_ERROR), reason=str(error))


def _plain_request(uri: WebSocketURI, key: str) -> bytes:
    """Return a request without options, as `ClientProtocol` makes it."""
    host = build_host(uri.host, uri.port, uri.secure)
    return (
        f"GET {uri.resource_name} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def _protocol(uri: WebSocketURI, key: str, offered: list[Subprotocol] | None = None) -> ClientProtocol:
    protocol = ClientProtocol(uri, extensions=None, subprotocols=offered)
    protocol.key = key
    return protocol


def _answer(sock: Any, uri: WebSocketURI, key: str, protocol: ClientProtocol | None) -> bytes:
    """Read the server's answer to the handshake; return what has come after it.

    An answer to a plain request (``protocol`` None) that is word for word the expected one needs no parser: a fifth of
    what a newcomer costs.
    """
    data = b""
    while True:
        try:
            chunk: bytes = sock.recv(_HANDSHAKE_CHUNK)
        except BlockingIOError:  # TLS's tickets alone
            continue
        except TimeoutError:
            raise
        except OSError as error:
            cause = _CAUSES.get(error.errno or 0, Cause.SEND_ERROR)
            raise ConnectionEnded(cause, reason=str(error)) from error
        if not chunk:
            raise ConnectionEnded(Cause.TCP_FIN)
        data += chunk
        head, end, rest = data.partition(b"\r\n\r\n")
        if end:
            break
    accepted = head.startswith(b"HTTP/1.1 101 ")
    if protocol is None:
        told = {line for line in head.split(b"\r\n")[1:] if not line.startswith(b"Date: ")}
        if accepted and told == {*_CONSENT, f"Sec-WebSocket-Accept: {accept_key(key)}".encode()}:
            return rest
        protocol = _protocol(uri, key)
    protocol.receive_data(head + end if accepted else data)
    events = protocol.events_received()
    if protocol.handshake_exc is not None:
        raise protocol.handshake_exc
    if not events or not isinstance(events[0], Response):
        raise InvalidHandshake(f"not an answer to a handshake: {head[:60]!r}")
    return rest
