"""The kernel's word on the other end of a loopback connection: an exact look-up by both addresses.

Linux `sock_diag` over netlink (man 7 sock_diag): no privilege, no change of the server, some microseconds each
where many are asked for at once.
Works for IPv4 connections to IPv4 and dual-stack listeners, and for IPv6. A socket that is gone answers nothing, or its
listener, or TIME_WAIT.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from contextlib import closing
from enum import IntEnum
from typing import Self

__all__ = ["HELD", "Address", "SockDiag", "TcpState", "address_of", "question", "sock_diag_works"]

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_ERROR = struct.pack("=H", 2)  # NLMSG_ERROR: there is no such socket
_REQUEST, _ALL_STATES, _NO_COOKIE = 1, 0xFFFFFFFF, 0xFFFFFFFF
_ANSWER_BYTES = 4096
_AT_ONCE = 64  # the answers must fit into the receive buffer

Address = tuple[str, int]
"""An IP address and a port."""


class TcpState(IntEnum):
    """States of the kernel's TCP (include/net/tcp_states.h) that a look-up tells apart, and GONE."""

    GONE = 0
    ESTABLISHED = 1
    CLOSE_WAIT = 8
    LISTEN = 10


HELD = frozenset({TcpState.ESTABLISHED, TcpState.CLOSE_WAIT})
"""The process has not closed its end."""


def address_of(text: str) -> Address:
    """Read ``127.0.0.1:8000`` or ``[::1]:8000``."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def question(own: Address, peer: Address) -> bytes:
    """What to ask the kernel of the socket at ``own`` whose other end is ``peer``: made once, asked often."""
    family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
    packed = [ipaddress.ip_address(address).packed.ljust(16, b"\0") for address in (own[0], peer[0])]
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
    body += struct.pack("!HH16s16s", own[1], peer[1], *packed)
    body += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    return struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + body


class SockDiag:
    """Asks the kernel about single connections of this network namespace. Close it, or use it as a context."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._netlink.bind((0, 0))
        # The kernel's own time-out: Python's would ask whether the socket is ready before every answer.
        self._netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 1, 0))

    def states(self, questions: Sequence[bytes]) -> list[int]:
        """Return the TCP state of each socket asked for (`question`), in their order; 0: there is none.

        Raises:
            OSError: the kernel does not answer.
        """
        found = []
        for start in range(0, len(questions), _AT_ONCE):
            batch = questions[start : start + _AT_ONCE]
            self._netlink.send(b"".join(batch))
            for _ in batch:
                answer = self._netlink.recv(_ANSWER_BYTES)
                gone = answer[4:6] == _ERROR
                found.append(TcpState.GONE if gone else answer[17])
        return found

    def state(self, own: Address, peer: Address) -> int:
        """Return the TCP state of the socket at ``own`` whose other end is ``peer``; 0: there is none."""
        return self.states([question(own, peer)])[0]

    def holds(self, own: Address, peer: Address) -> bool:
        """Whether the process at ``own`` has not closed its end: it may have heard of the peer's end (CLOSE_WAIT)."""
        return self.state(own, peer) in HELD

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
