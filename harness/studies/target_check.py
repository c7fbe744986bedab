"""`flatline target check`: may this target's file be believed? A short run with ends that are known, by the one engine.

From a target to findings. Healthy clients have to live through three heartbeats: else the dialect does not keep the
server content. Ends that everybody hears of (close frames, RST) calibrate each witness: whether it sees them all, of
the right client, and how late. One that does not is dropped, with the reason, and the check goes on with the others.
Clients that freeze are held against the law that the file claims.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from harness.run import run
from harness.runs.directory import find_run
from reference_server.errors import Exit, FlatlineError
from reports.run_tables import load_run
from scenarios.schema import Scenario
from scenarios.target import Target

__all__ = [
    "Finding",
    "TargetCheck",
    "Unfit",
    "check_scenario",
    "check_target_file",
    "checked_once",
    "remember",
]

_SHORT_S = 2.0  # real seconds: a heartbeat's interval is made so short where the server can be told
_ENDS, _FROZEN, _HEALTHY = 5, 15, 15
_QUIET_S = 3.0  # a server without timers is watched for three of these
_HEALTHY_LIVE, _SOMEBODY_SEES = _NEEDED = ("healthy clients", "witnesses")
_KNOWN = ("closed", "reset")
_BY = {"socket_closed": "kernel", "suspected": "log", "store_cleared": "store", "peers_notified": "observer"}
_COUNT = "count"
# Real seconds from a known end to the line that tells of it: a server that hears of an end says so at once, and one
# whose output waits in a buffer says all of it later.
_LATEST_LINE_S = 0.5
_SETTLED_S = 0.25  # real seconds after a change of the number of clients: both sides know of it by then
_REMEMBERED = "checked-targets.json"
_MOST_OFF = 0.5  # of a share of answers: more of them do not fit the clients


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, whether it is as it should be, and what was seen.

    ``dropped``: of a witness that failed; the check goes on without it.
    """

    what: str
    good: bool
    seen: str
    dropped: str = ""  # its key in `witnesses`

    @property
    def mark(self) -> str:
        """How it begins in a list."""
        return "dropped" if self.dropped else "ok" if self.good else "NO"


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """All findings of a check, its report, its exit code, and the target with the witnesses that are left."""

    findings: tuple[Finding, ...]
    report: Path
    exit_code: Exit
    target: Target

    @property
    def dropped(self) -> list[str]:
        """The witnesses that failed, by their keys."""
        return [one.dropped for one in self.findings if one.dropped]


class Unfit(FlatlineError):
    """A run on this target would show nothing: its healthy clients do not live, or no witness of it sees anything."""

    exit_code: ClassVar[Exit] = Exit.MISSED


def checked_once(
    target: Target,
    root: Path,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
    told: Callable[[TargetCheck], None] = lambda _done: None,
) -> Target:
    """The target without the witnesses that a check drops; one that passed is remembered, and not done again.

    What differs from the law is no reason to refuse: the run itself compares with it.

    Args:
        target: to be run.
        root: the folder of runs, where it is remembered that this very target file passed.
        progress: as for `check_target_file`.
        told: is called with a check that was done.

    Raises:
        Unfit: healthy clients are lost, or no witness is left.
        CannotRun, ChildDied: the server does not start, or ends.
    """
    if (dropped := _remembered(root).get(_key(target))) is not None:
        return target.without(dropped)
    done = check_target_file(target, root, progress=progress)
    told(done)
    if wrong := [one for one in done.findings if one.what in _NEEDED and not one.good]:
        raise Unfit(f"{target.target}: {wrong[0].what}: {wrong[0].seen}; report: {done.report}")
    if done.exit_code is Exit.GOOD:
        remember(target, done.dropped, root)
    return done.target


def remember(target: Target, dropped: Collection[str], root: Path) -> None:
    """Note in the folder of runs that a target passed its check without these witnesses."""
    text = json.dumps(_remembered(root) | {_key(target): list(dropped)}, indent=2)
    (root / _REMEMBERED).write_text(text + "\n", encoding="utf-8")


def _remembered(root: Path) -> dict[str, list[str]]:
    """What passed; a file that cannot be read costs one more check."""
    try:
        return dict(json.loads((root / _REMEMBERED).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _key(target: Target) -> str:
    return hashlib.sha256(target.model_dump_json().encode()).hexdigest()


def check_scenario(target: Target, speedup: float | None = None) -> Scenario:
    """The scenario of a check: a third of its clients stay healthy through three heartbeats.

    Args:
        target: what is checked.
        speedup: None: so that an interval takes two seconds, where the server can be told its times; else 1.
    """
    heartbeat = target.heartbeat
    interval_s = heartbeat.interval or _QUIET_S
    if speedup is None:
        speedup = max(1.0, math.floor(interval_s / _SHORT_S))
        if target.start is None or not heartbeat.settable or heartbeat.fixed_at(speedup):
            speedup = 1.0
    limit_s = (heartbeat.timeout or interval_s) + (heartbeat.misses - 1) * interval_s
    limit_s += heartbeat.look_every or 0.0
    if heartbeat.round is not None:
        limit_s += (heartbeat.misses + 1) * heartbeat.round.to
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
    detections = tables.table("detections").query("engine == 'real'")
    healthy = _healthy(tables.table("healthy_connections"), target)
    findings = [healthy]
    for milestone in sorted(target.milestones_at(scenario.clock)):
        false = tables.table("false_suspicion_events") if milestone == "suspected" and healthy.good else None
        findings.append(_witness(detections, milestone, scenario, false))
    if target.witnesses.count is not None:
        findings.append(_count(tables.table("counted"), detections, scenario))
    left = target.without(one.dropped for one in findings if one.dropped)
    if not left.witnesses.milestones:
        findings.append(Finding(_SOMEBODY_SEES, False, "none is left that sees a milestone"))
    findings += _law(tables.table("agreement"), left)
    if tables.sound is False:
        findings.append(Finding("sound", False, "; ".join(tables.unsound_reasons)))
    good = all(one.good for one in findings)
    code = Exit.GOOD if good else Exit.UNSOUND if tables.sound is False else Exit.MISSED
    return TargetCheck(tuple(findings), outcome.report, code, left)


def _healthy(connections: pd.DataFrame, target: Target) -> Finding:
    ours = connections[(connections["engine"] == "real") & (connections["hampered_by"] == "")]
    lost = ours[ours["outcome"] == "lost"]
    if ours.empty:
        return Finding(_HEALTHY_LIVE, False, f"nobody could connect to {target.connect.url}")
    if len(lost):
        after_s = float(lost["watched_s"].median())
        causes = ", ".join(sorted({str(cause) for cause in lost["cause"]}))
        return Finding(
            _HEALTHY_LIVE,
            False,
            f"{len(lost)} of {len(ours)} connections were lost after {after_s:.1f} s ({causes}): the dialect "
            f"{target.dialect_name} does not keep this server content",
        )
    return Finding(_HEALTHY_LIVE, True, f"{len(ours)} connections lived through three heartbeats")


def _witness(
    detections: pd.DataFrame, milestone: str, scenario: Scenario, false: pd.DataFrame | None = None
) -> Finding:
    """Calibrate a witness by the known ends; ``false``: what it says of clients that lived through the run."""
    what = f"{milestone} by {_BY[milestone]}"
    known = detections[(detections["milestone"] == milestone) & detections["fault"].isin(_KNOWN)]
    known = known[known["outcome"] != "not_applicable"]
    seen = known[known["outcome"] == "detected"]
    told = f"{len(seen)} of {len(known)} known ends were seen"
    if len(seen) < len(known) or not len(known):
        return Finding(what, True, f"{told}: it is not believed, and not used", milestone)
    late_s = scenario.clock.real_s(float(seen["duration_s"].max()))
    told += f", at most {late_s * 1000:.0f} ms after"
    grain_s = scenario.clock.real_s(float((seen["duration_s"] - seen["earliest_s"]).max()))
    if grain_s > 0:
        told += f", to {grain_s * 1000:.0f} ms"
    if milestone == "suspected" and late_s > _LATEST_LINE_S:
        return Finding(
            what, True, f"{told}: such lines say nothing of when; is the output buffered?", milestone
        )
    if false is not None and len(false):
        clients = ", ".join(sorted(set(false["client"]))[:3])
        return Finding(
            what,
            True,
            f"{told}, and {len(false)} that were none (client {clients}): a line that tells more",
            milestone,
        )
    return Finding(what, True, told)


def _count(counted: pd.DataFrame, detections: pd.DataFrame, scenario: Scenario) -> Finding:
    """Hold the server's own number against the clients: never fewer than live, nor more than live and silent ones."""
    what = "connections by count"
    steady = counted[counted["time_s"] > scenario.ramp + scenario.clock.scenario_s(_SETTLED_S)]
    if steady.empty:
        return Finding(what, True, "the server told no number: see observer.log", _COUNT)
    gone = detections[(detections["milestone"] == "socket_closed")]
    silent = [
        int(((gone["injected_at_s"] <= at_s) & ~gone["fault"].isin(_KNOWN)).sum())
        for at_s in steady["time_s"]
    ]
    off = (steady["connections"] < steady["live_clients"]) | (
        steady["connections"] > steady["live_clients"] + silent
    )
    told = (
        f"{len(steady)} answers, {steady['connections'].min():g} to {steady['connections'].max():g} connections beside "
        f"{steady['live_clients'].min()} to {steady['live_clients'].max()} live clients"
    )
    if off.mean() > _MOST_OFF:
        return Finding(what, True, f"{told}: {off.sum()} of them do not fit", _COUNT)
    return Finding(what, True, told)


def _law(agreement: pd.DataFrame, target: Target) -> list[Finding]:
    rows = agreement[(agreement["left"] == "real") & (agreement["fault"] == "frozen")]
    rows = rows[rows["milestone"].isin(list(target.witnesses.milestones))]
    rows = rows[rows["figure"].isin(["range", "share", "shape"]) & (rows["verdict"] != "unknown")]
    found = [
        Finding(f"law of {row['milestone']} ({row['figure']})", row["verdict"] == "pass", str(row["reason"]))
        for row in rows.to_dict("records")
    ]
    if not found and target.heartbeat.law_known:
        found.append(Finding("law", True, "no witness sees a milestone that has a law in so short a run"))
    return found
