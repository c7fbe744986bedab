"""Rules about the boxes on the way: a heartbeat must be quicker than what forgets the connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.lint.finding import Finding, Severity, round_down_s, round_up_s
from harness.lint.setting import Setting
from harness.profiles import IdleTimerProfile

__all__ = ["WAY"]

_MARGIN = 0.1  # of the idle timer: a beat may be late by a retransmission or a busy loop
_HOUR_S = 3600.0


def idle_timer(setting: Setting, box: IdleTimerProfile) -> Iterator[Finding]:
    """No packet for longer than the box's idle timer: T >= N is an error, within 10 % below it a warning."""
    idle_s = box.idle_timeout
    if idle_s is None:
        return
    interval_s = setting.interval_s
    wanted_s = round_down_s(idle_s / 2)
    if interval_s is None:
        yield Finding(
            Severity.ERROR, "no_heartbeat_behind_idle_timer",
            f"nothing is sent on an idle connection, and {box.title} ends it after {idle_s:g} s",
            _expiry(box, "the next message"),
            f"send a heartbeat every {wanted_s:g} s",
            box.name, _interval(setting, wanted_s),
        )  # fmt: skip
        return
    if interval_s < idle_s * (1 - _MARGIN) or interval_s <= wanted_s:
        return
    fix = (
        f"heartbeat_interval {wanted_s:g}s (half of the timer: one beat may be late or lost)"
        + _raised(box, 2 * interval_s)
    )
    if interval_s >= idle_s:
        equal = "equal to" if interval_s == idle_s else "above"
        late_s = interval_s - idle_s
        finds = "" if setting.patience_s is None or box.expiry != "drop" else (
            f"; the server notices {late_s:g} + {setting.patience_s:g} = "
            f"{late_s + setting.patience_s:g} s later"
        )  # fmt: skip
        yield Finding(
            Severity.ERROR, "interval_reaches_idle_timer",
            f"the heartbeat interval, {interval_s:g} s, is {equal} the idle timer of {box.title}, {idle_s:g} s",
            f"healthy connections are lost {idle_s:g} s after their last packet: "
            f"{_expiry(box, f'the next beat, {late_s:g} s later,')}{finds}",
            fix, box.name, _interval(setting, wanted_s),
        )  # fmt: skip
    else:
        yield Finding(
            Severity.WARNING, "interval_close_to_idle_timer",
            f"the heartbeat interval, {interval_s:g} s, leaves {idle_s - interval_s:g} s to the idle timer of "
            f"{box.title}, {idle_s:g} s",
            "one beat that is late, by a retransmission or a busy event loop, loses a healthy connection",
            fix, box.name, _interval(setting, wanted_s),
        )  # fmt: skip


def lifetime(setting: Setting, box: IdleTimerProfile) -> Iterator[Finding]:
    """A box that ends every connection at an age: no heartbeat prevents it."""
    life_s = box.lifetime
    if life_s is None:
        return
    latest = setting.detection_range_s
    if setting.interval_s is not None and life_s <= setting.interval_s:
        severity, why = Severity.ERROR, "before the first heartbeat is due"
    elif latest is not None and life_s <= latest[1]:
        severity, why = Severity.ERROR, f"before a dead client is noticed ({latest[1]:g} s)"
    else:
        severity = Severity.INFO if life_s >= _HOUR_S else Severity.WARNING
        why = "however alive it is"
    if life_s < _HOUR_S:
        fix = f"raise that timeout to {_HOUR_S:g} s or more, and let clients come back to their session"
    else:
        fix = "let clients come back to their session: resume_window 10s or more, back-off with jitter"
    yield Finding(
        severity, "lifetime_ends_connection",
        f"{box.title} ends every connection at the age of {life_s:g} s, {why}",
        "it is a lifetime, not an idle limit: no traffic prevents it",
        fix, box.name,
    )  # fmt: skip


WAY: tuple[Callable[[Setting, IdleTimerProfile], Iterator[Finding]], ...] = (idle_timer, lifetime)
"""Every rule about one setting and one box."""


def _expiry(box: IdleTimerProfile, packet: str) -> str:
    match box.expiry:
        case "drop":
            return f"{packet} then vanishes without an answer"
        case "reset":
            return f"{packet} is then answered with RST"
        case "close":
            return "the box closes it on both sides, and clients reconnect for ever"


def _interval(setting: Setting, interval_s: float) -> dict[str, Any]:
    """The new interval, and what must not stay above it."""
    changes: dict[str, Any] = {"interval_s": interval_s}
    if setting.timeout_s is not None and setting.timeout_s > interval_s:
        changes["timeout_s"] = interval_s
    return changes


def _raised(box: IdleTimerProfile, idle_s: float) -> str:
    if box.configurable is None or not box.configurable.low <= idle_s <= box.configurable.high:
        return ""
    return f", or raise the timer to {round_up_s(idle_s):g} s"
