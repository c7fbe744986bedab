"""TLS on a generator client's socket, sans I/O: no greenlet, no buffer of its own between two records.

From the bytes of a bare socket to plain ones; has the few methods of a socket that a connection uses. All that the
wire has brought is decrypted at once: an event loop that looks at the descriptor would not hear of what is kept here.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

__all__ = ["TlsSocket"]

_CHUNK = 4096


class TlsSocket:
    """A socket that speaks TLS as a client.

    Args:
        sock: connected; it may block a greenlet until `onto` puts a bare one in its place.
        context: of `harness/real/tls.py`.
        host: whose certificate it has to be.
        session: of an earlier connection, to be resumed; None: a full handshake.
    """

    __slots__ = ("_incoming", "_outgoing", "_sock", "_tls")

    def __init__(self, sock: Any, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host, session=session)

    def handshake(self) -> None:
        """Shake hands; blocks as the socket does.

        Raises:
            OSError: the socket's, or TLS's own (`ssl.SSLError`), for instance of a certificate that is not trusted.
        """
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sendall(b"")
                data = self._sock.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("the server ended TLS's handshake") from None
                self._incoming.write(data)
        self.sendall(b"")

    def onto(self, sock: Any) -> TlsSocket:
        """Go on with another object of the same connection."""
        self._sock = sock
        return self

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection may resume; known once the server has sent its ticket."""
        return self._tls.session

    @property
    def resumed(self) -> bool:
        """Whether this one has resumed a session."""
        return bool(self._tls.session_reused)

    def recv(self, size: int) -> bytes:
        """Return what has come in, all of it; empty: the other end has sent its goodbye or a FIN.

        Raises:
            BlockingIOError: nothing of use has come.
            OSError: the socket's, or TLS's own.
        """
        data = self._sock.recv(max(size, _CHUNK))
        if not data:
            return b""
        self._incoming.write(data)
        plain = []
        with suppress(ssl.SSLWantReadError):
            while part := self._tls.read(_CHUNK):
                plain.append(part)
            if not plain:
                return b""  # the goodbye
        if self._outgoing.pending:  # an answer to a request for new keys
            self._sock.send(self._outgoing.read())
        if not plain:
            raise BlockingIOError
        return b"".join(plain)

    def send(self, data: bytes) -> int:
        """Send a record with these bytes; return how many were taken: all, or none of use."""
        self._tls.write(data)
        record = self._outgoing.read()
        return len(data) if self._sock.send(record) == len(record) else 0

    def sendall(self, data: bytes) -> None:
        """Send; blocks as the socket does."""
        if data:
            self._tls.write(data)
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())

    def detach(self) -> int:
        """Give the descriptor away."""
        return int(self._sock.detach())

    def fileno(self) -> int:
        """The descriptor; −1 once it is closed."""
        return int(self._sock.fileno())

    def close(self) -> None:
        """Close the socket; TLS is not told, as where a process ends."""
        self._sock.close()

    def shutdown(self, how: int) -> None:
        """End one direction of the socket."""
        self._sock.shutdown(how)

    def say_goodbye(self) -> None:
        """Send TLS's own end, if it can be sent at once."""
        with suppress(OSError):
            self._tls.unwrap()
        with suppress(OSError):
            self._sock.send(self._outgoing.read())

    def setblocking(self, flag: bool) -> None:
        """As the socket's."""
        self._sock.setblocking(flag)

    def setsockopt(self, *option: Any) -> None:
        """As the socket's."""
        self._sock.setsockopt(*option)

    def getsockname(self) -> Any:
        """As the socket's."""
        return self._sock.getsockname()

    def getpeername(self) -> Any:
        """As the socket's."""
        return self._sock.getpeername()
