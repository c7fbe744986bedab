"""How long until it happens, when not all of it is seen: curves and percentiles with their intervals.

From durations and outcomes to an `Incidence`: the share of *all* faults that have been detected by a
time. A run's end censors. A recovery does not: who has recovered will never be detected, so recovery is
a competing event and the curve is the Aalen–Johansen cumulative incidence. It levels off below 1 where
some recover; a percentile beyond that level is never reached. Without recoveries it is 1 − Kaplan–Meier
(SciPy's `ecdf`) with Greenwood's variance, number for number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from harness.statistics.order_statistics import interval_ranks

__all__ = ["CONFIDENCE", "Incidence", "Quantile", "incidence"]

CONFIDENCE = 0.95
_ROUNDING = 1e-9  # of a probability: far below 1/n, far above what products of fractions are off by
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantile:
    """A percentile and its confidence interval, seconds.

    ``value_s`` is NaN where the curve never gets there. ``lo_s`` is 0 and ``hi_s`` infinite where the
    sample sets no such bound; `exists` says whether it is large enough for a two-sided interval.
    """

    value_s: float
    lo_s: float
    hi_s: float
    exists: bool


@dataclass(frozen=True, slots=True)
class Incidence:
    """Cumulative incidence of detection. Arrays have one entry per distinct time, in order.

    ``survival`` is 1 − cumulative incidence, ``lo`` and ``hi`` its 95 % bounds (log-log; NaN where it is
    0), ``at_risk`` how many were neither detected nor recovered nor censored just before that time.
    """

    n: int
    censored: int
    time_s: Numbers
    survival: Numbers
    std_error: Numbers
    lo: Numbers
    hi: Numbers
    at_risk: NDArray[np.int64]
    detected: NDArray[np.int64]
    _ordered_s: Numbers  # every duration, infinite where detection will never be

    def quantile(self, q: float, confidence: float = CONFIDENCE) -> Quantile:
        """Return inf{t : incidence(t) ≥ q} with its interval.

        Uncensored: order statistics, exact for any law (Conover, Practical Nonparametric Statistics,
        3.2). Censored: where the curve's own bounds reach q (Brookmeyer and Crowley, Biometrics 38, 1982).
        """
        low_rank, high_rank = interval_ranks(self.n, q, confidence)
        exists = low_rank >= 1 and high_rank <= self.n
        value_s = _reaches(self.time_s, self.survival, 1 - q)
        lo_s, hi_s = 0.0, np.inf
        if self.censored:
            # A bound that the curve does not reach lies beyond what was watched, wherever that is.
            if low_rank >= 1:
                lo_s = np.fmin(_reaches(self.time_s, self.lo, 1 - q), self.time_s[-1])
            if high_rank <= self.n:
                hi_s = np.nan_to_num(_reaches(self.time_s, self.hi, 1 - q), nan=np.inf)
        else:
            lo_s = self._ordered_s[low_rank - 1] if low_rank >= 1 else lo_s
            hi_s = self._ordered_s[high_rank - 1] if high_rank <= self.n else hi_s
        return Quantile(value_s, float(lo_s), float(hi_s), exists)


def incidence(durations_s: ArrayLike, outcomes: ArrayLike) -> Incidence:
    """Estimate the cumulative incidence of ``detected`` with ``recovered`` competing, ``censored`` censoring.

    Variance: delta method (Marubini and Valsecchi, Analysing Survival Data, 1995, 10.2).

    Args:
        durations_s: shape (n,), from the fault to its outcome.
        outcomes: shape (n,): detected, recovered or censored.

    Raises:
        ValueError: another outcome, no data, or a duration that is not a number.
    """
    time = np.asarray(durations_s, dtype=float)
    outcome = np.asarray(outcomes, dtype=object)
    if unknown := set(outcome.tolist()) - {"detected", "recovered", "censored"}:
        raise ValueError(f"outcomes {sorted(map(str, unknown))}; allowed: detected, recovered, censored")
    if not time.size or np.isnan(time).any():
        raise ValueError("durations must be numbers, one or more")
    ours, censored = outcome == "detected", outcome == "censored"
    free = stats.ecdf(stats.CensoredData(uncensored=time[~censored], right=time[censored])).sf
    grid = np.asarray(free.quantiles, dtype=float)
    before = np.concatenate(([1.0], free.probabilities[:-1]))  # nothing has ended just before t
    at_risk = time.size - np.searchsorted(np.sort(time), grid, side="left")
    d_ours = _count_at(grid, time[ours])
    d_any = _count_at(grid, time[~censored])
    reached = np.cumsum(before * d_ours / at_risk)
    survival = np.clip(np.round(1 - reached, 12), 0.0, 1.0)
    std_error = np.sqrt(_variance(reached, before, at_risk, d_ours, d_any))
    lo, hi = _log_log_bounds(survival, std_error)
    return Incidence(
        n=time.size,
        censored=int(censored.sum()),
        time_s=grid,
        survival=survival,
        std_error=std_error,
        lo=lo,
        hi=hi,
        at_risk=np.asarray(at_risk, dtype=np.int64),
        detected=d_ours,
        _ordered_s=np.sort(np.where(outcome == "recovered", np.inf, time)),
    )


def _count_at(grid: Numbers, times: Numbers) -> NDArray[np.int64]:
    counts = np.zeros(grid.size, dtype=np.int64)
    np.add.at(counts, np.searchsorted(grid, times), 1)
    return counts


def _variance(reached: Numbers, before: Numbers, at_risk: Any, ours: Any, events: Any) -> Numbers:
    """Delta-method variance at each time; the sums over earlier times are expanded into running sums."""
    left = at_risk - events
    # Where nobody is left the term is 0 × ∞ with limit 0: the incidence does not change after it.
    hazard = np.divide(events, at_risk * left, out=np.zeros(reached.size), where=left > 0)
    own = before * ours / at_risk**2
    first = reached**2 * np.cumsum(hazard) - 2 * reached * np.cumsum(reached * hazard)
    first += np.cumsum(reached**2 * hazard)
    second = np.cumsum(before**2 * ours * (at_risk - ours) / at_risk**3)
    third = -2 * (reached * np.cumsum(own) - np.cumsum(reached * own))
    return np.asarray(np.maximum(first + second + third, 0.0), dtype=float)


def _log_log_bounds(survival: Numbers, std_error: Numbers) -> tuple[Numbers, Numbers]:
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.exp(z * std_error / (survival * np.abs(np.log(survival))))
        lo, hi = survival**spread, survival ** (1 / spread)
    sure = survival >= 1.0  # nothing has been detected yet
    lo, hi = np.where(sure, 1.0, lo), np.where(sure, 1.0, hi)
    return np.where(survival > 0, lo, np.nan), np.where(survival > 0, hi, np.nan)


def _reaches(time_s: Numbers, curve: Numbers, level: float) -> float:
    below = np.flatnonzero(curve <= level + _ROUNDING)
    return float(time_s[below[0]]) if below.size else float("nan")
