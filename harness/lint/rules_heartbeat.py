"""Rules about the heartbeat alone: times that contradict each other, traps that it can fall into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.lint.finding import Finding, Severity, round_down_s, round_up_s
from harness.lint.setting import Setting
from harness.theory import tcp_give_up_s

__all__ = ["HEARTBEAT"]

_HIDDEN_PAGE_S = 60.0  # Chrome wakes the timers of a hidden page once a minute after five minutes
_CLOSE_SHARE = 0.1  # of the detection time: less than this is nobody's concern


def nothing_detects(s: Setting) -> Iterator[Finding]:
    """Neither heartbeat nor idle limit."""
    if s.interval_s is None and s.idle_limit_s is None:
        yield Finding(
            Severity.ERROR, "nothing_detects", "nothing notices a silent client",
            f"no heartbeat and no idle limit: only the kernel does, {tcp_give_up_s():g} s or more after "
            "something is next sent, or never when nothing is",
            "heartbeat_interval 25s, heartbeat_timeout 10s, max_failures 2",
            changes={"interval_s": 25.0, "timeout_s": 10.0, "max_failures": 2},
        )  # fmt: skip


def send_only(s: Setting) -> Iterator[Finding]:
    """Heartbeats whose answers nobody waits for."""
    if s.interval_s is None or s.answers_checked:
        return
    deadline_s = s.timeout_s if s.timeout_s is not None else s.interval_s / 2
    would_s = (s.max_failures - 1) * (s.retry_s or s.interval_s) + deadline_s
    yield Finding(
        Severity.ERROR, "send_only_heartbeat",
        "heartbeats are sent, but only a failing send counts as a failure",
        f"a send to a dead peer succeeds until TCP gives up, {tcp_give_up_s():g} s or more after the first "
        f"unacknowledged one at Linux defaults; max_failures {s.max_failures} has no part in it",
        f"count unanswered pings (deadline {deadline_s:g} s): detection in {would_s:g} to "
        f"{would_s + s.interval_s:g} s",
        changes={"answers_checked": True, "timeout_s": deadline_s},
    )  # fmt: skip


def timeout_above_interval(s: Setting) -> Iterator[Finding]:
    """The next ping goes out before the last one's deadline."""
    if s.interval_s is not None and s.timeout_s is not None and s.timeout_s > s.interval_s:
        yield Finding(
            Severity.ERROR, "timeout_above_interval",
            f"heartbeat_timeout {s.timeout_s:g} s is above heartbeat_interval {s.interval_s:g} s",
            "the next ping is due before the deadline of this one: which ping did an answer answer? "
            "Stacks differ: some skip pings, some drop the client",
            f"heartbeat_timeout {s.interval_s:g}s and more max_failures for the same patience",
            changes={"timeout_s": s.interval_s},
        )  # fmt: skip


def retry_below_timeout(s: Setting) -> Iterator[Finding]:
    """A retry before the deadline that it retries."""
    if s.retry_s is not None and s.timeout_s is not None and s.retry_s < s.timeout_s:
        yield Finding(
            Severity.ERROR, "retry_below_timeout",
            f"retry_interval {s.retry_s:g} s is below heartbeat_timeout {s.timeout_s:g} s",
            "a retry goes out before its predecessor is known to be unanswered",
            f"retry_interval {s.timeout_s:g}s", changes={"retry_s": s.timeout_s},
        )  # fmt: skip


def idle_limit(s: Setting) -> Iterator[Finding]:
    """An idle limit below the beat drops the healthy; below the heartbeat's verdict it pre-empts it."""
    if s.idle_limit_s is None or s.interval_s is None:
        return
    patience_s = s.patience_s
    verdict_s = None if patience_s is None else s.interval_s + patience_s
    good_s = round_up_s(2 * s.interval_s if verdict_s is None else 1.5 * verdict_s)
    if s.idle_limit_s <= s.interval_s:
        yield Finding(
            Severity.ERROR, "idle_limit_below_interval",
            f"the idle limit, {s.idle_limit_s:g} s, is not above the heartbeat interval, {s.interval_s:g} s",
            "a healthy, quiet client gives a sign of life once an interval: it is dropped between two of them, "
            "and reconnects for ever",
            f"session_timeout {good_s:g}s", changes={"idle_limit_s": good_s},
        )  # fmt: skip
    elif verdict_s is not None and s.idle_limit_s < verdict_s:
        yield Finding(
            Severity.WARNING, "idle_limit_preempts_heartbeat",
            f"the idle limit, {s.idle_limit_s:g} s, ends before the heartbeat's verdict, {verdict_s:g} s after the "
            "last sign of life",
            f"max_failures {s.max_failures} is a dead rule: the limit drops a silent client "
            f"{verdict_s - s.idle_limit_s:g} s before the last failure is counted",
            f"session_timeout {good_s:g}s, or fewer max_failures", changes={"idle_limit_s": good_s},
        )  # fmt: skip


def sweep(s: Setting) -> Iterator[Finding]:
    """The idle limit is looked at too rarely."""
    if s.idle_limit_s is None or not s.sweep_s:
        return
    alone = s.heartbeat_range_s is None or not s.answers_checked
    latest_s = s.idle_limit_s + s.sweep_s
    if s.promise_s is not None and alone and s.sweep_s > s.promise_s:
        good_s = round_down_s(s.promise_s / 4)
        yield Finding(
            Severity.ERROR, "sweep_coarser_than_promise",
            f"the sweep comes every {s.sweep_s:g} s, the promise is {s.promise_s:g} s",
            f"nothing else notices: a dead client is found up to {s.idle_limit_s:g} + {s.sweep_s:g} = {latest_s:g} s "
            "after its last sign of life",
            f"sweep_interval {good_s:g}s", changes={"sweep_s": good_s},
        )  # fmt: skip
    elif s.sweep_s > s.idle_limit_s:
        good_s = round_down_s(s.idle_limit_s / 4)
        yield Finding(
            Severity.WARNING, "sweep_coarser_than_limit",
            f"the sweep comes every {s.sweep_s:g} s for an idle limit of {s.idle_limit_s:g} s",
            f"the limit that holds is anything up to {latest_s:g} s",
            f"sweep_interval {good_s:g}s", changes={"sweep_s": good_s},
        )  # fmt: skip


def promise(s: Setting) -> Iterator[Finding]:
    """Detection is slower than what was promised."""
    found = s.detection_range_s
    if s.promise_s is None or found is None or found[1] <= s.promise_s or not s.answers_checked:
        return
    changes, fix = _quicker(s, s.promise_s)
    yield Finding(
        Severity.ERROR, "promise_missed",
        f"a dead client is noticed after up to {found[1]:g} s, the promise is {s.promise_s:g} s",
        f"the silent-peer range is {found[0]:g} to {found[1]:g} s",
        fix, changes=changes,
    )  # fmt: skip


def page_timed(s: Setting) -> Iterator[Finding]:
    """Beats timed by a web page, which browsers throttle to one a minute when it is hidden."""
    limit_s = s.idle_limit_s
    if not s.timed_by_page or limit_s is None or limit_s >= 2 * _HIDDEN_PAGE_S:
        return
    good_s = 2.5 * _HIDDEN_PAGE_S
    drops = limit_s <= _HIDDEN_PAGE_S
    yield Finding(
        Severity.ERROR if drops else Severity.WARNING, "page_timed_heartbeat",
        f"the page's own timer sends the heartbeats, and the server allows {limit_s:g} s without",
        "Chrome runs the timers of a page that is hidden for 5 minutes once a minute: "
        + ("healthy hidden tabs are dropped" if drops
           else f"{limit_s - _HIDDEN_PAGE_S:g} s are left for everything else"),
        f"let the server ping and the page answer (messages are not throttled), or allow {good_s:g} s",
        changes={"idle_limit_s": good_s},
    )  # fmt: skip


def library_keepalive(s: Setting) -> Iterator[Finding]:
    """A library below the application has a heartbeat of its own."""
    if s.library_keepalive is None or s.interval_s is None:
        return
    interval_s, timeout_s = s.library_keepalive
    patience_s = s.patience_s
    first = patience_s is None or timeout_s < patience_s
    yield Finding(
        Severity.ERROR if first else Severity.WARNING, "library_keepalive_races",
        f"the library's own keepalive, {interval_s:g} s / {timeout_s:g} s, races the heartbeat",
        f"it drops a client after {timeout_s:g} s without a pong"
        + (f", not after {patience_s:g} s" if first and patience_s is not None else "")
        + ", whatever the policy says",
        "switch the library's off (websockets: ping_interval=None; uvicorn: ws_ping_interval=None)",
        changes={"library_keepalive": None},
    )  # fmt: skip


def close_wait(s: Setting) -> Iterator[Finding]:
    """A dead peer is waited for once more, with a closing handshake."""
    found = s.detection_range_s
    if found is None or s.close_wait_s <= _CLOSE_SHARE * found[1]:
        return
    yield Finding(
        Severity.WARNING, "close_waits_for_the_dead",
        f"after its verdict the server waits {s.close_wait_s:g} s more for a closing handshake",
        f"a silent client never answers a close frame: {found[0]:g} to {found[1]:g} s instead of "
        f"{found[0] - s.close_wait_s:g} to {found[1] - s.close_wait_s:g} s",
        "abort the transport of a suspect, or close_timeout 1s",
        changes={"close_wait_s": 0.0},
    )  # fmt: skip


HEARTBEAT: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    nothing_detects, send_only, timeout_above_interval, retry_below_timeout, idle_limit, sweep,
    promise, page_timed, library_keepalive, close_wait,
)  # fmt: skip
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
    )  # fmt: skip
