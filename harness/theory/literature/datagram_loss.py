"""False suspicion where each heartbeat is lost on its own (datagrams): mean number of heartbeats until k in a row.

For comparison only: over TCP a heartbeat is late, not lost (`outages.py`). Counts are heartbeats;
multiply by the interval for seconds (R = T).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "GilbertElliott",
    "beats_to_suspicion_gilbert",
    "beats_to_suspicion_iid",
    "chance_of_suspicion_iid",
]


def beats_to_suspicion_iid(loss: float, max_failures: int) -> float:
    """E[N] = (1 − p^k)/(p^k (1 − p)) for independent losses; 10100 at p = .01, k = 2.

    Source: runs of successes, Feller, An Introduction to Probability Theory, vol. 1, XIII.7.

    Raises:
        ValueError: p outside (0, 1) or k below 1.
    """
    if not 0 < loss < 1 or max_failures < 1:
        raise ValueError(f"loss {loss:g}, k {max_failures}; allowed: 0 < loss < 1, k >= 1")
    run = float(loss**max_failures)
    return (1 - run) / (run * (1 - loss))


def chance_of_suspicion_iid(loss: float, max_failures: int, beats: int) -> float:
    """The chance of at least one run of k losses among n heartbeats; .495432 at p = .05, k = 3, n = 5760.

    s(n), the chance of none, obeys s(n) = s(n−1) − (1 − p)·p^k·s(n−k−1), with s(n) = 1 below k and
    s(k) = 1 − p^k. Source: runs of successes, Feller, An Introduction to Probability Theory, vol. 1, XIII.7.

    Raises:
        ValueError: p outside [0, 1], k below 1 or n below 0.
    """
    if not 0 <= loss <= 1 or max_failures < 1 or beats < 0:
        raise ValueError(
            f"loss {loss:g}, k {max_failures}, n {beats}; allowed: 0 <= loss <= 1, k >= 1, n >= 0"
        )
    k, run = max_failures, float(loss**max_failures)
    none = [1.0] * k + [1 - run]
    for n in range(k + 1, beats + 1):
        none.append(none[n - 1] - (1 - loss) * run * none[n - k - 1])
    return 1 - none[beats]


def beats_to_suspicion_gilbert(to_bad: float, to_good: float, max_failures: int) -> float:
    """E[N] = 1/(aq) + (1 − q)/(bq), q = (1 − b)^(k−1): everything is lost in B, nothing in G, start in G.

    a = ``to_bad`` and b = ``to_good`` are the chances of a change before each heartbeat; 398 heartbeats at
    a = .01·.5/.99, b = .5, k = 2. Source: E. N. Gilbert, "Capacity of a burst-noise channel", BSTJ 1960;
    first passage of its chain.

    Raises:
        ValueError: a or b outside (0, 1), or k below 1.
    """
    if not (0 < to_bad < 1 and 0 < to_good < 1) or max_failures < 1:
        raise ValueError(f"a {to_bad:g}, b {to_good:g}, k {max_failures}; allowed: 0 < a, b < 1, k >= 1")
    q = float((1 - to_good) ** (max_failures - 1))
    return 1 / (to_bad * q) + (1 - q) / (to_good * q)


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """A channel with a good and a bad state: chances of a change before each heartbeat, loss in each.

    Source: E. O. Elliott, "Estimates of error rates for codes on burst-noise channels", BSTJ 1963.
    """

    to_bad: float
    to_good: float
    loss_good: float = 0.0
    loss_bad: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 <= p <= 1 for p in (self.to_bad, self.to_good, self.loss_good, self.loss_bad)):
            raise ValueError(f"{self}: every probability must lie in [0, 1]")

    @property
    def mean_loss(self) -> float:
        """Share of heartbeats lost in the long run."""
        bad = self.to_bad / (self.to_bad + self.to_good)
        return bad * self.loss_bad + (1 - bad) * self.loss_good

    def beats_to_suspicion(self, max_failures: int) -> float:
        """E[N] from the good state: (I − Q)x = 1 over (run length, state), 2k unknowns.

        Raises:
            ValueError: k below 1, or k losses in a row cannot happen.
        """
        k = max_failures
        if k < 1:
            raise ValueError(f"k {k}; allowed: k >= 1")
        move = np.array([[1 - self.to_bad, self.to_bad], [self.to_good, 1 - self.to_good]])
        loss = np.array([self.loss_good, self.loss_bad])
        q = np.zeros((2 * k, 2 * k))
        for run in range(k):
            for state in (0, 1):
                q[2 * run + state, 0:2] += move[state] * (1 - loss)
                if run + 1 < k:
                    q[2 * run + state, 2 * run + 2 : 2 * run + 4] += move[state] * loss
        try:
            x = np.linalg.solve(np.eye(2 * k) - q, np.ones(2 * k))
        except np.linalg.LinAlgError:
            x = np.array([np.inf])
        if not np.isfinite(x[0]) or x[0] <= 0:
            raise ValueError(f"{self}: {k} losses in a row cannot happen")
        return float(x[0])
