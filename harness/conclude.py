"""Conclude a run: merge logs, predict, measure, judge, report.

Every step reads and writes the run directory only, so it can be done again at any time: on a copy, and
after a crash with what had been logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.events.history import Workers, workers_of
from harness.events.log import ReadLog, merge_logs, read_log
from harness.faults import Plan
from harness.judge.soundness import Soundness, assess, silent_faults, without_planned_stalls
from harness.judge.threshold_metrics import Tables
from harness.judge.thresholds import check_thresholds, evaluate
from harness.measure.cost import expected_cost
from harness.measure.incidents import with_bounds
from harness.measure.one_engine import Measured, measure
from harness.measure.quality_of_service import breakdown, causes, incidence_by_cause, qos, survival
from harness.runs.directory import RunDir, RunDirError
from harness.theory import curves_frame, laws_frame, predict
from harness.theory.tables import plotted_detections
from reference_server.errors import Exit
from reference_server.events import EventKind, Source
from reports.agreement import compare
from reports.build import build_report
from reports.run_tables import load_run
from scenarios.load import load_scenario
from scenarios.schema import Scenario

__all__ = ["Outcome", "conclude", "soundness_of"]

# What a timely gateway may be late at each of the k + 1 steps of a policy of k failures: its wheel's bucket
# (2 ms), the loop's timer in whole milliseconds, and the look at the sockets before a verdict (1 ms each).
_WHEEL_S = 0.004
# Not measured: what a message over loopback and two idle loops takes at most. Lag beyond it is measured.
_LOOPBACK_ROUND_TRIP_S = 0.002
_MOST_WINDOWS = 12  # incidents shaded in figures; more would shade everything
_MEASURED = (
    "not_applicable", "injections", "false_suspicions", "mistakes", "accuracy", "ghosts", "live",
    "timelines", "tcp_info", "lag", "lateness", "handshakes", "resources", "omission", "flicker",
    "session_quality", "storm", "incidents",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run came out: for the terminal, and the exit code."""

    headline: str
    lines: tuple[str, ...]
    report: Path
    exit_code: Exit


def conclude(
    run: RunDir, progress: Callable[[str, float], None] = lambda _phase, _done: None
) -> Outcome:
    """Measure, judge and report what a run directory holds.

    1. Merge the witnesses' logs into one, sorted by time.
    2. Theory: the law of each fault and milestone.
    3. Measure each engine that ran: one row per fault and milestone.
    4. Statistics: percentiles, curves, causes.
    5. Judge: sound? do the engines agree? do the thresholds hold?
    6. Report.

    Raises:
        RunDirError: no scenario or plan in it, or no events at all.
        ScenarioError: its scenario cannot be read.
    """
    scenario = load_scenario(str(run.scenario))
    if not run.plan.exists():
        raise RunDirError(f"{run.path}: no plan.json; is it a run directory?")
    plan = Plan.load(run.plan)
    provenance = run.read_json(run.provenance) if run.provenance.exists() else {}

    progress("measure", 0.0)
    log = _merge(run)
    engines = _engines(log)
    predictions = predict(scenario, scenario.speedup if "real" in engines else 1.0)
    laws_frame(predictions).to_csv(run.table("laws"), index=False)
    curves_frame(predictions).to_csv(run.table("law_curves"), index=False)
    progress("measure", 0.3)

    measured = [
        measure(log.events, plan, engine=engine, speedup=scenario.speedup, horizon_s=plan.horizon_s)
        for engine in engines
    ]
    seen = pd.concat([m.detections for m in measured], ignore_index=True)
    detections = pd.concat([plotted_detections(predictions, plan), seen], ignore_index=True)
    tables = {
        "detections": detections,
        # Of what was measured: theory's rows are plotting positions, their number is no sample size.
        "qos": qos(seen),
        "breakdown": breakdown(seen),
        "survival": survival(seen),
        "causes": causes(seen),
        "incidence": incidence_by_cause(seen),
        "cost": _cost(scenario, measured),
        **{
            name: pd.concat([getattr(m, name) for m in measured], ignore_index=True)
            for name in _MEASURED
        },
    }
    tables["incidents"] = with_bounds(tables["incidents"], scenario)
    for name, table in tables.items():
        table.to_csv(run.table(name), index=False)
    progress("measure", 0.7)

    soundness = soundness_of(scenario, plan, measured, workers_of(log.events))
    if soundness is not None and (broke_off := provenance.get("broke_off")):
        reasons = (str(broke_off), *soundness.reasons)
        soundness = replace(soundness, sound=False, reasons=reasons)
    run.write_json(run.summary, _summary(scenario, plan, log, measured, soundness, provenance))
    agreement = compare(load_run(run.path), scenario.agreement.model_dump())
    agreement.to_csv(run.table("agreement"), index=False)
    evaluate(
        check_thresholds(scenario),
        Tables(
            tuple(engines), detections, tables["false_suspicions"], tables["ghosts"], tables["live"],
            agreement, soundness.epsilon_s if soundness else 0.0, tables["incidents"], tables["handshakes"],
            pd.concat([m.lateness.assign(engine=m.engine) for m in measured], ignore_index=True),
        ),
        unsound=soundness.reasons if soundness else (),
    ).to_csv(run.table("thresholds"), index=False)  # fmt: skip
    progress("measure", 1.0)

    progress("report", 0.0)
    by_hand = provenance.get("status") == "partial" and "broke_off" not in provenance
    interrupted = Exit.INTERRUPTED if by_hand else None
    report = build_report(
        run.path, tolerances=scenario.agreement.model_dump(), exit_code=interrupted
    )
    progress("report", 1.0)
    return Outcome(
        report.verdict.headline, report.verdict.reasons, report.html, Exit(report.verdict.exit_code)
    )


def _cost(scenario: Scenario, measured: Sequence[Measured]) -> pd.DataFrame:
    """What each engine measured; before it theory, for as many clients as the last engine held on average."""
    seen = pd.concat([m.cost for m in measured], ignore_index=True)
    held = seen["clients"].dropna()
    if held.empty:
        return seen
    expected = expected_cost(scenario.liveness, float(held.iloc[-1]))
    return pd.concat([expected, seen], ignore_index=True)


def _merge(run: RunDir) -> ReadLog:
    """Merge the logs; a directory that was copied without them still has the merged one."""
    log = merge_logs(run.logs, run.events) if any(run.logs.glob("*.jsonl")) else None
    if log is None and run.events.exists():
        log = read_log(run.events)
    if log is None or not log.events:
        raise RunDirError(f"{run.path}: no events were logged; nothing can be measured")
    return log


def _engines(log: ReadLog) -> list[str]:
    sources = {event.source for event in log.events}
    simulated = ["simulated"] if Source.SIMULATION in sources else []
    return simulated + (["real"] if Source.CLIENT in sources else [])


def soundness_of(
    scenario: Scenario, plan: Plan, measured: Sequence[Measured], workers: Workers
) -> Soundness | None:
    """Judge the real run; None where none ran (a simulation has no loops that lag)."""
    real = next((m for m in measured if m.engine == "real"), None)
    if real is None:
        return None
    policy = scenario.liveness
    return assess(
        lag=without_planned_stalls(real.lag, real.incidents, scenario.speedup),
        detections=real.detections,
        injections=real.injections,
        witnesses=real.witnesses,
        silent=silent_faults(plan.faults),
        speedup=scenario.speedup,
        one_way_delay_s=_LOOPBACK_ROUND_TRIP_S / 2,
        grain_s=(policy.max_failures + 1) * _WHEEL_S,
        heartbeat_interval_s=policy.heartbeat_interval,
        ramp_s=scenario.ramp,
        workers=workers,
    )


def _store_grain_s(log: ReadLog) -> float:
    """The longest time between the two looks of the store watch that a clearing lies between, real seconds."""
    cleared = [
        e for e in log.events if e.kind is EventKind.STORE_CLEARED and e.source is Source.STORE
    ]
    looks = [(e.time_s, e.detail.get("previous_poll_s")) for e in cleared]
    return max((now_s - before_s for now_s, before_s in looks if before_s is not None), default=0.0)


def _summary(
    scenario: Scenario, plan: Plan, log: ReadLog, measured: Sequence[Measured],
    soundness: Soundness | None, provenance: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    network = scenario.network.seen_at(scenario.speedup if soundness else 1.0)
    complete = (
        all(m.complete for m in measured) and provenance.get("status", "complete") == "complete"
    )
    windows: dict[str, list[float]] = {
        fault.fault: [f.at_s for f in plan.faults if f.fault == fault.fault]
        for fault in plan.faults
    }
    if len(plan.incidents) <= _MOST_WINDOWS:
        for one in plan.incidents:
            windows[one.incident_id] = [one.at_s, one.at_s + (one.lasts_s or 0.0)]
    counts = {"clients": plan.clients, "faults": len(plan.faults), "events": len(log.events),
              "torn_lines": log.torn_lines, "outages": len(plan.outages)}  # fmt: skip
    return {
        "name": scenario.name,
        "description": scenario.description,
        "seed": scenario.seed,
        "engines": ["theory", *(m.engine for m in measured)],
        "status": "complete" if complete else "partial",
        "speedup": scenario.speedup,
        "round_trip_s": network.round_trip.quantile(0.999).item(),
        "retry_s": scenario.reconnect.relogin.retry if scenario.reconnect.relogin else 0.0,
        "store_grain_s": _store_grain_s(log) * scenario.speedup,
        "sound": soundness.sound if soundness else None,
        "unsound_reasons": list(soundness.reasons) if soundness else [],
        "epsilon_s": soundness.epsilon_s if soundness else None,
        "epsilon_parts": soundness.as_dict()["parts"] if soundness else {},
        "fault_windows": [
            {"fault": fault, "start_s": min(at), "end_s": max(at)} for fault, at in windows.items()
        ],
        "counts": counts,
        "fidelity": provenance.get("fidelity", []),
        "notes": provenance.get("notes", []),
        "negative_control": provenance.get("negative_control"),
        "run_ended": any(event.kind is EventKind.RUN_ENDED for event in log.events),
    }
