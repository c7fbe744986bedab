"""What the kernel knows of a TCP connection: from a socket to `TcpInfo`, by Linux's ``TCP_INFO``.

It tells real silence from a client that merely does not answer: data that vanishes stays
unacknowledged and is retransmitted (``unacked`` > 0, ``retransmits`` grows), while the kernel of a
frozen client goes on acknowledging (``unacked`` = 0). Decides nothing and keeps no state.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Protocol

__all__ = ["HasFileno", "TcpInfo", "read_tcp_info"]


class HasFileno(Protocol):
    """A socket, or what stands for one (asyncio's and uvloop's transports lend such an object)."""

    def fileno(self) -> int:
        """Return the descriptor; −1 once it is closed."""


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The part of ``struct tcp_info`` that a verdict on a connection needs."""

    state: str  # of the connection, as one of `_STATES`
    unacked: int  # segments sent and not acknowledged
    retransmits: int  # time-outs in a row of the oldest unacknowledged segment (`tcpi_retransmits`)
    total_retransmits: int  # segments sent again since the connection began, tail-loss probes included
    last_data_recv_ms: int  # since data last came
    last_ack_recv_ms: int  # since an acknowledgement last came
    rto_us: int  # retransmission time-out in force, back-off included
    rtt_us: int  # smoothed round trip; 0: never measured


# In the order of Linux's ``include/net/tcp_states.h``, which begins at 1.
_STATES = (
    *("", "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait"),
    *("close", "close_wait", "last_ack", "listen", "closing", "new_syn_recv"),
)
# First 104 bytes of ``struct tcp_info`` (``uapi/linux/tcp.h``), unchanged since 2.6; x: what is passed over.
# state, retransmits; rto; unacked; last_data_recv, last_ack_recv; rtt; total_retrans
_RAW = struct.Struct("=BxB5x I12x I24x II8x I28x I")
_HAS_TCP_INFO = sys.platform == "linux"  # other systems give other structures under the same name


def read_tcp_info(sock: HasFileno | int) -> TcpInfo | None:
    """Read ``TCP_INFO`` of a socket or descriptor; about 5 µs, opens no descriptor of its own.

    Returns:
        None when the socket is gone or is not TCP, or the system has no Linux ``TCP_INFO``.
    """
    fd = sock if isinstance(sock, int) else sock.fileno()
    if not _HAS_TCP_INFO or fd < 0:
        return None
    try:
        # uvloop's stand-in for a socket lends only its descriptor. What is made of that here has no other one.
        lent = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
    except OSError:
        return None
    try:
        raw = lent.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RAW.size)
    except OSError:
        return None
    finally:
        lent.detach()  # the descriptor stays open
    if len(raw) < _RAW.size:
        return None
    state, retransmits, rto_us, unacked, data_ms, ack_ms, rtt_us, total_retransmits = _RAW.unpack(raw)
    return TcpInfo(_STATES[state], unacked, retransmits, total_retransmits, data_ms, ack_ms, rto_us, rtt_us)
