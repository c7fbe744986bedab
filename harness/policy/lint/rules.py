"""The rules of lint: about the heartbeat alone, about the records of sessions, about the boxes on the way.

Each rule takes a `Setting` (and a box) and yields its findings: times that contradict each other, records that live too
long or too short beside the detection, a box that forgets a connection before the next beat. It reads no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.policy.lint.setting import Setting
from harness.policy.profiles import IdleTimerProfile
from harness.theory.tcp import tcp_give_up_s

__all__ = ["HEARTBEAT", "RECORDS", "WAY", "Finding", "Severity"]


class Severity(StrEnum):
    """How bad it is, the worst first."""

    ERROR = "error"  # healthy clients are dropped, or dead ones are not noticed as promised
    WARNING = "warning"  # it works until something small goes wrong
    INFO = "info"  # good to know


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, why (with numbers), and what to do about it (with a value).

    ``changes`` is the fix as new values of `Setting`'s fields, empty where the fix lies elsewhere;
    ``middlebox`` is the name of the box on the way that it is about, or empty.
    """

    severity: Severity
    rule: str
    message: str
    reason: str
    fix: str
    middlebox: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


def _step_s(seconds: float) -> float:
    return 5.0 if seconds >= 20 else 1.0 if seconds >= 2 else 0.1


def round_down_s(seconds: float) -> float:
    """A number that people write: a multiple of 5 s, of 1 s below 20 s, of 0.1 s below 2 s."""
    step = _step_s(seconds)
    return round(math.floor(seconds / step + 1e-9) * step, 6) or seconds


def round_up_s(seconds: float) -> float:
    """As `round_down_s`, but not below ``seconds``."""
    step = _step_s(seconds)
    return round(math.ceil(seconds / step - 1e-9) * step, 6)


_HIDDEN_PAGE_S = 60.0  # Chrome wakes the timers of a hidden page once a minute after five minutes
_CLOSE_SHARE = 0.1  # of the detection time: less than this is nobody's concern


def nothing_detects(s: Setting) -> Iterator[Finding]:
    """Neither heartbeat nor idle limit."""
    if s.interval_s is None and s.idle_limit_s is None:
        yield Finding(
            Severity.ERROR,
            "nothing_detects",
            "nothing notices a silent client",
            f"no heartbeat and no idle limit: only the kernel does, {tcp_give_up_s():g} s or more after "
            "something is next sent, or never when nothing is",
            "heartbeat_interval 25s, heartbeat_timeout 10s, max_failures 2",
            changes={"interval_s": 25.0, "timeout_s": 10.0, "max_failures": 2},
        )


def send_only(s: Setting) -> Iterator[Finding]:
    """Heartbeats whose answers nobody waits for."""
    if s.interval_s is None or s.answers_checked:
        return
    deadline_s = s.timeout_s if s.timeout_s is not None else s.interval_s / 2
    would_s = (s.max_failures - 1) * (s.retry_s or s.interval_s) + deadline_s
    yield Finding(
        Severity.ERROR,
        "send_only_heartbeat",
        "heartbeats are sent, but only a failing send counts as a failure",
        f"a send to a dead peer succeeds until TCP gives up, {tcp_give_up_s():g} s or more after the first "
        f"unacknowledged one at Linux defaults; max_failures {s.max_failures} has no part in it",
        f"count unanswered pings (deadline {deadline_s:g} s): detection in {would_s:g} to "
        f"{would_s + s.interval_s:g} s",
        changes={"answers_checked": True, "timeout_s": deadline_s},
    )


def timeout_above_interval(s: Setting) -> Iterator[Finding]:
    """The next ping goes out before the last one's deadline."""
    if s.interval_s is not None and s.timeout_s is not None and s.timeout_s > s.interval_s:
        yield Finding(
            Severity.ERROR,
            "timeout_above_interval",
            f"heartbeat_timeout {s.timeout_s:g} s is above heartbeat_interval {s.interval_s:g} s",
            "the next ping is due before the deadline of this one: which ping did an answer answer? "
            "Stacks differ: some skip pings, some drop the client",
            f"heartbeat_timeout {s.interval_s:g}s and more max_failures for the same patience",
            changes={"timeout_s": s.interval_s},
        )


def retry_below_timeout(s: Setting) -> Iterator[Finding]:
    """A retry before the deadline that it retries."""
    if s.retry_s is not None and s.timeout_s is not None and s.retry_s < s.timeout_s:
        yield Finding(
            Severity.ERROR,
            "retry_below_timeout",
            f"retry_interval {s.retry_s:g} s is below heartbeat_timeout {s.timeout_s:g} s",
            "a retry goes out before its predecessor is known to be unanswered",
            f"retry_interval {s.timeout_s:g}s",
            changes={"retry_s": s.timeout_s},
        )


def idle_limit(s: Setting) -> Iterator[Finding]:
    """An idle limit below the beat drops the healthy; below the heartbeat's verdict it pre-empts it."""
    if s.idle_limit_s is None or s.interval_s is None:
        return
    patience_s = s.patience_s
    verdict_s = None if patience_s is None else s.interval_s + patience_s
    good_s = round_up_s(2 * s.interval_s if verdict_s is None else 1.5 * verdict_s)
    if s.idle_limit_s <= s.interval_s:
        yield Finding(
            Severity.ERROR,
            "idle_limit_below_interval",
            f"the idle limit, {s.idle_limit_s:g} s, is not above the heartbeat interval, {s.interval_s:g} s",
            "a healthy, quiet client gives a sign of life once an interval: it is dropped between two of them, "
            "and reconnects for ever",
            f"session_timeout {good_s:g}s",
            changes={"idle_limit_s": good_s},
        )
    elif verdict_s is not None and s.idle_limit_s < verdict_s:
        yield Finding(
            Severity.WARNING,
            "idle_limit_preempts_heartbeat",
            f"the idle limit, {s.idle_limit_s:g} s, ends before the heartbeat's verdict, {verdict_s:g} s after the "
            "last sign of life",
            f"max_failures {s.max_failures} is a dead rule: the limit drops a silent client "
            f"{verdict_s - s.idle_limit_s:g} s before the last failure is counted",
            f"session_timeout {good_s:g}s, or fewer max_failures",
            changes={"idle_limit_s": good_s},
        )


def sweep(s: Setting) -> Iterator[Finding]:
    """The idle limit is looked at too rarely."""
    if s.idle_limit_s is None or not s.sweep_s:
        return
    alone = s.heartbeat_range_s is None or not s.answers_checked
    latest_s = s.idle_limit_s + s.sweep_s
    if s.promise_s is not None and alone and s.sweep_s > s.promise_s:
        good_s = round_down_s(s.promise_s / 4)
        yield Finding(
            Severity.ERROR,
            "sweep_coarser_than_promise",
            f"the sweep comes every {s.sweep_s:g} s, the promise is {s.promise_s:g} s",
            f"nothing else notices: a dead client is found up to {s.idle_limit_s:g} + {s.sweep_s:g} = {latest_s:g} s "
            "after its last sign of life",
            f"sweep_interval {good_s:g}s",
            changes={"sweep_s": good_s},
        )
    elif s.sweep_s > s.idle_limit_s:
        good_s = round_down_s(s.idle_limit_s / 4)
        yield Finding(
            Severity.WARNING,
            "sweep_coarser_than_limit",
            f"the sweep comes every {s.sweep_s:g} s for an idle limit of {s.idle_limit_s:g} s",
            f"the limit that holds is anything up to {latest_s:g} s",
            f"sweep_interval {good_s:g}s",
            changes={"sweep_s": good_s},
        )


def promise(s: Setting) -> Iterator[Finding]:
    """Detection is slower than what was promised."""
    found = s.detection_range_s
    if s.promise_s is None or found is None or found[1] <= s.promise_s or not s.answers_checked:
        return
    changes, fix = _quicker(s, s.promise_s)
    yield Finding(
        Severity.ERROR,
        "promise_missed",
        f"a dead client is noticed after up to {found[1]:g} s, the promise is {s.promise_s:g} s",
        f"the silent-peer range is {found[0]:g} to {found[1]:g} s",
        fix,
        changes=changes,
    )


def page_timed(s: Setting) -> Iterator[Finding]:
    """Beats timed by a web page, which browsers throttle to one a minute when it is hidden."""
    limit_s = s.idle_limit_s
    if not s.timed_by_page or limit_s is None or limit_s >= 2 * _HIDDEN_PAGE_S:
        return
    good_s = 2.5 * _HIDDEN_PAGE_S
    drops = limit_s <= _HIDDEN_PAGE_S
    yield Finding(
        Severity.ERROR if drops else Severity.WARNING,
        "page_timed_heartbeat",
        f"the page's own timer sends the heartbeats, and the server allows {limit_s:g} s without",
        "Chrome runs the timers of a page that is hidden for 5 minutes once a minute: "
        + (
            "healthy hidden tabs are dropped"
            if drops
            else f"{limit_s - _HIDDEN_PAGE_S:g} s are left for everything else"
        ),
        f"let the server ping and the page answer (messages are not throttled), or allow {good_s:g} s",
        changes={"idle_limit_s": good_s},
    )


def library_keepalive(s: Setting) -> Iterator[Finding]:
    """A library below the application has a heartbeat of its own."""
    if s.library_keepalive is None or s.interval_s is None:
        return
    interval_s, timeout_s = s.library_keepalive
    patience_s = s.patience_s
    first = patience_s is None or timeout_s < patience_s
    yield Finding(
        Severity.ERROR if first else Severity.WARNING,
        "library_keepalive_races",
        f"the library's own keepalive, {interval_s:g} s / {timeout_s:g} s, races the heartbeat",
        f"it drops a client after {timeout_s:g} s without a pong"
        + (f", not after {patience_s:g} s" if first and patience_s is not None else "")
        + ", whatever the policy says",
        "switch the library's off (websockets: ping_interval=None; uvicorn: ws_ping_interval=None)",
        changes={"library_keepalive": None},
    )


def close_wait(s: Setting) -> Iterator[Finding]:
    """A dead peer is waited for once more, with a closing handshake."""
    found = s.detection_range_s
    if found is None or s.close_wait_s <= _CLOSE_SHARE * found[1]:
        return
    yield Finding(
        Severity.WARNING,
        "close_waits_for_the_dead",
        f"after its verdict the server waits {s.close_wait_s:g} s more for a closing handshake",
        f"a silent client never answers a close frame: {found[0]:g} to {found[1]:g} s instead of "
        f"{found[0] - s.close_wait_s:g} to {found[1] - s.close_wait_s:g} s",
        "abort the transport of a suspect, or close_timeout 1s",
        changes={"close_wait_s": 0.0},
    )


HEARTBEAT: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    nothing_detects,
    send_only,
    timeout_above_interval,
    retry_below_timeout,
    idle_limit,
    sweep,
    promise,
    page_timed,
    library_keepalive,
    close_wait,
)
"""Every rule about how a dead client is noticed."""


def _quicker(s: Setting, promise_s: float) -> tuple[dict[str, Any], str]:
    """New values that keep the promise: the same failures and deadline if they fit, else one failure."""
    if s.heartbeat_range_s is None:
        limit_s = round_down_s(promise_s - s.sweep_s) if promise_s > s.sweep_s else promise_s / 2
        sweep_s = min(s.sweep_s, promise_s - limit_s)
        changes: dict[str, Any] = {"idle_limit_s": limit_s, "sweep_s": sweep_s}
        text = f"idle limit {limit_s:g}s, sweep_interval {sweep_s:g}s"
        if s.interval_s is not None and s.interval_s >= limit_s:
            changes["interval_s"] = limit_s / 2
            text += f", heartbeat_interval {limit_s / 2:g}s"
        return changes, text
    assert s.timeout_s is not None
    budget_s = promise_s - s.timeout_s - s.close_wait_s - s.deadline_sweep_s
    interval_s = round_down_s(budget_s / s.max_failures) if budget_s > 0 else 0.0
    if interval_s >= s.timeout_s:
        return (
            {"interval_s": interval_s, "retry_s": None},
            f"heartbeat_interval {interval_s:g}s with max_failures {s.max_failures}, or fewer failures",
        )
    half_s = promise_s / 2
    return (
        {"interval_s": half_s, "timeout_s": half_s, "max_failures": 1, "retry_s": None, "close_wait_s": 0.0},
        f"heartbeat_interval {half_s:g}s, heartbeat_timeout {half_s:g}s, max_failures 1",
    )


_GHOST_FACTOR = 10  # a TTL this many detection times long keeps ghosts of a crashed node ...
_GHOST_S = 600.0  # ... for longer than anyone waits


def ttls(s: Setting) -> Iterator[Finding]:
    """Records that vanish before a client is known to be dead, or stay long after."""
    found = s.detection_range_s
    if found is None:
        return
    for key, ttl_s in (("session_ttl", s.session_ttl_s), ("status_ttl", s.status_ttl_s)):
        # Refreshed when half of it is gone, so two intervals must fit.
        needs_s = max(found[1], 2 * (s.interval_s or 0.0))
        good_s = round_up_s(2 * needs_s)
        if ttl_s is not None and ttl_s < needs_s:
            yield Finding(
                Severity.ERROR,
                "ttl_below_detection",
                f"{key} {ttl_s:g} s is below the detection bound, {needs_s:g} s",
                "the record vanishes while the client still counts as connected, or between two refreshes of "
                "a healthy one",
                f"{key} {good_s:g}s",
                changes={f"{key}_s": good_s},
            )
    status_s, limit_s = s.status_ttl_s, max(_GHOST_FACTOR * found[1], _GHOST_S)
    if status_s is not None and not s.node_lease and status_s > limit_s:
        good_s = round_up_s(2 * max(found[1], 2 * (s.interval_s or 0.0)))
        yield Finding(
            Severity.WARNING,
            "ghosts_outlive_node",
            f"status_ttl {status_s:g} s is {status_s / found[1]:.0f} times the detection bound, {found[1]:g} s",
            f"when a gateway node dies its users stay online as ghosts for up to {status_s:g} s",
            f"status_ttl {good_s:g}s, or a lease per node that clears its users",
            changes={"status_ttl_s": good_s},
        )


def refreshed_past_death(s: Setting) -> Iterator[Finding]:
    """TTLs refreshed while the socket merely looks open."""
    if s.refreshed_by == "open_socket":
        yield Finding(
            Severity.ERROR,
            "refreshed_past_death",
            "TTLs are refreshed while the socket looks open, whether the client answers or not",
            f"a half-open socket looks open until TCP gives up, {tcp_give_up_s():g} s or more: no TTL ever ends "
            "the session of a dead client",
            "refresh on an inbound frame only",
            changes={"refreshed_by": "sign_of_life"},
        )


def resume_window(s: Setting) -> Iterator[Finding]:
    """Records are kept for a comeback for longer than the verdict takes."""
    found = s.detection_range_s
    if found is None or s.resume_window_s is None or s.resume_window_s <= found[1]:
        return
    good_s = round_down_s(found[1])
    yield Finding(
        Severity.WARNING,
        "resume_window_above_detection",
        f"resume_window {s.resume_window_s:g} s is above the detection bound, {found[1]:g} s",
        "a dead client's records, and its offline broadcast, wait for the window and not for the verdict",
        f"resume_window {good_s:g}s or less",
        changes={"resume_window_s": good_s},
    )


def max_sessions(s: Setting) -> Iterator[Finding]:
    """Memory pressure ends sessions of healthy clients."""
    if s.max_sessions is not None and (s.expected_sessions or 0) > s.max_sessions:
        yield Finding(
            Severity.ERROR,
            "max_sessions_below_load",
            f"max_sessions {s.max_sessions} is below the {s.expected_sessions} sessions that are expected",
            "the oldest idle session goes when another comes, healthy or not",
            f"max_sessions {s.expected_sessions} or more",
            changes={"max_sessions": s.expected_sessions},
        )


RECORDS: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    ttls,
    refreshed_past_death,
    resume_window,
    max_sessions,
)
"""Every rule about what the store keeps."""


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
            Severity.ERROR,
            "no_heartbeat_behind_idle_timer",
            f"nothing is sent on an idle connection, and {box.title} ends it after {idle_s:g} s",
            _expiry(box, "the next message"),
            f"send a heartbeat every {wanted_s:g} s",
            box.name,
            _interval(setting, wanted_s),
        )
        return
    if interval_s < idle_s * (1 - _MARGIN) or interval_s <= wanted_s:
        return
    fix = f"heartbeat_interval {wanted_s:g}s (half of the timer: one beat may be late or lost)" + _raised(
        box, 2 * interval_s
    )
    if interval_s >= idle_s:
        equal = "equal to" if interval_s == idle_s else "above"
        late_s = interval_s - idle_s
        finds = (
            ""
            if setting.patience_s is None or box.expiry != "drop"
            else (
                f"; the server notices {late_s:g} + {setting.patience_s:g} = "
                f"{late_s + setting.patience_s:g} s later"
            )
        )
        yield Finding(
            Severity.ERROR,
            "interval_reaches_idle_timer",
            f"the heartbeat interval, {interval_s:g} s, is {equal} the idle timer of {box.title}, {idle_s:g} s",
            f"healthy connections are lost {idle_s:g} s after their last packet: "
            f"{_expiry(box, f'the next beat, {late_s:g} s later,')}{finds}",
            fix,
            box.name,
            _interval(setting, wanted_s),
        )
    else:
        yield Finding(
            Severity.WARNING,
            "interval_close_to_idle_timer",
            f"the heartbeat interval, {interval_s:g} s, leaves {idle_s - interval_s:g} s to the idle timer of "
            f"{box.title}, {idle_s:g} s",
            "one beat that is late, by a retransmission or a busy event loop, loses a healthy connection",
            fix,
            box.name,
            _interval(setting, wanted_s),
        )


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
        severity,
        "lifetime_ends_connection",
        f"{box.title} ends every connection at the age of {life_s:g} s, {why}",
        "it is a lifetime, not an idle limit: no traffic prevents it",
        fix,
        box.name,
    )


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
