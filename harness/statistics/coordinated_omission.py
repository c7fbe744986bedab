"""The correction for coordinated omission of HdrHistogram: what a tester that waits would have measured too.

A tester that sends one request every `interval` and waits for its answer sends nothing while it waits. For each
value above the interval the requests that it left out are put back: they would have waited one interval less
each. flatline needs none of it for faults, which are planned before a run; it is for latencies that other load
tools measured in a closed loop. Source: Gil Tene, HdrHistogram, `recordValueWithExpectedInterval`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["with_omitted_requests"]


def with_omitted_requests(latencies_s: npt.ArrayLike, interval_s: float) -> npt.NDArray[np.float64]:
    """The latencies and those of the requests that a closed loop left out, sorted.

    Args:
        latencies_s: as measured, shape (n,), seconds.
        interval_s: from one request to the next as the tester meant to send them, seconds.

    Returns:
        shape (m,), m >= n. 10,000 of 1 ms and one of 100 s at 10 ms give 20,000 with a mean of 25.0 s.

    Raises:
        ValueError: an interval that is not above 0, or a latency below 0.
    """
    measured = np.asarray(latencies_s, dtype=float)
    if not interval_s > 0 or (measured < 0).any():
        raise ValueError(f"interval {interval_s:g} s; allowed: above 0, and no latency below 0")
    # One more for each whole interval by which a value exceeds the first; rounding must not cost the last.
    missing = np.maximum(np.floor(measured / interval_s + 1e-9).astype(int) - 1, 0)
    omitted = [
        value - interval_s * np.arange(1, count + 1)
        for value, count in zip(measured[missing > 0], missing[missing > 0], strict=True)
    ]
    return np.sort(np.concatenate([measured, *omitted]))
