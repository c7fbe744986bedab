"""`flatline target check`: may this target's file be believed? A short run with ends that are known, by the one engine.

From a target to findings. Healthy clients have to live through three heartbeats: else the dialect does not keep the
server content. Ends that everybody hears of (close frames, RST) calibrate each witness: whether it sees them all, of
the right client, and how late. Clients that freeze are held against the law that the file claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.run import run
from harness.runs.directory import find_run
from reference_server.errors import Exit
from reports.run_tables import load_run
from scenarios.schema import Scenario
from scenarios.target import Target

__all__ = ["Finding", "TargetCheck", "check_scenario", "check_target_file"]

_SHORT_S = 2.0  # real seconds: a heartbeat's interval is made so short where the server can be told
_ENDS, _FROZEN, _HEALTHY = 5, 15, 15
_QUIET_S = 3.0  # a server without timers is watched for three of these
_KNOWN = ("closed", "reset")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, whether it is as it should be, and what was seen."""

    what: str
    good: bool
    seen: str


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """All findings of a check, its report, and its exit code."""

    findings: tuple[Finding, ...]
    report: Path
    exit_code: Exit


def check_scenario(target: Target, speedup: float | None = None) -> Scenario:
    """The scenario of a check: a third of its clients stay healthy through three heartbeats.

    Args:
        target: what is checked.
        speedup: None: so that an interval takes two seconds, where the server can be told its times; else 1.
    """
    heartbeat = target.heartbeat
    interval_s = heartbeat.interval or _QUIET_S
    if speedup is None:
        told = target.start is not None and bool(heartbeat.settable) and not heartbeat.fixed
        speedup = max(1.0, math.floor(interval_s / _SHORT_S)) if told else 1.0
    limit_s = (heartbeat.timeout or interval_s) * heartbeat.misses + (heartbeat.look_every or 0.0)
    longest_s = 0.0 if heartbeat.model in ("never", "tcp_only", "unknown") else interval_s + limit_s
    clients = 2 * _ENDS + _FROZEN + _HEALTHY
    at = {"uniform": {"low": 0.0, "high": interval_s}}
    ends = {"uniform": {"low": 0.0, "high": interval_s / 2}}
    return Scenario.model_validate(
        {
            "name": f"check-{target.target}",
            "target": target,
            "clients": clients,
            "ramp": 1.0 * speedup,
            "duration": max(3 * interval_s, 1.2 * interval_s + longest_s + heartbeat.socket_lag * speedup)
            + speedup,
            "speedup": speedup,
            "faults": [
                {"kind": "orderly_close", "name": "closed", "share": _ENDS / clients, "at": ends},
                {"kind": "process_crash", "name": "reset", "by": "rst", "share": _ENDS / clients, "at": ends},
                {"kind": "frozen", "share": _FROZEN / clients, "at": at},
            ],
        }
    )


def check_target_file(
    target: Target,
    root: Path,
    speedup: float | None = None,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
) -> TargetCheck:
    """Check a target; takes about ten seconds where its times can be told.

    Raises:
        CannotRun, ChildDied: the server does not start, or ends.
    """
    scenario = check_scenario(target, speedup)
    outcome = run(scenario, engines=("theory", "real"), root=root, progress=progress)
    tables = load_run(find_run(str(outcome.report.parent)).path)
    agreement = tables.table("agreement")
    detections = tables.table("detections").query("engine == 'real'")
    findings = [_healthy(tables.table("healthy_connections"), target)]
    findings += [
        _witness(detections, milestone, scenario)
        for milestone in sorted(target.milestones_at(scenario.clock))
    ]
    findings += _law(agreement, target)
    if tables.sound is False:
        findings.append(Finding("sound", False, "; ".join(tables.unsound_reasons)))
    good = all(one.good for one in findings)
    code = Exit.GOOD if good else Exit.UNSOUND if tables.sound is False else Exit.MISSED
    return TargetCheck(tuple(findings), outcome.report, code)


def _healthy(connections: pd.DataFrame, target: Target) -> Finding:
    ours = connections[(connections["engine"] == "real") & (connections["hampered_by"] == "")]
    lost = ours[ours["outcome"] == "lost"]
    if ours.empty:
        return Finding("healthy clients", False, f"nobody could connect to {target.connect.url}")
    if len(lost):
        after_s = float(lost["watched_s"].median())
        causes = ", ".join(sorted({str(cause) for cause in lost["cause"]}))
        return Finding(
            "healthy clients",
            False,
            f"{len(lost)} of {len(ours)} connections were lost after {after_s:.1f} s ({causes}): the dialect "
            f"{target.dialect_name} does not keep this server content",
        )
    return Finding("healthy clients", True, f"{len(ours)} connections lived through three heartbeats")


def _witness(detections: pd.DataFrame, milestone: str, scenario: Scenario) -> Finding:
    by = "kernel" if milestone == "socket_closed" else "log"
    known = detections[(detections["milestone"] == milestone) & detections["fault"].isin(_KNOWN)]
    seen = known[known["outcome"] == "detected"]
    late_s = scenario.clock.real_s(seen["duration_s"].max()) if len(seen) else math.nan
    what = f"{milestone} by {by}"
    if len(seen) < len(known) or not len(known):
        return Finding(what, False, f"{len(seen)} of {len(known)} known ends were seen")
    return Finding(
        what, True, f"{len(seen)} of {len(known)} known ends were seen, at most {late_s * 1000:.0f} ms after"
    )


def _law(agreement: pd.DataFrame, target: Target) -> list[Finding]:
    rows = agreement[(agreement["left"] == "real") & (agreement["fault"] == "frozen")]
    rows = rows[rows["figure"].isin(["range", "share", "shape"]) & (rows["verdict"] != "unknown")]
    found = [
        Finding(f"law of {row['milestone']} ({row['figure']})", row["verdict"] == "pass", str(row["reason"]))
        for row in rows.to_dict("records")
    ]
    if not found and target.heartbeat.law_known:
        found.append(Finding("law", True, "no witness sees a milestone that has a law in so short a run"))
    return found
