"""One WebSocket connection of a generator client: the sans-I/O protocol of `websockets` on a gevent socket.

From bytes to frames and back; no thread and no queue, one greenlet may use it. Knows nothing of
sessions, heartbeats or faults.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import gevent.socket
import orjson
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import WebSocketURI

from reference_server.events import Cause

__all__ = ["ConnectionEnded", "Wire"]

_CHUNK = 4096  # heartbeats are tens of bytes; a larger buffer is allocated anew for each recv
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


class Wire:
    """An open WebSocket. `connect` makes one; every method may raise :class:`ConnectionEnded`."""

    __slots__ = ("_protocol", "sock")

    def __init__(self, sock: Any, protocol: ClientProtocol) -> None:
        self.sock = sock
        self._protocol = protocol

    @classmethod
    def connect(cls, uri: WebSocketURI, timeout_s: float, source: str | None = None) -> Wire:
        """Open a TCP connection and shake hands.

        Raises:
            OSError: no TCP connection (refused, timed out).
            ConnectionEnded: the server ended it during the handshake.
            InvalidHandshake: it answered something else than 101.
        """
        sock = gevent.socket.create_connection(
            (uri.host, uri.port), timeout_s, (source, 0) if source else None
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            protocol = ClientProtocol(uri, extensions=None)
            wire = cls(sock, protocol)
            protocol.send_request(protocol.connect())
            wire._flush()
            while not (events := wire._read()):
                pass
            if not isinstance(events[0], Response) or protocol.handshake_exc is not None:
                raise protocol.handshake_exc or InvalidHandshake("no response")
        except BaseException:
            sock.close()
            raise
        return wire

    def receive(self, timeout_s: float) -> list[Frame]:
        """Wait for frames, at most `timeout_s`; an empty list when none came.

        Control frames are answered by the protocol; a close frame ends the connection.
        """
        self.sock.settimeout(max(timeout_s, 0.0))
        try:
            events = self._read()
        except TimeoutError:
            return []
        self._flush()
        for frame in events:
            if isinstance(frame, Frame) and frame.opcode is Opcode.CLOSE:
                self.sock.close()
                raise ConnectionEnded(
                    Cause.CLOSE_FRAME, self._protocol.close_code, self._protocol.close_reason or ""
                )
        return [frame for frame in events if isinstance(frame, Frame)]

    def send_text(self, data: bytes) -> None:
        """Send one text frame."""
        self._protocol.send_text(data)
        self._flush()

    def send_json(self, message: dict[str, Any]) -> None:
        """Send one JSON message."""
        self.send_text(orjson.dumps(message))

    def close(self, code: int) -> None:
        """Close in order: close frame, then FIN. Does not wait for the answer: a page that goes away doesn't."""
        self._protocol.send_close(code)
        try:
            self._flush()
        finally:
            self.sock.close()

    def reset(self) -> None:
        """Send RST instead of FIN: linger 0 throws away what is buffered."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data:
            try:
                self.sock.settimeout(None)
                self.sock.sendall(data)
            except OSError as error:
                raise self._ended(error) from error

    def _read(self) -> list[Any]:
        try:
            data = self.sock.recv(_CHUNK)
        except (TimeoutError, BlockingIOError):
            raise TimeoutError from None
        except OSError as error:
            raise self._ended(error) from error
        if not data:
            self.sock.close()
            raise ConnectionEnded(Cause.TCP_FIN)
        self._protocol.receive_data(data)
        return self._protocol.events_received()

    def _ended(self, error: OSError) -> ConnectionEnded:
        self.sock.close()
        return ConnectionEnded(_CAUSES.get(error.errno or 0, Cause.SEND_ERROR), reason=str(error))
