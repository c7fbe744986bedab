"""Live clients, sessions in the store and ghosts over the run, with the fault windows shaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw, thinned
from reports.style import ENGINE_COLOURS, finish, new_figure, styled

__all__ = ["live_sessions"]


@styled
def live_sessions(
    live: pd.DataFrame, fault_windows: Sequence[Mapping[str, Any]] = (), *, caption: str = ""
) -> Figure:
    """Draw two panels: clients alive beside sessions that the store shows; and the ghosts between them.

    Args:
        live: population.csv.
        fault_windows: objects with ``fault``, ``start_s``, ``end_s``; drawn as one shaded span and a bar each.
        caption: the line under the figure.

    Raises:
        NothingToDraw: the run has no samples.
    """
    if live.empty:
        raise NothingToDraw("No chart of live sessions: nothing was sampled in this run.")
    windows = [w for w in fault_windows if _span(w) is not None]
    ratios = [3.2, 2.0, *([0.3 + 0.22 * len(windows)] if windows else [])]
    figure, panels = new_figure(
        len(ratios),
        1,
        sharex=True,
        height=max(7.2, 5.4 + 0.24 * len(windows)),
        gridspec_kw={"height_ratios": ratios},
    )
    engines = [engine for engine in ("simulated", "real") if (live["engine"] == engine).any()]
    for engine in engines:
        mine = live[live["engine"] == engine].sort_values("time_s", kind="stable")
        mine = thinned(mine, 1200)
        colour = ENGINE_COLOURS[engine]
        panels[0].step(mine["time_s"], mine["live_clients"], where="post", color=colour, linestyle=":")
        panels[0].step(mine["time_s"], mine["store_sessions"], where="post", color=colour, linewidth=1.8)
        panels[1].step(mine["time_s"], mine["ghosts"], where="post", color=colour, linewidth=1.8)
        panels[1].fill_between(mine["time_s"], mine["ghosts"], step="post", color=colour, alpha=0.12)
    panels[0].set_ylabel("clients, sessions")
    panels[1].set_ylabel("ghosts")
    for panel in panels[:2]:
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        for window in windows:
            start, end = _span(window) or (0.0, 0.0)
            panel.axvspan(
                start, end, color="#000000", alpha=0.05 / len(windows) + 0.008, zorder=0, linewidth=0
            )
    if windows:
        _windows(panels[2], windows)
    panels[-1].set_xlabel("scenario seconds from the start of the run")
    panels[-1].set_xlim(0, float(live["time_s"].max()))
    title = "Clients alive, sessions in the store, and the ghosts between"
    return finish(figure, title, caption, _legend(engines, bool(windows)))


def _span(window: Mapping[str, Any]) -> tuple[float, float] | None:
    start, end = window.get("start_s"), window.get("end_s")
    if not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    return float(start), float(end)


def _windows(panel: Axes, windows: Sequence[Mapping[str, Any]]) -> None:
    for row, window in enumerate(windows):
        start, end = _span(window) or (0.0, 0.0)
        panel.barh(row, end - start, left=start, height=0.62, color="#9A9A9A")
    panel.set_yticks(range(len(windows)), [str(w.get("fault", "")) for w in windows])
    panel.set_ylim(len(windows) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def _legend(engines: list[str], windows: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=ENGINE_COLOURS[engine], linewidth=3, label=engine) for engine in engines
    ]
    handles += [
        Line2D([], [], color="#555555", linestyle=":", label="clients alive"),
        Line2D([], [], color="#555555", linewidth=1.8, label="sessions in the store"),
    ]
    return [*handles, Patch(color="#9A9A9A", label="faults begin")] if windows else handles
