"""Heartbeat interval × failures: what every policy of a grid costs, how long it takes, how often it is wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from reports.figures.data import NothingToDraw
from reports.numbers import plain
from reports.style import GREEN, INK, ORANGE, finish, new_figure, styled

__all__ = ["heat_map"]

_MOST_ROWS = 12  # intervals; more of them, and no number fits its cell


_MEASURES = (  # column, title, and the floor below which the colour says nothing more
    ("detect_p99_s", "Detection latency\n(p99, scenario seconds)", 1e-3),
    ("false_per_client_day", "False suspicions\n(per client-day)", 1e-4),
    ("frames_per_s", "Frames a second\n(1,000 clients)", 1e-3),
)


@styled
def heat_map(cells: pd.DataFrame, *, bounds: Mapping[str, str] | None = None, caption: str = "") -> Figure:
    """Draw three maps of the same grid: darker is worse. What keeps every bound is framed.

    Args:
        cells: one row per policy: ``interval_s``, ``max_failures``, ``detect_p99_s``,
            ``false_per_client_day``, ``frames_per_s`` (of 1000 clients), ``feasible``, ``recommended``.
            Of more than a dozen intervals those evenly spread by rank are drawn, and the recommended one.
        bounds: column -> the user's bound of it in words; it stands above the map of that column.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no policy.
        ValueError: an interval and a number of failures stand there twice.
    """
    if cells.empty:
        raise NothingToDraw("No heat map: no policy was looked at.")
    if cells.duplicated(["interval_s", "max_failures"]).any():
        raise ValueError("cells has two policies of the same interval_s and max_failures")
    shown, bounds = _spread(cells), bounds or {}
    figure, panels = new_figure(1, len(_MEASURES), sharey=True)
    intervals = sorted(shown["interval_s"].unique())
    failures = sorted(shown["max_failures"].unique())
    for panel, (column, title, floor) in zip(panels, _MEASURES, strict=True):
        _map(panel, shown.assign(value=shown[column]), floor, intervals, failures)
        panel.set_title(f"{title}\n{'at most ' + bounds[column] if column in bounds else ''}".rstrip())
    panels[0].set_ylabel("heartbeat interval (s)")
    handles: list[Patch] = []
    if shown["recommended"].any():
        kept = shown.loc[shown["recommended"], "feasible"].all()
        label = "recommended" if kept else "recommended, for none keeps every bound"
        handles.append(Patch(facecolor="none", edgecolor=ORANGE, linewidth=3, label=label))
    if shown["feasible"].any():
        handles.append(Patch(facecolor="none", edgecolor=GREEN, linewidth=2.2, label="keeps every bound"))
    handles.append(Patch(color=colormaps["cividis_r"](0.85), label="darker is worse, logarithmic"))
    return finish(figure, "Interval × failures: fast, accurate or cheap", caption, handles)


def _spread(cells: pd.DataFrame) -> pd.DataFrame:
    intervals = np.sort(cells["interval_s"].unique())
    if len(intervals) <= _MOST_ROWS:
        return cells
    ranks = np.unique(np.linspace(0, len(intervals) - 1, _MOST_ROWS).round().astype(int))
    keep = {*intervals[ranks], *cells.loc[cells["recommended"], "interval_s"]}
    return cells[cells["interval_s"].isin(list(keep))]


def _map(panel: Axes, cells: pd.DataFrame, floor: float, intervals: list[float], failures: list[int]) -> None:
    values = cells["value"].clip(lower=floor)
    low, high = float(values.min()), float(values.max())
    norm = LogNorm(low, high if high > low else low * 10)
    colours = colormaps["cividis_r"]
    for row in cells.to_dict("records"):
        x, y = failures.index(row["max_failures"]), intervals.index(row["interval_s"])
        shade = float(norm(max(row["value"], floor)))
        face = colours(0.08 + 0.84 * min(max(shade, 0.0), 1.0))
        cell = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5)
        panel.add_patch(cell)
        ink = "white" if sum(face[:3]) < 1.45 else INK
        text = _written(row["value"], floor)
        weight = "bold" if row["feasible"] else "normal"
        panel.text(x, y, text, ha="center", va="center", color=ink, fontsize=11, fontweight=weight)
        if row["feasible"]:
            _frame(panel, x, y, 0.9, GREEN, 2.2)
        if row["recommended"]:
            _frame(panel, x, y, 0.96, ORANGE, 4.5)
    panel.set_xlim(-0.5, len(failures) - 0.5)
    panel.set_ylim(len(intervals) - 0.5, -0.5)
    panel.set_xticks(range(len(failures)), [str(k) for k in failures])
    panel.set_yticks(range(len(intervals)), [plain(t) for t in intervals])
    panel.set_xlabel("failures until suspicion (max_failures)")
    panel.grid(False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _frame(panel: Axes, x: float, y: float, size: float, colour: str, width: float) -> None:
    corner = (x - size / 2, y - size / 2)
    frame = Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=width, zorder=5)
    panel.add_patch(frame)


def _written(value: float, floor: float) -> str:
    """Three digits at most: the tables have the rest."""
    if value < floor:
        return "0" if value <= 0 else f"<{floor:.0e}".replace("e-0", "e−")
    if value >= 0.01:
        digits = max(0, 1 - int(np.floor(np.log10(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.0e}".replace("e-0", "e−")
