"""φ-accrual detectors as Akka and Cassandra build them: when φ passes its threshold, and the law of T_D.

Closed forms for arrivals that the detector has learnt already (mean and σ known). Sources: Hayashibara,
Défago, Yared, Katayama, "The φ accrual failure detector" (SRDS 2004); Akka's PhiAccrualFailureDetector;
Cassandra's FailureDetector. Times in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats
from scipy.optimize import brentq

from harness.theory.law import Law

__all__ = ["AkkaPhi", "CassandraPhi", "phi_accrual"]


@dataclass(frozen=True, slots=True)
class AkkaPhi:
    """Akka's detector: normal inter-arrivals, the acceptable pause added to the mean, a floor for σ.

    ``exact`` takes the normal tail itself instead of Akka's logistic approximation of it.
    """

    mean_s: float = 1.0
    sigma_s: float = 0.1
    threshold: float = 8.0
    acceptable_pause_s: float = 3.0
    min_sigma_s: float = 0.1
    exact: bool = False

    def phi(self, silence_s: float) -> float:
        """φ after this much silence: −log10 P(an inter-arrival is longer)."""
        centre = self.mean_s + self.acceptable_pause_s
        y = (silence_s - centre) / max(self.sigma_s, self.min_sigma_s)
        if self.exact:
            return float(-stats.norm.logsf(y) / math.log(10))
        # p = e/(1+e) with e = exp(-y(1.5976 + 0.070566 y²)), in logarithms so that it does not underflow
        exponent = y * (1.5976 + 0.070566 * y * y)
        log_p = (
            -exponent - math.log1p(math.exp(-exponent)) if exponent > 0 else -math.log1p(math.exp(exponent))
        )
        return -log_p / math.log(10)

    @property
    def silence_s(self) -> float:
        """The silence at which φ reaches the threshold: 4.5226 s at the defaults, 4.5612 s if exact."""
        centre = self.mean_s + self.acceptable_pause_s
        sigma = max(self.sigma_s, self.min_sigma_s)
        reach = 40.0 * math.sqrt(max(self.threshold, 1.0))
        return float(
            brentq(
                lambda t: self.phi(t) - self.threshold,
                centre - reach * sigma,
                centre + reach * sigma,
                xtol=1e-12,
            )
        )


@dataclass(frozen=True, slots=True)
class CassandraPhi:
    """Cassandra's detector: exponential inter-arrivals, φ = t/(mean·ln 10)."""

    mean_s: float = 1.0
    threshold: float = 8.0

    def phi(self, silence_s: float) -> float:
        """φ after this much silence."""
        return silence_s / (self.mean_s * math.log(10))

    @property
    def silence_s(self) -> float:
        """The silence at which φ reaches the threshold: 18.4207 × mean at 8."""
        return self.threshold * self.mean_s * math.log(10)


def phi_accrual(detector: AkkaPhi | CassandraPhi, interval_s: float, check_s: float = 0.0) -> Law:
    """T_D of a silent death: F⁻¹(1 − 10^−φ) less the age of the last beat, uniform on (0, T).

    ``check_s``: φ is looked at this often; adds Uniform(0, check).
    """
    silence_s = detector.silence_s
    return Law.uniform(silence_s - interval_s, silence_s).plus(Law.uniform(0.0, check_s))
