"""Random times for the fleet, drawn in blocks: a law's quantile function costs far more a call than a draw.

From a law and a generator to arrays of seconds. No state but the block.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from scenarios.distributions import Distribution

__all__ = ["Draws", "FloatArray", "Index", "RoundTrips"]

FloatArray = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

_BLOCK = 1 << 11


class Draws:
    """Draws from a law, or from the part of it between two probabilities. Seconds."""

    def __init__(
        self, law: Distribution, rng: np.random.Generator, between: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        self._law = law
        self._rng = rng
        self._between = between
        self._block = np.empty(0)
        self._used = 0

    def take(self, count: int) -> FloatArray:
        """The next ``count`` draws, shape (count,)."""
        if self._law.constant is not None:
            return np.full(count, self._law.constant)
        if self._used + count > len(self._block):
            self._block = self._drawn(max(count, _BLOCK))
            self._used = 0
        taken = self._block[self._used : self._used + count]
        self._used += count
        return taken

    def _drawn(self, count: int) -> FloatArray:
        if self._between == (0.0, 1.0) and (law := self._law.lognormal) is not None:
            return self._rng.lognormal(
                math.log(law.median), law.sigma, count
            )  # a third of the quantile's time
        return self._law.quantile(self._rng.uniform(*self._between, size=count))


class RoundTrips:
    """Independent round trips, and those given that they beat the deadline, or that they don't. Seconds.

    ``fast_below_s``: no round trip that beats the deadline is longer. ``late``: probability of one that doesn't.
    """

    def __init__(self, law: Distribution, deadline_s: float, rng: np.random.Generator) -> None:
        in_time = float(law.cdf(math.nextafter(deadline_s, 0.0)))
        self._rng = rng
        self._any = Draws(law, rng)
        self._fast = Draws(law, rng, (0.0, in_time))
        self._late = Draws(law, rng, (in_time, 1.0))
        self.late = 1.0 - in_time
        self.fast_below_s = min(deadline_s, float(law.quantile(1.0)))

    def take(self, count: int) -> FloatArray:
        """Round trips, shape (count,)."""
        return self._any.take(count)

    def fast(self, count: int) -> FloatArray:
        """Round trips given that they beat the deadline, shape (count,)."""
        return self._fast.take(count)

    def slow(self, count: int) -> FloatArray:
        """Round trips given that they miss the deadline, shape (count,)."""
        return self._late.take(count)

    def pings_until_late(self, count: int) -> FloatArray:
        """How many pings in a row are fast before the first late one, shape (count,); inf: none ever is late.

        Geometric, by inversion: a whole number in a float, for it may be beyond any integer.
        """
        if self.late <= 0.0:
            return np.full(count, np.inf)
        if self.late >= 1.0:
            return np.zeros(count)
        # 1 - random() lies in (0, 1]: its logarithm is finite.
        exponent = np.log(1.0 - self._rng.random(count)) / math.log1p(-self.late)
        return np.asarray(np.floor(exponent), dtype=float)
