"""The rules of lint about clients and the way to them: middleboxes, outages, reconnects, load.

A rule of `WAY` takes a `Setting` and one box; a rule of `CLIENTS` takes a `Setting` alone. It reads no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.policy.lint.findings import Finding, Severity, round_down_s, round_up_s
from harness.policy.lint.setting import Setting
from harness.policy.profiles import IdleTimerProfile
from harness.theory.false_suspicions import false_suspicions_by_outages

__all__ = ["CLIENTS", "WAY"]

_MARGIN = 0.1  # of the idle timer: a heartbeat may be late by a retransmission or a busy loop
_HOUR_S = 3600.0


def idle_timer(setting: Setting, box: IdleTimerProfile) -> Iterator[Finding]:
    """Nothing that counts for longer than the box's idle timer: an error; within 10 % below it a warning."""
    idle_s = box.idle_timeout
    if idle_s is None:
        return
    gap_s = setting.gap_s(box)
    wanted_s = round_down_s(idle_s / 2)
    counted = {"any": "packet", "data": "data frame", "to_gateway": "packet to the gateway"}
    what = counted.get(box.counts, "packet to the client")
    if gap_s is None:
        silent = (
            "protocol pings are no data"
            if setting.interval_s is not None
            else "nothing is sent on an idle connection"
        )
        if not setting.known:
            yield Finding(
                Severity.INFO,
                "heartbeat_needed",
                f"{box.title} ends a connection after {idle_s:g} s without a {what}",
                _expiry(box, "the next message"),
                f"a heartbeat every {wanted_s:g} s or more often keeps it open",
                {},
                box.name,
            )
            return
        yield Finding(
            Severity.ERROR,
            "no_heartbeat_behind_idle_timer",
            f"{silent}, and {box.title} ends it after {idle_s:g} s without a {what}",
            _expiry(box, "the next message"),
            "send a heartbeat within half of the timer" + _as_data(setting, box),
            _interval(setting, wanted_s) | ({"protocol_ping": False} if box.counts == "data" else {}),
            box.name,
        )
        return
    if gap_s < idle_s * (1 - _MARGIN) or (setting.interval_s or gap_s) <= wanted_s:
        return
    interval_s = setting.interval_s or gap_s
    advice = "half of the timer, so that one heartbeat may be late or lost" + _raised(box, 2 * interval_s)
    if gap_s >= idle_s or interval_s > idle_s:
        equal = (
            "equal to"
            if interval_s == idle_s
            else "above"
            if interval_s > idle_s
            else "with its jitter above"
        )
        late_s = max(0.0, interval_s - idle_s)
        finds = ""
        if setting.patience_s is not None and box.expiry == "drop":
            notices_s = late_s + setting.patience_s
            finds = f"; the server notices {late_s:g} + {setting.patience_s:g} = {notices_s:g} s later"
        yield Finding(
            Severity.ERROR,
            "interval_reaches_idle_timer",
            f"the heartbeat interval, {interval_s:g} s, is {equal} the idle timer of {box.title}, {idle_s:g} s",
            f"healthy connections are lost {idle_s:g} s after their last {what}: "
            f"{_expiry(box, f'the next heartbeat, {late_s:g} s later,')}{finds}",
            advice,
            _interval(setting, wanted_s),
            box.name,
        )
    else:
        yield Finding(
            Severity.WARNING,
            "interval_close_to_idle_timer",
            f"the heartbeat interval, {interval_s:g} s, leaves {idle_s - gap_s:.3g} s to the idle timer of "
            f"{box.title}, {idle_s:g} s",
            "one heartbeat that is late, by a retransmission or a busy event loop, loses a healthy connection",
            advice,
            _interval(setting, wanted_s),
            box.name,
        )


def lifetime(setting: Setting, box: IdleTimerProfile) -> Iterator[Finding]:
    """A box that ends every connection at an age: no heartbeat prevents it."""
    life_s = box.lifetime
    if life_s is None:
        return
    latest = setting.detection
    if setting.interval_s is not None and life_s <= setting.interval_s:
        severity, why = Severity.ERROR, "before the first heartbeat is due"
    elif latest is not None and life_s <= latest.hi_s:
        severity, why = Severity.ERROR, f"before a dead client is noticed ({latest.hi_s:g} s)"
    else:
        severity = Severity.INFO if life_s >= _HOUR_S else Severity.WARNING
        why = "however alive it is"
    if life_s < _HOUR_S:
        advice = f"raise that timeout to {_HOUR_S:g} s or more, and let clients come back to their session"
    else:
        advice = "let clients come back to their session, with back-off and jitter"
    yield Finding(
        severity,
        "lifetime_ends_connection",
        f"{box.title} ends every connection at the age of {life_s:g} s, {why}",
        "it is a lifetime, not an idle limit: no traffic prevents it",
        advice,
        {},
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


def _as_data(setting: Setting, box: IdleTimerProfile) -> str:
    return " as a data frame (detector.frame: json)" if box.counts == "data" and setting.protocol_ping else ""


def _interval(setting: Setting, interval_s: float) -> dict[str, Any]:
    """The new interval, and what must not stay above it."""
    changes: dict[str, Any] = {"interval_s": min(interval_s, setting.interval_s or interval_s)}
    if setting.interval_s is None:
        changes |= {
            "beats_from": "gateway",
            "answers_checked": True,
            "timeout_s": round_down_s(interval_s / 2),
        }
    elif setting.timeout_s is not None and setting.interval_s >= setting.timeout_s > interval_s:
        changes["timeout_s"] = interval_s
    if setting.retry_s is not None and setting.retry_s > interval_s:
        changes["retry_s"] = None
    return changes


def _raised(box: IdleTimerProfile, idle_s: float) -> str:
    if box.configurable is None or not box.configurable.low <= idle_s <= box.configurable.high:
        return ""
    return f", or raise the timer to {round_up_s(idle_s):g} s"


_LATE_SHARE = 1e-3  # of the answers may come after the deadline
_OFTEN = 1 / 30  # a client-day: one healthy client a month
_BUSY = 0.7  # of a loop's time: beyond it queues grow long


def slow_answers(s: Setting) -> Iterator[Finding]:
    """Round trips that are longer than the answer's deadline."""
    if s.network is None or s.timeout_s is None or not s.answers_checked:
        return
    late = 1 - float(s.network.round_trip.cdf(s.timeout_s))
    if late <= _LATE_SHARE:
        return
    failed = late**s.max_failures
    yield Finding(
        Severity.ERROR if failed > _LATE_SHARE else Severity.WARNING,
        "timeout_below_round_trip",
        f"{late:.3g} of the answers come after heartbeat_timeout {s.timeout_s:g} s",
        f"each is a failure of a healthy client; {s.max_failures} in a row, {failed:.2g} of the tries, throw it out",
        "wait for the slow answers",
        {
            "timeout_s": round_up_s(1.5 * float(s.network.round_trip.quantile(1 - _LATE_SHARE))),
            "retry_s": None,
        },
    )


def outages(s: Setting) -> Iterator[Finding]:
    """Outages that outlast the patience throw healthy clients out."""
    if s.network is None or s.network.outages is None or s.patience_s is None or s.interval_s is None:
        return
    rate = float(false_suspicions_by_outages([s.interval_s], [s.patience_s], s.network)[0])
    if rate <= _OFTEN:
        return
    yield Finding(
        Severity.WARNING,
        "outages_outlast_patience",
        f"outages throw a healthy client out {rate:.3g} times a day",
        f"they last {s.network.outages.length.mean_s:.3g} s on average, and the patience (k−1)R + τ is "
        f"{s.patience_s:g} s",
        "more patience costs a later detection: `flatline tune` weighs both",
    )


def client_limit(s: Setting) -> Iterator[Finding]:
    """Clients that give up a healthy, quiet connection."""
    if s.client_idle_limit_s is None:
        return
    limit_s = s.client_idle_limit_s
    heard = [gap for gap in (s.interval_s, _every(s.traffic.to_client)) if gap is not None]
    gap_s = min(heard, default=None)
    if gap_s is not None:
        gap_s += s.jitter_s / 2
    if gap_s is not None and gap_s < limit_s * (1 - _MARGIN):
        return
    hears = "never hears anything" if gap_s is None else f"hears something every {gap_s:g} s"
    breaks = gap_s is None or gap_s >= limit_s
    yield Finding(
        Severity.ERROR if breaks else Severity.WARNING,
        "client_limit_below_interval",
        f"a client reconnects when it hears nothing for {limit_s:g} s, and a quiet one {hears}",
        "healthy clients leave by their own limit"
        if breaks
        else "one late heartbeat makes a healthy client leave",
        "let the client wait for more than two heartbeats",
        {} if gap_s is None else {"client_idle_limit_s": round_up_s(2.5 * gap_s)},
    )


def _every(way: Any) -> float | None:
    return None if way is None else float(way.every.quantile(1 - _LATE_SHARE))


def reconnect_herd(s: Setting) -> Iterator[Finding]:
    """Clients that all come back at one moment."""
    if s.reconnect is None or s.reconnect.jitter != "none":
        return
    first_s = min(s.reconnect.backoff_base, s.reconnect.backoff_max)
    count = "all clients" if s.expected_sessions is None else f"all {s.expected_sessions} clients"
    yield Finding(
        Severity.WARNING,
        "reconnect_herd",
        f"reconnect.jitter none: {count} of a node that ends come back at one moment, {first_s:g} s later",
        "a herd: the next node meets every handshake at once, and a refusal sends them all into the next wait together",
        "spread them (reconnect.jitter: full)",
    )


def busy_loop(s: Setting) -> Iterator[Finding]:
    """More work a second than the gateway's loops have seconds."""
    if s.gateway is None or not s.expected_sessions:
        return
    loops = s.gateway.nodes / s.expected_sessions
    beats = s.gateway.heartbeat_service.mean_s / s.interval_s if s.interval_s else 0.0
    way = s.traffic.to_gateway
    frames = 0.0 if way is None else s.traffic.service.mean_s * way.burst / max(way.every.mean_s, 1e-9)
    share = (beats + frames) / loops
    if share <= _BUSY:
        return
    counts = (
        ""
        if s.data_counts or not frames
        else "; data is no sign of life here, so clients are thrown out once an answer waits longer than the patience"
    )
    yield Finding(
        Severity.ERROR if share >= 1 else Severity.WARNING,
        "loop_overloaded",
        f"the clients ask for {share:.3g} s of work a second of each node's loop",
        (
            "it falls behind further and further: answers are read late, healthy clients are suspected"
            if share >= 1
            else "queues are long: answers are read late"
        )
        + counts,
        f"{int(share / _BUSY * s.gateway.nodes) + 1} nodes, or less work a frame",
    )


def stalls(s: Setting) -> Iterator[Finding]:
    """A loop that stands still for longer than clients, or leases, are waited for."""
    stall = None if s.gateway is None else s.gateway.stalls
    if stall is None or s.gateway is None:
        return
    long_s = float(stall.length.quantile(1 - _LATE_SHARE))
    lease = s.gateway.lease
    if s.lease_s is not None and long_s > lease.ttl - lease.renew:
        yield Finding(
            Severity.WARNING,
            "stall_outlasts_lease",
            f"a stall of {long_s:.3g} s ends the lease of its own node (ttl {lease.ttl:g} s, renewed every "
            f"{lease.renew:g} s)",
            "its peers then take its healthy users offline, until it asserts their records again",
            "a lease that outlives the longest stall (gateway.lease.ttl)",
        )


CLIENTS: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    slow_answers,
    outages,
    client_limit,
    reconnect_herd,
    busy_loop,
    stalls,
)
"""Every rule about clients, their network and the load that they make."""
