"""Check a liveness policy, a whole scenario or a product's configuration against itself and the boxes on the way.

From a policy, a heartbeat profile, a scenario or a `Setting` to a `Report`: findings with severity, reason in numbers
and a fix with a value, and what was checked. Looks at numbers only: it runs nothing and simulates nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.policy.lint.findings import Finding, Severity
from harness.policy.lint.record_rules import RECORDS
from harness.policy.lint.rules import HEARTBEAT
from harness.policy.lint.setting import Extras, Setting, boxes_of_scenario
from harness.policy.lint.way_rules import CLIENTS, WAY
from harness.policy.profiles import HeartbeatProfile, IdleTimerProfile
from reference_server.durations import format_duration
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.schema import Scenario

__all__ = ["Extras", "Finding", "Report", "Setting", "Severity", "boxes_of_scenario", "lint"]

_ROUNDS = 12  # of mending: each fix may break another rule, and each round mends that
_KEYS = {
    "interval_s": "heartbeat_interval",
    "timeout_s": "heartbeat_timeout",
    "max_failures": "max_failures",
    "retry_s": "retry_interval",
    "idle_limit_s": "session_timeout",
    "sweep_s": "sweep_interval",
    "user_timeout_s": "tcp_user_timeout",
    "close_detection": "close_detection",
    "session_ttl_s": "session_ttl",
    "status_ttl_s": "status_ttl",
    "resume_window_s": "resume_window",
    "max_sessions": "max_sessions",
    "refreshed": "records.refreshed",
    "records_expire": "records.expire",
    "second_login": "sessions.second_login",
    "client_idle_limit_s": "reconnect.idle_limit",
    "close_wait_s": "close_timeout",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What lint says.

    Attributes:
        findings: the worst first; empty: nothing is wrong.
        setting: what was checked.
        mended: the setting with every fix; it has none of the findings whose fix is a value.
        clashing: rules that no values keep together; ``mended`` then breaks one of them.
        checked: what was looked at, with the bounds that follow, one line each.
        not_checked: what could not be, and why.
    """

    findings: tuple[Finding, ...]
    setting: Setting
    mended: Setting
    clashing: frozenset[str]
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]


def lint(
    subject: LivenessPolicy | HeartbeatProfile | Scenario | Setting,
    middleboxes: Iterable[IdleTimerProfile] = (),
    extras: Extras | None = None,
) -> Report:
    """Find what is wrong, and fixes that go together.

    Each fix is a value, and may make another value wrong: so all of them are applied, and looked at again, until
    nothing that a value can mend is left. The fixes that are told are those of that last setting.

    Args:
        subject: what is checked; a scenario brings the boxes that it puts on the way.
        middleboxes: more of them; those for UDP are passed over, a WebSocket is TCP.
        extras: what the subject does not say.
    """
    setting = Setting.of(subject)
    if extras is not None:
        setting = extras.applied_to(setting)
    boxes = [*(boxes_of_scenario(subject) if isinstance(subject, Scenario) else ()), *middleboxes]
    tcp = [box for box in boxes if box.transport == "tcp"]
    findings, mended = list(_rules(setting, tcp)), setting
    seen: list[set[str]] = []
    for _ in range(_ROUNDS):
        left = [finding for finding in _rules(mended, tcp) if finding.changes]
        seen.append({finding.rule for finding in left})
        if not left:
            break
        changes: dict[str, Any] = {}
        for finding in sorted(left, key=_rank):
            if (
                not finding.changes.keys() & changes.keys()
            ):  # of two for one value the worse one now, the other next
                changes |= finding.changes
        mended = replace(mended, **changes)
    # Rules that go on breaking each other: the last rounds end where they began.
    clashing = set().union(*seen[-_ROUNDS // 2 :]) if seen[-1] else set()
    told = [replace(one, fix=_fix(one, setting, mended, clashing)) for one in sorted(findings, key=_rank)]
    checked, not_checked = _checked(setting, boxes)
    return Report(tuple(told), setting, mended, frozenset(clashing), checked, not_checked)


def _rules(setting: Setting, boxes: Iterable[IdleTimerProfile]) -> Iterator[Finding]:
    if setting.known:
        for rule in (*HEARTBEAT, *RECORDS, *CLIENTS):
            yield from rule(setting)
    for box in boxes:
        for about_box in WAY:
            yield from about_box(setting, box)


def _rank(finding: Finding) -> int:
    return list(Severity).index(finding.severity)


def _fix(finding: Finding, setting: Setting, mended: Setting, clashing: set[str]) -> str:
    values = [
        _written(name, getattr(mended, name), setting.spelling)
        for name in finding.changes
        if name in _KEYS and getattr(mended, name) != getattr(setting, name)
    ]
    parts = [part for part in (finding.advice, ", ".join(values)) if part]
    if finding.rule in clashing:
        others = " without ".join(["", *sorted(clashing - {finding.rule})])
        return f"{finding.advice}; no value alone does so{others}"
    return ": ".join(parts)


def _written(name: str, value: Any, spelling: Mapping[str, tuple[str, float]]) -> str:
    if name in spelling and value is not None:
        key, units = spelling[name]
        return f"{key} {value * units:g}"
    if value is None:
        return f"{_KEYS[name]} null"
    if isinstance(value, bool):
        return f"{_KEYS[name]} {str(value).lower()}"
    return f"{_KEYS[name]} {value:g}s" if isinstance(value, float) else f"{_KEYS[name]} {value}"


def _checked(s: Setting, boxes: Iterable[IdleTimerProfile]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What was looked at with the bounds that follow, and what was not."""
    lines = []
    if s.interval_s is not None:
        who = "the gateway pings" if s.beats_from == "gateway" else "clients send a heartbeat"
        counts = s.patience_s is not None and s.detector_range_s is None and not s.detector_unknown
        waits = f", answer within {s.timeout_s:g} s, {s.max_failures} in a row" if counts else ""
        lines.append(f"heartbeat: {who} every {s.interval_s:g} s{waits}")
    lines += [f"a silent client is ended by {name}: after {bounds}" for name, bounds in s.layers.items()]
    if len(s.layers) > 1:
        lines.append(f"by the first of them: after {s.detection}")
    if s.record_ends is not None and s.status_ttl_s is not None:
        lines.append(
            f"status record: status_ttl {s.status_ttl_s:g} s, refreshed {s.refreshed.replace('_', ' ')}: it ends by "
            f"itself {s.record_ends} after the client's death"
        )
    if s.lease_s is not None and s.gateway is not None:
        lease = s.gateway.lease
        by = "its peers" if s.nodes > 1 else "itself, once it is back; while it is down by their TTL alone"
        lines.append(
            f"lease: a node that dies leaves ghosts for at most {s.lease_s:g} s (ttl {lease.ttl:g} s, looked at every "
            f"{lease.check:g} s), ended by {by}"
        )
    if s.network is not None:
        trip_s = float(s.network.round_trip.quantile(0.5))
        away = s.network.outages
        lines.append(
            f"network: median round trip {format_duration(round(trip_s, 6))}, "
            + ("no outages" if away is None else f"an outage every {format_duration(round(away.every, 3))}")
        )
    if s.reconnect is not None:
        r = s.reconnect
        lines.append(
            f"reconnect: back-off {r.backoff_base:g} to {r.backoff_max:g} s, jitter "
            f"{r.jitter if isinstance(r.jitter, str | float) else 'by a law'}"
        )
    if s.user_timeout_s is not None or s.keepalive is not None:
        kept = "none" if s.keepalive is None else f"after {s.keepalive.idle:g} s"
        user = "the kernel's own" if s.user_timeout_s is None else f"{s.user_timeout_s:g} s"
        lines.append(f"TCP: user timeout {user}, keepalive {kept}")
    skipped = list(s.not_checked)
    for box in boxes:
        limits = [f"idle {box.idle_timeout:g} s"] if box.idle_timeout is not None else []
        limits += [f"lifetime {box.lifetime:g} s"] if box.lifetime is not None else []
        if box.transport == "udp":
            skipped.append(f"{box.title}: for UDP, and a WebSocket is TCP")
        else:
            lines.append(f"on the way: {box.title}: {', '.join(limits) or 'no limit'}")
    if not s.known:
        skipped.append("heartbeat, records, clients: the file tells of proxies alone")
        return tuple(lines), tuple(skipped)
    if s.detector_unknown:
        skipped.append(f"when the heartbeat notices a silent client: {s.detector_unknown}")
    if s.network is None:
        skipped.append("outages and round trips: no network is known (--network)")
    if s.reconnect is None:
        skipped.append("how clients reconnect: not said")
    if not boxes:
        skipped.append("boxes on the way: none is known (--behind)")
    return tuple(lines), tuple(skipped)
