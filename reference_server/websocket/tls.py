"""TLS between a socket and a protocol: from a certificate to a context, and from bytes of the wire to plain ones.

The standard library's engine without its I/O (`ssl.SSLObject`), instead of ``create_server(ssl=…)``: there nobody hears
of a socket that has not shaken hands, and strangers who begin and do not go on would be in no budget; and each
connection has a buffer of 256 KiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, MemoryBIO, SSLContext, SSLError, SSLWantReadError, TLSVersion
from typing import Any, cast

__all__ = ["TlsProtocol", "server_context"]

_MOST_AT_ONCE = 65_536  # bytes handed to the protocol


def server_context(certificate: Path, key: Path) -> SSLContext:
    """Return the context of a server: TLS 1.2 or 1.3, tickets for resumption.

    Raises:
        OSError: a file cannot be read, is no PEM, or the key is another certificate's or has a passphrase.
    """
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.minimum_version = TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never ask at a terminal
    except SSLError as error:
        why = f"no PEM, of two makes, or with a passphrase: {error.reason or error}"
        raise OSError(f"tls_certificate {certificate}, tls_key {key}: {why}") from error
    except OSError as error:
        raise OSError(f"tls_certificate {certificate}, tls_key {key}: {error.strerror}") from error
    return context


class TlsProtocol(asyncio.Protocol):
    """A socket that speaks TLS, before a protocol that does not know of it.

    Args:
        context: of the server.
        protocol: makes the protocol; called once the hands are shaken.
        enter: called with this when the socket is there: it counts from then on.
        leave: called with this when the protocol takes over, or at the socket's end.
        timeout_s: for the handshake.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        context: SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        enter: Callable[[TlsProtocol], object],
        leave: Callable[[TlsProtocol], object],
        timeout_s: float,
    ) -> None:
        self._incoming, self._outgoing = MemoryBIO(), MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._make, self._enter, self._leave = protocol, enter, leave
        self._timeout_s = timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._protocol: asyncio.Protocol | None = None  # None: the hands are not shaken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self.transport = cast(asyncio.Transport, transport)
        self._enter(self)
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the wire."""
        self._incoming.write(data)
        try:
            if self._protocol is None:
                self._tls.do_handshake()
                self._hand_over()
            while not self.transport.is_closing():
                if plain := self._tls.read(_MOST_AT_ONCE):
                    cast(asyncio.Protocol, self._protocol).data_received(plain)
                else:  # the other end's goodbye; its FIN may never come
                    self.eof_received()
                    self.transport.close()
        except SSLWantReadError:
            self.flush()
        except SSLError:  # what a stranger sends is no line in the log
            self.flush()  # it is told why
            self.transport.close()

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._leave(self)
        self._protocol = self._make()
        self._protocol.connection_made(_TlsTransport(self, self._tls.context))

    def flush(self) -> None:
        """Put on the wire what is to be sent."""
        if self._outgoing.pending and not self.transport.is_closing():
            self.transport.write(self._outgoing.read())

    def write(self, data: bytes) -> None:
        """Send some bytes of the protocol's."""
        with suppress(SSLError):  # it has said goodbye
            self._tls.write(data)
        self.flush()

    def say_goodbye(self) -> None:
        """Send nothing more after this: the other end knows that nobody has cut it off."""
        with suppress(SSLError):  # the other end's is not here yet; nobody waits for it
            self._tls.unwrap()
        self.flush()

    def eof_received(self) -> None:
        """Take a FIN."""
        if self._protocol is not None:
            self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the socket is gone."""
        if self._protocol is not None:
            self._protocol.connection_lost(exc)
        else:
            self._leave(self)
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        """Hand on that the other end takes nothing."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that it does."""
        if self._protocol is not None:
            self._protocol.resume_writing()


class _TlsTransport(asyncio.Transport):
    """The wire's transport, as far as the gateway's protocols use one; what they write is encrypted."""

    def __init__(self, tls: TlsProtocol, context: SSLContext) -> None:
        wire = tls.transport
        self._tls, self._wire, self._context = tls, wire, context
        self.abort, self.is_closing = wire.abort, wire.is_closing  # type: ignore[method-assign]
        self.pause_reading, self.resume_reading = wire.pause_reading, wire.resume_reading  # type: ignore[method-assign]
        self.get_write_buffer_size = wire.get_write_buffer_size  # type: ignore[method-assign]
        self.write = tls.write  # type: ignore[assignment,method-assign]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Say what the wire's transport says, and with which context."""
        return self._context if name == "sslcontext" else self._wire.get_extra_info(name, default)

    def write_eof(self) -> None:
        """Say goodbye, and go on reading."""
        self._tls.say_goodbye()
        self._wire.write_eof()

    def close(self) -> None:
        """Say goodbye and close, once all is sent."""
        self._tls.say_goodbye()
        self._wire.close()
