"""The rules of lint about how a dead client is noticed: heartbeat, idle limit, kernel.

Each rule takes a `Setting` and yields its findings: times that contradict each other, layers that pre-empt each other,
ends that nothing notices. It reads no files. Records: `record_rules.py`; clients and the way: `way_rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.policy.lint.findings import Finding, Severity, round_down_s, round_up_s
from harness.policy.lint.setting import Setting

__all__ = ["HEARTBEAT"]

_CLOSE_SHARE = 0.1  # of the detection time: less than this is nobody's concern
_RECOMMENDED = {
    "interval_s": 25.0,
    "timeout_s": 10.0,
    "max_failures": 2,
    "beats_from": "gateway",
    "answers_checked": True,
}


def nothing_detects(s: Setting) -> Iterator[Finding]:
    """No layer ends the connection of a silent client."""
    if s.layers or s.detector_unknown:
        return
    ends = s.record_ends
    if ends is not None and s.refreshed != "never" and s.sign_of_life_s is not None:
        yield Finding(
            Severity.WARNING,
            "only_ttl_notices",
            f"only the TTL of the record notices a silent client, after {ends}",
            "no heartbeat is checked, there is no idle limit, and the gateway sends nothing that the kernel could "
            "miss: the record ends, the connection stays open for ever",
            "an idle limit above the heartbeats of the client",
            {"idle_limit_s": round_up_s(2.5 * s.sign_of_life_s)},
        )
        return
    silent = "no heartbeat and no idle limit" if s.interval_s is None else "its heartbeats have no limit"
    yield Finding(
        Severity.ERROR,
        "nothing_detects",
        "nothing notices a silent client",
        f"{silent}: only the kernel does, {s.give_up_s:g} s or more after something is next sent, or never when "
        "nothing is",
        "send pings and count the unanswered ones",
        _RECOMMENDED,
    )


def only_the_kernel(s: Setting) -> Iterator[Finding]:
    """TCP keepalive or user timeout alone."""
    found = s.detection
    if (
        found is None
        or s.unfreezing
        or s.detector_unknown
        or (s.interval_s is not None and not s.answers_checked)
    ):
        return
    names = " and ".join(s.layers)
    yield Finding(
        Severity.WARNING,
        "only_the_kernel_notices",
        f"only {names} notices a silent client, after {found}",
        "the kernel of a client that is frozen goes on acknowledging, so such a client is never noticed; behind a "
        "proxy the kernel sees the proxy, not the client",
        "ping and count the unanswered ones; keep the kernel's patience above that",
        _RECOMMENDED,
    )


def send_only(s: Setting) -> Iterator[Finding]:
    """Heartbeats whose answers nobody waits for."""
    if s.interval_s is None or s.answers_checked:
        return
    found, deadline_s = s.detection, s.timeout_s if s.timeout_s is not None else s.interval_s / 2
    tcp = s.layers.get("TCP") or s.layers.get("TCP_USER_TIMEOUT")
    bound = f"the bound is TCP's: {tcp}" if tcp else "TCP's give-up is not acted on either"
    if "idle limit" in s.layers and found is not None:
        bound += f"; the idle limit finds a silent client first, after {s.layers['idle limit']}"
    yield Finding(
        Severity.ERROR,
        "send_only_heartbeat",
        f"heartbeats are sent, and nobody waits for an answer: {bound}",
        f"a send to a dead peer succeeds until TCP gives up, {s.give_up_s:g} s or more after the first unacknowledged "
        f"one; max_failures {s.max_failures} has no part in it",
        "count unanswered pings (detector.kind: ping)",
        {"answers_checked": True, "timeout_s": deadline_s, "detector_range_s": None, "detector_unknown": ""},
    )


def retry_below_timeout(s: Setting) -> Iterator[Finding]:
    """A retry before the deadline that it retries."""
    if s.retry_s is None or s.timeout_s is None:
        return
    overlap = s.interval_s is not None and s.timeout_s > s.interval_s
    if overlap:
        yield Finding(
            Severity.ERROR,
            "retry_with_overlapping_pings",
            f"retry_interval {s.retry_s:g} s with heartbeat_timeout {s.timeout_s:g} s above heartbeat_interval "
            f"{s.interval_s:g} s",
            "pings go on every interval while one is unanswered: there is nothing to retry",
            "leave the retry out",
            {"retry_s": None},
        )
    elif s.retry_s < s.timeout_s:
        yield Finding(
            Severity.ERROR,
            "retry_below_timeout",
            f"retry_interval {s.retry_s:g} s is below heartbeat_timeout {s.timeout_s:g} s",
            "a retry goes out before its predecessor is known to be unanswered",
            "wait for the deadline before the retry",
            {"retry_s": s.timeout_s},
        )


def timeout_above_interval(s: Setting) -> Iterator[Finding]:
    """Several pings in flight, each with its own deadline: a normal case, worth saying."""
    if s.interval_s is None or s.timeout_s is None or s.patience_s is None or s.timeout_s <= s.interval_s:
        return
    yield Finding(
        Severity.INFO,
        "pings_overlap",
        f"heartbeat_timeout {s.timeout_s:g} s is above heartbeat_interval {s.interval_s:g} s",
        "pings go on every interval, and each has its own deadline: a silent client is "
        f"noticed after {s.patience_s:g} to {s.interval_s + s.patience_s:g} s",
        "none is needed; stacks that send no ping while one is unanswered are slower",
    )


def idle_limit(s: Setting) -> Iterator[Finding]:
    """An idle limit below the heartbeats drops the healthy; below the heartbeat's verdict it pre-empts it."""
    if s.idle_limit_s is None:
        return
    heard_s, patience_s = s.sign_of_life_s, s.patience_s
    if heard_s is None:
        yield Finding(
            Severity.ERROR,
            "idle_limit_without_heartbeat",
            f"the idle limit, {s.idle_limit_s:g} s, is all there is: no heartbeat makes a quiet client heard",
            f"a healthy client that has nothing to say for {s.idle_limit_s:g} s is dropped, and reconnects for ever",
            "send a heartbeat well within the limit",
            {"interval_s": round_down_s(s.idle_limit_s / 3), "timeout_s": round_down_s(s.idle_limit_s / 6)},
        )
        return
    verdict_s = None if patience_s is None else heard_s + patience_s
    good_s = round_up_s(2 * heard_s if verdict_s is None else 1.5 * verdict_s)
    if s.idle_limit_s <= heard_s:
        yield Finding(
            Severity.ERROR,
            "idle_limit_below_interval",
            f"the idle limit, {s.idle_limit_s:g} s, is not above the heartbeat interval, {heard_s:g} s",
            "a healthy, quiet client gives a sign of life once an interval: it is dropped between two of them, "
            "and reconnects for ever",
            "raise the limit above the heartbeat's own verdict",
            {"idle_limit_s": good_s},
        )
    elif verdict_s is not None and s.idle_limit_s < verdict_s:
        yield Finding(
            Severity.WARNING,
            "idle_limit_preempts_heartbeat",
            f"the idle limit, {s.idle_limit_s:g} s, ends before the heartbeat's verdict, {verdict_s:g} s after the "
            "last sign of life",
            f"max_failures {s.max_failures} is a dead rule: the limit drops a silent client "
            f"{verdict_s - s.idle_limit_s:g} s before the last failure is counted",
            "raise the limit, or count fewer failures",
            {"idle_limit_s": good_s},
        )


def sweep(s: Setting) -> Iterator[Finding]:
    """The idle limit is looked at too rarely."""
    if s.idle_limit_s is None or not s.sweep_s:
        return
    alone = "heartbeat" not in s.layers
    latest_s = s.idle_limit_s + s.sweep_s
    if s.promise_s is not None and alone and s.sweep_s > s.promise_s:
        yield Finding(
            Severity.ERROR,
            "sweep_coarser_than_promise",
            f"the sweep comes every {s.sweep_s:g} s, the promise is {s.promise_s:g} s",
            f"nothing else notices: a dead client is found up to {s.idle_limit_s:g} + {s.sweep_s:g} = {latest_s:g} s "
            "after its last sign of life",
            "look more often",
            {"sweep_s": round_down_s(s.promise_s / 4)},
        )
    elif s.sweep_s > s.idle_limit_s:
        yield Finding(
            Severity.WARNING,
            "sweep_coarser_than_limit",
            f"the sweep comes every {s.sweep_s:g} s for an idle limit of {s.idle_limit_s:g} s",
            f"the limit that holds is anything up to {latest_s:g} s",
            "look more often",
            {"sweep_s": round_down_s(s.idle_limit_s / 4)},
        )


def promise(s: Setting) -> Iterator[Finding]:
    """Detection is slower than what was promised."""
    found = s.detection
    if s.promise_s is None or found is None or found.hi_s <= s.promise_s or not s.answers_checked:
        return
    yield Finding(
        Severity.ERROR,
        "promise_missed",
        f"a dead client is noticed after up to {found.hi_s:g} s, the promise is {s.promise_s:g} s",
        f"the silent-peer range is {found}",
        "be quicker, or promise less",
        _quicker(s, s.promise_s),
    )


def _quicker(s: Setting, promise_s: float) -> dict[str, Any]:
    """New values that keep the promise: the same failures and deadline if they fit, else one failure."""
    if "heartbeat" not in s.layers or s.timeout_s is None:
        limit_s = round_down_s(promise_s - s.sweep_s) if promise_s > s.sweep_s else promise_s / 2
        changes: dict[str, Any] = {"idle_limit_s": limit_s, "sweep_s": min(s.sweep_s, promise_s - limit_s)}
        if s.interval_s is not None and s.interval_s >= limit_s:
            changes["interval_s"] = limit_s / 2
        return changes
    budget_s = promise_s - s.timeout_s - s.close_wait_s - s.deadline_sweep_s
    interval_s = round_down_s(budget_s / s.max_failures) if budget_s > 0 else 0.0
    if interval_s >= s.timeout_s:
        return {"interval_s": interval_s, "retry_s": None}
    half_s = promise_s / 2
    return {
        "interval_s": half_s,
        "timeout_s": half_s,
        "max_failures": 1,
        "retry_s": None,
        "close_wait_s": 0.0,
        "deadline_sweep_s": 0.0,
        "detector_range_s": None,
    }


def page_timed(s: Setting) -> Iterator[Finding]:
    """Heartbeats timed by a web page, which browsers throttle to one a minute when it is hidden."""
    limit_s, hidden_s = s.idle_limit_s, s.hidden_page_s
    if not s.timed_by_page or limit_s is None or s.interval_s is None:
        return
    gap_s = (
        hidden_s + s.interval_s
    )  # the last heartbeat before the page was hidden, then the slow timer's first
    if limit_s >= gap_s + hidden_s / 2:
        return
    drops = limit_s < gap_s
    if limit_s < hidden_s:
        then = "healthy hidden tabs are dropped"
    elif drops:
        then = f"{(gap_s - limit_s) / s.interval_s:.0%} of the healthy tabs are dropped when they are hidden"
    else:
        then = f"{limit_s - gap_s:g} s are left for everything else"
    yield Finding(
        Severity.ERROR if drops else Severity.WARNING,
        "page_timed_heartbeat",
        f"the page's own timer sends the heartbeats, and the server allows {limit_s:g} s without",
        f"a browser runs the timers of a hidden page once in {hidden_s:g} s, so that {gap_s:g} s may pass without a "
        f"heartbeat: {then}",
        "let the server ping and the page answer (messages are not throttled), or allow more",
        {"idle_limit_s": round_up_s(gap_s + hidden_s)},
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
        {"library_keepalive": None},
    )


def close_wait(s: Setting) -> Iterator[Finding]:
    """A dead peer is waited for once more, with a closing handshake."""
    found = s.layers.get("heartbeat")
    if found is None or s.close_wait_s <= _CLOSE_SHARE * found.hi_s:
        return
    yield Finding(
        Severity.WARNING,
        "close_waits_for_the_dead",
        f"after its verdict the server waits {s.close_wait_s:g} s more for a closing handshake",
        f"a silent client never answers a close frame: {found} instead of "
        f"{found.lo_s - s.close_wait_s:g} to {found.hi_s - s.close_wait_s:g} s",
        "abort the transport of a suspect, or close_timeout 1s",
        {"close_wait_s": 0.0},
    )


def kernel(s: Setting) -> Iterator[Finding]:
    """TCP_USER_TIMEOUT before the heartbeat's verdict, and a keepalive that is never sent."""
    heartbeat, tcp = s.layers.get("heartbeat"), s.layers.get("TCP_USER_TIMEOUT")
    if heartbeat is not None and tcp is not None and tcp.hi_s < heartbeat.hi_s:
        yield Finding(
            Severity.WARNING,
            "user_timeout_preempts_heartbeat",
            f"tcp_user_timeout {s.user_timeout_s:g} s ends a connection before the heartbeat's verdict",
            f"the kernel gives up after {tcp}, the heartbeat after {heartbeat}: max_failures {s.max_failures} is a "
            "dead rule, and an outage that the heartbeat would survive drops a healthy client",
            "raise it above the heartbeat's verdict",
            {"user_timeout_s": round_up_s(1.2 * heartbeat.hi_s)},
        )
    pings_s = s.interval_s if s.beats_from == "gateway" else None
    if s.keepalive is not None and pings_s is not None and pings_s <= s.keepalive.idle:
        yield Finding(
            Severity.INFO,
            "keepalive_never_sent",
            f"tcp_keepalive after {s.keepalive.idle:g} s is never sent: a ping goes out every {pings_s:g} s",
            "the kernel probes only a connection on which nothing is in flight",
            "none is needed; TCP_USER_TIMEOUT is what bounds unacknowledged data",
        )


def closes_not_acted_on(s: Setting) -> Iterator[Finding]:
    """A close frame, a FIN or an RST that is seen and ignored."""
    if s.close_detection == "all":
        return
    unseen = (
        "FIN, RST and the kernel's give-up" if s.close_detection == "frames" else "every end of a connection"
    )
    after = f"after {s.detection}" if s.detection is not None else "never"
    yield Finding(
        Severity.WARNING,
        "closes_not_acted_on",
        f"close_detection {s.close_detection}: {unseen} is not acted on",
        f"a client whose process ends tells so at once, and is found {after} all the same",
        "act on each end of a connection when it is seen",
        {"close_detection": "all"},
    )


def page_answers(s: Setting) -> Iterator[Finding]:
    """Pings that a page answers by a throttled timer, with less patience than the timer's period."""
    if (
        not s.answers_by_page_timer
        or s.protocol_ping
        or s.patience_s is None
        or s.patience_s > s.hidden_page_s
    ):
        return
    yield Finding(
        Severity.ERROR,
        "page_timed_answers",
        f"a hidden page answers by a timer that runs once in {s.hidden_page_s:g} s, and the patience is "
        f"{s.patience_s:g} s",
        "healthy hidden tabs are thrown out",
        "answer where the message arrives, not by a timer, or have more patience",
        {"timeout_s": round_up_s(1.5 * s.hidden_page_s), "retry_s": None},
    )


HEARTBEAT: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    nothing_detects,
    only_the_kernel,
    send_only,
    retry_below_timeout,
    timeout_above_interval,
    idle_limit,
    sweep,
    promise,
    page_timed,
    page_answers,
    library_keepalive,
    close_wait,
    kernel,
    closes_not_acted_on,
)
"""Every rule about how a dead client is noticed."""
