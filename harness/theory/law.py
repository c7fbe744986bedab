"""Laws of a random time as a CDF on knots: linear between them, a jump where two share a time.

Constants, uniforms and their mixtures are exact; sums and minima are evaluated exactly at the knots and
are off by the square of their spacing in between (below 1e-4 in probability). A law may be a
sub-distribution: `mass` is the probability that the event happens at all, the rest is "never"
(a competing event came first). No sampling here, no scenario.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from scenarios.distributions import Distribution

__all__ = ["FloatArray", "Law", "mixture"]

FloatArray = npt.NDArray[np.float64]

_CELLS = 2048  # knots of what is not piecewise linear
_SEGMENTS = 256  # of the simpler law in a sum
_TAIL_LOGIT = 21.0  # unbounded laws are cut at 7.6e-10 on either side
_MASS_ERROR = 1e-9  # rounding of a mass that is meant to be whole
_EQUAL = 1e-12  # times and probabilities closer than this are the same


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """A law of a time in seconds.

    ``times_s`` and ``cumulative``, both of shape (n,), are the knots of P(time <= t). Build laws with the
    class methods; `mean_s`, `lo_s` and `hi_s` are *given that it happens*; `cdf` and `quantile` are of all:
    the CDF ends at ``mass``, and quantiles above it are NaN.
    """

    times_s: FloatArray
    cumulative: FloatArray

    def __post_init__(self) -> None:
        t, p = self.times_s, self.cumulative
        if t.ndim != 1 or t.shape != p.shape:
            raise ValueError(f"knots of shapes {t.shape} and {p.shape}; allowed: both (n,)")
        if np.any(np.diff(t) < 0) or np.any(np.diff(p) < 0):
            raise ValueError("knots must not go back in time or in probability")
        if len(p) and (p[0] != 0 or p[-1] > 1 + 1e-9):
            raise ValueError(f"a CDF rises from 0 to at most 1, got {p[0]:g} to {p[-1]:g}")
        for array in (t, p):
            array.setflags(write=False)

    @classmethod
    def knots(cls, times_s: npt.ArrayLike, cumulative: npt.ArrayLike) -> Self:
        """Make a law of its knots; flat ends are cut off.

        Raises:
            ValueError: not the knots of a (sub-)distribution.
        """
        t = np.array(times_s, dtype=float)
        p = np.array(cumulative, dtype=float)
        if not len(p) or p[-1] <= 0:
            return cls(np.empty(0), np.empty(0))
        first = max(0, int(np.searchsorted(p, 0.0, side="right")) - 1)
        last = int(np.searchsorted(p, p[-1], side="left"))
        return cls(t[first : last + 1].copy(), p[first : last + 1].copy())

    @classmethod
    def constant(cls, time_s: float) -> Self:
        """Always this time."""
        return cls.knots([time_s, time_s], [0, 1])

    @classmethod
    def uniform(cls, low_s: float, high_s: float) -> Self:
        """Uniform on [low, high); low = high is a constant."""
        return cls.knots([low_s, high_s], [0, 1])

    @classmethod
    def never(cls) -> Self:
        """It does not happen: mass 0."""
        return cls.knots([], [])

    @classmethod
    def of(cls, distribution: Distribution) -> Self:
        """The law of a scenario file's distribution; unbounded ones are cut at 7.6e-10 of either tail."""
        if distribution.constant is not None:
            return cls.constant(distribution.constant)
        if (flat := distribution.uniform) is not None:
            return cls.uniform(flat.low, flat.high)
        p = expit(np.linspace(-_TAIL_LOGIT, _TAIL_LOGIT, _CELLS))
        t = distribution.quantile(p)
        return cls.knots([t[0], *t, t[-1]], [0, *p, 1])

    @classmethod
    def sides(cls, times_s: FloatArray, before: FloatArray, at: FloatArray) -> Self:
        """Make a law of P(time < t) and P(time <= t) at rising times; where they differ is a jump."""
        t = np.repeat(times_s, 2)
        p = np.column_stack((before, at)).ravel()
        keep = np.ones(len(p), dtype=bool)
        keep[1::2] = at - before > _EQUAL
        keep[0] = True
        p = np.maximum.accumulate(np.clip(p, 0.0, 1.0))
        p[p > 1 - _EQUAL] = 1.0  # what rounding has left over must not become a tail
        return cls.knots(np.concatenate((t[:1], t[keep])), np.concatenate(([0.0], p[keep])))

    @property
    def mass(self) -> float:
        """Probability that it happens at all."""
        return float(self.cumulative[-1]) if len(self.cumulative) else 0.0

    @property
    def lo_s(self) -> float:
        """Earliest time; NaN for a law that never happens."""
        return float(self.times_s[0]) if len(self.times_s) else float("nan")

    @property
    def hi_s(self) -> float:
        """Latest time (of an unbounded law: its cut); NaN for a law that never happens."""
        return float(self.times_s[-1]) if len(self.times_s) else float("nan")

    @property
    def mean_s(self) -> float:
        """Mean, given that it happens; NaN for a law that never does."""
        if not self.mass:
            return float("nan")
        middle = (self.times_s[1:] + self.times_s[:-1]) / 2
        return float(np.sum(middle * np.diff(self.cumulative)) / self.mass)

    def cdf(self, time_s: npt.ArrayLike) -> FloatArray:
        """P(it happens and time <= time_s), the shape of ``time_s``."""
        return self._cdf(time_s, "right")

    def before(self, time_s: npt.ArrayLike) -> FloatArray:
        """P(it happens and time < time_s): `cdf` without the jump at that very time."""
        return self._cdf(time_s, "left")

    def _cdf(self, time_s: npt.ArrayLike, side: Any) -> FloatArray:
        at = np.asarray(time_s, dtype=float)
        t, p = self.times_s, self.cumulative
        if not len(t):
            return np.zeros_like(at)
        i = np.searchsorted(t, at, side=side)
        left, right = np.clip(i - 1, 0, None), np.clip(i, None, len(t) - 1)
        width = t[right] - t[left]
        share = np.divide(at - t[left], width, out=np.zeros_like(at), where=width > 0)
        value = p[left] + (p[right] - p[left]) * share
        return np.asarray(np.where(i == 0, 0.0, np.where(i == len(t), p[-1], value)), dtype=float)

    def quantile(self, probability: npt.ArrayLike) -> FloatArray:
        """Smallest time with P(it happens and time <= t) >= probability, the shape of ``probability``.

        NaN above ``mass``: so many never do. That is how measured percentiles count too.
        """
        q = np.asarray(probability, dtype=float)
        t, p = self.times_s, self.cumulative
        if not len(t):
            return np.full_like(q, np.nan)
        i = np.clip(np.searchsorted(p, q - _EQUAL, side="left"), 0, len(p) - 1)
        left = np.clip(i - 1, 0, None)
        rise = p[i] - p[left]
        share = np.divide(q - p[left], rise, out=np.zeros_like(q), where=rise > 0)
        value = t[left] + (t[i] - t[left]) * np.clip(share, 0.0, 1.0)
        return np.asarray(np.where(q > p[-1] + _MASS_ERROR, np.nan, value), dtype=float)

    def shifted(self, by_s: float) -> Self:
        """The law of time + by_s."""
        return type(self).knots(self.times_s + by_s, self.cumulative)

    def scaled(self, factor: float) -> Self:
        """The law of factor × time; a negative factor mirrors it."""
        if factor < 0:
            mirrored = self.mass - self.cumulative[::-1]
            return type(self).knots(factor * self.times_s[::-1], mirrored)
        return type(self).knots(factor * self.times_s, self.cumulative)

    def at_least(self, floor_s: float) -> Self:
        """The law of max(time, floor_s)."""
        if not self.mass or floor_s <= self.lo_s:
            return self
        if floor_s >= self.hi_s:
            return type(self).knots([floor_s, floor_s], [0, self.mass])
        above = self.times_s > floor_s
        return type(self).knots(
            [floor_s, floor_s, *self.times_s[above]], [0, float(self.cdf(floor_s)), *self.cumulative[above]]
        )

    def within(self, low_s: float, high_s: float) -> Self:
        """The part of the law in (low, high]: what falls outside counts as never."""
        inside = self.times_s[(self.times_s > low_s) & (self.times_s < high_s)]
        t = np.concatenate(([low_s], np.unique(inside), [high_s]))
        below = float(self.cdf(low_s))
        return type(self).sides(t, np.maximum(self.before(t) - below, 0.0), self.cdf(t) - below)

    def slowest_of(self, count: int) -> Self:
        """The law of the latest of ``count`` independent draws."""
        if count == 1 or len(self.times_s) == 0 or self.lo_s == self.hi_s:
            return self
        t = self.refined()
        return type(self).sides(t, self.before(t) ** count, self.cdf(t) ** count)

    def plus(self, other: Law) -> Law:
        """The law of the sum of two independent times (both must happen)."""
        wide, narrow = sorted((self, other), key=lambda law: law._is_smooth_and_wide)[::-1]
        narrow = narrow._thinned()
        parts: list[Law] = []
        segments = []
        ends = zip(pairwise(narrow.times_s), pairwise(narrow.cumulative), strict=True)
        for (a, b), (p, q) in ends:
            if q <= p:
                continue
            if b - a <= _EQUAL:
                parts.append(Law.knots(wide.times_s + a, wide.cumulative * (q - p)))
            else:
                segments.append((float(a), float(b), float(q - p)))
        if segments and wide.mass:
            parts.append(wide._plus_segments(segments))
        return mixture((1.0, part) for part in parts)

    @property
    def _is_smooth_and_wide(self) -> tuple[int, float]:
        """Order of who is walked through, segment by segment, in a sum: few knots first, then the narrow one."""
        return min(len(self.times_s), _SEGMENTS), self.hi_s - self.lo_s

    def _thinned(self) -> Law:
        """At most 256 of the segments, all jumps kept: what the sum's own width smooths over."""
        step = -(-len(self.times_s) // _SEGMENTS)
        if step <= 1:
            return self
        jump = np.diff(self.times_s, prepend=np.nan, append=np.nan) == 0
        keep = jump[1:] | jump[:-1]
        keep[::step] = True
        keep[-1] = True
        return Law(self.times_s[keep], self.cumulative[keep])

    def _plus_segments(self, segments: list[tuple[float, float, float]]) -> Law:
        """Add a time that is uniform on segments: exact, by the antiderivative of this law's CDF."""
        low, high = self.lo_s + segments[0][0], self.hi_s + segments[-1][1]
        t = np.linspace(low, high, _CELLS)
        if len(segments) * len(self.times_s) <= _CELLS:
            edges = np.array([[a, b] for a, b, _ in segments]).ravel()
            t = np.unique(np.concatenate((t, np.add.outer(edges, self.times_s).ravel())))
        areas = np.concatenate(
            ([0.0], np.cumsum((self.cumulative[1:] + self.cumulative[:-1]) / 2 * np.diff(self.times_s)))
        )
        p = np.zeros_like(t)
        # Neighbours share an edge: its integral is taken once.
        edge, integral = float("nan"), p
        for a, b, weight in segments:
            below = integral if a == edge else self._integral(t - a, areas)
            edge, integral = b, self._integral(t - b, areas)
            p += weight * (below - integral) / (b - a)
        p[0] = 0.0
        return Law.knots(t, np.maximum.accumulate(p))

    def _integral(self, time_s: FloatArray, areas: FloatArray) -> FloatArray:
        """∫ of the CDF up to each time; ``areas``: up to each knot."""
        t, p = self.times_s, self.cumulative
        i = np.clip(np.searchsorted(t, time_s, side="right") - 1, 0, len(t) - 1)
        right = np.clip(i + 1, None, len(t) - 1)
        width = t[right] - t[i]
        into = time_s - t[i]
        slope = np.divide(p[right] - p[i], width, out=np.zeros_like(into), where=width > 0)
        value = areas[i] + into * (p[i] + slope * into / 2)
        return np.asarray(np.where(time_s < t[0], 0.0, value), dtype=float)

    def refined(self, cells: int = _CELLS) -> FloatArray:
        """Rising times, shape (n,): the knots and an even grid between the ends."""
        if not len(self.times_s):
            return np.empty(0)
        return np.unique(np.concatenate((np.linspace(self.lo_s, self.hi_s, cells), self.times_s)))

    def curve(self, points: int = 100) -> tuple[FloatArray, FloatArray]:
        """The CDF for a figure: (times, probabilities) from zero to ``mass``, a jump as two equal times."""
        if not len(self.times_s):
            return np.empty(0), np.empty(0)
        few = len(self.times_s) <= points
        corners = self.times_s if few else self.times_s[1:][np.diff(self.times_s) <= _EQUAL]
        t = np.unique(np.concatenate((np.linspace(self.lo_s, self.hi_s, points), corners)))
        drawn = Law.sides(t, self.before(t), self.cdf(t))
        return drawn.times_s, drawn.cumulative


def mixture(parts: Iterable[tuple[float, Law]]) -> Law:
    """The law that is each of the laws with its weight. Weights that add up to less than 1: else never."""
    kept = [(weight, law) for weight, law in parts if weight > 0 and law.mass > 0]
    if len(kept) == 1 and kept[0][0] == 1.0:
        return kept[0][1]
    if not kept:
        return Law.never()
    t = np.unique(np.concatenate([law.times_s for _, law in kept]))
    before, at = np.zeros_like(t), np.zeros_like(t)
    for weight, law in kept:
        before += weight * law.before(t)
        at += weight * law.cdf(t)
    return Law.sides(t, before, at)
