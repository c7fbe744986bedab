"""Run what is claimed: one run for each preset with all faults in one mix, and claims.csv out of those runs.

From presets and kinds of fault to one row for each preset, fault, milestone and engine; each preset is a run directory
with a report of its own. Faults come over a whole sweep, so that the sweep's phase, one a run, is uniform over them.
A run outlasts what theory says, and TCP's give-up where theory says never; it is as fast as its clocks allow. What was
seen is read from the run's tables, so a table can be gathered again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from harness.judge.soundness import MAX_EPSILON_S, MAX_EPSILON_SHARE, silent_faults
from harness.real.engine import TCP_GIVE_UP_S, CannotRun, RealSetup
from harness.run import ENGINES, run
from harness.runs.directory import RunDir
from harness.studies.claims.claim import load_claims
from harness.studies.claims.judge import Seen, judge
from harness.theory.predict import predict
from reference_server.presets import find_preset
from reports.run_tables import RunTables, load_run
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.load import load_scenario
from scenarios.plan import make_plan
from scenarios.schema import Scenario

__all__ = ["COLUMNS", "cells", "experiment", "run_claims"]

_RAMP_S = 30.0
_FIRST_S, _SPAN_S = 40.0, 60.0  # of the faults, after the ramp
_HEALTHY = 0.1  # of the clients: the control
_LONGER_THAN_TCP_S = 1040.0
_SPARE_S = 20.0
_MAY_LAG_S = (
    0.057  # loops may lag 30 ms; one way, the time between samples and the schedulers' grain take the rest
)
_MILESTONES = ("suspected", "store_cleared", "locked_out")
_THEORY_EPSILON_S = 0.01  # a round trip
_BY_TCP = {"tcp_timeout", "state_check", "sweep", "send_error"}
COLUMNS = (
    *("preset", "case", "fault", "milestone", "claimed", "claim_lo_s", "claim_hi_s", "engine", "n"),
    *("detected", "recovered", "lo_s", "p50_s", "hi_s", "cause", "verdict", "reason", "fidelity"),
    *("source", "run"),
)


def experiment(
    preset: str, faults: Sequence[str], *, clients: int = 100, fastest: float = 20.0, seed: int = 1
) -> Scenario:
    """Return the scenario of a preset and some kinds of fault.

    Args:
        preset: its name.
        faults: kinds.
        clients: nine of ten suffer a fault, as many of each kind.
        fastest: the pace at most; a preset that decides soon goes slower, so that its times can be told.
        seed: of the plan.

    Raises:
        UnknownPresetError: no such preset.
    """
    policy = find_preset(preset).policy
    span_s = max(_SPAN_S, policy.sweep_interval)
    at = {"uniform": {"low": _FIRST_S, "high": _FIRST_S + span_s}}
    share = (1 - _HEALTHY) / len(faults)
    given: dict[str, Any] = {
        "name": preset,
        "description": f"{find_preset(preset).title}, put to the test.",
        "preset": preset,
        "seed": seed,
        "clients": clients,
        "ramp": _RAMP_S,
        "duration": 1.0,
        "faults": [{"kind": kind, "share": share, "at": at} for kind in faults],
    }
    if find_preset(preset).second_login == "refuse":
        # After the clean-up of an orderly close, so that the first try does not race with it.
        given["reconnect"] = {"relogin": {"after": 3.0, "retry": 7.0}}
    draft = Scenario.model_validate(given)
    clock = RunClock(_pace(draft, fastest))
    # A client that stays with its session, as one that reloads its page, is cleared never, and that needs no waiting
    # for. In a faster run TCP is later, for its timers do not shrink.
    staying = {fault.label for fault in draft.faults if fault.drawn.user_stays}
    laws = [
        p.law
        for at in (SCENARIO_TIME, clock)
        for p in predict(draft, at)
        if p.law is not None and p.fault not in staying
    ]
    longest_s = max((law.hi_s if law.mass > 1 - 1e-9 else _LONGER_THAN_TCP_S for law in laws), default=0.0)
    given["duration"] = _FIRST_S + span_s + longest_s + _SPARE_S
    given["speedup"] = clock.speedup
    return Scenario.model_validate(given)


def _pace(scenario: Scenario, fastest: float) -> float:
    """As fast as a run can be that is still sound when its loops lag 30 ms."""
    silent = silent_faults(make_plan(scenario).faults)
    medians_s = [
        float(p.law.quantile(0.5))
        for p in predict(scenario)
        if p.milestone == "suspected" and p.fault in silent and p.law is not None and p.law.mass > 0.5
    ]
    bound_s = min([MAX_EPSILON_S, *(MAX_EPSILON_SHARE * median_s for median_s in medians_s)])
    return float(max(1, min(fastest, math.floor(bound_s / _MAY_LAG_S))))


def run_claims(
    presets: Sequence[str],
    faults: Sequence[str],
    out: Path,
    *,
    real: bool = True,
    clients: int = 100,
    fastest: float = 20.0,
    setup: RealSetup | None = None,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
) -> pd.DataFrame:
    """Run every preset once and return claims.csv.

    Ctrl-C ends the run under way, whose report is marked partial, and the others are not begun.

    Raises:
        UnknownPresetError: no such preset.
        RedisUnavailable: no Redis.
    """
    tables = []
    without = ""
    for preset in presets:
        scenario = experiment(preset, faults, clients=clients, fastest=fastest)
        engines = ENGINES if real and not without else ("theory", "simulated")

        def show(phase: str, done: float, preset: str = preset) -> None:
            progress(f"{preset}: {phase}", done)

        try:
            outcome = run(scenario, engines=engines, root=out / "runs", setup=setup, progress=show)
        except CannotRun as error:
            without = str(error)
            outcome = run(scenario, engines=("theory", "simulated"), root=out / "runs", progress=show)
        tables.append(cells(RunDir(outcome.report.parent), preset, without))
    return pd.concat(tables, ignore_index=True)


def cells(directory: RunDir, preset: str, without_real: str = "") -> pd.DataFrame:
    """Return the rows of one run.

    Args:
        directory: of a concluded run.
        preset: whose run it was.
        without_real: why there was no real run.
    """
    scenario = load_scenario(str(directory.scenario))
    book = load_claims()
    tables = load_run(directory.path)
    laws = tables.table("laws").groupby(["fault", "milestone"])
    detections = tables.table("detections")
    fidelity = {row["fault"]: row["mechanism"] for row in tables.records("fidelity")}
    rows = []
    for fault, milestone in product((fault.label for fault in scenario.faults), _MILESTONES):
        if (fault, milestone) not in laws.groups:
            continue
        claim = book.find(preset, fault, milestone)
        bounds = (math.nan, math.nan) if claim is None or claim.never else (claim.lo, claim.hi_s)
        of_cell = detections[(detections["fault"] == fault) & (detections["milestone"] == milestone)]
        for engine in ENGINES:
            if engine == "theory":
                seen, cause = _of_theory(laws.get_group((fault, milestone)).iloc[0].to_dict())
            elif engine not in tables.engines:
                if not without_real:
                    continue
                seen, cause = Seen(unknown=without_real), ""
            else:
                seen, cause = _of_run(of_cell[of_cell["engine"] == engine], milestone, tables)
            verdict, reason = judge(claim, seen)
            cell = (
                preset,
                book.case_of(fault),
                fault,
                milestone,
                claim.text if claim else "",
                *bounds,
                engine,
            )
            figures = (seen.n, seen.share, seen.recovered, seen.lo_s, seen.p50_s, seen.hi_s, cause)
            how = _how(engine, cause, fidelity.get(fault, ""), scenario)
            source = claim.source if claim else ""
            rows.append((*cell, *figures, str(verdict), reason, how, source, directory.path.name))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_theory(law: dict[Hashable, Any]) -> tuple[Seen, str]:
    mass = law["detected_share"]
    if math.isnan(mass):
        return Seen(unknown=f"no closed form: {law['note']}"), ""
    # A law has no sample: it is judged as if each of so many faults had been watched for ever.
    hundred = 100
    detected = round(hundred * mass)
    recovered = hundred - detected if "resume" in law["note"] else 0
    times = (law["lo_s"], law["p50_s"], law["hi_s"], math.inf, _THEORY_EPSILON_S)
    return Seen(hundred, detected, recovered, *times), law["cause"]


def _of_run(rows: pd.DataFrame, milestone: str, tables: RunTables) -> tuple[Seen, str]:
    rows = rows[rows["outcome"] != "not_applicable"]
    if rows.empty:
        return Seen(unknown="nothing was seen: no such fault, or no such milestone"), ""
    found = rows[rows["outcome"] == "detected"]
    real = rows["engine"].iloc[0] == "real"
    times = found["duration_s"]
    seen = Seen(
        n=len(rows),
        detected=len(found),
        recovered=int((rows["outcome"] == "recovered").sum()),
        lo_s=float(times.min()),
        p50_s=float(times.median()) if 2 * len(found) > len(rows) else math.nan,
        hi_s=float(times.max()),
        watched_s=float(rows.loc[rows["outcome"] == "censored", "duration_s"].min()),
        epsilon_s=_epsilon_s(milestone, tables.summary, real),
        sound=not real or bool(tables.sound),
    )
    return seen, next(iter(found["cause"].mode()), "")


def _epsilon_s(milestone: str, summary: Mapping[str, Any], real: bool) -> float:
    """Each further loop on the way to a milestone may add as much again; the watch and a try their own grain."""
    one_s = summary["epsilon_s"] or 0.0 if real else 0.0
    trip_s = summary["round_trip_s"]
    match milestone:
        case "suspected":
            return float(one_s + trip_s)
        case "store_cleared":
            return float(2 * one_s + trip_s + (summary["store_grain_s"] if real else 0.0))
        case _:
            return float(2 * one_s + trip_s + summary["retry_s"])


def _how(engine: str, cause: str, mechanism: str, scenario: Scenario) -> str:
    """By which mechanism the fault was made, and where the kernel's patience was bounded."""
    if engine != "real":
        return ""
    if cause in _BY_TCP and not scenario.clock.is_real_time and scenario.liveness.tcp_user_timeout is None:
        bounded_s = scenario.clock.real_s(TCP_GIVE_UP_S)
        return (
            f"{mechanism}; TCP's give-up stands for {TCP_GIVE_UP_S:g} s: TCP_USER_TIMEOUT {bounded_s:.1f} s"
        )
    return mechanism
