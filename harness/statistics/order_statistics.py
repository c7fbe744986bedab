"""Percentiles of a sample with exact confidence intervals, and of the difference of two samples.

From durations (infinite: never detected) to numbers. No assumption about the law of the durations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = ["Estimate", "Sample", "difference", "interval_ranks", "smallest_sample"]


class Estimate(NamedTuple):
    """A value and the bounds of its confidence interval, seconds.

    ``lo`` is −∞ and ``hi`` +∞ where the sample is too small for that bound.
    """

    value: float
    lo: float
    hi: float

    @property
    def half_width(self) -> float:
        """The larger distance from the value to a bound; infinite where a bound is missing."""
        if not math.isfinite(self.value):
            return math.inf
        return max(self.value - self.lo, self.hi - self.value)


@dataclass(frozen=True)
class Sample:
    """Durations in ascending order, seconds; infinite where detection never comes."""

    ordered_s: NDArray[np.float64]

    @classmethod
    def of(cls, durations_s: ArrayLike) -> Sample:
        """Sort durations of any order, shape (n,)."""
        return cls(np.sort(np.asarray(durations_s, dtype=float)))

    @property
    def n(self) -> int:
        """How many."""
        return int(self.ordered_s.size)

    def rank(self, q: float) -> int:
        """Which order statistic (from 1) is the q-quantile."""
        # The slack keeps 0.95 × 20 = 19.000000000000004 at rank 19.
        return max(1, math.ceil(self.n * q - 1e-9))

    def quantile(self, q: float, confidence: float) -> Estimate:
        """Return inf{t : F(t) ≥ q} of a sample with n ≥ 1 and its interval from order statistics."""
        low, high = interval_ranks(self.n, q, confidence)
        return Estimate(
            float(self.ordered_s[self.rank(q) - 1]),
            float(self.ordered_s[low - 1]) if low >= 1 else -math.inf,
            float(self.ordered_s[high - 1]) if high <= self.n else math.inf,
        )


@lru_cache(maxsize=4096)  # a comparison asks for the same few again and again
def interval_ranks(n: int, q: float, confidence: float) -> tuple[int, int]:
    """Ranks (from 1) of the order statistics that hold the q-quantile between them.

    Exact for any law: coverage is at least ``confidence`` (Conover, Practical Nonparametric Statistics, 3.2).
    0 or n + 1 where the sample is too small for that bound: at 95 %, p99 needs n ≥ 368.
    """
    # The ranks of SciPy's quantile_test, which takes ten times as long.
    tail = (1 - confidence) / 2
    return int(stats.binom.ppf(tail, n, q)), int(stats.binom.ppf(1 - tail, n, q)) + 1


def smallest_sample(q: float, confidence: float) -> int:
    """How large a sample must be for a two-sided interval of the q-quantile."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))


def difference(left: Estimate, right: Estimate) -> Estimate:
    """Return left − right with its interval, from the intervals of both.

    The bounds are combined as if the samples were independent (Zou and Donner, Statistics in Medicine
    27, 2008). Two engines that run the same plan are positively correlated: the interval is then wider
    than it need be, never narrower. A fixed number is an `Estimate` with three equal values.
    """
    value = left.value - right.value
    if math.isnan(value):  # both infinite: neither ever gets there
        return Estimate(0.0, -math.inf, math.inf)
    if math.isinf(value):
        return Estimate(value, left.lo - right.hi, left.hi - right.lo)
    below = math.hypot(left.value - left.lo, right.hi - right.value)
    above = math.hypot(left.hi - left.value, right.value - right.lo)
    return Estimate(value, value - below, value + above)
