"""A liveness policy as configuration for real stacks, with what each cannot express and what it will really do.

From a `LivenessPolicy` and a target's name to text. The four Python targets are whole programs that can be
started as they are; nginx and sysctl are fragments. Runs nothing; the tests run every program against a
silenced client.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from harness.theory.tcp import LINUX_FIRST_RTO_S, LINUX_RETRIES2, LINUX_RTO_MAX_S, tcp_give_up_s
from reference_server.errors import FlatlineError, unknown_name
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["TARGETS", "USER_TIMEOUT_LATE_S", "CannotEmit", "Emitted", "emit"]

USER_TIMEOUT_LATE_S = 1.0
"""How late TCP_USER_TIMEOUT may fire: it waits for the next retransmission (5.0 s came at 5.55 s)."""

_COMMENT_WIDTH = 100


class CannotEmit(FlatlineError):
    """The target is unknown, or the policy has nothing that it could be told."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """A policy as one stack's configuration.

    ``detection_range_s`` is [lo, hi) from a silent death to the moment that the stack's own disconnect
    handler runs (for nginx and sysctl: the socket fails), round trips taken as zero, for a client to which
    no more is queued than the kernel takes (a note says what happens else).
    """

    target: str
    text: str
    notes: tuple[str, ...]
    detection_range_s: tuple[float, float]


def user_timeout_s(policy: LivenessPolicy) -> float:
    """TCP_USER_TIMEOUT of each socket, the backstop behind the heartbeat: the policy's, or T + (k−1)R + τ."""
    return policy.tcp_user_timeout or policy.interval_s + policy.patience_s


def detection_range_s(
    policy: LivenessPolicy, interval_s: float, deadline_s: float, close_wait_s: float = 0.0
) -> tuple[float, float]:
    """[lo, hi) of a ping every `interval_s` with this deadline, or of the kernel if it is sooner."""
    lo_s = deadline_s + close_wait_s
    hi_s = interval_s + lo_s
    if user_timeout_s(policy) >= lo_s:
        return lo_s, hi_s
    late_s = interval_s + user_timeout_s(policy) + USER_TIMEOUT_LATE_S
    return user_timeout_s(policy), min(hi_s, late_s)


def one_deadline_note(policy: LivenessPolicy, setting: str) -> list[str]:
    """What becomes of max_failures and retry_interval where a stack knows one ping and one deadline."""
    if policy.max_failures == 1:
        return []
    return [
        f"max_failures {policy.max_failures} and retry_interval {policy.retry_s:g} s cannot be said: one "
        f"ping waits {setting} = (k-1)R + tau = {policy.patience_s:g} s instead of "
        f"{policy.max_failures} pings in a row. Detection is the same; while a pong is missing nothing "
        "more is sent, so a middlebox on the way sees no packet for that long."
    ]


def protocol_ping_note() -> str:
    """What a protocol ping does not prove."""
    return (
        "These are protocol pings: a browser's network process answers them for a page that is frozen, "
        "so a frozen tab is not noticed."
    )


def shared_notes(policy: LivenessPolicy, range_s: tuple[float, float]) -> list[str]:
    """What none of the stacks expresses, and the kernel's part."""
    notes = []
    idle_s = policy.session_timeout
    if idle_s is not None:
        first = idle_s < range_s[1]
        notes.append(
            f"session_timeout {idle_s:g} s cannot be said"
            + (
                ": your policy would have noticed some silent clients by it first, here they wait for "
                f"the heartbeat, up to {range_s[1]:g} s."
                if first
                else "; it would not have been the first to notice a silent client."
            )
        )
    if policy.max_sessions is not None:
        notes.append(f"max_sessions {policy.max_sessions} cannot be said.")
    notes.append(
        "session_ttl, status_ttl and resume_window are your application's records: this does not touch them."
    )
    which = "the policy's" if policy.tcp_user_timeout is not None else "T + (k-1)R + tau, added here,"
    notes.append(
        f"TCP_USER_TIMEOUT is {which} {user_timeout_s(policy):g} s (Linux). It is for clients that die while "
        "more is queued for them than the kernel takes. The ping or the close then waits in that queue and "
        f"the heartbeat notices nothing: the kernel gives up within {user_timeout_s(policy) + USER_TIMEOUT_LATE_S:g} s "
        "of the death, by default after 924.6 s or more."
    )
    return notes


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the output is Python, nginx and sysctl, not HTML
    )
    environment.filters["comment"] = _commented
    environment.filters["seconds"] = lambda value: f"{value:.12g}"
    return environment


def _emitted(
    target: str,
    template: str,
    policy: LivenessPolicy,
    notes: list[str],
    range_s: tuple[float, float],
    **values: Any,
) -> Emitted:
    """Fill a template of `templates/`; TCP_USER_TIMEOUT counts in milliseconds.

    Raises:
        jinja2.UndefinedError: the template wants a value that is not given.
    """
    user_timeout_ms = math.ceil(round(user_timeout_s(policy) * 1000, 6))
    given = {"policy": policy, "user_timeout_ms": user_timeout_ms, "notes": notes, "range_s": range_s}
    text = _environment().get_template(template).render(**given, **values)
    return Emitted(target, text, tuple(notes), range_s)


def _commented(text: str) -> str:
    return textwrap.fill(
        text,
        _COMMENT_WIDTH,
        initial_indent="# * ",
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def aiohttp_server(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `aiohttp.web.WebSocketResponse`.

    A ping h after the last inbound frame and h/2 for the answer: T_D is U + h/2, in [h/2, 3h/2). h is the
    policy's T, or less where 3h/2 would be later than the policy's own bound: never fewer packets on the way
    and never a later detection than the policy has.
    """
    heartbeat_s = min(policy.interval_s, (policy.interval_s + policy.patience_s) * 2 / 3)
    range_s = detection_range_s(policy, heartbeat_s, heartbeat_s / 2)
    notes = [
        f"heartbeat is the only number: a ping {heartbeat_s:g} s after the last frame of the client, and the "
        f"deadline is half of that, {heartbeat_s / 2:g} s. The policy waits (k-1)R + tau = "
        f"{policy.patience_s:g} s"
        + (
            ": here an outage of half a heartbeat already drops a healthy client."
            if policy.patience_s > heartbeat_s / 2
            else "."
        ),
        "timeout_ceil_threshold is raised: by default aiohttp rounds every timer above 5 s up to a whole "
        "second of the loop's clock, which makes both times up to 1 s longer (heartbeat=30 gives 31 + 16 s).",
        protocol_ping_note(),
        *shared_notes(policy, range_s),
    ]
    return _emitted("aiohttp", "aiohttp.py.j2", policy, notes, range_s, heartbeat_s=heartbeat_s)


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


def linux_sysctl(policy: LivenessPolicy) -> Emitted:
    """Write `tcp_retries2` and TCP keepalive so that the kernel gives up soon after the heartbeat would."""
    latest_s = policy.interval_s + policy.patience_s
    retries2 = next((n for n in range(1, LINUX_RETRIES2) if tcp_give_up_s(n) >= latest_s), LINUX_RETRIES2)
    give_up_s = tcp_give_up_s(retries2)
    range_s = give_up_range_s(policy.interval_s, retries2)
    keepalive_s = max(1, math.ceil(policy.interval_s))
    probe_s = max(1, math.ceil(policy.patience_s / _PROBES))
    notes = [
        "The kernel knows neither pings nor answers: this bounds how long data may stay unacknowledged. The "
        f"heartbeat, {policy.patience_s:g} to {latest_s:g} s, comes first; this is for sockets that only send.",
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
    return _emitted(
        "sysctl",
        "sysctl.conf.j2",
        policy,
        notes,
        range_s,
        retries2=retries2,
        give_up_s=give_up_s,
        keepalive_s=keepalive_s,
        probe_s=probe_s,
        probes=_PROBES,
    )


_LEAST_S = 60  # nginx's default: no reason to go below it


def nginx_proxy(policy: LivenessPolicy) -> Emitted:
    """Write the timers of an nginx `location` for a gateway with this policy.

    proxy_read_timeout runs from one frame of the gateway to the next. A gateway that waits for one pong sends
    nothing for (k−1)R + τ, so the timer is above T + (k−1)R + τ, and T more.
    Source: nginx documentation, ngx_http_proxy_module.
    """
    timeout_s = max(_LEAST_S, math.ceil(2 * policy.interval_s + policy.patience_s))
    range_s = give_up_range_s(policy.interval_s, LINUX_RETRIES2)
    notes = [
        "nginx passes heartbeats on and has none of its own: the range above is its kernel's patience with a "
        "silent client. What detects is the gateway behind it, by its policy: "
        f"{policy.patience_s:g} to {policy.interval_s + policy.patience_s:g} s.",
        "proxy_read_timeout is renewed by every frame of the gateway, not by frames of the client: heartbeats "
        "that only the client sends do not keep it open unless the gateway answers them.",
        "Behind nginx the gateway's TCP peer is nginx: TCP_USER_TIMEOUT and TCP keepalive of the gateway no "
        "longer see the client, only heartbeats that the client answers do.",
        "A load balancer in front of nginx has a timer of its own; keep the heartbeat interval below half of it.",
    ]
    return _emitted("nginx", "nginx.conf.j2", policy, notes, range_s, timeout_s=timeout_s)


def socketio_server(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `socketio.AsyncServer`.

    On a WebSocket Engine.IO waits ping_interval + ping_timeout for the next packet of a client, so T_D is
    U + (k−1)R + τ where the last packet was a pong. Its sweep, once a ping_timeout, only matters for
    long-polling, which is not offered here.
    """
    range_s = detection_range_s(policy, policy.interval_s, policy.patience_s)
    polling_hi_s = policy.interval_s + 2 * policy.patience_s
    notes = [
        *one_deadline_note(policy, "ping_timeout"),
        "Only the WebSocket transport is offered. Long-polling clients are found by a sweep once a "
        f"ping_timeout, after {policy.patience_s:g} to {polling_hi_s:g} s.",
        "uvicorn's own pings are off (ws_ping_interval=None): its 20 s / 20 s would race these.",
        "The pings are application messages that the page's script answers: a frozen tab is noticed.",
        "Clients are told both times in the handshake and use them to notice a dead server.",
        *shared_notes(policy, range_s),
    ]
    return _emitted("python-socketio", "socketio.py.j2", policy, notes, range_s)


def uvicorn_server(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `uvicorn.Config`.

    Its websockets-sansio protocol closes the transport at the pong's deadline without waiting for a closing
    handshake: T_D is U + (k−1)R + τ.
    """
    range_s = detection_range_s(policy, policy.interval_s, policy.patience_s)
    notes = [
        *one_deadline_note(policy, "ws_ping_timeout"),
        "ws is websockets-sansio, whose keepalive closes at the deadline; uvicorn before April 2026 ignored "
        "both settings there, so the program asks first. ws=websockets, the older implementation, waits for "
        "a closing handshake on top.",
        "Only the pong counts as a sign of life, other frames do not.",
        protocol_ping_note(),
        *shared_notes(policy, range_s),
    ]
    return _emitted("uvicorn", "uvicorn.py.j2", policy, notes, range_s)


_CLOSE_TIMEOUT_S = 2.0  # a closing handshake takes one round trip; the library's 10 s are for nobody


def websockets_server(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `websockets.asyncio.server.serve`.

    The handler of a silent client ends close_timeout after the pong's deadline: the library sends a close
    frame and waits for the answer. So T_D is U + (k−1)R + τ + close_timeout.
    """
    close_timeout_s = min(_CLOSE_TIMEOUT_S, policy.heartbeat_timeout / 5)
    range_s = detection_range_s(policy, policy.interval_s, policy.patience_s, close_timeout_s)
    notes = [
        *one_deadline_note(policy, "ping_timeout"),
        f"After the deadline the library sends a close frame and waits close_timeout = {close_timeout_s:g} s "
        "for the silent client before the handler ends (10 s by default). That is in the range above.",
        "Only the pong counts as a sign of life, other frames do not.",
        protocol_ping_note(),
        *shared_notes(policy, range_s),
    ]
    return _emitted("websockets", "websockets.py.j2", policy, notes, range_s, close_timeout_s=close_timeout_s)


TARGETS: dict[str, Callable[[LivenessPolicy], Emitted]] = {
    "websockets": websockets_server,
    "uvicorn": uvicorn_server,
    "python-socketio": socketio_server,
    "aiohttp": aiohttp_server,
    "nginx": nginx_proxy,
    "sysctl": linux_sysctl,
}
"""What a policy can be written for, by name."""


def emit(policy: LivenessPolicy, target: str) -> Emitted:
    """Write a policy as a target's configuration.

    Raises:
        CannotEmit: no such target, or a policy without a heartbeat.
    """
    if target not in TARGETS:
        raise CannotEmit(unknown_name(f"no target {target!r}", target, TARGETS))
    if policy.heartbeat_interval is None:
        raise CannotEmit("this policy has no heartbeat: heartbeat_interval is null")
    return TARGETS[target](policy)
