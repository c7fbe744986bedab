"""The common failure detector with a cut-off, SFD, as the paper on NFD-S measures itself against.

A heartbeat is sent every η. One that takes longer than the cut-off c is thrown away. Each one that is accepted
starts a timer of TO anew; when the timer ends, the peer is suspected. So a crash is noticed within c + TO.
Source: W. Chen, S. Toueg, M. K. Aguilera, "On the Quality of Service of Failure Detectors", IEEE Transactions on
Computers 51(5), 2002: its simulations call c = 0.16 SFD-L and c = 0.08 SFD-S. The paper simulates them; the
recurrence below is exact for c < η, where heartbeats are accepted in the order in which they were sent. Seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.theory.literature.nfd_s import ChenNetwork

__all__ = ["Sfd"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True, slots=True)
class Sfd:
    """SFD: a heartbeat every ``eta_s``, accepted if it took at most ``cutoff_s``; suspected ``timeout_s`` later.

    Raises:
        ValueError: a cut-off that is not below the interval; heartbeats would then overtake each other.
    """

    eta_s: float
    cutoff_s: float
    timeout_s: float

    def __post_init__(self) -> None:
        if not 0 < self.cutoff_s < self.eta_s:
            raise ValueError(f"cutoff {self.cutoff_s:g} s; allowed: 0 < cutoff < eta ({self.eta_s:g} s)")

    @classmethod
    def within(cls, t_d_s: float, *, eta_s: float, cutoff_s: float) -> Sfd:
        """The detector that notices each crash within ``t_d_s``: TO = T_D^U − c."""
        return cls(eta_s, cutoff_s, t_d_s - cutoff_s)

    def mistake_recurrence_s(self, network: ChenNetwork) -> float:
        """E(T_MR), seconds: mean time from one false suspicion to the next; infinite if there is none.

        An accepted heartbeat comes a time mη + D′ − D after the one before: m is geometric with the chance a of
        being accepted, D and D′ are delays of accepted ones. The timer ends in between with the chance
        P(mη + D′ − D > TO), and accepted heartbeats are η/a apart, so E(T_MR) = (η/a) / P.
        """
        accepted = (1 - network.loss) * float(network.delay.cdf(self.cutoff_s))
        late, left, m = 0.0, 1.0, 1
        while left > 0 and (m - 1) * self.eta_s <= self.timeout_s + self.cutoff_s:
            late += left * accepted * self._later_than(self.timeout_s - m * self.eta_s, network)
            left *= 1 - accepted
            m += 1
        late += left  # so many heartbeats are missing that no delay makes up for it
        return self.eta_s / accepted / late if accepted and late else math.inf

    def _later_than(self, by_s: float, network: ChenNetwork) -> float:
        """P(D′ − D > by_s) for two delays of accepted heartbeats, by Gauss–Legendre over the quantiles of D."""
        if abs(by_s) >= self.cutoff_s:
            return float(by_s < 0)
        within = float(network.delay.cdf(self.cutoff_s))
        # By pieces: the integrand has corners where D′ would be 0 or c.
        corners = np.clip([-by_s, self.cutoff_s - by_s], 0.0, self.cutoff_s)
        edges = np.unique(np.concatenate(([0.0, 1.0], network.delay.cdf(corners) / within)))
        total = 0.0
        for low, high in pairwise(edges):
            share = low + (high - low) * (_NODES + 1) / 2
            delay_s = network.delay.quantile(share * within)
            other = np.clip(network.delay.cdf(by_s + delay_s) / within, 0.0, 1.0)
            total += float(np.sum(_WEIGHTS * (1 - other))) * (high - low) / 2
        return total
