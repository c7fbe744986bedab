"""What several figures need: an error for no data, thinning of too much, curves since a fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from reports.run_tables import MEASURED_ENGINES
from reports.style import new_figure

__all__ = [
    "DASHES",
    "NothingToDraw",
    "engine_stairs",
    "engines_in",
    "fault_panels",
    "in_order",
    "limits",
    "peaks",
    "rise",
    "since_fault",
    "span",
    "stairs",
    "thinned",
]


DASHES: Final[Mapping[str, Any]] = {"simulated": (0, (4, 1.5)), "real": "-"}


class NothingToDraw(ValueError):
    """A figure has no data; the text is a sentence for the reader that says which and why."""


def in_order(names: Iterable[str]) -> list[str]:
    """Return names without repeats, in the order in which they came."""
    return list(dict.fromkeys(map(str, names)))


def engines_in(table: pd.DataFrame) -> list[str]:
    """Return the engines that measure and have rows in a table: simulated, real."""
    return [engine for engine in MEASURED_ENGINES if (table["engine"] == engine).any()]


def span(window: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the start and the end of a fault's window, scenario seconds; None where the run does not say."""
    start, end = window.get("start_s"), window.get("end_s")
    if isinstance(start, int | float) and isinstance(end, int | float):
        return float(start), float(end)
    return None


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


def fault_panels(faults: int, ylabel: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each of so many faults, all with the same y axis."""
    columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(faults, 3)
    figure, axes = new_figure(-(-faults // columns), columns, sharey=True)
    for panel in axes[faults:]:
        panel.set_visible(False)
    for panel in axes[::columns]:
        panel.set_ylabel(ylabel)
    return figure, axes[:faults]


def since_fault(panel: Axes, left_s: float, right_s: float) -> None:
    """Have an x axis of scenario seconds since a fault."""
    panel.set_xlim(left_s, right_s)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    panel.set_xlabel("scenario seconds after the fault")


def stairs(
    panel: Axes,
    times_s: pd.Series[float],
    curve: Sequence[pd.Series[float]],
    until_s: float,
    colour: str,
    band: Mapping[str, Any] | None,
    **line: Any,
) -> None:
    """Draw a curve of steps, carried on from its last point to a later time.

    Args:
        panel: where.
        times_s: of its points.
        curve: the share at each point, its lower and its upper bound; an unknown bound is drawn at 1.
        until_s: the later time.
        colour: of line and band.
        band: how the band between the bounds looks; None: no band.
        line: how the line looks.
    """
    times = np.append(times_s.to_numpy(), until_s)
    share, low, high = (np.append(values, values[-1]) for values in map(pd.Series.to_numpy, curve))
    if band is not None:
        low, high = np.nan_to_num(low, nan=1.0), np.nan_to_num(high, nan=1.0)
        panel.fill_between(times, low, high, step="post", color=colour, **band)
    panel.step(times, share, where="post", color=colour, **line)


def engine_stairs(
    panel: Axes,
    engine: str,
    times_s: pd.Series[float],
    curve: Sequence[pd.Series[float]],
    until_s: float,
    colour: str,
) -> None:
    """Draw `stairs` as an engine's are: the simulated one dashed, the real one with its band."""
    real = engine == "real"
    band = {"alpha": 0.18, "linewidth": 0, "zorder": 1} if real else None
    look = {"linestyle": DASHES[engine], "linewidth": 2.4 if real else 1.8, "zorder": 3 if real else 4}
    stairs(panel, times_s, curve, until_s, colour, band, **look)


def rise(times_s: pd.Series[float], shares: pd.Series[float]) -> list[float]:
    """Return where a curve leaves zero and where it gets to its last level; nothing for a flat one."""
    times, levels = times_s.to_numpy(), shares.to_numpy()
    if not levels.size or levels[-1] <= 0:
        return []
    return [float(times[np.argmax(levels > 0)]), float(times[np.argmax(levels >= levels[-1])])]


def limits(rises: list[float], least_s: float = 0.0) -> tuple[float, float]:
    """Return the ends of an x axis that shows these times, and no less than ``least_s``."""
    if not rises:
        return 0.0, 1.0
    low, high = min(rises), max(rises)
    width = max(high - low, least_s, 0.04 * high, 0.01)
    middle = (low + high) / 2
    left = middle - 0.62 * width
    return (max(left, -0.04 * width) if low < width else left), middle + 0.62 * width
