"""Replications of a simulation: the same scenario with other seeds, and what they say together.

From a scenario to replications.csv: for each figure its mean over independent runs with a t interval and a
bootstrap interval. One run is one observation: what happens within a run is not independent. Each run's
warm-up is left out. Runs nothing for real, draws no figures.

Source: Law, Simulation Modeling and Analysis, chapter 9 (replication/deletion; sequential stopping).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import joblib
import numpy as np
import pandas as pd
from scipy import stats

from harness.events.history import History
from harness.measure.detections import find_outcomes
from harness.measure.health import find_health
from harness.measure.quality_of_service import qos
from harness.runs.directory import RunDir
from harness.simulated import simulate
from reference_server.durations import DAY_S
from reference_server.errors import FlatlineError
from reference_server.events import EventKind
from scenarios.clock import SCENARIO_TIME
from scenarios.plan import make_plan
from scenarios.schema import Scenario

__all__ = ["COLUMNS", "Replications", "Stopping", "replicate", "replication_seeds", "summarise"]

_STATISTICS = ("mean", "sd", "half_width", "lo", "hi", "boot_lo", "boot_hi")
COLUMNS = {"figure": "str", "n": "int64", "missing": "int64"} | dict.fromkeys(_STATISTICS, "float64")
"""replications.csv: one row a figure. ``missing``: runs without it; the intervals are of the ``n`` others."""

_QOS = ("mean_s", "p50_s", "p95_s", "p99_s")
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Stopping:
    """When there are enough replications.

    ``at_least`` are always run. With a ``precision`` it goes on until the half-width of every figure that matches
    ``figures`` is at most that share of its mean, or until ``at_most``. Stopping by the sample's own spread makes
    intervals cover a little less often than they say; ten or more first ones keep that small.
    """

    at_least: int = 10
    at_most: int = 10
    precision: float | None = None
    figures: tuple[str, ...] = ("*.suspected.mean_s",)

    def __post_init__(self) -> None:
        if not 2 <= self.at_least <= self.at_most:
            raise FlatlineError(
                f"{self.at_least} to {self.at_most} replications; allowed: 2 <= at_least <= at_most"
            )
        if self.precision is not None and not 0 < self.precision < 1:
            raise FlatlineError(f"precision {self.precision:g}; allowed: between 0 and 1")


@dataclass(frozen=True, slots=True)
class Replications:
    """What the runs said.

    ``runs``: one row a run, its seed and every figure. ``table``: :data:`COLUMNS`. ``precise``: the precision
    that was asked for was reached, or none was.
    """

    runs: pd.DataFrame
    table: pd.DataFrame
    precise: bool

    def save(self, run: RunDir) -> None:
        """Write replications.csv and replication_runs.csv."""
        self.table.to_csv(run.table("replications"), index=False)
        self.runs.to_csv(run.table("replication_runs"), index=False)


def replicate(
    scenario: Scenario,
    *,
    stopping: Stopping | None = None,
    warm_up_s: float = 0.0,
    confidence: float = 0.95,
    n_jobs: int = -1,
    progress: Callable[[float], None] = lambda _: None,
) -> Replications:
    """Simulate a scenario again and again, with seeds spawned from its own.

    Replication n has the same seed, and so the same figures, whatever the number of replications and of cores.

    Args:
        scenario: its faults' times count from the end of the ramp, as always.
        stopping: how many; default: ten.
        warm_up_s: scenario seconds after the ramp in which faults and false suspicions do not count.
        confidence: of the intervals.
        n_jobs: processes; -1: one a core.
        progress: told how many of ``at_most`` are done, 0 to 1.

    Raises:
        FlatlineError: a warm-up that leaves nothing of the run, or a confidence that is none.
    """
    stopping = stopping or Stopping()
    if not 0 <= warm_up_s < scenario.duration:
        raise FlatlineError(
            f"warm-up {warm_up_s:g} s; allowed: 0 to below the duration, {scenario.duration:g} s"
        )
    if not 0 < confidence < 1:
        raise FlatlineError(f"confidence {confidence:g}; allowed: between 0 and 1")
    seeds = replication_seeds(scenario.seed, stopping.at_most)
    runs: list[dict[str, float]] = []
    wanted = stopping.at_least
    batch = joblib.effective_n_jobs(n_jobs)
    while True:
        todo = seeds[len(runs) : wanted]
        with joblib.Parallel(n_jobs=n_jobs, return_as="generator") as parallel:
            one = joblib.delayed(partial(_run, scenario, warm_up_s=warm_up_s))
            for figures in parallel(one(seed) for seed in todo):
                runs.append(figures)
                progress(len(runs) / stopping.at_most)
        frame = pd.DataFrame(runs)
        table = summarise(frame.drop(columns="seed"), confidence, scenario.seed)
        precise = stopping.precision is None or _is_precise(table, stopping)
        if precise or len(runs) >= stopping.at_most:
            progress(1.0)
            return Replications(frame.astype({"seed": "int64"}), table, precise)
        wanted = min(len(runs) + batch, stopping.at_most)


def replication_seeds(seed: int, count: int) -> list[int]:
    """Seeds of the replications, spawned from the scenario's own; the first ones do not depend on the count."""
    children = np.random.SeedSequence(seed).spawn(count)
    return [int(child.generate_state(1, np.uint64)[0] >> np.uint64(1)) for child in children]


def summarise(figures: pd.DataFrame, confidence: float, seed: int) -> pd.DataFrame:
    """One row a figure: mean, t interval and bootstrap interval over the runs (:data:`COLUMNS`).

    The t interval assumes that the run's figure is about normal; the bootstrap (BCa; Efron 1987) does not.
    Where they differ much, believe neither without more runs.
    """
    rng = np.random.default_rng([seed, 0x7265])
    rows = [_row(str(name), figures[name].to_numpy(dtype=float), confidence, rng) for name in figures]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _row(
    name: str,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    confidence: float,
    rng: np.random.Generator,
) -> tuple[object, ...]:
    seen = values[np.isfinite(values)]
    n, nan = len(seen), float("nan")
    missing = len(values) - n
    if n < 2:
        mean = float(seen[0]) if n else nan
        return (name, n, missing, mean, *[nan] * 6)
    mean, sd = float(seen.mean()), float(seen.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / n**0.5
    boot = (mean, mean)  # all the same: nothing to resample
    if np.ptp(seen) > 0:
        found = stats.bootstrap(
            (seen,), np.mean, confidence_level=confidence, n_resamples=_RESAMPLES, rng=rng
        ).confidence_interval
        boot = (float(found.low), float(found.high))
    return (name, n, missing, mean, sd, half, mean - half, mean + half, *boot)


def _is_precise(table: pd.DataFrame, stopping: Stopping) -> bool:
    assert stopping.precision is not None
    watched = table[[any(fnmatchcase(name, p) for p in stopping.figures) for name in table["figure"]]]
    reached = watched["half_width"] <= stopping.precision * watched["mean"].abs()
    return bool(len(watched)) and bool(reached.all())


def _run(scenario: Scenario, seed: int, *, warm_up_s: float) -> dict[str, float]:
    """Simulate once; returns the seed and every figure, NaN where the run does not have it."""
    what = scenario.model_copy(update={"seed": seed})
    plan = make_plan(what)
    history = History(
        simulate(what, plan), plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=what.horizon_s
    )
    from_s = what.ramp + warm_up_s
    figures: dict[str, float] = {"seed": seed}
    rows = find_outcomes(history).detections
    for row in qos(rows[rows["injected_at_s"] >= from_s]).to_dict("records"):
        if row["n"] > row["not_applicable"]:
            name = f"{row['fault']}.{row['milestone']}"
            figures |= {f"{name}.{figure}": float(row[figure]) for figure in _QOS}
            figures[f"{name}.detected_share"] = row["detected"] / (row["n"] - row["not_applicable"])
    health = find_health(history)
    days = sum(max(0.0, to - max(start, from_s)) for start, to in health.alive_s) / DAY_S
    count = sum(mistake.time_s >= from_s for mistake in health.mistakes)
    figures["false_suspicions.per_client_day"] = count / days if days > 0 else float("nan")
    late = [
        event.detail["max_s"] for event in history.of(EventKind.HEARTBEAT_LATENESS) if event.time_s >= from_s
    ]
    if late:
        figures["heartbeat_lateness.max_s"] = max(late)
    return figures
