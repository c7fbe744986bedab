"""How capacity grows with nodes: Gunther's Universal Scalability Law, its fit, and whether the fit says anything.

    X(n) = λ n / (1 + σ (n − 1) + κ n (n − 1))

λ: what one node carries; σ: contention (what is done one after the other, as in one store); κ: coherency (what
nodes tell each other). From points (nodes, capacity) to a law with intervals, or to the reasons why not. Pure.
Source: N. J. Gunther, A General Theory of Computational Scalability Based on Rational Functions, arXiv:0808.1431.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

__all__ = ["FEWEST_POINTS", "ScalingLaw", "fit", "reasons_against", "usl"]

FEWEST_POINTS = 4  # three parameters, and one point to find fault with them
_CONFIDENCE = 0.95
FloatArray = npt.NDArray[np.float64]


def usl(nodes: npt.ArrayLike, rate: float, contention: float, coherency: float) -> FloatArray:
    """Return X(n), in the unit of ``rate``."""
    n = np.asarray(nodes, dtype=float)
    return np.asarray(rate * n / (1 + contention * (n - 1) + coherency * n * (n - 1)), dtype=float)


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """A fitted law. Intervals are of 95 %, from the covariance of the fit and Student's t.

    ``residuals``: measured less fitted, of each point. ``r_squared``: 1 less their share of the variance.
    """

    rate: float
    contention: float
    coherency: float
    half_widths: tuple[float, float, float]
    r_squared: float
    residuals: tuple[float, ...]
    covariance: FloatArray
    freedom: int

    @property
    def peak_nodes(self) -> float:
        """Where more nodes carry less: √((1 − σ)/κ); inf without coherency cost."""
        if self.coherency <= 0:
            return float("inf")
        return float(np.sqrt(max(0.0, 1 - self.contention) / self.coherency))

    def curve(self, nodes: npt.ArrayLike) -> pd.DataFrame:
        """Columns nodes, clients, lo, hi: the law and its 95 % band (delta method), for the chart."""
        n = np.asarray(nodes, dtype=float)
        middle = usl(n, self.rate, self.contention, self.coherency)
        below = 1 + self.contention * (n - 1) + self.coherency * n * (n - 1)
        slopes = np.column_stack([n, -middle * (n - 1), -middle * n * (n - 1)]) / below[:, np.newaxis]
        variance = np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes)
        half = stats.t.ppf((1 + _CONFIDENCE) / 2, self.freedom) * np.sqrt(np.maximum(variance, 0.0))
        low = np.maximum(middle - half, 0.0)
        return pd.DataFrame({"nodes": n, "clients": middle, "lo": low, "hi": middle + half})

    def lines(self) -> list[str]:
        """The law in words."""
        rate, contention, coherency = self.half_widths
        peak = "never" if self.peak_nodes == float("inf") else f"at {self.peak_nodes:.1f} nodes"
        worst = max(abs(r) for r in self.residuals)
        return [
            f"one node carries {self.rate:,.0f} ± {rate:,.0f} clients",
            f"contention σ = {self.contention:.4f} ± {contention:.4f}, "
            f"coherency κ = {self.coherency:.5f} ± {coherency:.5f}",
            f"R² = {self.r_squared:.4f} with {self.freedom} degrees of freedom, largest residual {worst:,.0f} clients",
            f"more nodes carry less: {peak}",
        ]


def reasons_against(nodes: Sequence[int], cores: int | None) -> list[str]:
    """Why points cannot tell how nodes scale; empty where they can.

    Args:
        nodes: of each point.
        cores: of the one machine that all of them ran on; None: each node had its own.
    """
    reasons = []
    different = len(set(nodes))
    if different < FEWEST_POINTS:
        reasons.append(
            f"the load at which they break is known of {different or 'no'} number{'' if different == 1 else 's'} of "
            f"nodes; {FEWEST_POINTS} are needed (--nodes 1,2,3,4, and a --max at which something breaks)"
        )
    if cores is not None and nodes and max(nodes) >= cores:
        reasons.append(
            f"{max(nodes)} nodes, the clients and Redis on {cores} cores of one machine: the nodes compete for "
            "what each would have for itself"
        )
    return reasons


def fit(nodes: Sequence[int], clients: Sequence[float]) -> ScalingLaw:
    """Fit the law to capacities by least squares, no parameter below zero.

    Raises:
        ValueError: fewer than four different numbers of nodes, or no capacity above zero.
    """
    n, x = np.asarray(nodes, dtype=float), np.asarray(clients, dtype=float)
    if len(set(nodes)) < FEWEST_POINTS or len(n) != len(x):
        raise ValueError(f"{len(set(nodes))} numbers of nodes; allowed: {FEWEST_POINTS} or more")
    if not (x > 0).all():
        raise ValueError("a capacity is not above zero: there is nothing to scale")
    first = float((x / n).max())
    # In shares of what a node carries: all three parameters are then near one or below.
    found, covariance = optimize.curve_fit(
        usl,
        n,
        x / first,
        p0=(1.0, 0.01, 1e-4),
        bounds=((1e-9, 0.0, 0.0), (np.inf, 1.0, 1.0)),
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    scale = np.array([first, 1.0, 1.0])
    theta, covariance = found * scale, covariance * np.outer(scale, scale)
    residuals = x - usl(n, *theta)
    total = float(((x - x.mean()) ** 2).sum())
    freedom = len(n) - 3
    half = stats.t.ppf((1 + _CONFIDENCE) / 2, freedom) * np.sqrt(np.diag(covariance))
    return ScalingLaw(
        rate=float(theta[0]),
        contention=float(theta[1]),
        coherency=float(theta[2]),
        half_widths=(float(half[0]), float(half[1]), float(half[2])),
        r_squared=1 - float((residuals**2).sum()) / total if total > 0 else float("nan"),
        residuals=tuple(residuals.tolist()),
        covariance=covariance,
        freedom=freedom,
    )
