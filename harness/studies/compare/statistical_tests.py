"""Is one run worse than another? Tests, effects and verdicts, one row per engine, fault and milestone.

From two runs' tables to rows with p-values, and from those, corrected together, to pass, fail or unknown:

* curves: did detection become slower? Log-rank test, medians, 99th percentiles. The log-rank test compares the hazards
  of detection at every time, so a recovery is treated as censored in it (the cause-specific hazard). It is
  asymptotic: below a dozen detections a run take it as a hint.
* rates: were more healthy clients thrown out? shares: were fewer faults detected? Exact tests of counts.

One run against another is dozens of tests; at 5 % each, a run would "regress" against itself most of the time. Holm's
step-down procedure (Scandinavian Journal of Statistics 6, 1979) holds the chance of even one false alarm among all
tests of a comparison at 5 %, however the tests depend on each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from harness.statistics.bootstrap import shifts
from harness.statistics.incidence import CONFIDENCE
from harness.statistics.order_statistics import Estimate, difference
from harness.studies.compare.inputs import Input
from reports.numbers import caption_seconds, rate, share

__all__ = [
    "ALPHA",
    "COLUMNS",
    "NONE_IN_EITHER",
    "RATE_COLUMNS",
    "SHARE_COLUMNS",
    "TOO_FEW",
    "adjusted",
    "compare_curves",
    "compare_rates",
    "compare_shares",
    "judge_curve",
    "judge_rate",
    "judge_share",
    "log_rank",
    "poisson_rates",
]

ALPHA = 0.05
TOO_FEW = "too few faults, or too few of them detected, to compare percentiles"
NONE_IN_EITHER = (
    "0 against 0: no healthy client was taken for dead in either run, so neither is shown to be better"
)

Verdict = tuple[str, str]
"""Verdict and its reason, one sentence."""

_RUNS = ["baseline", "candidate"]
_GROUP = ["engine", "fault", "milestone"]
_LEVELS = {"p50": 0.50, "p99": 0.99}
_LEAST_MARGIN_S = 0.01  # what is announced is seen in a millisecond; a share of that matters to nobody
COLUMNS = [
    *(*_RUNS, *_GROUP, "n_before", "n_after", "detected_before", "detected_after", "paired", "z", "p_value"),
    *(f"{p}_{what}_s" for p in _LEVELS for what in ("before", "after", "difference", "lo", "hi")),
    "margin_s",
]
RATE_COLUMNS = [
    *(*_RUNS, "engine", "count_before", "client_days_before", "count_after", "client_days_after"),
    *("ratio", "ratio_lo", "ratio_hi", "p_value"),
]
SHARE_COLUMNS = [
    *(*_RUNS, *_GROUP, "detected_before", "n_before", "detected_after", "n_after"),
    *("difference", "lo", "hi", "p_value"),
]


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
    before, after = (
        {
            row["engine"]: (int(row["count"]), float(row["client_days"]))
            for row in one.tables.table("false_suspicions").to_dict("records")
        }
        for one in (baseline, candidate)
    )
    rows = [
        (baseline.label, candidate.label, engine, *old, *new, *poisson_rates(*old, *new))
        for engine, old in sorted(before.items())
        if (new := after.get(engine)) is not None and min(old[1], new[1]) > 0
    ]
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
        rows.append((baseline.label, candidate.label, *key, hits_a, n_a, hits_b, n_b, *moved, p_value))
    return pd.DataFrame(rows, columns=SHARE_COLUMNS)


def _counts(one: Input) -> pd.DataFrame:
    rows = _applicable(one)
    hit = rows.assign(hit=(rows["outcome"] == "detected").astype(np.int64))
    groups = hit.groupby(_GROUP, sort=False)["hit"]
    return pd.DataFrame({"detected": groups.sum(), "n": groups.size()})


def _wilson(hits: int, n: int) -> Estimate:
    interval = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / n, interval.low, interval.high)


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
        margin_s = max(margin * median_s, slack_s, _LEAST_MARGIN_S)
        counts = (len(old), len(new), *detected)
        rows.append((baseline.label, candidate.label, *key, *counts, paired, z, p_value, *figures, margin_s))
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


def adjusted(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm-adjusted p-values, in the order given: significant are those below α."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    found = np.empty(p.size)
    found[order] = np.minimum(stepped, 1.0)
    return found


def judge_curve(row: pd.Series[float]) -> Verdict:
    """Slower by more than the margin and significantly so: fail. Shown not to be: pass.

    The median decides, and the 99th percentile where both samples are large enough for its interval.
    """
    figures = [
        (name, row[f"{name}_difference_s"], row[f"{name}_lo_s"], row[f"{name}_hi_s"])
        for name in ("p50", "p99")
        if not np.isnan(row[f"{name}_lo_s"])
    ]
    if not figures:
        return "unknown", TOO_FEW
    worst = max(figures, key=lambda figure: figure[1])
    text = f"{worst[0]} moved by {_range(*worst[1:])}"
    if np.isposinf(worst[1]):
        text = f"{worst[0]} is no longer reached"
    elif np.isneginf(worst[1]):
        text = f"{worst[0]} is reached, which it was not before"
    slower = worst[1] > row["margin_s"]
    margin = caption_seconds(row["margin_s"])
    if slower and row["p_holm"] < ALPHA:
        return "fail", f"slower: {text}, more than the {margin} allowed"
    if slower:
        return "unknown", f"{text}, more than the {margin} allowed, but it may be chance"
    high_name, _, _, high_s = max(figures, key=lambda figure: figure[3])
    if high_s > row["margin_s"]:
        return "unknown", (
            f"{high_name} may be slower by up to {caption_seconds(high_s)}, and {margin} are allowed"
        )
    if row["p_holm"] < ALPHA and max(hi for _, _, _, hi in figures) < 0:
        return "pass", f"faster: {text}"
    return "pass", text


def judge_rate(row: pd.Series[float]) -> Verdict:
    """More false suspicions than before, significantly: fail. No higher a rate: pass. None at all: nothing is shown."""
    before = row["count_before"] / row["client_days_before"]
    after = row["count_after"] / row["client_days_after"]
    text = f"{rate(before)} → {rate(after)} per client-day"
    if not row["count_before"] and not row["count_after"]:
        return "unknown", NONE_IN_EITHER
    if after <= before:
        return "pass", text
    if row["p_holm"] < ALPHA:
        return "fail", f"{text}, {rate(row['ratio'])} times as many"
    return "unknown", f"{text}: more, but it may be chance"


def judge_share(row: pd.Series[float], margin: float) -> Verdict:
    """Fewer faults detected, significantly: fail. No fewer, or by less than the margin: pass."""
    before, after = row["detected_before"] / row["n_before"], row["detected_after"] / row["n_after"]
    text = f"{share(before)} → {share(after)} detected"
    if after >= before:
        return "pass", text
    if row["p_holm"] < ALPHA:
        return "fail", f"fewer: {text}"
    if row["lo"] > -margin:
        return "pass", text
    return "unknown", f"{text}: fewer, but it may be chance"


def _range(value_s: float, lo_s: float, hi_s: float) -> str:
    return f"{caption_seconds(value_s)} ({caption_seconds(lo_s)} to {caption_seconds(hi_s)})"
