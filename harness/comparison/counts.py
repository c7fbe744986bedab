"""Were more healthy clients thrown out? Were fewer faults detected? Exact tests of counts.

From two runs' tables to rows with p-values; `decide.py` corrects and judges.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from harness.comparison.inputs import Input
from harness.survival import CONFIDENCE
from reports.order_statistics import Estimate, difference

__all__ = [
    "RATE_COLUMNS",
    "SHARE_COLUMNS",
    "compare_rates",
    "compare_shares",
    "poisson_rates",
]

_GROUP = ["engine", "fault", "milestone"]
RATE_COLUMNS = [
    "baseline", "candidate", "engine", "count_before", "client_days_before", "count_after",
    "client_days_after", "ratio", "ratio_lo", "ratio_hi", "p_value",
]  # fmt: skip
SHARE_COLUMNS = [
    "baseline", "candidate", *_GROUP, "detected_before", "n_before", "detected_after", "n_after",
    "difference", "lo", "hi", "p_value",
]  # fmt: skip


def poisson_rates(
    count_before: int, exposure_before: float, count_after: int, exposure_after: float
) -> tuple[float, float, float, float]:
    """Ratio of two Poisson rates (after / before), its exact 95 % interval, and the two-sided p-value.

    Given both counts together, the second is binomial with share ``exposure_after`` of all exposure if the
    rates are equal. No event at all says nothing about the ratio: NaN, 0 to ∞, p = 1.

    Raises:
        ValueError: an exposure that is not positive.

    Source: Przyborowski and Wilenski, Biometrika 31, 1940; interval from Clopper and Pearson.
    """
    if not (exposure_before > 0 and exposure_after > 0):
        raise ValueError(f"exposures {exposure_before}, {exposure_after}; allowed: above 0")
    total = count_before + count_after
    if not total:
        return float("nan"), 0.0, float("inf"), 1.0
    expected = exposure_after / (exposure_before + exposure_after)
    test = stats.binomtest(count_after, total, expected)
    interval = test.proportion_ci(CONFIDENCE, method="exact")
    scale = exposure_before / exposure_after

    def odds(share: float) -> float:
        return share / (1 - share) * scale if share < 1 else float("inf")

    ratio = odds(count_after / total)
    return ratio, odds(interval.low), odds(interval.high), float(test.pvalue)


def compare_rates(baseline: Input, candidate: Input) -> pd.DataFrame:
    """False suspicions per engine: counts, healthy client-days, ratio of the rates with its interval.

    An engine whose healthy clients were not watched for any time has no row.
    """
    rows: list[tuple[object, ...]] = []
    before, after = (
        {row["engine"]: row for row in one.tables.table("false_suspicions").to_dict("records")}
        for one in (baseline, candidate)
    )
    for engine in sorted(before.keys() & after.keys()):
        counts = int(before[engine]["count"]), int(after[engine]["count"])
        days = float(before[engine]["client_days"]), float(after[engine]["client_days"])
        if min(days) > 0:
            rows.append(
                (baseline.label, candidate.label, engine, counts[0], days[0], counts[1], days[1],
                 *poisson_rates(counts[0], days[0], counts[1], days[1]))
            )  # fmt: skip
    return pd.DataFrame(rows, columns=RATE_COLUMNS)


def compare_shares(baseline: Input, candidate: Input) -> pd.DataFrame:
    """Faults detected before they recovered or the run ended, of those that took effect.

    Fisher's exact test; the difference's interval combines both Wilson intervals (Newcombe, Statistics in
    Medicine 17, 1998, method 10).
    """
    before, after = _counts(baseline), _counts(candidate)
    rows = []
    for key in before.index.intersection(after.index, sort=False):
        (hits_a, n_a), (hits_b, n_b) = (
            (int(found.loc[key, "detected"]), int(found.loc[key, "n"])) for found in (before, after)
        )
        table = np.array([[hits_a, n_a - hits_a], [hits_b, n_b - hits_b]])
        p_value = float(stats.fisher_exact(table).pvalue)
        moved = difference(_wilson(hits_b, n_b), _wilson(hits_a, n_a))
        rows.append(
            (baseline.label, candidate.label, *key, hits_a, n_a, hits_b, n_b, *moved, p_value)
        )
    return pd.DataFrame(rows, columns=SHARE_COLUMNS)


def _counts(one: Input) -> pd.DataFrame:
    rows = one.tables.table("detections")
    rows = rows[(rows["outcome"] != "not_applicable") & (rows["engine"] != "theory")]
    hit = rows.assign(hit=(rows["outcome"] == "detected").astype(np.int64))
    groups = hit.groupby(_GROUP, sort=False)["hit"]
    return pd.DataFrame({"detected": groups.sum(), "n": groups.size()})


def _wilson(hits: int, n: int) -> Estimate:
    interval = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / n, interval.low, interval.high)
