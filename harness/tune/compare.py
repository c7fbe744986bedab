"""A verification's run beside its prediction: from a concluded run directory to a table of checks.

Bounds come from the laws themselves, so that chance is told apart from a wrong prediction. Runs nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from harness.faults import Plan
from harness.rundir import RunDir
from harness.theory import Law, patience_s, predict
from scenarios.load import load_scenario
from scenarios.schema import Scenario

__all__ = ["compare_with_prediction"]

_TAIL = 0.0005  # on either side of what chance may make: one false alarm in a thousand checks
_ROUNDING_S = np.array((-1e-3, 1e-3))


def compare_with_prediction(directory: Path) -> pd.DataFrame:
    """The measurement of a verification's run beside its prediction.

    Columns: engine, check, predicted, lo, hi (where the measurement must lie: the law's 99.9 % interval, widened by
    the run's ε), measured, n, verdict (`pass`, `fail`, `unknown`: nothing was there to measure), note.

    Raises:
        RunDirError, ScenarioError, OSError: not a run directory that was concluded.
    """
    run = RunDir(directory)
    scenario, plan = load_scenario(str(run.scenario)), Plan.load(run.plan)
    summary = run.read_json(run.summary)
    engines = [engine for engine in summary["engines"] if engine != "theory"]
    speedup = scenario.speedup if "real" in engines else 1.0
    (law,) = (
        one.law
        for one in predict(scenario, speedup)
        if (one.fault, one.milestone) == ("host_crash", "suspected")
    )
    assert law is not None  # theory is exact for a host crash under a heartbeat
    rows = []
    for engine in engines:
        epsilon_s = float(summary["epsilon_s"] or 0.0) if engine == "real" else 0.0
        rows += _latency(run, engine, law, epsilon_s)
        rows += _idle_timer(run, plan, engine)
        rows.append(_mistakes(run, scenario, plan, engine, speedup))
    columns = ["engine", "check", "predicted", "lo", "hi", "measured", "n", "verdict", "note"]
    return pd.DataFrame(rows, columns=columns)


def _latency(run: RunDir, engine: str, law: Law, epsilon_s: float) -> list[tuple[object, ...]]:
    every = _rows(run, "detections", engine=engine, fault="host_crash", milestone="suspected")
    times = np.sort(every.loc[every["outcome"] == "detected", "duration_s"].to_numpy(dtype=float))
    n, all_seen = len(every), len(times) == len(every) > 0
    rows: list[tuple[object, ...]] = []
    for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        # The measured percentile is the r-th of n: its place in the law is Beta(r, n − r + 1).
        rank = max(1, math.ceil(quantile * n - 1e-9))
        places = stats.beta(rank, n - rank + 1).ppf((_TAIL, 1 - _TAIL)) if n else (0.0, 1.0)
        lo, hi = law.quantile(places) + np.array((-epsilon_s, epsilon_s)) + _ROUNDING_S
        measured = float(times[rank - 1]) if rank <= len(times) else float("nan")
        rows.append((engine, f"detection {name} (s)", float(law.quantile(quantile)), float(lo), float(hi),
                     measured, n, _verdict(lo <= measured <= hi, n), ""))  # fmt: skip
    lo, hi = law.lo_s - epsilon_s + _ROUNDING_S[0], law.hi_s + epsilon_s + _ROUNDING_S[1]
    inside = all_seen and bool(lo <= times[0] and times[-1] <= hi)
    slowest = float(times[-1]) if len(times) else float("nan")
    told = f"{n - len(times)} not detected"
    if len(times):
        told += f"; the fastest after {times[0]:.3f} s"
    rows.append((engine, "detection, slowest (s)", law.hi_s, lo, hi, slowest, n, _verdict(inside, n),
                 told))  # fmt: skip
    return rows


def _idle_timer(run: RunDir, plan: Plan, engine: str) -> list[tuple[object, ...]]:
    if not any(fault.kind == "nat_timeout" for fault in plan.faults):
        return []
    rows = _rows(run, "detections", engine=engine, fault="nat_timeout", milestone="suspected")
    expired = int(rows["injected_at_s"].notna().sum())
    return [(engine, "mappings that expired", 0.0, 0.0, 0.0, float(expired), len(rows),
             _verdict(expired == 0, len(rows)), "the heartbeat keeps them alive")]  # fmt: skip


def _mistakes(
    run: RunDir, scenario: Scenario, plan: Plan, engine: str, speedup: float
) -> tuple[object, ...]:
    """Healthy clients thrown out, beside the law of that number given this plan's outages."""
    seen = _rows(run, "false_suspicions", engine=engine)
    count = int(seen["count"].iloc[0])
    once, each = _chances(scenario, plan, speedup)
    # Whether a client that was thrown out is back for its next outage is left open: both ends are allowed for.
    lo, hi = _quantile(once, _TAIL), _quantile(each, 1 - _TAIL)
    return (engine, "healthy clients thrown out", sum(once), lo, hi, float(count), len(each),
            _verdict(lo <= count <= hi, 1), f"{len(each)} outages of {len(once)} clients")  # fmt: skip


def _chances(scenario: Scenario, plan: Plan, speedup: float) -> tuple[list[float], list[float]]:
    """Probability to be thrown out: of each client by any of its outages, and of each outage alone.

    Given an outage's length L the phase is all that is random: P = (min(L − W, T, what is left of the run))⁺/T, where
    W is the last retransmission that fits into the patience.
    """
    policy, network = scenario.liveness, scenario.network.seen_at(speedup)
    interval_s, patience = policy.heartbeat_interval, patience_s(policy)
    if interval_s is None:
        return [], []
    trip_s = float(network.round_trip.quantile(0.5))
    outlast_s = max((step for step in network.rto_ladder if step <= patience - trip_s), default=0.0)
    each: dict[int, list[float]] = defaultdict(list)
    for outage in plan.outages:
        left_s = plan.horizon_s - outage.at_s - patience
        noticed = min(outage.length_s - outlast_s, interval_s, left_s) / interval_s
        each[outage.client].append(max(0.0, noticed))
    once = [1 - math.prod(1 - p for p in found) for found in each.values()]
    return once, [p for found in each.values() for p in found]


def _quantile(chances: list[float], probability: float) -> float:
    """Quantile of how many of some independent things happen: the Poisson binomial law, by convolution."""
    law = np.ones(1)
    for p in chances:
        law = np.convolve(law, (1 - p, p))
    return float(np.searchsorted(np.cumsum(law), probability - 1e-12))


def _rows(run: RunDir, name: str, **equal: str) -> pd.DataFrame:
    table = pd.read_csv(run.table(name), keep_default_na=False, na_values=[""])
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def _verdict(holds: bool, n: int) -> str:
    if not n:
        return "unknown"
    return "pass" if holds else "fail"
