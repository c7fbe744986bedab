"""Real silence on one TCP connection: its kernel drops every inbound segment before acknowledging it.

    peer ──data──► [ filter: keep 0 bytes ] ✗ socket        the peer retransmits into the void,
    peer ◄──────── nothing, no ACK, no RST                  as after a cut cable or a lost phone

A classic BPF socket filter that returns 0, attached with ``SO_ATTACH_FILTER`` (Linux, socket(7)).
Detach it and TCP heals by the peer's next retransmission. What goes *out* is not dropped: whoever
attaches also stops sending, and does not close the socket, which would send FIN.

Takes any object with `fileno`, or a descriptor; blocks nowhere; imports neither gevent nor locust.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import cache

from reference_server.websocket.tcp_info import HasFileno, read_tcp_info

__all__ = ["Availability", "attach", "attach_lossy", "detach", "silence_available"]

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module does not name them
_SO_DETACH_FILTER = 27
_BPF_RET_K = 0x06  # linux/bpf_common.h: return the constant k
_BPF_LD_W_ABS = 0x20
_BPF_JMP_JGE_K = 0x35
_SKF_AD_RANDOM = 0xFFFFF000 + 56  # linux/filter.h: "load" 32 random bits
_ALL = 0xFFFFFFFF
_TRIAL_DEADLINE_S = 5.0  # for the first retransmission after about 0.2 s to come through

_libc = ctypes.CDLL(None, use_errno=True)


class _Instruction(ctypes.Structure):
    """``struct sock_filter``."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _program_of(*instructions: _Instruction) -> _Program:
    array = (_Instruction * len(instructions))(*instructions)
    return _Program(len(instructions), ctypes.cast(array, ctypes.POINTER(_Instruction)))


_keep_nothing = _program_of(_Instruction(_BPF_RET_K, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether this machine lets us do something, and if not, why and what would help."""

    ok: bool
    reason: str
    help: str = ""


def attach(sock: HasFileno | int) -> None:
    """Begin the silence: from now on nothing that the peer sends is received or acknowledged.

    Raises:
        OSError: refused (EPERM; `silence_available` says what would help) or not a socket (EBADF).
    """
    _setsockopt(sock, socket.SOL_SOCKET, _SO_ATTACH_FILTER, _keep_nothing)


def attach_lossy(sock: HasFileno | int, rate: float) -> None:
    """From now on drop each inbound packet with this probability, by the kernel's dice: no seed repeats them.

    Raises:
        OSError: as `attach`.
        ValueError: a rate that is not within [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate {rate:g}; allowed: 0 to 1")
    program = _program_of(
        _Instruction(_BPF_LD_W_ABS, 0, 0, _SKF_AD_RANDOM),
        _Instruction(_BPF_JMP_JGE_K, 0, 1, min(round(rate * 2**32), _ALL)),
        _Instruction(_BPF_RET_K, 0, 0, _ALL),
        _Instruction(_BPF_RET_K, 0, 0, 0),
    )
    _setsockopt(sock, socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def detach(sock: HasFileno | int) -> None:
    """End the silence, or the loss.

    Raises:
        OSError: no filter is attached (ENOENT), or not a socket (EBADF).
    """
    _setsockopt(sock, socket.SOL_SOCKET, _SO_DETACH_FILTER, ctypes.c_int(0))


@cache
def silence_available() -> Availability:
    """Try the filter on a loopback connection: attach, see silence, detach, see it heal (0.2 s).

    The answer is kept: a process's privileges do not grow.
    """
    if sys.platform != "linux":
        return Availability(False, f"no TCP socket filters on {sys.platform}", "run the real engine on Linux")
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    with closing(client), closing(peer):
        try:
            attach(client)
        except OSError as error:
            return Availability(
                False,
                f"the kernel refuses a socket filter: {error.strerror}",
                "run as root, or give the process CAP_NET_ADMIN "
                "(container: --cap-add NET_ADMIN; command: setpriv --ambient-caps +net_admin)"
                if error.errno == errno.EPERM
                else "use a kernel with socket filters (CONFIG_NET)",
            )
        peer.send(b"?")
        leaked, _, _ = select.select([client], [], [], 0.02)
        info = read_tcp_info(peer)
        if leaked or info is None or info.unacked == 0:
            return Availability(
                False,
                "a socket filter can be attached, but drops nothing",
                "use a Linux kernel's own TCP; user-space network stacks do not run socket filters",
            )
        detach(client)
        healed, _, _ = select.select([client], [], [], _TRIAL_DEADLINE_S)
        if not healed:
            return Availability(
                False,
                f"a filtered connection did not heal within {_TRIAL_DEADLINE_S:g} s",
                "use a Linux kernel's own TCP",
            )
    return Availability(True, "tried: a filtered connection fell silent and healed")


def _setsockopt(sock: HasFileno | int, level: int, option: int, value: _Program | ctypes.c_int) -> None:
    fd = sock if isinstance(sock, int) else sock.fileno()
    if _libc.setsockopt(fd, level, option, ctypes.byref(value), ctypes.sizeof(value)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
