"""The gateway under test as its clients see it: nodes to log in at and to connect to, the first that is there.

From addresses to sessions and open connections; blocks the greenlet that asks. One kept-alive pool of HTTP
connections to a node serves all clients of a process.
"""

from __future__ import annotations

import ipaddress
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from numpy.random import Generator as Rng
from websockets.uri import WebSocketURI, parse_uri

from harness.real.generator.tls_socket import TlsSocket
from harness.real.generator.websocket import WebSocketConnection
from harness.real.tls import client_context

__all__ = ["Gateways", "LoginRefused", "LoginUnavailable", "Target"]

TIMEOUT_S = 10.0  # of each step of a handshake or a login
_LOGINS_AT_ONCE = 64
_STALE_TRIES = 3
# Of the ephemeral ports between two addresses: Linux has 28,232 unless told otherwise.
_CLIENTS_AN_ADDRESS = 16_384


class LoginRefused(Exception):
    """The gateway answered a login with an error: its code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class LoginUnavailable(Exception):
    """No answer to a login, or one that says "later" (5xx)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway under test is: one URL a node, node-1 first."""

    ws_urls: tuple[str, ...]
    http_urls: tuple[str, ...]
    tls_ca: str = ""  # file with the CA to trust; empty: the system's
    tls_verifies: bool = True


class Gateways:
    """All nodes of a target.

    Args:
        target: where they are.
        rng: orders the nodes for whoever has no home.
    """

    def __init__(self, target: Target, rng: Rng) -> None:
        self.url = target.ws_urls[
            0
        ]  # of a server that is not ours: with the clients' own names to be filled in
        self._uris: tuple[WebSocketURI, ...] = tuple(map(parse_uri, target.ws_urls))
        speaks_tls = any(url.startswith(("wss:", "https:")) for url in (*target.ws_urls, *target.http_urls))
        self.tls = client_context(target.tls_ca, verifies=target.tls_verifies) if speaks_tls else None
        # Of the node at that place: the last full handshake's.
        self._tls_sessions: dict[int, ssl.SSLSession] = {}
        self._http = tuple(
            HTTPClient.from_url(
                url,
                concurrency=_LOGINS_AT_ONCE,
                connection_timeout=TIMEOUT_S,
                network_timeout=TIMEOUT_S,
                ssl_context_factory=lambda **_: self.tls,
                insecure=not target.tls_verifies,
            )
            for url in target.http_urls
            if url
        )
        http_url = next(iter(target.http_urls), "")
        self._login_path = "/" + http_url.partition("://")[2].partition("/")[2]
        self._rng = rng
        self._is_loopback = sys.platform == "linux" and all(_is_loopback(uri.host) for uri in self._uris)

    def to_try(self, home: int | None) -> Iterator[int]:
        """Yield the places of the nodes' URLs in the order to try them: home (from 1) first, then at random.

        What a load balancer does that knows at once which node is there: whoever is refused by one asks
        the next in the same attempt.
        """
        count = len(self._uris)
        first = int(self._rng.random() * count) if home is None or home > count else home - 1
        yield first  # nearly always there: no more need be drawn
        yield from (n for n in self._rng.permutation(count).tolist() if n != first)

    def login(self, user_id: str, home: int | None = None) -> tuple[str, str]:
        """Log a user in over HTTP, at any node; return the token and the id of the session.

        Raises:
            LoginRefused: the gateway said no, for instance `already_online`.
            LoginUnavailable: no answer, or a 5xx.
        """
        body = orjson.dumps({"user_id": user_id, "device_type": "web"})
        refused: OSError | None = None
        for n in self.to_try(home):
            try:
                status, answer = self._post(n % len(self._http), "/user/login", body)
                break
            except ConnectionRefusedError as error:
                refused = error
            except (OSError, ValueError, HTTPParseError) as error:
                raise LoginUnavailable(str(error)) from error
        else:
            raise LoginUnavailable(str(refused)) from refused
        if status == 200:
            return str(answer["token"]), str(answer["session_id"])
        code = str(answer.get("error", {}).get("code", status))
        raise LoginUnavailable(code) if status >= 500 else LoginRefused(code)

    def login_elsewhere(self, body: Any) -> Any:
        """Post to the login of a server that is not ours; return its answer.

        Raises:
            LoginRefused: another status than 2xx.
            LoginUnavailable: no answer, no JSON, or a 5xx.
        """
        try:
            status, answer = self._post(0, self._login_path, orjson.dumps(body))
        except (OSError, ValueError, HTTPParseError) as error:
            raise LoginUnavailable(str(error)) from error
        if status >= 500:
            raise LoginUnavailable(f"{status} {answer}"[:200])
        if status >= 300:
            raise LoginRefused(f"{status} {answer}"[:200])
        return answer

    def _post(self, node: int, path: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the answer of a node."""
        tries = count(1)
        while True:
            try:
                response = self._http[node].post(path, body, {"Content-Type": "application/json"})
                return response.status_code, orjson.loads(response.read() or b"{}")
            except HTTPConnectionClosed:
                # Kept alive for too long: the server closed it just when it was used again. Nothing was read.
                if next(tries) > _STALE_TRIES:
                    raise

    def connect(
        self, client: int, home: int | None = None, source: str | None = None, *, is_back: bool = False
    ) -> tuple[WebSocketConnection, str]:
        """Shake hands with the first node that is there; return the connection and the node's name.

        Args:
            client: its index.
            home: the node, from 1, to try first.
            source: the address to come from; None: one of `source`.
            is_back: its process has been connected before: it resumes TLS's session, if there is one.

        Raises:
            ConnectionRefusedError: none of them listens.
            OSError, ConnectionEnded, InvalidHandshake: see `WebSocketConnection.connect`.
        """
        refused: ConnectionRefusedError | None = None
        source = source or self.source(client)
        for n in self.to_try(home):
            try:
                session = self._tls_sessions.get(n) if is_back else None
                wire = WebSocketConnection.connect(
                    self._uris[n], TIMEOUT_S, source, tls=self.tls, session=session
                )
                self._keep_session(n, wire)
                return wire, f"node-{n + 1}"
            except ConnectionRefusedError as error:
                refused = error
        assert refused is not None
        raise refused

    def _keep_session(self, node: int, wire: WebSocketConnection) -> None:
        """Keep TLS's session for whoever comes back to a node: one for all, as a ticket each would weigh 3 KiB."""
        if isinstance(wire.sock, TlsSocket) and not wire.sock.resumed and wire.sock.session is not None:
            self._tls_sessions[node] = wire.sock.session

    def source(self, client: int) -> str | None:
        """The address that a client comes from; None: the kernel's choice.

        Between two addresses there are as many connections as ephemeral ports, so on loopback, all of which
        is ours, every sixteen thousand clients have an address of their own.
        """
        block = client // _CLIENTS_AN_ADDRESS
        if block == 0 or not self._is_loopback:
            return None
        return f"127.0.{1 + block // 250}.{1 + block % 250}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network("127.0.0.0/8")
    except ValueError:
        return host == "localhost"
