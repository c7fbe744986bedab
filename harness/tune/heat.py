"""Data of a heat map: heartbeat interval × failures around one policy. From a policy to a table; draws nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.tune.figures import with_figures
from harness.tune.pareto import indistinct, pareto_mask
from harness.tune.search import Search, unsound

__all__ = ["PLOT_COLUMNS", "heat_map"]

PLOT_COLUMNS = (
    "interval_s", "max_failures", "timeout_s", "retry_s", "detect_p99_s", "false_per_client_day",
    "frames_per_s", "feasible", "pareto", "recommended",
)  # fmt: skip
"""Columns that figures take, of the heat map and of the candidates alike."""

_MOST_FAILURES = 6


def heat_map(found: Search, recommended: int) -> pd.DataFrame:
    """One row per interval of the space and number of failures, with columns `PLOT_COLUMNS`.

    Deadline and retry are the recommended policy's, cut to the interval where that is shorter. ``pareto`` is
    among the sound cells of this map.
    """
    policy = found.candidates.iloc[recommended]
    intervals = np.unique(found.candidates["interval_s"])
    grid = np.meshgrid(intervals, np.arange(1, _MOST_FAILURES + 1), indexing="ij")
    interval, failures = (axis.ravel() for axis in grid)
    timeout = np.minimum(policy["timeout_s"], interval)
    retry = np.minimum(policy["retry_s"], interval)
    if policy["retry_s"] == policy["interval_s"]:
        retry = interval
    cells = pd.DataFrame({
        "interval_s": interval, "max_failures": failures, "timeout_s": timeout, "retry_s": retry,
        "patience_s": (failures - 1) * retry + timeout,
    })  # fmt: skip
    cells = with_figures(cells, found.conditions, found.rules, found.wants.store_operations)
    sound = ~np.any(
        list(unsound(cells, found.conditions, found.wants, found.rules).values()), axis=0
    )
    ratios = np.column_stack([limit.ratio(cells[limit.column]) for limit in found.limits])
    pareto = np.zeros(len(cells), dtype=bool)
    cost, latency = cells["frames_per_s"].to_numpy(), cells["detect_p99_s"].to_numpy()
    mistakes = indistinct(cells["false_per_client_day"])
    pareto[sound] = pareto_mask(cost[sound], latency[sound], mistakes[sound])
    same = (cells["interval_s"] == policy["interval_s"]) & (
        cells["max_failures"] == policy["max_failures"]
    )
    cells = cells.assign(
        feasible=sound & np.all(ratios <= 1, axis=1), pareto=pareto, recommended=same
    )
    return cells[list(PLOT_COLUMNS)]
