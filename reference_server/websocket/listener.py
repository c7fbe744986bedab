"""The listening socket with its TCP options, and the limit of file descriptors. Some options exist on Linux only."""

from __future__ import annotations

import math
import resource
import socket

from reference_server.liveness.heartbeat_policy import TcpKeepalive

__all__ = ["BACKLOG", "listen", "raise_descriptor_limit"]

BACKLOG = 4096  # a reconnect storm waits here; the kernel cuts it to net.core.somaxconn


def listen(
    host: str,
    port: int,
    tcp_user_timeout_s: float | None = None,
    tcp_keepalive: TcpKeepalive | None = None,
    *,
    reuse_port: bool = False,
) -> socket.socket:
    """Return a listening TCP socket; port 0: any free one.

    Options that every connection is to have are set here, and accepted sockets inherit them: no system
    call a connection.

    Args:
        host: an address or a name.
        port: to listen on.
        tcp_user_timeout_s: how long the kernel waits for an acknowledgement; None: its own patience
            (Linux: about 15 minutes).
        tcp_keepalive: the kernel's probes of an idle connection, rounded up to whole seconds; None: none.
        reuse_port: other processes that say so too listen on the same port; the kernel deals
            connections out.

    Raises:
        OSError: the address is in use, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=reuse_port)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tcp_user_timeout_s is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = max(1, round(tcp_user_timeout_s * 1000))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    if tcp_keepalive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle_s, interval_s = math.ceil(tcp_keepalive.idle), math.ceil(tcp_keepalive.interval)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, tcp_keepalive.count)
    sock.setblocking(False)
    return sock


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may allow itself; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
