"""Conclude a run: merge, theory, measure, statistics, judge, write the tables, report, summary.json.

Every step reads and writes the run directory only, so it can be done again at any time: on a copy, and
after a crash with what had been logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.events.columns import Events
from harness.events.history import History, Workers, workers_of
from harness.events.log import ReadLog, gc_paused, merge_logs, read_log
from harness.judge.agreement import compare, judge
from harness.judge.evidence import missing_evidence
from harness.judge.incidents import judge_incidents
from harness.judge.observed import Slack
from harness.judge.soundness import (
    Epsilon,
    Soundness,
    assess,
    silent_faults,
    store_looks,
    without_planned_stalls,
)
from harness.judge.thresholds import check_thresholds, default_thresholds, evaluate
from harness.judge.verdict import weigh
from harness.measure.connections import expected_losses
from harness.measure.cost import expected_cost, with_expected_refreshes, with_tls
from harness.measure.one_engine import Measured, measure_history
from harness.measure.quality_of_service import (
    breakdown,
    detections_by_layer,
    incidence_by_cause,
    qos,
    survival,
)
from harness.measure.series import at_same_phase
from harness.runs.directory import RunDir, RunDirError
from harness.theory.law import Law
from harness.theory.predict import Prediction, predict, predict_healthy
from harness.theory.tables import curves_frame, laws_frame, plotted_detections
from reference_server.durations import DAY_S
from reference_server.errors import Exit
from reference_server.event_log import LAG_SAMPLED_EVERY_S
from reference_server.events import EventKind, Source
from reports.run_tables import HEALTHY, LOST, LOST_IN_OUTAGE, RunTables, check_format
from scenarios.clock import SCENARIO_TIME
from scenarios.load import load_scenario
from scenarios.plan import Plan
from scenarios.schema import Scenario

__all__ = ["MeasuredRun", "Outcome", "conclude", "measure_run"]

# A gateway that is on time may be so late at each of the k + 1 steps of a policy of k failures, real seconds.
GATEWAY_TIMER_TOLERANCE_S = (
    0.002  # a bucket of the timer wheel
    + 0.001  # the event loop's timer has whole milliseconds
    + 0.001  # the look at the sockets before a verdict
)
# Not measured, real seconds: what a message over loopback and two idle loops take at most. More is measured lag.
LOOPBACK_ROUND_TRIP_S = 0.002
MOST_SHADED_INCIDENTS = 12  # in figures; more would shade everything


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run came out: for the terminal, and the exit code."""

    headline: str
    lines: tuple[str, ...]
    report: Path
    exit_code: Exit


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run measured and judged, for a report or a step of a study: ``tables`` are all of them, not yet written."""

    tables: RunTables
    engines: Sequence[Measured]
    events: Events
    soundness: Soundness | None


def conclude(
    run: RunDir,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
    *,
    interactive: bool = False,
) -> Outcome:
    """Measure, judge and report what a run directory holds.

    1. Merge the witnesses' logs into one, sorted by time.
    2. Theory: the law of each fault and milestone.
    3. Measure each engine that ran: one row per fault and milestone.
    4. Statistics: percentiles, curves, causes.
    5. Judge: sound? do the engines agree? do the thresholds hold?
    6. Write the tables, the report, and last summary.json.

    ``interactive``: the figures of report.html can be zoomed and moved.

    Raises:
        RunDirError: no scenario or plan in it, or no events at all.
        ScenarioError: its scenario cannot be read.
        TablesError: an older flatline made it.
    """
    tables = measure_run(run, progress).tables
    agreement = judge(tables.table("agreement"), sound=tables.sound)
    headline, exit_code = weigh(tables, agreement)
    ended_by_itself = tables.provenance.keys() & {"broke_off", "aborted_by"}
    if tables.provenance.get("status") == "partial" and not ended_by_itself:
        exit_code = Exit.INTERRUPTED  # by hand
    for stale in (run.summary, *(run.path / f"report.{kind}" for kind in ("html", "md", "pdf"))):
        stale.unlink(missing_ok=True)  # should the rest fail, no older verdict stands beside new tables
    for name, table in tables.frames.items():
        table.to_csv(run.table(name), index=False)

    progress("report", 0.0)
    from reports.build import build_report  # Matplotlib: a second that whoever only measures does without

    report = build_report(tables, headline, agreement.headline, exit_code, interactive=interactive)
    verdict = {
        "verdict": headline.status,
        "headline": headline.sentence,
        "verdict_reasons": list(headline.reasons),
        "agreement": agreement._asdict(),
        "exit_code": int(exit_code),
    }
    run.write_json(run.summary, dict(tables.summary) | verdict)
    progress("report", 1.0)
    return Outcome(headline.sentence, headline.reasons, report.html, exit_code)


def measure_run(
    run: RunDir, progress: Callable[[str, float], None] = lambda _phase, _done: None
) -> MeasuredRun:
    """Do steps 1 to 5 of `conclude`. Writes the merged log only.

    Raises:
        RunDirError, ScenarioError, TablesError: as `conclude`.
    """
    if not run.scenario.exists():
        raise RunDirError(
            f"{run.path}: no scenario.yaml, so this is no run; `flatline runs` lists what was run"
        )
    scenario = load_scenario(str(run.scenario))
    if not run.plan.exists():
        raise RunDirError(
            f"{run.path}: no plan.json, so nothing was run here; `flatline runs` lists what was, and a folder of "
            "`flatline serve` has a run after `flatline locust --run-dir`"
        )
    try:
        plan = Plan.load(run.plan)
    except (ValueError, LookupError, TypeError) as error:
        raise RunDirError(f"{run.plan}: not a plan: {error}") from error
    provenance = run.read_json(run.provenance) if run.provenance.exists() else {}
    check_format(run.path, provenance)

    progress("measure", 0.0)
    log = _merge(run)
    engines = _engines(log, provenance)
    clock = scenario.clock if "real" in engines else SCENARIO_TIME
    predictions = [*predict(scenario, clock), *predict_healthy(scenario, clock)]
    progress("measure", 0.3)
    with gc_paused():
        histories = {
            engine: History(
                log.events,
                plan,
                engine=engine,
                clock=scenario.clock,
                horizon_s=plan.horizon_s,
                witnessed=scenario.witnessed(engine),
            )
            for engine in engines
        }
        measured = [measure_history(history) for history in histories.values()]
    frames = _tables(scenario, plan, predictions, measured)
    progress("measure", 0.7)

    workers = workers_of(log.events)
    real = histories.get("real")
    # A run under `flatline serve` has no provenance, and its gateway goes on while the run is judged.
    on = not provenance
    missing = missing_evidence(log.files, real, workers.clock_error_s, serves_on=on) if real else _torn(log)
    soundness = _soundness_of(scenario, plan, measured, workers, real, missing)
    if soundness is not None and (broke_off := provenance.get("broke_off")):
        reasons = (str(broke_off), *soundness.reasons)
        soundness = replace(soundness, sound=False, reasons=reasons)
    epsilon_s = soundness.epsilon_s if soundness else 0.0
    frames["incidents"] = judge_incidents(frames["incidents"], scenario, epsilon_s)
    grains_s = [
        scenario.clock.scenario_s(_grain_s(log, kind, source))
        for kind, source in (
            (EventKind.STORE_CLEARED, Source.STORE if scenario.target is None else Source.OBSERVER),
            (EventKind.SOCKET_CLOSED, Source.OBSERVER),
        )
    ]
    slack = Slack.of(scenario, soundness, *grains_s)
    facts = _facts(scenario, plan, log, measured, soundness, slack, provenance)
    tables = RunTables(run.path, facts, provenance, frozenset(), frames)
    thresholds, unsound = check_thresholds(scenario), tables.sound is False
    frames["agreement"] = compare(tables, scenario.agreement.model_dump(), slack, unsound=unsound)
    judged = (
        evaluate(thresholds, tables, unsound=unsound),
        default_thresholds(thresholds, tables, unsound=unsound),
    )
    frames["thresholds"] = pd.concat(judged, ignore_index=True)
    progress("measure", 1.0)
    return MeasuredRun(tables, measured, log.events, soundness)


def _merge(run: RunDir) -> ReadLog:
    """Merge the logs; a directory that was copied without them still has the merged one."""
    log = merge_logs(run.logs, run.events) if any(run.logs.glob("*.jsonl")) else None
    if log is None and run.events.exists():
        log = read_log(run.events)
    if log is None or not log.events:
        raise RunDirError(f"{run.path}: no events were logged; nothing can be measured")
    return log


def _engines(log: ReadLog, provenance: Mapping[str, Any]) -> list[str]:
    """Return the engines that ran: a real one has any log, or run.json says that it came to its end."""
    sources = log.events.sources
    ended = provenance.get("status") == "complete" and "real" in provenance.get("engines", ())
    simulated = ["simulated"] if Source.SIMULATION in sources else []
    return simulated + (["real"] if ended or sources - {Source.SIMULATION} else [])


def _tables(
    scenario: Scenario, plan: Plan, predictions: Sequence[Prediction], measured: Sequence[Measured]
) -> dict[str, pd.DataFrame]:
    """Return all tables but those of judgements."""
    tables = {
        name: pd.concat([m.tables[name] for m in measured], ignore_index=True) for name in measured[0].tables
    }
    # Statistics are of what was measured: theory's rows are plotting positions, their number is no sample size.
    seen = tables["detections"]
    theory = plotted_detections(predictions, plan)
    return tables | {
        "laws": laws_frame(predictions),
        "law_curves": curves_frame(predictions),
        "detections": pd.concat([theory, seen], ignore_index=True),
        "qos": qos(seen),
        "breakdown": breakdown(seen),
        "survival": survival(seen),
        "detections_by_layer": detections_by_layer(seen),
        "incidence": incidence_by_cause(seen),
        "cost": _with_expected(tables["cost"], tables["reconnects"], scenario),
        "losses": _with_expected_losses(tables, predictions),
        "timelines": at_same_phase(tables["timelines"]),
    }


def _with_expected(cost: pd.DataFrame, reconnects: pd.DataFrame, scenario: Scenario) -> pd.DataFrame:
    """Put theory first, for as many clients as the last engine held on average; and TLS's share, where it is spoken."""
    held = cost["clients"].dropna()
    if not held.empty:
        expected = expected_cost(scenario, float(held.iloc[-1]))
        cost = pd.concat([expected, with_expected_refreshes(cost, scenario)], ignore_index=True)
    if scenario.speaks_tls:
        cost = with_tls(cost, scenario.clients, reconnects.groupby("engine")["connected"].sum().to_dict())
    return cost


def _torn(log: ReadLog) -> list[str]:
    """What a simulation's log lacks."""
    return [f"{file.name}: {file.torn_lines} lines are torn" for file in log.files if file.torn_lines]


def _with_expected_losses(
    tables: Mapping[str, pd.DataFrame], predictions: Sequence[Prediction]
) -> pd.DataFrame:
    """Put theory first, for the connections of the last engine; nothing where it does not know a law."""
    laws = {one.milestone: one.law for one in predictions if one.fault == HEALTHY}
    life, outage = laws.get(LOST), laws.get(LOST_IN_OUTAGE, Law.never())
    held = tables["healthy_connections"]
    if life is None or outage is None or held.empty:
        return tables["losses"]
    per_day = DAY_S / outage.mean_s if outage.mass > 0 else 0.0
    expected = expected_losses(held[held["engine"] == held["engine"].iloc[-1]], life, per_day)
    return pd.concat([expected, tables["losses"]], ignore_index=True)


def _soundness_of(
    scenario: Scenario,
    plan: Plan,
    measured: Sequence[Measured],
    workers: Workers,
    history: History | None,
    missing: Sequence[str],
) -> Soundness | None:
    """Judge the real run; None where none ran (a simulation has no loops that lag) and no line is torn."""
    real = next((m for m in measured if m.engine == "real"), None)
    if real is None or history is None:
        nothing = Epsilon(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, plan.horizon_s)
        return Soundness(False, tuple(missing), 0.0, nothing) if missing else None
    policy = scenario.liveness
    return assess(
        lag=without_planned_stalls(real.tables["lag"], real.tables["incidents"], scenario.clock),
        detections=real.tables["detections"],
        injections=real.tables["injections"],
        witnesses=real.witnesses,
        silent=silent_faults(plan.faults),
        clock=scenario.clock,
        one_way_delay_s=LOOPBACK_ROUND_TRIP_S / 2,
        grain_s=(policy.max_failures + 1) * GATEWAY_TIMER_TOLERANCE_S,
        between_samples_s=LAG_SAMPLED_EVERY_S,
        heartbeat_interval_s=policy.heartbeat_interval,
        ramp_s=scenario.ramp,
        workers=workers,
        looks=store_looks(history),
        missing=missing,
        decided_by=_first_witnessed(scenario),
        foreign=scenario.target is not None,
    )


def _first_witnessed(scenario: Scenario) -> str:
    """The first milestone of the real engine that has a witness."""
    seen = scenario.witnessed("real")
    return "socket_closed" if seen is not None and "suspected" not in seen else "suspected"


def _grain_s(log: ReadLog, kind: EventKind, source: Source) -> float:
    """The longest time between the two looks of a witness that what it saw lies between, real seconds."""
    looks = [(e.time_s, e.detail.get("previous_poll_s")) for e in log.events.of(kind, source)]
    return max((now_s - before_s for now_s, before_s in looks if before_s is not None), default=0.0)


def _facts(
    scenario: Scenario,
    plan: Plan,
    log: ReadLog,
    measured: Sequence[Measured],
    soundness: Soundness | None,
    slack: Slack,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what summary.json says beside the verdict."""
    complete = all(m.complete for m in measured) and provenance.get("status", "complete") == "complete"
    windows: dict[str, list[float]] = {
        fault.fault: [f.at_s for f in plan.faults if f.fault == fault.fault] for fault in plan.faults
    }
    if len(plan.incidents) <= MOST_SHADED_INCIDENTS:
        for one in plan.incidents:
            windows[one.incident_id] = [one.at_s, one.at_s + (one.lasts_s or 0.0)]
    return {
        "name": scenario.name,
        "description": scenario.description,
        "seed": scenario.seed,
        "engines": ["theory", *(m.engine for m in measured)],
        "status": "complete" if complete else "partial",
        "speedup": scenario.speedup,
        "ramp_s": plan.ramp_s,
        "round_trip_s": slack.simulated_s,
        "retry_s": slack.retry_s,
        "store_grain_s": slack.store_grain_s,
        "sound": soundness.sound if soundness else None,
        "unsound_reasons": list(soundness.reasons) if soundness else [],
        "epsilon_s": soundness.epsilon_s if soundness else None,
        "epsilon_parts": soundness.as_dict()["parts"] if soundness else {},
        "fault_windows": [
            {"fault": fault, "start_s": min(at), "end_s": max(at)} for fault, at in windows.items()
        ],
        "counts": {
            "clients": plan.clients,
            "faults": len(plan.faults),
            "events": len(log.events),
            "torn_lines": log.torn_lines,
            "outages": len(plan.outages),
        },
        "fidelity": provenance.get("fidelity", []),
        "notes": provenance.get("notes", []),
        "negative_control": provenance.get("negative_control"),
        "run_ended": bool(log.events.is_of(EventKind.RUN_ENDED).any()),
    }
