"""Certificates that a test makes for itself: a CA, and a server's certificate of it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Certificate", "make_certificate", "tls_before"]


@dataclass(frozen=True)
class Certificate:
    """Files of PEM: of the server, and of the CA that its clients trust."""

    ca: Path
    certificate: Path
    key: Path

    def client(self) -> ssl.SSLContext:
        """Return a context that trusts this CA alone."""
        return ssl.create_default_context(cafile=self.ca)

    @property
    def keys(self) -> dict[str, Path]:
        """Of a gateway's configuration."""
        return {"tls_certificate": self.certificate, "tls_key": self.key}


def make_certificate(folder: Path, *names: str, label: str = "server") -> Certificate:
    """Make a CA and a certificate for some names or addresses; default: 127.0.0.1."""
    authority = trustme.CA()
    own = authority.issue_cert(*(names or ("127.0.0.1",)))
    made = Certificate(folder / f"{label}-ca.pem", folder / f"{label}.pem", folder / f"{label}.key")
    authority.cert_pem.write_to_path(made.ca)
    own.private_key_pem.write_to_path(made.key)
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
    return made


@contextmanager
def tls_before(port: int, certificate: Certificate) -> Iterator[int]:
    """Have a port that speaks TLS and hands on to a plain one of 127.0.0.1, in a thread of its own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    loop, listens = asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    async def serve() -> None:
        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        listens.set()

    def run() -> None:
        loop.create_task(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert listens.wait(5)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
