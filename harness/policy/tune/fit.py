"""Fit laws of random times to measurements, and say how good the fit is.

From seconds, some of them perhaps cut short, to a law that scenario files know. Reads no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.theory.law import FloatArray
from scenarios.distributions import Distribution, Exponential, Lognormal, Normal

__all__ = ["Fit", "fit_law"]

_DRAWS = 199  # of the test's null distribution: p in steps of 0.005
_MOST_TESTED = 2000
_CLOSE = 0.05  # distance of CDFs below which a law is close enough to tune with
_ACCEPTED = 0.05
_SAME = 1e-3  # relative spread below which a time is a constant


@dataclass(frozen=True, slots=True)
class _Family:
    law: Any  # of scipy.stats
    known: dict[str, float]
    make: Callable[[tuple[float, ...]], Distribution]


_FAMILIES = {
    "exponential": _Family(
        stats.expon, {"loc": 0.0}, lambda p: Distribution(exponential=Exponential(mean=float(p[1])))
    ),
    "lognormal": _Family(
        stats.lognorm,
        {"loc": 0.0},
        lambda p: Distribution(lognormal=Lognormal(median=float(p[2]), sigma=float(p[0]))),
    ),
    "normal": _Family(
        stats.norm, {}, lambda p: Distribution(normal=Normal(mean=float(p[0]), sd=float(p[1])))
    ),
}


@dataclass(frozen=True, slots=True)
class Fit:
    """A law and how well it describes what was measured.

    Attributes:
        what: of what, as `round trip`.
        law: the family with the lowest AIC, by maximum likelihood.
        n, censored: measurements, and how many of them had not ended.
        distance: largest distance of the CDFs (Kolmogorov–Smirnov; with censoring, of Kaplan–Meier's).
        p_value: of that distance with the parameters fitted too (Monte Carlo); NaN with censored data.
        p99_measured_s, p99_fitted_s: the tail, which decides; NaN where fewer than 99 % had ended.
        aic: of each family tried.
    """

    what: str
    law: Distribution
    n: int
    censored: int
    distance: float
    p_value: float
    p99_measured_s: float
    p99_fitted_s: float
    aic: dict[str, float]

    @property
    def verdict(self) -> str:
        """`good`: cannot be told from the law; `close`: CDFs within 0.05; else `poor`."""
        if self.p_value >= _ACCEPTED or self.distance <= self._by_chance:
            return "good"
        return "close" if self.distance <= _CLOSE else "poor"

    @property
    def _by_chance(self) -> float:
        """Distance that chance makes at 5 %, where no p-value can be had: cut short, the ended ones count.

        Lilliefors, "On the Kolmogorov-Smirnov test for the exponential distribution", JASA 64 (1969).
        """
        return 0.0 if np.isfinite(self.p_value) else 1.06 / math.sqrt(self.n - self.censored)

    @property
    def sentence(self) -> str:
        """The fit in words, its quality first."""
        told = _told(self.law)
        tail = (
            f"p99 measured {self.p99_measured_s:.3g} s, fitted {self.p99_fitted_s:.3g} s"
            if np.isfinite(self.p99_measured_s)
            else "too few have ended to see the p99"
        )
        p = f", p = {self.p_value:.2g}" if np.isfinite(self.p_value) else ""
        cut = f", {self.censored} of them cut short" if self.censored else ""
        return (
            f"{self.what}: {self.verdict} fit of {told} to {self.n} measurements{cut} "
            f"(CDFs at most {self.distance:.3f} apart{p}; {tail})"
        )


def fit_law(
    what: str,
    seconds: npt.ArrayLike,
    *,
    cut_short: npt.ArrayLike = (),
    families: tuple[str, ...] = ("exponential", "lognormal", "normal"),
    rng: np.random.Generator,
) -> Fit:
    """Fit the best of some families by maximum likelihood.

    Args:
        what: of what, for messages.
        seconds: measured times, shape (n,), above zero.
        cut_short: times of what had not ended (right-censored), shape (m,).
        families: which to try; for what decides false suspicions leave out laws with a thin tail.
        rng: for the test's null distribution.

    Raises:
        ValueError: fewer than 5 measurements, or one that is not a time above zero.
    """
    ended = np.asarray(seconds, dtype=float)
    cut = np.asarray(cut_short, dtype=float)
    both = np.concatenate((ended, cut))
    if len(ended) < 5 or not np.all(np.isfinite(both)) or np.any(both <= 0):
        raise ValueError(
            f"{what}: {len(ended)} measurements, smallest {both.min() if len(both) else np.nan:g} s; "
            "allowed: at least 5, each above zero"
        )
    if np.ptp(ended) <= _SAME * ended.mean() and not len(cut):
        value = float(np.median(ended))
        return Fit(what, Distribution(constant=value), len(ended), 0, 0.0, 1.0, value, value, {})
    data = stats.CensoredData(uncensored=ended, right=cut) if len(cut) else ended
    fitted = {name: _fit(_FAMILIES[name], data) for name in families}
    aic = {
        name: 2 * (len(p) - len(_FAMILIES[name].known))
        + 2 * float(_FAMILIES[name].law.nnlf(p, ended))
        - 2 * float(np.sum(_FAMILIES[name].law.logsf(cut, *p)))
        for name, p in fitted.items()
    }
    best = min(aic, key=lambda name: aic[name])
    family, parameters = _FAMILIES[best], fitted[best]
    curve = stats.ecdf(stats.CensoredData(uncensored=ended, right=cut)).cdf
    law = family.make(parameters)
    return Fit(
        what,
        law,
        len(both),
        len(cut),
        _distance(curve.quantiles, curve.probabilities, law),
        float("nan") if len(cut) else _p_value(family, ended, rng),
        _quantile(curve.quantiles, curve.probabilities, 0.99),
        float(law.quantile(0.99)),
        aic,
    )


def _told(law: Distribution) -> str:
    for name, parameters in law.model_dump().items():
        if isinstance(parameters, dict):
            return f"{name} ({', '.join(f'{key} {value:.3g}' for key, value in parameters.items())})"
        return f"{name} {parameters:.3g} s"
    raise AssertionError("a distribution has exactly one law")


def _fit(family: _Family, data: Any) -> tuple[float, ...]:
    return tuple(family.law.fit(data, **{f"f{name}": at for name, at in family.known.items()}))


def _distance(times: FloatArray, cumulative: FloatArray, law: Distribution) -> float:
    fitted = law.cdf(times)
    before = np.concatenate(([0.0], cumulative[:-1]))
    return float(np.max(np.maximum(np.abs(cumulative - fitted), np.abs(before - fitted))))


def _quantile(times: FloatArray, cumulative: FloatArray, q: float) -> float:
    reached = np.flatnonzero(cumulative >= q - 1e-12)
    return float(times[reached[0]]) if len(reached) else float("nan")


def _p_value(family: _Family, ended: FloatArray, rng: np.random.Generator) -> float:
    """With fitted parameters the textbook's table of KS distances does not hold: draw the null distribution."""
    tested = ended if len(ended) <= _MOST_TESTED else rng.choice(ended, _MOST_TESTED, replace=False)
    result = stats.goodness_of_fit(
        family.law, tested, known_params=family.known, statistic="ks", n_mc_samples=_DRAWS, rng=rng
    )
    return float(result.pvalue)
