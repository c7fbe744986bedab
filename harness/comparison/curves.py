"""Did detection become slower? Per engine, fault and milestone: log-rank test, medians, 99th percentiles.

From two runs' detections to rows with p-values; `decide.py` corrects and judges.

The log-rank test compares the hazards of detection at every time, so a recovery is treated as censored in
it (the cause-specific hazard). It is asymptotic: below a dozen detections a run take it as a hint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.comparison.bootstrap import shifts
from harness.comparison.inputs import Input

__all__ = ["COLUMNS", "compare_curves", "log_rank"]

_LEVELS = {"p50": 0.50, "p99": 0.99}
_GROUP = ["engine", "fault", "milestone"]
_LEAST_MARGIN_S = (
    0.01  # what is announced is seen in a millisecond; a share of that matters to nobody
)
COLUMNS = [
    "baseline", "candidate", *_GROUP, "n_before", "n_after", "detected_before", "detected_after",
    "paired", "z", "p_value",
    *(f"{p}_{what}_s" for p in _LEVELS for what in ("before", "after", "difference", "lo", "hi")),
    "margin_s",
]  # fmt: skip


def compare_curves(
    baseline: Input, candidate: Input, rng: np.random.Generator, *, margin: float
) -> pd.DataFrame:
    """One row per engine, fault and milestone that both runs have and at least one of them detected.

    ``z`` is positive where the candidate detects faster. ``margin_s`` is how much slower still counts as
    the same: ``margin`` of the baseline's median, but never less than 10 ms, nor than ε of both runs
    together, for within it their times cannot be told apart (the simulation has none).
    """
    paired = baseline.same_plan(candidate)
    before, after = (_applicable(one) for one in (baseline, candidate))
    groups = dict(iter(after.groupby(_GROUP, sort=False)))
    rows = []
    for key, old in before.groupby(_GROUP, sort=False):
        new = groups.get(key)
        if new is None:
            continue
        detected = [int((rows_["outcome"] == "detected").sum()) for rows_ in (old, new)]
        if not any(detected):
            continue
        assert isinstance(key, tuple)
        z, p_value = log_rank(old, new)
        moved = shifts(old, new, list(_LEVELS.values()), rng, paired=paired)
        slack_s = _epsilon_s(baseline) + _epsilon_s(candidate) if key[0] == "real" else 0.0
        median_s = moved[0].before_s if np.isfinite(moved[0].before_s) else 0.0
        figures = [value for shift in moved for value in shift]
        rows.append(
            (baseline.label, candidate.label, *key, len(old), len(new), *detected, paired, z, p_value,
             *figures, max(margin * median_s, slack_s, _LEAST_MARGIN_S))
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def log_rank(before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float]:
    """Two-sided log-rank test: z (positive: the second detects faster) and p.

    Samples whose times are all one and the same hold no order to test: z is 0 and p is 1.

    Source: Mantel, Cancer Chemotherapy Reports 50, 1966; `scipy.stats.logrank`.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        found = stats.logrank(_censored(before), _censored(after))
    if np.isnan(found.statistic):
        return 0.0, 1.0
    return 0.0 - float(found.statistic), float(found.pvalue)


def _censored(rows: pd.DataFrame) -> stats.CensoredData[Any, Any, Any, Any]:
    # Whole microseconds: the log-rank test looks at order alone, also at that of rounding errors.
    took = rows["duration_s"].to_numpy(dtype=float).round(6)
    seen = (rows["outcome"] == "detected").to_numpy()
    return stats.CensoredData(uncensored=took[seen], right=took[~seen])


def _applicable(one: Input) -> pd.DataFrame:
    rows = one.tables.table("detections")
    return rows[(rows["outcome"] != "not_applicable") & (rows["engine"] != "theory")]


def _epsilon_s(one: Input) -> float:
    return one.tables.number("epsilon_s") or 0.0
