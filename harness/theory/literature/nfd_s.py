"""NFD-S, the failure detector of Chen, Toueg and Aguilera, its quality of service and its configurator.

Source: W. Chen, S. Toueg, M. K. Aguilera, "On the Quality of Service of Failure Detectors", IEEE
Transactions on Computers 51(5), 2002: theorem 5 (metrics), section 4 (configuration with known delays), section 5
(configuration by loss, mean and variance alone).
Heartbeats are datagrams sent every η with loss p_L and delays of a continuous law D. Seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from harness.theory.law import FloatArray
from reference_server.errors import FlatlineError
from scenarios.distributions import Distribution

__all__ = ["ChenNetwork", "NfdS", "NotConfigurable", "Qos", "configure_nfd_s", "configure_nfd_s_by_moments"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_PIECES = 64
_ETAS = 512
_MOST_BEATS = 1024  # heartbeats within one detection bound; above it the search gives up


class NotConfigurable(FlatlineError):
    """No heartbeat rate gives the wanted quality of service on this network."""


@dataclass(frozen=True, slots=True)
class ChenNetwork:
    """What heartbeats meet: loss probability and the law of the delay."""

    loss: float
    delay: Distribution

    def late(self, by_s: FloatArray) -> FloatArray:
        """p_L + (1 − p_L)·P(D > t): a heartbeat has not arrived t after it was sent."""
        return np.asarray(
            self.loss + (1 - self.loss) * np.where(by_s < 0, 1.0, 1 - self.delay.cdf(by_s)), dtype=float
        )


@dataclass(frozen=True, slots=True)
class Qos:
    """Quality of service: T_D^U bound, E(T_MR) mistake recurrence, E(T_M) mistake duration, P_A accuracy."""

    t_d_s: float
    t_mr_s: float
    t_m_s: float
    p_a: float


@dataclass(frozen=True, slots=True)
class NfdS:
    """NFD-S: heartbeats every ``eta_s``; freshness point i is the send time of heartbeat i + ``delta_s``."""

    eta_s: float
    delta_s: float

    def qos(self, network: ChenNetwork) -> Qos:
        """The metrics of theorem 5.

        k = ceil(δ/η), u(x) = Π_{j=0..k} p_j(x), q_0 = (1 − p_L)·P(D < δ + η), p_s = q_0·u(0);
        E(T_MR) = η/p_s, E(T_M) = ∫_0^η u(x) dx / p_s, P_A = 1 − E(T_M)/E(T_MR).
        """
        q_0 = (1 - network.loss) * float(network.delay.cdf(self.delta_s + self.eta_s))
        p_s = q_0 * float(self._unfresh(network, np.zeros(1))[0])
        if p_s == 0:
            return Qos(self.delta_s + self.eta_s, math.inf, 0.0, 1.0)
        t_mr_s = self.eta_s / p_s
        t_m_s = self._mean_unfresh(network) / p_s
        return Qos(self.delta_s + self.eta_s, t_mr_s, t_m_s, 1 - t_m_s / t_mr_s)

    def _unfresh(self, network: ChenNetwork, x: FloatArray) -> FloatArray:
        """u(x): no heartbeat that is still fresh has arrived x after a freshness point."""
        beats = np.arange(self._window + 1)
        waited = self.delta_s + x[:, np.newaxis] - beats * self.eta_s
        return np.asarray(np.prod(network.late(waited), axis=1), dtype=float)

    @property
    def _window(self) -> int:
        return math.ceil(self.delta_s / self.eta_s - 1e-12)

    def _mean_unfresh(self, network: ChenNetwork) -> float:
        """∫_0^η u(x) dx, by Gauss–Legendre on pieces that are short where u has its corner."""
        corner = self._window * self.eta_s - self.delta_s
        scale = float(network.delay.quantile(0.999999)) or self.eta_s
        near = corner + scale * np.linspace(0, 1, _PIECES)
        edges = np.unique(np.clip(np.concatenate((np.linspace(0, self.eta_s, _PIECES), near)), 0, self.eta_s))
        half = np.diff(edges) / 2
        x = (edges[:-1] + half)[:, np.newaxis] + half[:, np.newaxis] * _NODES
        u = self._unfresh(network, x.ravel()).reshape(x.shape)
        return float(np.sum(u * _WEIGHTS * half[:, np.newaxis]))


def configure_nfd_s(network: ChenNetwork, *, t_d_s: float, t_mr_s: float, t_m_s: float) -> NfdS:
    """The cheapest NFD-S with T_D <= t_d_s, E(T_MR) >= t_mr_s and E(T_M) <= t_m_s (section 4 of the paper).

    q = (1 − p_L)·P(D < t_d), η_max = q·t_m; the largest η <= η_max with
    η / (q·Π_{j=1..ceil(t_d/η)−1} [p_L + (1 − p_L)·P(D > t_d − jη)]) >= t_mr; δ = t_d − η.
    Looks at 512 rates for each number of heartbeats within t_d, then refines.

    Raises:
        NotConfigurable: no η does it.
    """
    q = (1 - network.loss) * float(network.delay.cdf(t_d_s))
    eta_max_s = min(q * t_m_s, t_d_s)
    if eta_max_s <= 0:
        raise NotConfigurable(f"no heartbeat arrives within {t_d_s:g} s on this network")

    def slack(eta_s: npt.ArrayLike, beats: int) -> FloatArray:
        """log of the mistake recurrence over what is wanted: enough where it is not negative."""
        eta = np.asarray(eta_s, dtype=float)
        before = t_d_s - np.multiply.outer(eta, np.arange(1, beats, dtype=np.float64))
        with np.errstate(divide="ignore"):
            log_product = np.log(network.late(before)).sum(axis=-1)
        return np.asarray(np.log(eta / (q * t_mr_s)) - log_product, dtype=float)

    found = _largest_eta_s(slack, t_d_s, eta_max_s)
    if found is None:
        raise NotConfigurable(_NONE.format(t_d_s=t_d_s, t_mr_s=t_mr_s))
    return NfdS(found, t_d_s - found)


_NONE = f"not even {_MOST_BEATS} heartbeats within {{t_d_s:g}} s give one mistake in {{t_mr_s:g}} s"


def _largest_eta_s(
    slack: Callable[[npt.ArrayLike, int], FloatArray], window_s: float, eta_max_s: float
) -> float | None:
    """The largest η whose slack is not negative, heartbeat count by heartbeat count; None: there is none."""
    for beats in range(math.ceil(window_s / eta_max_s - 1e-12), _MOST_BEATS):
        low = window_s / beats
        high = min(eta_max_s, window_s / (beats - 1) * (1 - 1e-12)) if beats > 1 else eta_max_s
        etas = np.linspace(high, low, _ETAS)
        enough = slack(etas, beats) >= 0
        if not enough.any():
            continue
        n = int(np.argmax(enough))
        eta_s = float(etas[n])
        if n and np.isfinite(slack(eta_s, beats)):
            eta_s = float(brentq(lambda x, k: float(slack(x, k)), eta_s, etas[n - 1], args=(beats,)))
        return eta_s
    return None


def configure_nfd_s_by_moments(
    *, loss: float, mean_s: float, variance_s2: float, t_d_s: float, t_mr_s: float, t_m_s: float
) -> NfdS:
    """An NFD-S that keeps the same wants on every network of this loss, mean and variance of the delay.

    The one-sided Chebyshev inequality takes the place of the delay's law. With w = t_d − E(D):
    γ = (1 − p_L)·w² / (V + w²), η_max = min(γ·t_m, w); the largest η <= η_max with
    η·Π_{j=1..ceil(w/η)−1} (V + (w − jη)²) / (V + p_L·(w − jη)²) >= t_mr; δ = t_d − η.

    Args:
        loss: p_L, the chance that a heartbeat is lost.
        mean_s, variance_s2: E(D) and V(D), seconds and seconds squared.
        t_d_s, t_mr_s, t_m_s: T_D at most, E(T_MR) at least, E(T_M) at most; seconds.

    Raises:
        NotConfigurable: no η does it.

    Source: section 5 of the paper, theorem 7 and the procedure after it.
    """
    w = t_d_s - mean_s
    if w <= 0:
        raise NotConfigurable(f"a heartbeat takes {mean_s:g} s on average, as long as t_d or longer")
    gamma = (1 - loss) * w**2 / (variance_s2 + w**2)
    eta_max_s = min(gamma * t_m_s, w)

    def slack(eta_s: npt.ArrayLike, beats: int) -> FloatArray:
        eta = np.asarray(eta_s, dtype=float)
        left = (w - np.multiply.outer(eta, np.arange(1, beats, dtype=np.float64))) ** 2
        with np.errstate(divide="ignore"):
            log_product = np.log((variance_s2 + left) / (variance_s2 + loss * left)).sum(axis=-1)
        return np.asarray(np.log(eta / t_mr_s) + log_product, dtype=float)

    found = _largest_eta_s(slack, w, eta_max_s)
    if found is None:
        raise NotConfigurable(_NONE.format(t_d_s=t_d_s, t_mr_s=t_mr_s))
    return NfdS(found, t_d_s - found)
