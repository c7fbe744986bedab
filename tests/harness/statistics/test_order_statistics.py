from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.statistics.order_statistics import Estimate, Sample, difference, interval_ranks, smallest_sample


def test_reference_ranks() -> None:
    """The reference table of the field: n = 1000, q = 0.99, 95 %."""
    assert interval_ranks(1000, 0.99, 0.95) == (983, 997)


@pytest.mark.parametrize("n", [1, 5, 6, 71, 72, 367, 368, 640])
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_ranks_are_those_of_scipy(n: int, q: float) -> None:
    for confidence in (0.95, 0.9999):
        theirs: Any = stats.quantile_test(np.arange(1, n + 1), p=q).confidence_interval(confidence)
        ranks = int(np.nan_to_num(theirs.low, nan=0)), int(np.nan_to_num(theirs.high, nan=n + 1))
        assert interval_ranks(n, q, confidence) == ranks


@pytest.mark.parametrize(("q", "needed"), [(0.5, 6), (0.95, 72), (0.99, 368)])
def test_smallest_sample_is_the_first_with_both_bounds(q: float, needed: int) -> None:
    assert smallest_sample(q, 0.95) == needed
    for n, enough in ((needed - 1, False), (needed, True)):
        low, high = interval_ranks(n, q, 0.95)
        assert (low >= 1 and high <= n) is enough


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("confidence", [0.95, 0.9999])
def test_intervals_cover_at_least_what_they_say(q: float, confidence: float) -> None:
    """P(X_(low) <= x_q < X_(high)) = P(low <= B < high) for B ~ Binomial(n, q), whatever the law."""
    for n in range(1, 700, 7):
        low, high = interval_ranks(n, q, confidence)
        coverage = stats.binom.cdf(high - 1, n, q) - stats.binom.cdf(low - 1, n, q)
        assert coverage >= confidence - 1e-12, n


def test_quantile_is_the_first_time_by_which_the_share_is_reached() -> None:
    sample = Sample.of([12, 40, 18, 31, 25, 25])
    assert sample.quantile(0.5, 0.95).value == 25
    assert sample.quantile(1 / 6, 0.95).value == 12
    # 0.95 × 20 is 19.000000000000000 or a little more in floating point: rank 19, not 20
    assert Sample.of(np.arange(1, 21)).quantile(0.95, 0.95).value == 19


def test_never_detected_is_infinite() -> None:
    estimate = Sample.of([1.0, 2.0, math.inf, math.inf]).quantile(0.95, 0.95)
    assert estimate.value == math.inf
    assert estimate.half_width == math.inf


def test_a_small_sample_sets_no_bound() -> None:
    estimate = Sample.of([1.0, 2.0, 3.0]).quantile(0.5, 0.95)
    assert (estimate.lo, estimate.hi) == (-math.inf, math.inf)


def test_difference_from_a_fixed_number_shifts_the_interval() -> None:
    law = Estimate(10, 10, 10)
    assert difference(Estimate(12, 11, 14), law) == Estimate(2, 1, 4)


def test_difference_of_two_samples_adds_half_widths_in_quadrature() -> None:
    apart = difference(Estimate(12, 9, 15), Estimate(10, 6, 14))
    assert apart == Estimate(2, 2 - 5, 2 + 5)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (Estimate(math.inf, 90, math.inf), Estimate(85, 85, 85), Estimate(math.inf, 5, math.inf)),
        (
            Estimate(math.inf, 90, math.inf),
            Estimate(math.inf, 80, math.inf),
            Estimate(0, -math.inf, math.inf),
        ),
    ],
)
def test_difference_where_a_percentile_is_never_reached(
    left: Estimate, right: Estimate, expected: Estimate
) -> None:
    assert difference(left, right) == expected
