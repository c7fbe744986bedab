"""The policies that the search looks at: every sound combination of interval, retry, deadline and failures.

The grid does not depend on the wants: with looser wants every policy of the stricter ones is still there, so
the recommendation can only become cheaper. Seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

__all__ = ["Space"]


def _intervals() -> tuple[float, ...]:
    steps = (np.arange(1, 60, 1.0), np.arange(60, 300, 5.0), np.arange(300, 901, 15.0))
    return (0.2, 0.3, 0.5, 0.75, *(float(t) for t in np.concatenate(steps)))


@dataclass(frozen=True, slots=True)
class Space:
    """What each parameter may be. R = T is always among the retries; R > T never is."""

    intervals_s: tuple[float, ...] = field(default_factory=_intervals)
    retries_s: tuple[float, ...] = (
        *(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
        *(10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 45.0, 60.0),
    )
    timeouts_s: tuple[float, ...] = (
        *(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
        *(10.0, 12.0, 15.0, 20.0, 25.0, 30.0),
    )
    max_failures: tuple[int, ...] = (1, 2, 3, 4, 5)

    def policies(self) -> pd.DataFrame:
        """One row a policy: interval_s, max_failures, timeout_s, retry_s, patience_s = (k−1)R + τ.

        0 < τ ≤ R ≤ T; with one failure there is no retry, and R = T.
        """
        t = np.array(self.intervals_s)
        # R = 0 stands for R = T, so that it is there once for every interval.
        retries = np.unique([0.0, *self.retries_s])
        grid = np.meshgrid(t, np.array(self.max_failures), np.array(self.timeouts_s), retries,
                           indexing="ij")  # fmt: skip
        interval, failures, timeout, short = (axis.ravel() for axis in grid)
        keep = (timeout <= np.where(short > 0, short, interval)) & (short < interval)
        keep &= (failures > 1) | (short == 0)
        interval, failures, timeout, short = (
            axis[keep] for axis in (interval, failures, timeout, short)
        )
        retry = np.where(short > 0, short, interval)
        table = pd.DataFrame({
            "interval_s": interval, "max_failures": failures, "timeout_s": timeout,
            "retry_s": retry, "patience_s": (failures - 1) * retry + timeout,
        })  # fmt: skip
        # Of policies with equal figures the first stands for them: the longest deadline, the fewest failures.
        order = np.lexsort((failures, -timeout, table["patience_s"], interval))
        return table.iloc[order].reset_index(drop=True)
