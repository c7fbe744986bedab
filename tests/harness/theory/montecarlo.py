"""Compares a law with independent draws, at a stated chance of a false alarm for the whole package of tests."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from harness.theory.law import FloatArray, Law

__all__ = ["agrees", "mean_agrees", "share_agrees"]

FAMILY_ERROR = 0.01
COMPARISONS = 1000  # at most, in the whole package: Bonferroni
_ALPHA = FAMILY_ERROR / COMPARISONS
_PROBABILITIES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


def share_agrees(hits: int, draws: int, probability: float) -> None:
    """Exact binomial test of one probability."""
    p_value = stats.binomtest(hits, draws, min(1.0, max(0.0, probability))).pvalue
    assert p_value > _ALPHA, f"{hits}/{draws} = {hits / draws:.5f} against {probability:.5f}"


def mean_agrees(draws: FloatArray, mean: float) -> None:
    """The mean within the central limit theorem's bound."""
    error = float(np.std(draws, ddof=1)) / math.sqrt(len(draws))
    bound = float(stats.norm.isf(_ALPHA / 2)) * error + 1e-9 * abs(mean)
    assert abs(float(np.mean(draws)) - mean) <= bound, f"{np.mean(draws):.5f}, law {mean:.5f}"


def agrees(law: Law, draws_s: FloatArray) -> None:
    """The draws (NaN: never) have the law's mass, its CDF at seven quantiles, its mean and its range."""
    happened = draws_s[np.isfinite(draws_s)]
    share_agrees(len(happened), len(draws_s), law.mass)
    if not len(happened):
        return
    for probability in _PROBABILITIES:
        at_s = float(law.quantile(probability * law.mass))
        # Rounding may put a draw from a jump on either side of it.
        share_agrees(int(np.sum(happened <= at_s + 1e-9)), len(draws_s), float(law.cdf(at_s + 1e-9)))
    if len(happened) > 30 and law.hi_s > law.lo_s:
        mean_agrees(happened, law.mean_s)
    assert happened.min() >= law.lo_s - 1e-6
    assert happened.max() <= law.hi_s + 1e-6
