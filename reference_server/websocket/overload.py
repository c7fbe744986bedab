"""Overload: new sockets are refused before those inside suffer.

From the number of sockets, their addresses and the lag of the event loop to a yes or a reason. A refused socket costs
the gateway some dozen microseconds beside its system calls: no handshake is parsed (which costs ten times that). It is
told ``503 Service Unavailable`` with ``Retry-After``; the HTTP API tells logins the same.
"""

from __future__ import annotations

import resource
import typing
from asyncio import BaseTransport, Protocol, TimerHandle, Transport, get_running_loop
from collections import Counter
from collections.abc import Callable, Hashable
from functools import lru_cache
from ipaddress import ip_network
from time import monotonic
from typing import cast

import orjson

from reference_server.config import GatewayConfig
from reference_server.sessions.origin import MOST_REMEMBERED, is_in, network_of

__all__ = ["RETRY_AFTER_S", "SENTENCES", "ConnectionLimiter", "RejectedConnection", "most_sockets"]

RETRY_AFTER_S = 2
SENTENCES = {
    "draining": "this node shuts down; another one will take you",
    "overloaded": "this node is busy with those it has; try again later",
    "too_many_connections": "this node has as many connections as it may; try again later",
    "too_many_handshakes": "too many others are just coming in; try again later",
}
# For a stranger's next word where somebody else wants the place: a round trip; a request comes with its connection.
_PATIENCE_S, _HTTP_PATIENCE_S = 3.0, 0.1
_MOST_OF_NETWORK = 256  # strangers of a public address
_LINGER_S = 1.0  # for the request to arrive: closed before that, the answer may be lost in a RST
_MOST_LINGERING = 256
_FOR_HEALTH = 64  # connections of the HTTP port above its share
_RESERVED_DESCRIPTORS = 256 + _FOR_HEALTH + _MOST_LINGERING  # Redis, files; health checks; those turned away
_LEAST_HTTP, _MOST_HTTP = 64, 0.25  # sockets of the HTTP port: so many at least; of all, this share at most


def most_sockets() -> int | None:
    """Return how many sockets of clients this process's descriptors suffice for; None: any number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else max(1, limit - _RESERVED_DESCRIPTORS)


class Socket(Hashable, typing.Protocol):
    """A client's socket, as far as its limits are concerned."""

    transport: Transport


class _Waiting:
    """Sockets of one port that have not said what they want, the one that has waited longest first."""

    def __init__(self) -> None:
        self.of_network = Counter[str]()  # how many each address (IPv6: /64) has
        self._since: dict[Socket, tuple[float, str]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, sock: Socket) -> str:
        """Take one, as the newest; return its network."""
        self.discard(sock)
        network = _network(sock.transport)
        self._since[sock] = monotonic(), network
        self.of_network[network] += 1
        return network

    def discard(self, sock: Socket) -> None:
        """Let one go: it has said so, or is gone."""
        if sock in self._since:
            _, network = self._since.pop(sock)
            self.of_network[network] -= 1
            if not self.of_network[network]:
                del self.of_network[network]

    def who_yields(self, to: str, patience_s: float, among: set[Socket]) -> Socket | None:
        """Return who makes room for one more of a network: the oldest of the network that has most; None: nobody.

        One that would still have as many as the other yields at once, else only who has waited longer than anybody
        need. So each network has an equal share of the places, as far as it wants it.
        Source: longest queue drop; Suter et al., "Design considerations for supporting TCP with per-flow queueing"
        (INFOCOM 1998).
        """
        most = max(self.of_network, key=self.of_network.__getitem__, default="")
        oldest = next((sock for sock, (_, of) in self._since.items() if of == most and sock in among), None)
        if oldest is None or self.of_network[most] > self.of_network[to] + 1:
            return oldest
        return oldest if monotonic() - self._since[oldest][0] >= patience_s else None


@lru_cache(MOST_REMEMBERED)
def _is_public(network: str) -> bool:
    return network != "" and ip_network(network).is_global


def _network(transport: BaseTransport) -> str:
    return network_of((transport.get_extra_info("peername") or ("",))[0])


class ConnectionLimiter:
    """Holds the sockets of clients, and says whether another one may come in.

    Args:
        config: of the gateway; its limits.
        lag_s: says how late the loop has been of late, in seconds.
        count_refused: called with the code of each refusal.
    """

    def __init__(
        self, config: GatewayConfig, lag_s: Callable[[], float], count_refused: Callable[[str], None]
    ) -> None:
        self._most = config.max_connections or float("inf")
        self._budget = most_sockets() or float("inf")  # of both ports
        self._most_opening = config.max_handshakes
        self._most_lag_s = config.refuse_above_lag_s or float("inf")
        self._lag_s = lag_s
        self.count_refused = count_refused
        self.sockets: set[Socket] = set()  # authenticated or not
        self.opening: set[Socket] = set()  # of these, those whose handshake is not over
        self.http_sockets: set[Socket] = set()  # of the other port
        self._most_of_network = config.max_strangers_per_ip
        self._trusted = config.trusted_proxies
        self._strangers = _Waiting()  # of `sockets`, those who have not authenticated
        self._asking = _Waiting()  # of `http_sockets`, those who owe us a request
        self._above_share: dict[Socket, None] = {}  # of these, the oldest first
        self._most_http = self._budget * _MOST_HTTP
        self._least_http = min(_LEAST_HTTP, self._most_http)
        self.lingering = 0  # sockets that are being refused
        self.shut = False  # for good: the gateway drains

    def enter(self, sock: Socket) -> None:
        """Take a socket of the WebSocket port that has to shake hands."""
        self.sockets.add(sock)
        self.opening.add(sock)
        self._greet(sock, self._strangers)

    def known(self, sock: Socket) -> None:
        """Take note that one of the WebSocket port names a session."""
        self._strangers.discard(sock)

    def _greet(self, sock: Socket, among: _Waiting) -> None:
        network = among.add(sock)
        held = self._strangers.of_network[network] + self._asking.of_network[network]
        if held > self._most_of(network):
            self.count_refused("too_many_from_address")
            sock.transport.abort()

    def _most_of(self, network: str) -> float:
        if is_in(network.partition("/")[0], self._trusted):
            return float("inf")
        if self._most_of_network is None:  # load generators and proxies are at home
            return _MOST_OF_NETWORK if _is_public(network) else float("inf")
        return self._most_of_network

    def leave(self, sock: Socket) -> None:
        """Let a socket of the WebSocket port go."""
        self.sockets.discard(sock)
        self.opening.discard(sock)
        self._strangers.discard(sock)

    def make_room(self, transport: BaseTransport) -> bool:
        """Cut a stranger where only that lets one more of this address in; False: that is not possible now."""
        if self.shut or self._lag_s() > self._most_lag_s:
            return False
        code = self._full_because()
        among = self.opening if code == "too_many_handshakes" else self.sockets
        # What a late loop has not read is not the stranger's fault.
        oldest = self._strangers.who_yields(_network(transport), _PATIENCE_S + self._lag_s(), among)
        if code is not None and oldest is not None:
            self.leave(oldest)
            self._cut(oldest)
        return code is None or oldest is not None

    def _cut(self, oldest: Socket) -> None:
        self.count_refused("waited_too_long")
        oldest.transport.abort()

    def _full_because(self, strangers: bool = True) -> str | None:
        for_http = max(len(self.http_sockets), self._least_http)
        held = len(self.sockets) - (0 if strangers else len(self._strangers))
        if held >= min(self._most, self._budget - for_http):
            return "too_many_connections"
        return "too_many_handshakes" if strangers and len(self.opening) >= self._most_opening else None

    def closed_because(self, *, strangers: bool = True) -> str | None:
        """Return the code of why nobody is let in now; None: come in.

        ``strangers``: whether their sockets count. They do for a new socket, not for a login: they make room.
        """
        if self.shut:
            return "draining"
        return self._full_because(strangers) or ("overloaded" if self._lag_s() > self._most_lag_s else None)

    def enter_http(self, sock: Socket) -> bool:
        """Take a connection of the HTTP port; False: it is above the port's share, and is told of health, no more.

        Who has owed a request for long, or is of the address that has most such, makes room: a login that comes at
        once is served, however many do not. Of those above the share the newest few stay: who looks after health asks
        at once.
        """
        share = min(self._most_http, max(self._least_http, self._budget - len(self.sockets)))
        inside = len(self.http_sockets) - len(self._above_share)
        if inside >= share:
            patience_s = _HTTP_PATIENCE_S + self._lag_s()
            oldest = self._asking.who_yields(_network(sock.transport), patience_s, self.http_sockets)
            if oldest is not None:
                self.leave_http(oldest)
                self._cut(oldest)
                inside -= 1
        within = inside < share
        self.http_sockets.add(sock)
        if within:
            self._greet(sock, self._asking)
        else:
            self._above_share[sock] = None
            if len(self._above_share) > _FOR_HEALTH:
                oldest = next(iter(self._above_share))
                del self._above_share[oldest]
                oldest.transport.abort()
        return within

    def leave_http(self, sock: Socket) -> None:
        """Let a connection of the HTTP port go."""
        self.http_sockets.discard(sock)
        self._above_share.pop(sock, None)
        self._asking.discard(sock)

    def heard_http(self, sock: Socket) -> None:
        """Take note that a whole request is in."""
        self._asking.discard(sock)

    def answered_http(self, sock: Socket) -> None:
        """Take note that it has its answer: another request may come, or none for long."""
        if sock in self.http_sockets and sock not in self._above_share:
            self._asking.add(sock)


class RejectedConnection(Protocol):
    """A socket that is told why it is not let in, and closed; unless its address has a right to another's place.

    ``instead`` makes the protocol that it has then. ``unheard``: it is closed at once, for it would not understand a
    word before TLS's handshake, which costs more.
    """

    def __init__(
        self, limiter: ConnectionLimiter, code: str, instead: Callable[[], Protocol], *, unheard: bool = False
    ) -> None:
        self._unheard, self._instead = unheard, instead
        self._limiter = limiter
        self._code = code
        self._transport: Transport | None = None
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Wait for its request, so that the answer is not lost; not if there are too many who wait."""
        self._transport = cast(Transport, transport)
        if self._limiter.make_room(transport):
            accepted = self._instead()
            self._transport.set_protocol(accepted)
            accepted.connection_made(transport)
            return
        self._limiter.count_refused(self._code)
        self._limiter.lingering += 1
        if self._unheard:
            self._transport.abort()
        elif self._limiter.lingering > _MOST_LINGERING:
            self.data_received(b"")
        else:
            self._timer = get_running_loop().call_later(_LINGER_S, self.data_received, b"")

    def data_received(self, _data: bytes) -> None:
        """Answer whatever comes, once."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_answer(self._code))
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Let go."""
        self._limiter.lingering -= 1
        if self._timer is not None:
            self._timer.cancel()
        self._transport = self._timer = None


def _answer(code: str) -> bytes:
    body = orjson.dumps({"error": {"code": code, "message": SENTENCES[code]}})
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_S}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
