"""Who notices a dead client, when, and who leaves ghosts: bundled targets, checked one after the other, as one page.

From checks of targets to plain data (`flatline target check --all --save FILE` keeps it as JSON), and from that to
Markdown: docs/generate.py makes a page of the file in docs.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.real.errors import CannotRun
from harness.real.targets.killed import kill_with_clients
from harness.runs.directory import find_run
from harness.studies.target_check import TargetCheck
from reports.run_tables import RunTables, load_run
from scenarios.target import Target

__all__ = ["compared", "measured_row", "skipped_row"]

_SHOWN = ("suspected", "socket_closed")


def commit_here() -> str:
    """The commit of this flatline, if it is a checkout; with a + where files differ from it."""
    asked = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+")
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def skipped_row(target: Target, reason: str) -> dict[str, Any]:
    """The row of a target that cannot run here."""
    return {"target": target.target, "title": target.title, "skipped": reason}


def measured_row(target: Target, done: TargetCheck, logs: Path) -> dict[str, Any]:
    """What a check measured, beside what the target's law says; scenario seconds, which are the server's own.

    Where a store is witnessed the server is started once more, with a few clients, and killed.
    """
    tables = load_run(find_run(str(done.report.parent)).path)
    about = tables.provenance
    left: dict[str, Any] | None = None
    if target.start is not None and done.target.witnesses.store_cleared is not None:
        logs.mkdir(parents=True, exist_ok=True)
        try:
            found = kill_with_clients(target, logs)
            left = {"before": found.before, "after": found.after, "ttl_s": found.ttl_s}
        except CannotRun as error:
            left = {"error": str(error)}
    return {
        "target": target.target,
        "title": target.title,
        "model": target.heartbeat.model,
        "versions": about.get("target", {}).get("versions", {}),
        "speedup": about.get("speedup", 1.0),
        "started": about.get("started", ""),
        "machine": about.get("machine", {}),
        "verdict": done.exit_code.name.lower(),
        "watched_s": tables.number("ramp_s"),
        "milestones": {name: _milestone(tables, name) for name in _SHOWN},
        "witnesses": {one.what: one.mark for one in done.findings if " by " in one.what},
        "wrong": [f"{one.what}: {one.seen}" for one in done.findings if not one.good or one.dropped],
        "ghosts": left,
        "commit": commit_here(),
    }


def _milestone(tables: RunTables, milestone: str) -> dict[str, Any] | None:
    """The law and what was seen of frozen clients; None: no witness saw this."""
    law = tables.table("laws").query("fault == 'frozen' and milestone == @milestone")
    rows = tables.table("detections").query(
        "engine == 'real' and fault == 'frozen' and milestone == @milestone and outcome != 'not_applicable'"
    )
    if rows.empty:
        return None
    seen = rows.loc[rows["outcome"] == "detected", "duration_s"]
    figures = tables.table("qos").query("engine == 'real' and fault == 'frozen' and milestone == @milestone")
    found: dict[str, Any] = {"n": len(rows), "detected": len(seen), "lo_s": None, "hi_s": None, "share": None}
    if len(law):
        found |= {key: _number(law.iloc[0][key]) for key in ("lo_s", "hi_s")}
        found["share"] = _number(law.iloc[0]["detected_share"])
    if len(seen):
        found |= {"least_s": float(seen.min()), "most_s": float(seen.max())}
        found |= {key: _number(figures.iloc[0][key]) for key in ("p50_s", "p50_lo_s", "p50_hi_s")}
    else:
        found["watched_s"] = float(rows["duration_s"].min())
    return found


def _number(value: Any) -> float | None:
    return None if value != value or math.isinf(float(value)) else float(value)


def compared(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page, in Markdown."""
    ran = [row for row in rows if "skipped" not in row]
    skipped = [row for row in rows if "skipped" in row]
    machine = ran[0]["machine"] if ran else {}
    days = sorted({str(row["started"])[:10] for row in ran})
    commits = sorted({str(row["commit"]) for row in ran if row.get("commit")})
    out = [
        "# Who notices a dead client, when, and who leaves ghosts\n",
        f"{len(ran)} servers, unchanged, the reference gateway among them, each with 15 clients that freeze: the "
        "process stops, its kernel goes on. Times in seconds from the freeze, at the timers that stand in the "
        "target's file; where a server can be told its times, they were made shorter and the results stretched again. "
        "*Expected* is the law of the file's timers; *measured* the least, the median with its 95 % interval, and the "
        "most. *App*: a line of the server's output says so. *Socket*: the kernel has no server's end any more; how "
        "long a server waits for the answer to its close frame (`socket_lag`) cannot be made shorter, so a faster run "
        "does not see it. *Unsound*: the machine was too busy for so short times.\n",
        f"Measured {' and '.join(days)} on {machine.get('system', '?')}, {machine.get('cores', '?')} cores, Python "
        f"{machine.get('python', '?')}; commit {', '.join(commits) or 'unknown'}. `make targets` measures again.\n",
        "| server | versions | app: expected | app: measured | socket: expected | socket: measured | as expected |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ran:
        app, socket = (row["milestones"][name] for name in _SHOWN)
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        verdict = {"good": "yes", "missed": "**no**"}.get(row["verdict"], row["verdict"])
        cells = [
            f"{row['target']}: {row['title']}",
            versions or "–",
            *(_expected(app), _measured(app), _expected(socket), _measured(socket)),
            verdict,
        ]
        out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if wrong := [f"* {row['target']}: {said}" for row in ran for said in row["wrong"]]:
        out += ["\n## What did not go as it should\n", *wrong]
    out += [
        "\n## Ghosts: the server is killed (SIGKILL) with five clients connected\n",
        "| server | records before | a second after | they stay for |",
        "|---|---|---|---|",
    ]
    for row in ran:
        if (left := row["ghosts"]) is None:
            continue
        if "error" in left:
            out.append(f"| {row['target']} | {left['error']} | | |")
            continue
        stay = "for ever" if left["ttl_s"] is None else f"up to {left['ttl_s']:,.0f} s (TTL)"
        stay = stay if left["after"] else "–"
        out.append(f"| {row['target']} | {left['before']} | {left['after']} | {stay} |")
    out.append(
        "\nA server without a witnessed store keeps who is online in its memory: killed, it forgets all of it."
    )
    out.append(
        "The reference gateway's other nodes clear a dead node's records when its lease ends; here it had none."
    )
    if skipped:
        out += ["\n## Not measured here\n", *(f"* {row['target']}: {row['skipped']}" for row in skipped)]
    return "\n".join(out) + "\n"


def _expected(seen: Mapping[str, Any] | None) -> str:
    if seen is None:
        return "no witness in this run"
    if seen["share"] == 0:
        return "never in so short a run"
    if seen["lo_s"] is None or seen["hi_s"] is None:
        return "no law is claimed"
    return f"{seen['lo_s']:.1f} to {seen['hi_s']:.1f}"


def _measured(seen: Mapping[str, Any] | None) -> str:
    if seen is None:
        return "–"
    if not seen["detected"]:
        return f"0 of {seen['n']}, each watched for {seen['watched_s']:.0f} s or longer"
    said = (
        f"{seen['least_s']:.1f} … {seen['p50_s']:.1f}"
        if seen["p50_s"] is not None
        else f"{seen['least_s']:.1f}"
    )
    if seen["p50_lo_s"] is not None and seen["p50_hi_s"] is not None:
        said += f" ({seen['p50_lo_s']:.1f}–{seen['p50_hi_s']:.1f})"
    said += f" … {seen['most_s']:.1f}"
    return said + (
        f"; {seen['detected']} of {seen['n']}" if seen["detected"] < seen["n"] else f"; n = {seen['n']}"
    )
