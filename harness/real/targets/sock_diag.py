"""The kernel's word on the other end of a loopback connection: an exact look-up by both addresses.

Linux `sock_diag` over netlink (man 7 sock_diag): no privilege, no change of the server, 10 to 40 microseconds each.
Works for IPv4 connections to IPv4 and dual-stack listeners, and for IPv6. A socket that is gone answers nothing, or its
listener, or TIME_WAIT.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import closing
from enum import IntEnum
from typing import Self

__all__ = ["Address", "SockDiag", "TcpState", "address_of", "sock_diag_works"]

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLMSG_ERROR = 4, 20, 2
_REQUEST, _ALL_STATES, _NO_COOKIE = 1, 0xFFFFFFFF, 0xFFFFFFFF
_ANSWER_BYTES = 4096

Address = tuple[str, int]
"""An IP address and a port."""


class TcpState(IntEnum):
    """States of the kernel's TCP (include/net/tcp_states.h) that a look-up tells apart, and GONE."""

    GONE = 0
    ESTABLISHED = 1
    CLOSE_WAIT = 8
    LISTEN = 10


def address_of(text: str) -> Address:
    """Read ``127.0.0.1:8000`` or ``[::1]:8000``."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class SockDiag:
    """Asks the kernel about single connections of this network namespace. Close it, or use it as a context."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._netlink.bind((0, 0))
        self._netlink.settimeout(1.0)

    def state(self, own: Address, peer: Address) -> int:
        """Return the TCP state of the socket at ``own`` whose other end is ``peer``; 0: there is none.

        Raises:
            OSError: the kernel does not answer.
        """
        family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
        packed = [ipaddress.ip_address(address).packed.ljust(16, b"\0") for address in (own[0], peer[0])]
        body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
        body += struct.pack("!HH16s16s", own[1], peer[1], *packed)
        body += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        self._netlink.send(struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + body)
        answer = self._netlink.recv(_ANSWER_BYTES)
        kind = struct.unpack_from("=IH", answer)[1]
        return TcpState.GONE if kind == _NLMSG_ERROR else answer[17]

    def holds(self, own: Address, peer: Address) -> bool:
        """Whether the process at ``own`` has not closed its end: it may have heard of the peer's end (CLOSE_WAIT)."""
        return self.state(own, peer) in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)

    def close(self) -> None:
        """Ask no more."""
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sock_diag_works() -> bool:
    """Whether this kernel answers: tried on a connection of our own."""
    try:
        with (
            closing(socket.create_server(("127.0.0.1", 0))) as server,
            closing(socket.create_connection(server.getsockname())) as client,
            SockDiag() as diag,
        ):
            accepted, _ = server.accept()
            with accepted:
                return diag.holds(accepted.getsockname(), client.getsockname())
    except (OSError, AttributeError):
        return False
