"""Linux sysctl: the kernel as a backstop behind the heartbeat, for every connection of the machine."""

from __future__ import annotations

import math

from harness.emit.emitted import Emitted, Wanted, render
from harness.theory import tcp_give_up_s
from harness.theory.tcp import LINUX_FIRST_RTO_S, LINUX_RETRIES2, LINUX_RTO_MAX_S
from reference_server.liveness import LivenessPolicy

__all__ = ["emit", "give_up_range_s"]

_PROBES = 3
_RFC_1122_R2_S = 100.0


def give_up_range_s(interval_s: float, retries2: int) -> tuple[float, float]:
    """[lo, hi) from a silent death to the kernel's ETIMEDOUT when something is sent every `interval_s`.

    The kernel gives up at the first retransmission timer that is the modelled time or more after the first
    *retransmission*, which comes up to two RTOs after the send (tail-loss probe, then RTO). Timers double, at
    most 120 s apart, so the wait for the next one is at most what has passed, and an RTO.
    Source: Linux net/ipv4/tcp_timer.c, retransmits_timed_out and tcp_model_timeout.
    """
    give_up_s = tcp_give_up_s(retries2)
    counted_from_s = 2 * LINUX_FIRST_RTO_S
    next_timer_s = min(counted_from_s + give_up_s + LINUX_FIRST_RTO_S, LINUX_RTO_MAX_S)
    return give_up_s, interval_s + counted_from_s + give_up_s + next_timer_s


def emit(policy: LivenessPolicy) -> Emitted:
    """Write `tcp_retries2` and TCP keepalive so that the kernel gives up soon after the heartbeat would."""
    wanted = Wanted.of(policy)
    latest_s = wanted.interval_s + wanted.patience_s
    retries2 = next(
        (n for n in range(1, LINUX_RETRIES2) if tcp_give_up_s(n) >= latest_s), LINUX_RETRIES2
    )
    give_up_s = tcp_give_up_s(retries2)
    range_s = give_up_range_s(wanted.interval_s, retries2)
    keepalive_s = max(1, math.ceil(wanted.interval_s))
    probe_s = max(1, math.ceil(wanted.patience_s / _PROBES))
    notes = [
        "The kernel knows neither pings nor answers: this bounds how long data may stay unacknowledged. The "
        f"heartbeat, {wanted.patience_s:g} to {latest_s:g} s, comes first; this is for sockets that only send.",
        "A frozen client is never noticed by this: its kernel still acknowledges.",
        "It applies to every TCP connection of the machine (or network namespace), also to other hosts' "
        "databases. TCP_USER_TIMEOUT does the same for one socket: prefer it where you can.",
        "TCP keepalive is used only by sockets that ask for it (SO_KEEPALIVE), and not while data is in flight.",
    ]
    if give_up_s < latest_s:
        notes.append(
            f"The heartbeat takes up to {latest_s:g} s, longer than the kernel's default of {give_up_s:g} s "
            "or more: the kernel may come first."
        )
    if give_up_s < _RFC_1122_R2_S:
        notes.append(
            f"{give_up_s:g} s is less than the 100 s that RFC 1122 section 4.2.3.5 asks for: connections "
            "over bad links will break sooner."
        )
    text = render(
        "sysctl.conf.j2", notes, range_s, retries2=retries2, give_up_s=give_up_s,
        keepalive_s=keepalive_s, probe_s=probe_s, probes=_PROBES,
    )  # fmt: skip
    return Emitted("sysctl", "sysctl", "90-flatline-liveness.conf", text, tuple(notes), range_s)
