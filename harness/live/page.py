"""The live page of a run over HTTP, without Locust's web UI: `/liveness`, its data, and `/metrics` for Prometheus.

From a `LiveRun` to what a browser or Prometheus asks for, in threads of this process. Read only, and without
encryption. On loopback it asks nobody who he is; elsewhere a token has to be in the URL (`?token=…`) or in the
header `Authorization: Bearer …`.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import orjson

from harness.live.metrics import LiveMetrics
from harness.live.run import LiveRun
from reference_server.errors import MachineError

__all__ = ["LIVENESS_PAGE", "Address", "live_page", "read_address"]

LIVENESS_PAGE = Path(__file__).with_name("liveness.html")

_LOOPBACK = "127.0.0.1"
_PATIENCE_S = 10.0  # with a browser that does not finish its request
_MOST_AT_ONCE = 32
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the token is in the URL
    "X-Content-Type-Options": "nosniff",
}


class Address(NamedTuple):
    """Where to listen; port 0: any that is free."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine gets there."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_address(text: str) -> Address:
    """Read `PORT` or `ADDRESS:PORT`, an IPv6 address in brackets; without an address it is loopback.

    Raises:
        ValueError: it is neither; says what is allowed.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16) or bool(colon) != bool(host):
        raise ValueError(
            f"{text!r} is neither a port nor ADDRESS:PORT; allowed: 8090, 0.0.0.0:8090, [::1]:8090"
        )
    return Address(host or _LOOPBACK, int(port))


@contextmanager
def live_page(run: LiveRun, address: Address, token: str = "") -> Iterator[str]:
    """Serve the page as long as the context lasts; yields its URL, with the token in it.

    Args:
        run: whose numbers it shows.
        address: where.
        token: what it asks for; empty: nothing on loopback, elsewhere one that is drawn.

    Raises:
        MachineError: the address cannot be had.
    """
    if not token and not address.is_loopback:
        token = secrets.token_urlsafe(16)
    try:
        server = _Server(address, run, token)
    except OSError as error:
        shown = f"{address.host}:{address.port}"
        raise MachineError(
            f"the live page cannot listen on {shown}: {error.strerror or error}; choose another port, or 0 for any"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="live page", daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: Address, run: LiveRun, token: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        super().__init__((address.host, address.port), _Handler)
        self.live_run, self.token, self.metrics = run, token, LiveMetrics(run)
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        host = socket.gethostname() if address.host in ("0.0.0.0", "::") else address.host
        host = f"[{host}]" if ":" in host else host
        asked = f"?token={quote(token, safe='')}" if token else ""
        self.url = f"http://{host}:{self.server_address[1]}/liveness{asked}"

    def server_bind(self) -> None:
        """Bind without asking the name server who we are, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there are not too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and let the next one in."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that go away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S
    server_version, sys_version = "flatline", ""

    def do_GET(self) -> None:
        """Answer a request."""
        asked = urlsplit(self.path)
        if not self._may(parse_qs(asked.query).get("token", [""])[0]):
            self._answer(HTTPStatus.UNAUTHORIZED, "text/plain", b"the token is missing, or is another one\n")
            return
        match asked.path:
            case "/":
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", "/liveness" + (f"?{asked.query}" if asked.query else ""))
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "/liveness":
                self._answer(HTTPStatus.OK, "text/html; charset=utf-8", LIVENESS_PAGE.read_bytes())
            case "/liveness/data":
                data = orjson.dumps(self.server.live_run.page_data())
                self._answer(HTTPStatus.OK, "application/json", data)
            case "/metrics":
                text, kind = self.server.metrics.scrape(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, kind, text)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"here are /liveness and /metrics\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing beside the run's own lines."""

    def _may(self, said: str) -> bool:
        kind, _, bearer = self.headers.get("Authorization", "").partition(" ")
        given = bearer if kind.lower() == "bearer" else said
        return not self.server.token or secrets.compare_digest(given.encode(), self.server.token.encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
