"""Latency against false suspicions, cost as size: the policies that no other beats, and the recommended one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from reports.figures.data import NothingToDraw, thinned
from reports.numbers import NBSP, caption_seconds, plain, rate
from reports.style import BLUE, GREEN, INK, MUTED, VERMILION, dot_key, finish, grouped, new_figure, styled

__all__ = ["pareto"]

_FLOOR = 1e-6  # per client-day: one in 2,700 years; fewer cannot be told from none
_MOST_DOTS = 3000
_LETTER, _TWO_LINES = 0.0075, 0.08  # of the axes: a letter's width and the height of two lines at 12 pt
_RING = np.array(
    [(x, y) for x in (-0.006, 0, 0.006) for y in (-0.01, 0, 0.01)]
)  # of the axes, around the dot
_PALE = 0.01  # of the axes: so much farther away rather than a pale dot hidden
_GAP = np.array((0.01, 0.02))  # of the axes, around the box
_LIMIT = "#555555"
_Limits = tuple[float | None, float | None]  # detection latency in seconds, false suspicions a client-day
_LIMIT_LINE: Mapping[str, Any] = {"color": _LIMIT, "linestyle": (0, (4, 2)), "linewidth": 1.4, "zorder": 1}


@styled
def pareto(
    candidates: pd.DataFrame,
    *,
    latency_limit_s: float | None = None,
    mistake_limit: float | None = None,
    caption: str = "",
) -> Figure:
    """Draw every policy as a dot, larger where it costs more frames; the Pareto set joined and labelled.

    Args:
        candidates: one row per policy: ``interval_s``, ``max_failures``, ``timeout_s``, ``detect_p99_s``,
            ``false_per_client_day``, ``frames_per_s`` (of 1000 clients), ``feasible``, ``pareto``,
            ``recommended``. The Pareto set is that of latency, false suspicions and cost together.
        latency_limit_s: the wanted p99 of detection; None: no line.
        mistake_limit: the wanted false suspicions a client-day; None: no line.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no policy.
    """
    if candidates.empty:
        raise NothingToDraw("No Pareto front: no policy was looked at.")
    figure, (axes,) = new_figure()
    rows = candidates.assign(y=candidates["false_per_client_day"].clip(lower=_FLOOR))
    other = thinned(rows[~rows["pareto"]], _MOST_DOTS)
    _dots(axes, other[~other["feasible"]], "#C9C9C9", 0.35, rows)
    _dots(axes, other[other["feasible"]], BLUE, 0.35, rows)
    front = rows[rows["pareto"]].sort_values(["detect_p99_s", "y"])
    lower = front[front["y"] <= front["y"].cummin()]  # in the plane; the rest of the set is cheaper
    axes.step(lower["detect_p99_s"], lower["y"], where="post", color=GREEN, linewidth=1.6, zorder=3)
    _dots(axes, front[~front["feasible"]], GREEN, 0.35, rows)
    _dots(axes, front[front["feasible"]], GREEN, 0.95, rows)
    _axes(axes, rows, latency_limit_s, mistake_limit)
    if latency_limit_s is not None:
        axes.axvline(latency_limit_s, **_LIMIT_LINE)
        text, where = f" your bound: {plain(latency_limit_s)}{NBSP}s", axes.get_xaxis_transform()
        axes.text(latency_limit_s, 0.985, text, fontsize=11, transform=where, va="top", color=_LIMIT)
    if mistake_limit is not None:
        y, text, where = (
            max(mistake_limit, _FLOOR),
            f"your bound: {rate(mistake_limit)} a client-day",
            axes.get_yaxis_transform(),
        )
        axes.axhline(y, **_LIMIT_LINE)
        axes.text(0.995, y, text, fontsize=11, transform=where, va="bottom", ha="right", color=_LIMIT)
    for row in rows[rows["recommended"]].to_dict("records"):
        _recommended(axes, rows, row, (latency_limit_s, mistake_limit))
    return finish(
        figure, "No policy is faster, more often right and cheaper than these", caption, _legend(rows)
    )


def _dots(axes: Axes, rows: pd.DataFrame, colour: str, alpha: float, of: pd.DataFrame) -> None:
    dearest = float(of["frames_per_s"].max())
    sizes = 14 + 170 * rows["frames_per_s"] / dearest
    look: dict[str, Any] = {"color": colour, "alpha": alpha, "linewidths": 0, "zorder": 2, "clip_on": False}
    axes.scatter(rows["detect_p99_s"], rows["y"], s=sizes, **look)


def _free_corner(
    axes: Axes, rows: pd.DataFrame, here: tuple[float, float], limits: _Limits, size: tuple[float, float]
) -> tuple[float, float]:
    """The lower left corner, in shares of the axes, where a box of this size covers the least.

    The front, the recommended dot and the bounds come first; then it is near the dot rather than free of pale ones.
    """
    to_axes = axes.transScale + axes.transLimits
    spots = to_axes.transform(rows[["detect_p99_s", "y"]].to_numpy(dtype=float))
    at = to_axes.transform(here)
    along = np.linspace(0, 1, 101)
    latency_s, mistakes = (np.nan if limit is None else max(limit, _FLOOR) for limit in limits)
    bound = to_axes.transform((latency_s, mistakes))
    upright = np.column_stack((0 * along + bound[0], along))
    flat = np.column_stack((along, 0 * along + bound[1]))
    label = flat[along > 0.75] + (0, 0.03)
    kept_free = np.vstack((spots[rows["pareto"].to_numpy()], upright, flat, label, at + _RING))

    lefts, lows = np.arange(0.02, 1 - size[0], 0.01), np.arange(0.04, 0.93 - size[1], 0.01)
    if not (len(lefts) and len(lows)):
        return 0.02, 0.04

    def covered(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many of these a box covers, by its left and its lower edge."""
        within = (
            (points[:, axis] > edges[:, None] - _GAP[axis])
            & (points[:, axis] < edges[:, None] + size[axis] + _GAP[axis])
            for axis, edges in enumerate((lefts, lows))
        )
        by_left, by_low = (inside.astype(np.float64) for inside in within)
        return np.asarray(by_left @ by_low.T)

    away = np.hypot(lefts[:, None] + size[0] / 2 - at[0], lows + size[1] / 2 - at[1])
    hidden = covered(kept_free)
    badness = np.where(hidden == hidden.min(), away + _PALE * covered(spots), np.inf)
    left, low = np.unravel_index(np.argmin(badness), badness.shape)
    return float(lefts[left]), float(lows[low])


def _recommended(axes: Axes, rows: pd.DataFrame, row: Mapping[Hashable, Any], limits: _Limits) -> None:
    x, y = float(row["detect_p99_s"]), float(row["y"])
    axes.scatter([x], [y], s=330, facecolors="none", edgecolors=VERMILION, linewidths=3, zorder=5)
    kept = "recommended" if row["feasible"] else "recommended, for none keeps every bound"
    text = (
        f"{kept}: T = {plain(row['interval_s'])}{NBSP}s, k = {row['max_failures']:.0f}, "
        f"τ = {plain(row['timeout_s'])}{NBSP}s\n"
        f"p99 {caption_seconds(x)}, {_mistakes(row['false_per_client_day'])} false per client-day, "
        f"{plain(row['frames_per_s'])} frames/s"
    )
    size = (_LETTER * max(map(len, text.split("\n"))), _TWO_LINES)
    left, low = _free_corner(axes, rows, (x, y), limits, size)
    axes.annotate(
        text,
        (x, y),
        xytext=(left, low + size[1] / 2),
        textcoords="axes fraction",
        ha="left",
        va="center",
        fontsize=12,
        color=INK,
        zorder=6,
        bbox={"facecolor": "white", "alpha": 0.88, "edgecolor": "none", "pad": 3},
        arrowprops={"arrowstyle": "-", "color": VERMILION, "linewidth": 1.5, "shrinkB": 10},
    )


def _axes(axes: Axes, rows: pd.DataFrame, latency_limit_s: float | None, mistake_limit: float | None) -> None:
    """Scales and edges: every policy is within, and every bound."""
    latencies_s = [*rows["detect_p99_s"].agg(["min", "max"]), *([latency_limit_s] if latency_limit_s else [])]
    mistakes = [*rows["y"].agg(["min", "max"]), *([max(mistake_limit, _FLOOR)] if mistake_limit else [])]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(latencies_s) / 1.25, max(latencies_s) * 1.25)
    axes.set_ylim(min(mistakes) / 2.5, max(mistakes) * 2.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_major_formatter(grouped(".4g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("detection latency of a silent death, p99 (scenario seconds)")
    axes.set_ylabel("false suspicions per client-day")
    if (rows["y"] <= _FLOOR).any():
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))


def _mistakes(value: float) -> str:
    return rate(value) if value > _FLOOR else f"≤ {_FLOOR:.0e}".replace("e-0", "e−")


def _tick(value: float, _: int) -> str:
    if value <= _FLOOR * 1.001:
        return _mistakes(0.0)
    return f"{value:g}"


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    handles = [dot_key(GREEN, "Pareto set", markersize=9)]
    if (rows["feasible"] & ~rows["pareto"]).any():
        handles.append(dot_key(BLUE, "keeps your bounds, but another one is better", markersize=9))
    if not rows["feasible"].all():
        handles.append(dot_key("#C9C9C9", "pale: breaks one of your bounds", markersize=9))
    return [*handles, dot_key(MUTED, "larger: more frames a second", markersize=13)]
