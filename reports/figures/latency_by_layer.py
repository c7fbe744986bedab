"""Detection latency by fault and by the layer that caught it: every detection a dot, the median a bar."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from reports.figures.data import NothingToDraw, engines_in, in_order
from reports.numbers import caption_seconds, cause_name
from reports.run_tables import MEASURED_ENGINES
from reports.style import ENGINE_COLOURS, dot_key, dots, finish, grouped, new_figure, styled, tag

__all__ = ["latency_by_layer"]

_DOTS = 400  # a row; beyond that the dots are evenly spaced ranks
_GOLDEN = 0.6180339887498949  # its multiples mod 1 spread evenly: jitter without random numbers
_LINEAR_TO_S = 1.0
_TICKS_S = (0, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000)


@styled
def latency_by_layer(detections: pd.DataFrame, laws: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw a row for each fault and layer: theory's range in grey, detections as dots, medians as bars.

    Args:
        detections: detections.csv; its detected suspicions are drawn.
        laws: laws.csv, for the ranges; may be empty.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no fault was detected.
    """
    seen = detections[(detections["milestone"] == "suspected") & (detections["outcome"] == "detected")]
    seen = seen[seen["engine"].isin(MEASURED_ENGINES)]  # theory's rows are plotting positions
    if seen.empty:
        raise NothingToDraw("No latency by layer: no fault was detected in this run.")
    pairs = [
        (fault, cause)
        for fault in in_order(seen["fault"])
        for cause in seen.loc[seen["fault"] == fault, "cause"].value_counts().index
    ]
    figure, (axes,) = new_figure(height=max(4.2, 2.2 + 0.62 * len(pairs)))
    ranges = {law["fault"]: law for law in laws[laws["milestone"] == "suspected"].to_dict("records")}
    for row, (fault, cause) in enumerate(pairs):
        law = ranges.get(fault)
        if law and law["cause"] in (cause, ""):
            _range(axes, row, law["lo_s"], law["hi_s"])
        for offset, engine in ((0.19, "simulated"), (-0.19, "real")):
            mine = seen[(seen["engine"] == engine) & (seen["fault"] == fault) & (seen["cause"] == cause)]
            _dots(axes, row + offset, mine["duration_s"].to_numpy(), ENGINE_COLOURS[engine])
    _axes(axes, pairs, float(seen["duration_s"].max()))
    return finish(figure, "How long each layer takes to suspect", caption, _legend(engines_in(seen)))


def _range(axes: Axes, row: int, lo_s: float, hi_s: float) -> None:
    if np.isfinite(lo_s) and np.isfinite(hi_s):
        axes.barh(row, hi_s - lo_s, left=lo_s, height=0.8, color="#DDDDDD", zorder=1)
        for edge_s in (lo_s, hi_s):
            axes.plot([edge_s, edge_s], [row - 0.4, row + 0.4], color="#9A9A9A", linewidth=1.2, zorder=1)


def _dots(axes: Axes, at: float, values: np.ndarray, colour: str) -> None:
    if not values.size:
        return
    ordered = np.sort(values)
    if ordered.size > _DOTS:
        ordered = ordered[np.linspace(0, ordered.size - 1, _DOTS).round().astype(int)]
    jitter = (np.arange(ordered.size) * _GOLDEN % 1 - 0.5) * 0.24
    alpha = 0.5 if values.size < 150 else 0.22
    dots(axes, ordered, at + jitter, colour, markersize=3.6, alpha=alpha, zorder=2)
    # As in the tables: the time by which half of them had been caught.
    median = float(np.quantile(values, 0.5, method="inverted_cdf"))
    axes.plot([median, median], [at - 0.17, at + 0.17], color=colour, linewidth=3, zorder=3)
    tag(axes, f"{caption_seconds(median)}, n = {values.size}", (float(ordered[-1]), at), colour)


def _axes(axes: Axes, pairs: list[tuple[str, str]], highest_s: float) -> None:
    axes.set_yticks(range(len(pairs)), [f"{fault}\n{cause_name(cause)}" for fault, cause in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xscale("symlog", linthresh=_LINEAR_TO_S, linscale=0.6)
    # Room at the right for the labels of the slowest row.
    top = max(highest_s * 6, 2.0)
    axes.set_xlim(-0.06, top)
    axes.set_xticks([tick for tick in _TICKS_S if tick <= top])
    axes.xaxis.set_major_formatter(grouped(".4g"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("scenario seconds from the fault to the suspicion (linear below 1 s, logarithmic above)")


def _legend(engines: list[str]) -> list[Line2D | Patch]:
    return [
        *(dot_key(ENGINE_COLOURS[engine], engine, markersize=None) for engine in engines),
        dot_key("#555555", "median", "|", linewidth=0, markersize=13, markeredgewidth=3),
        Patch(color="#D5D5D5", label="theory's range"),
    ]
