"""What every target shares: the result, the wanted times, the kernel's backstop, the notes, the templates."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from reference_server.errors import FlatlineError
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = [
    "USER_TIMEOUT_LATE_S",
    "CannotEmit",
    "Emitted",
    "detection_range_s",
    "one_deadline_note",
    "protocol_ping_note",
    "render",
    "shared_notes",
    "user_timeout_s",
]

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
    language: str
    filename: str
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


def render(
    template: str, policy: LivenessPolicy, notes: list[str], range_s: tuple[float, float], **values: Any
) -> str:
    """Fill a template of `templates/`; TCP_USER_TIMEOUT counts in milliseconds.

    Raises:
        jinja2.UndefinedError: the template wants a value that is not given.
    """
    user_timeout_ms = math.ceil(round(user_timeout_s(policy) * 1000, 6))
    return (
        _environment()
        .get_template(template)
        .render(policy=policy, user_timeout_ms=user_timeout_ms, notes=notes, range_s=range_s, **values)
    )


def _commented(text: str) -> str:
    return textwrap.fill(
        text,
        _COMMENT_WIDTH,
        initial_indent="# * ",
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
