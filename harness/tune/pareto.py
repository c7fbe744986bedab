"""The policies that no other one beats in latency, false suspicions and cost at once. Numbers in, a mask out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

from harness.theory.law import FloatArray

__all__ = ["indistinct", "pareto_mask"]

_NEVER = 1e-9  # a client-day: one in 2.7 million client-years
_DECIMALS = 2  # of the logarithm: 2.3 %


def indistinct(false_per_client_day: npt.ArrayLike) -> FloatArray:
    """log10 of rates, rounded so that 2 % apart are the same, and all below 1e-9 a client-day too.

    No outage law is known better than that; without it policies would be told apart by noise.
    """
    rates = np.maximum(np.asarray(false_per_client_day, dtype=float), _NEVER)
    return np.asarray(np.round(np.log10(rates), _DECIMALS), dtype=float)


def pareto_mask(
    cost: FloatArray, latency: FloatArray, mistakes: FloatArray
) -> npt.NDArray[np.bool_]:
    """Which points no other point beats: at most as much in all three, less in one. Of equal points the first.

    Args:
        cost, latency, mistakes: less is better; shape (n,).

    Returns:
        A mask of shape (n,). Source: Kung, Luccio, Preparata, "On finding the maxima of a set of vectors",
        J. ACM 22(4), 1975: a sweep in one dimension over a staircase in the other two, O(n log n).
    """
    order = np.lexsort((np.arange(len(cost)), mistakes, latency, cost))
    mask = np.zeros(len(cost), dtype=bool)
    stairs_latency: list[float] = []  # rising, and mistakes falling
    stairs_mistakes: list[float] = []
    points = zip(order.tolist(), latency[order].tolist(), mistakes[order].tolist(), strict=True)
    for index, late, wrong in points:
        below = bisect_right(stairs_latency, late)
        if below and stairs_mistakes[below - 1] <= wrong:
            continue
        mask[index] = True
        first = bisect_left(stairs_latency, late)
        last = first
        while last < len(stairs_mistakes) and stairs_mistakes[last] >= wrong:
            last += 1
        stairs_latency[first:last] = [late]
        stairs_mistakes[first:last] = [wrong]
    return mask
