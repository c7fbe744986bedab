"""The position on coordinated omission, and the table that lets a reader check it.

A load generator that waits for its victim measures less when there is more to measure: it omits, or starts
late, just those requests that would have been slow. Here the request is a fault, and

1. the plan fixes every fault's time before the run (open loop): no fault waits for another one's detection;
2. a fault is stamped when it took effect, since until then its client was alive to the network; when it was
   due is recorded beside it (injections.csv);
3. nothing is omitted: each planned fault has its rows, and one that never took effect says so;
4. a stalled generator is a set of clients that do not answer. The gateway may have begun to doubt a client
   before its late fault is stamped, which shortens the latency, at most by the stall. So the stall is part
   of ε, and a run with more than a little of it is unsound (`soundness.py`);
5. what could be hidden that way is shown: ``longest`` counts each latency from the last moment at which the
   generator's loops are known to have run on time (or from the plan, where that is earlier). No stall makes
   it shorter than the truth. Where both columns agree, stalls have changed nothing.

From an indexed history and its detections to omission.csv. Judges nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.events.history import History
from harness.measure.series import injections, lag
from harness.statistics.incidence import incidence
from reports.run_tables import frame

__all__ = ["longest_durations", "omission"]

Numbers = NDArray[np.float64]


def longest_durations(history: History, detections: pd.DataFrame) -> pd.Series[float]:
    """Each row's duration counted from when the generator was last known to run on time.

    Never below the true latency, but for the grain of the timer that samples the loop (10 ms, real). Of
    several generator processes the one with the largest lag counts: a fault does not say whose it was.
    """
    return _longest(history, detections, _late(history))


def _longest(history: History, detections: pd.DataFrame, late: pd.Series[float]) -> pd.Series[float]:
    hidden_s = np.fmax(
        late.reindex(detections["fault_id"]).to_numpy(dtype=float),
        _lag_at(history, detections["injected_at_s"].to_numpy(dtype=float)),
    )
    longest: pd.Series[float] = detections["duration_s"] + np.fmax(hidden_s, 0.0)
    return longest


def omission(history: History, detections: pd.DataFrame, milestone: str = "suspected") -> pd.DataFrame:
    """One row per fault: planned and injected faults, their lateness, latency percentiles both ways.

    Scenario seconds; empty where the percentile was not reached or nothing was injected.
    """
    late = _late(history)
    rows: list[tuple[object, ...]] = []
    ours = detections[detections["milestone"] == milestone]
    for fault, group in ours.groupby("fault", sort=False):
        hit = late.reindex(group["fault_id"]).dropna()
        seen = group[group["outcome"] != "not_applicable"]
        lateness = (hit.median(), hit.max()) if len(hit) else (np.nan, np.nan)
        stamped = _percentiles(seen["duration_s"], seen["outcome"])
        longest = _percentiles(_longest(history, seen, late), seen["outcome"])
        rows.append(
            (
                history.engine,
                fault,
                len(group),
                len(hit),
                *lateness,
                stamped[0],
                longest[0],
                stamped[1],
                longest[1],
            )
        )
    return frame("omission", rows)


def _late(history: History) -> pd.Series[float]:
    """How late each injected fault was, by its id. A simulation has no generator that could be late."""
    late = injections(history).set_index("fault_id")["late_s"]
    return late if history.engine == "real" else late * 0.0


def _lag_at(history: History, times_s: Numbers) -> Numbers:
    """Largest lag, scenario seconds, that the samples covering each time tell of; 0 where there is none.

    A sample covers the time since the same process's sample before. The one before the fault counts too:
    when a stall ends, the loop's own timer may have its turn before the client has.
    """
    samples = lag(history)
    worst = np.zeros(times_s.size)
    for _, ours in samples[samples["role"] == "generator"].groupby("pid"):
        after = np.searchsorted(ours["time_s"].to_numpy(), times_s, side="left")
        late_s = history.clock.scenario_s(np.concatenate(([0.0], ours["max_lag_s"].to_numpy(), [0.0])))
        worst = np.maximum(worst, np.maximum(late_s[after], late_s[after + 1]))
    return worst


def _percentiles(durations_s: pd.Series[float], outcomes: pd.Series[str]) -> tuple[float, float]:
    if durations_s.empty:
        return float("nan"), float("nan")
    curve = incidence(durations_s.to_numpy(), outcomes.to_numpy())
    return curve.quantile(0.50).value_s, curve.quantile(0.99).value_s
