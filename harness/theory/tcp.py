"""When TCP retransmits and when it gives up. Seconds; no sockets.

Sources: Linux `tcp_model_timeout` (net/ipv4/tcp_timer.c), Documentation/networking/ip-sysctl.rst
(`tcp_retries2`), RFC 6298 (back-off).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "LINUX_FIRST_RTO_S",
    "LINUX_HZ",
    "LINUX_RETRIES2",
    "LINUX_RTO_MAX_S",
    "ladder_give_up_s",
    "tcp_give_up_s",
    "textbook_ladder_s",
    "user_timeout_fires_s",
    "user_timeout_late_s",
]

LINUX_RETRIES2 = 15
LINUX_FIRST_RTO_S = 0.2
LINUX_RTO_MAX_S = 120.0
LINUX_HZ = 250


def textbook_ladder_s(
    retransmissions: int, first_rto_s: float = LINUX_FIRST_RTO_S, max_rto_s: float = LINUX_RTO_MAX_S
) -> tuple[float, ...]:
    """Times of the retransmissions after the first send: doubling waits, capped (0.2, 0.6, 1.4, 3.0, … s)."""
    waits = [min(first_rto_s * 2.0**n, max_rto_s) for n in range(retransmissions)]
    return tuple(float(time_s) for time_s in np.cumsum(waits))


def tcp_give_up_s(
    retries2: int = LINUX_RETRIES2, first_rto_s: float = LINUX_FIRST_RTO_S, max_rto_s: float = LINUX_RTO_MAX_S
) -> float:
    """Time from the first unacknowledged send until the kernel ends the connection with ETIMEDOUT.

    `tcp_retries2` retransmissions and the wait after the last of them: Σ_{n=0..r} min(RTO·2ⁿ, max).
    924.6 s for 15 and 12.6 s for 5 with a first RTO of 0.2 s.

    Raises:
        ValueError: a negative count or a first RTO outside (0, max_rto_s].
    """
    if retries2 < 0 or not 0 < first_rto_s <= max_rto_s:
        raise ValueError(
            f"tcp_retries2 {retries2}, first RTO {first_rto_s:g} s; "
            f"allowed: retries2 >= 0, 0 < first RTO <= {max_rto_s:g} s"
        )
    return textbook_ladder_s(retries2 + 1, first_rto_s, max_rto_s)[-1]


def ladder_give_up_s(ladder_s: Sequence[float], retries2: int = LINUX_RETRIES2) -> float:
    """When the kernel ends the connection by itself, from the first unacknowledged send, on a ladder as measured.

    At the first of its timers that comes `tcp_give_up_s` or more after its own first retransmission; the steps of
    a ladder that is too short go on doubling, at most 120 s apart. 933.6 s for 15 and 13.36 s for 5 on the
    ladder measured on loopback, that begins with the tail-loss probe.
    """
    steps = list(ladder_s)
    began_s = steps[min(1, len(steps) - 1)]
    while steps[-1] - began_s < tcp_give_up_s(retries2):
        gap_s = steps[-1] - (steps[-2] if len(steps) > 1 else 0.0)
        steps.append(steps[-1] + min(2 * gap_s, LINUX_RTO_MAX_S))
    return next(step for step in steps if step - began_s >= tcp_give_up_s(retries2))


def user_timeout_fires_s(user_timeout_s: float, ladder_s: Sequence[float]) -> float:
    """When ``TCP_USER_TIMEOUT`` ends the connection, from the first unacknowledged send.

    The kernel counts from the first retransmission that is not the tail-loss probe, the second entry of a
    ladder that begins with the probe (measured: 5.0 s fired at 5.55 s, 30.8 s at 31.2 s).
    """
    return user_timeout_s + ladder_s[min(1, len(ladder_s) - 1)]


def user_timeout_late_s(user_timeout_s: float, ladder_s: Sequence[float]) -> float:
    """How late ``TCP_USER_TIMEOUT`` may fire, at most: the grain of the kernel's timer for the last wait.

    Linux sorts timers into wheels whose grain grows eightfold from one to the next, and rounds up: 4 ms, 32 ms from
    0.25 s on, 256 ms from 2 s, 2.05 s from 16 s, at 250 ticks a second. Real seconds, which no faster run shortens.
    Source: Linux kernel/time/timer.c, LVL_GRAN and LVL_START; measured: 46.2 s fired 0.1 to 1.7 s late.
    """
    fires_s = user_timeout_fires_s(user_timeout_s, ladder_s)
    wait_ticks = (fires_s - max((s for s in ladder_s if s < fires_s), default=0.0)) * LINUX_HZ
    level = 0
    while wait_ticks >= 63 * 8**level:
        level += 1
    return float(8**level / LINUX_HZ)
