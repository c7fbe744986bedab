"""Percentiles of two samples and their difference, with intervals by resampling. Seeded; tests nothing.

A percentile is that of *all* faults (inf{t : incidence(t) ≥ q}, recovery competing, the run's end
censoring), as in qos.csv. Each draw reweights the faults: the bootstrap of Efron (JASA 76, 1981) for
censored data. Two runs of the same plan are resampled fault by fault together, since the same fault met
the same phase of the heartbeat in both; their difference is then known much better than either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.statistics.incidence import CONFIDENCE
from harness.statistics.order_statistics import interval_ranks

__all__ = ["DRAWS", "Shift", "shifts"]

DRAWS = 2000
_FEWEST_DRAWS = 400  # where each takes long: the sample is so large then that little is left to chance
_WORK = 20_000_000  # draws × faults
_DIGITS = 9  # of seconds: beyond them a sum of floats is noise, and would show as a difference
_CELLS = 2_000_000  # of a block of draws in memory
_ROUNDING = 1e-9
_RANK = {"detected": 0, "recovered": 1, "censored": 2}

Numbers = NDArray[np.float64]


class Shift(NamedTuple):
    """A percentile before and after, and after − before with its 95 % interval, seconds.

    A percentile that is not reached is infinite. ``lo_s`` and ``hi_s`` are NaN where either sample is too
    small for an interval of that percentile (p50: 6, p99: 368): resampling cannot invent its tail.
    """

    before_s: float
    after_s: float
    difference_s: float
    lo_s: float
    hi_s: float


class _Curve:
    """Rows in the order of time, ready to be weighted."""

    def __init__(self, rows: pd.DataFrame, ids: Sequence[str]) -> None:
        ordered = rows.assign(_rank=rows["outcome"].map(_RANK)).sort_values(
            ["duration_s", "_rank"], kind="stable"
        )
        self.time_s = ordered["duration_s"].to_numpy(dtype=float).round(_DIGITS)
        self.ours = (ordered["outcome"] == "detected").to_numpy()
        self.ended = (ordered["outcome"] != "censored").to_numpy()
        self.column = pd.Index(ids).get_indexer(pd.Index(ordered["fault_id"]))

    def quantiles(self, weights: NDArray[np.int64], levels: Sequence[float]) -> Numbers:
        """Percentiles per draw, shape (draws, levels). Weights have a column per fault id."""
        own = weights[:, self.column].astype(float)
        at_risk = np.cumsum(own[:, ::-1], axis=1)[:, ::-1]
        hazard = np.divide(own, at_risk, out=np.zeros_like(own), where=at_risk > 0)
        left = np.cumprod(1 - hazard * self.ended, axis=1)
        before = np.concatenate([np.ones((len(own), 1)), left[:, :-1]], axis=1)
        reached = np.cumsum(before * hazard * self.ours, axis=1)
        found = []
        for level in levels:
            there = reached >= level - _ROUNDING
            first = self.time_s[np.argmax(there, axis=1)]
            found.append(np.where(there.any(axis=1), first, np.inf))
        return np.stack(found, axis=1)


def shifts(
    before: pd.DataFrame,
    after: pd.DataFrame,
    levels: Sequence[float],
    rng: np.random.Generator,
    *,
    paired: bool,
    draws: int | None = None,
) -> list[Shift]:
    """How percentiles moved, one `Shift` a level.

    Args:
        before: applicable rows of one engine, fault and milestone of detections.csv, one or more.
        after: the same of the other run.
        levels: as 0.5 for the median.
        rng: makes the draws.
        paired: both runs had the same plan.
        draws: how often to resample; default: 2000, fewer (400 at least) for very large samples.
    """
    if draws is None:
        draws = int(np.clip(_WORK / max(len(before), len(after)), _FEWEST_DRAWS, DRAWS))
    ids = list(dict.fromkeys([*before["fault_id"], *after["fault_id"]]))
    own_ids = (ids, ids) if paired else (list(before["fault_id"]), list(after["fault_id"]))
    curves = _Curve(before, own_ids[0]), _Curve(after, own_ids[1])
    once = [np.ones((1, len(i)), dtype=np.int64) for i in own_ids]
    a, b = (c.quantiles(w, levels)[0] for c, w in zip(curves, once, strict=True))
    moved = [
        _minus(curves[1].quantiles(w1, levels), curves[0].quantiles(w0, levels))
        for w0, w1 in _weights(len(own_ids[0]), len(own_ids[1]), rng, paired, draws)
    ]
    differences = np.concatenate(moved)
    return [
        _shift(
            float(a[n]),
            float(b[n]),
            differences[:, n],
            all(_large_enough(len(rows), level) for rows in (before, after)),
        )
        for n, level in enumerate(levels)
    ]


def _weights(
    n_before: int, n_after: int, rng: np.random.Generator, paired: bool, draws: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    block = max(1, _CELLS // max(n_before, n_after))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        first = rng.multinomial(n_before, np.full(n_before, 1 / n_before), size)
        second = first if paired else rng.multinomial(n_after, np.full(n_after, 1 / n_after), size)
        yield first, second


def _minus(after: Numbers, before: Numbers) -> Numbers:
    with np.errstate(invalid="ignore"):
        return np.asarray((after - before).round(_DIGITS))  # NaN where neither gets there


def _shift(before_s: float, after_s: float, draws: Numbers, large_enough: bool) -> Shift:
    difference_s = float(_minus(np.array([after_s]), np.array([before_s]))[0])
    if not large_enough or np.isnan(difference_s):
        return Shift(before_s, after_s, difference_s, float("nan"), float("nan"))
    tail = (1 - CONFIDENCE) / 2
    # Order statistics, not interpolation: between a number and infinity there is no middle.
    low = np.quantile(np.nan_to_num(draws, nan=-np.inf, posinf=np.inf, neginf=-np.inf), tail, method="lower")
    high = np.quantile(
        np.nan_to_num(draws, nan=np.inf, posinf=np.inf, neginf=-np.inf), 1 - tail, method="higher"
    )
    return Shift(before_s, after_s, difference_s, float(low), float(high))


def _large_enough(n: int, level: float) -> bool:
    low, high = interval_ranks(n, level, CONFIDENCE)
    return low >= 1 and high <= n
