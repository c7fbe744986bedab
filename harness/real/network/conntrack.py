"""When did a NAT forget a connection? The kernel's own word, from a NAT's namespace to clock times.

Listens to conntrack's "destroyed" events (ctnetlink). Conntrack takes an expired entry away only when
somebody looks, but notes when its time was over, to the tick (4 ms at 250 Hz): that is the time here,
not the event's. Linux, root; ``nf_conntrack_events`` and ``nf_conntrack_timestamp`` are on (`nat.py`).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from harness.real.network.namespaces import inside

__all__ = ["Conntrack", "Ended", "ended_mappings"]

_NETLINK_NETFILTER = 12  # linux/netlink.h
_DESTROYED = 1 << 2  # NFNLGRP_CONNTRACK_DESTROY = 3, as a bit
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 1 << 23  # a burst of ends waits here while the loop is busy
_DONE, _ERROR = 3, 2  # types of the last message of a list
# struct nlmsghdr (a list of all mappings, please: IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP) and nfgenmsg
_LIST = struct.pack("=IHHIIBBH", 20, 1 << 8 | 1, 0x301, 1, 0, socket.AF_INET, 0, 0)
_HEADERS = 16 + 4  # struct nlmsghdr, struct nfgenmsg
# linux/netfilter/nfnetlink_conntrack.h
_TUPLE_ORIG, _TIMESTAMP = 1, 20
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _PROTO_NUM, _PROTO_SRC_PORT = 1, 1, 2
_TIMESTAMP_STOP = 2
_TYPE = 0x3FFF  # without the flags "nested" and "network byte order"


@dataclass(frozen=True, slots=True)
class Ended:
    """A TCP mapping that is no more: the client's own address and port, and when it ended (epoch seconds)."""

    address: str
    port: int
    at_s: float


class Conntrack:
    """The mappings of one NAT. ``fileno`` is readable when some have ended."""

    def __init__(self, namespace: str) -> None:
        with inside(namespace):
            # Both stay with the namespace that they were opened in.
            self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._table = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self.sock.bind((0, _DESTROYED))
        self._table.bind((0, 0))
        self._table.setblocking(False)
        with suppress(OSError):  # the usual size will mostly do; a loss is noticed
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)

    def receive(self) -> list[Ended]:
        """Wait for mappings to end.

        Raises:
            OSError: ENOBUFS, events were lost.
        """
        return list(ended_mappings(self.sock.recv(1 << 16)))

    def look(self) -> None:
        """Have conntrack take away what has expired, which tells us of it. Does not wait.

        It takes away eight at most in one go, so whoever waits for one looks for himself.
        """
        self._table.send(_LIST)
        with suppress(BlockingIOError):  # the kernel writes the list as it is read: there is no gap
            while not _ends(self._table.recv(1 << 16)):
                pass

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()
        self._table.close()


def _ends(datagram: bytes) -> bool:
    """Whether the last message of a list is in a datagram."""
    while len(datagram) >= 16:
        length, kind = struct.unpack_from("=IH", datagram)
        if kind in (_DONE, _ERROR) or length < 16:
            return True
        datagram = datagram[_padded(length) :]
    return False


def ended_mappings(datagram: bytes) -> Iterator[Ended]:
    """Read "destroyed" messages: IPv4 TCP mappings with a time stamp; others are passed over."""
    while len(datagram) >= _HEADERS:
        (length,) = struct.unpack_from("=I", datagram)
        if length < _HEADERS:
            return
        ended = _ended(datagram[_HEADERS:length])
        if ended is not None:
            yield ended
        datagram = datagram[_padded(length) :]


def _ended(message: bytes) -> Ended | None:
    try:
        attributes = _attributes(message)
        original = _attributes(attributes[_TUPLE_ORIG])
        protocol = _attributes(original[_TUPLE_PROTO])
        if protocol[_PROTO_NUM][0] != socket.IPPROTO_TCP:
            return None
        (port,) = struct.unpack(">H", protocol[_PROTO_SRC_PORT])
        address = socket.inet_ntoa(_attributes(original[_TUPLE_IP])[_IP_V4_SRC])
        (stop_ns,) = struct.unpack(">Q", _attributes(attributes[_TIMESTAMP])[_TIMESTAMP_STOP])
    except KeyError:
        return None
    return Ended(address, port, stop_ns / 1e9)


def _attributes(data: bytes) -> dict[int, bytes]:
    """Netlink attributes by type: length, type, value, padded to four bytes."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind & _TYPE] = data[4:length]
        data = data[_padded(length) :]
    return found


def _padded(length: int) -> int:
    return (length + 3) & ~3
