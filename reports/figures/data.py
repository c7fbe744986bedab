"""What several figures need of their data: an error for none of it, and thinning of too much of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["NothingToDraw", "in_order", "peaks", "thinned"]


class NothingToDraw(ValueError):
    """A figure has no data; the text is a sentence for the reader that says which and why."""


def in_order(names: Iterable[str]) -> list[str]:
    """Return names without repeats, in the order in which they came."""
    return list(dict.fromkeys(map(str, names)))


def thinned(table: pd.DataFrame, points: int = 600) -> pd.DataFrame:
    """Keep at most so many rows, evenly by rank, the first and the last among them.

    For curves that only rise or fall: at slide size no eye sees the difference, and a file of a million
    steps would not open.
    """
    if len(table) <= points:
        return table
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, points).round().astype(int))]


def peaks(
    times: NDArray[np.float64], values: NDArray[np.float64], bins: int = 400
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest value of each of so many equal spans of time, so that no spike is lost."""
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    if len(times) <= bins or times[-1] <= times[0]:
        return times, values
    span = np.minimum(((times - times[0]) / (times[-1] - times[0]) * bins).astype(int), bins - 1)
    starts = np.flatnonzero(np.diff(span, prepend=-1))
    return times[starts], np.maximum.reduceat(values, starts)
