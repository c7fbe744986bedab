"""Live clients, those that the store shows, ghosts and gaps over the run, with the fault windows shaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw, engines_in, span, thinned
from reports.style import ENGINE_COLOURS, finish, line_key, new_figure, styled

__all__ = ["live_sessions"]

_COUNTED: dict[str, Any] = {"color": "#555555", "linestyle": "--", "linewidth": 1.2}


@styled
def live_sessions(
    live: pd.DataFrame,
    fault_windows: Sequence[Mapping[str, Any]] = (),
    counted: pd.DataFrame | None = None,
    *,
    caption: str = "",
) -> Figure:
    """Draw two panels: clients alive beside those that the store shows; and ghosts, and gaps where there are any.

    Args:
        live: population.csv.
        fault_windows: objects with ``fault``, ``start_s``, ``end_s``; drawn as one shaded span and a bar each.
        counted: counted.csv: what a server that is not ours tells of its connections.
        caption: the line under the figure.

    Raises:
        NothingToDraw: the run has no samples.
    """
    if live.empty:
        raise NothingToDraw("No chart of live sessions: nothing was sampled in this run.")
    tells = counted is not None and not counted.empty
    if not tells and live[["store_sessions", "ghosts"]].isna().all(axis=None):
        raise NothingToDraw("No chart of sessions in the store: nobody watched a store in this run.")
    windows = [(str(w.get("fault", "")), *at) for w in fault_windows if (at := span(w))]
    ratios = [3.2, 2.0, *([0.3 + 0.22 * len(windows)] if windows else [])]
    height, sizes = max(7.2, 5.4 + 0.24 * len(windows)), {"height_ratios": ratios}
    figure, panels = new_figure(len(ratios), 1, sharex=True, height=height, gridspec_kw=sizes)
    engines = engines_in(live)
    for engine in engines:
        mine = live[live["engine"] == engine].sort_values("time_s", kind="stable")
        mine = thinned(mine, 1200)
        colour = ENGINE_COLOURS[engine]
        panels[0].step(mine["time_s"], mine["live_clients"], where="post", color=colour, linestyle=":")
        panels[0].step(mine["time_s"], mine["store_sessions"], where="post", color=colour, linewidth=1.8)
        panels[1].step(mine["time_s"], mine["ghosts"], where="post", color=colour, linewidth=1.8)
        if (mine["gaps"] > 0).any():
            panels[1].step(mine["time_s"], mine["gaps"], where="post", color=colour, linestyle=":")
        panels[1].fill_between(mine["time_s"], mine["ghosts"], step="post", color=colour, alpha=0.12)
    if counted is not None and tells:
        panels[0].step(counted["time_s"], counted["connections"], where="post", **_COUNTED)
        panels[1].step(counted["time_s"], counted["ghosts"], where="post", **_COUNTED)
    panels[0].set_ylabel("clients, sessions")
    gaps = bool((live["gaps"] > 0).any())
    panels[1].set_ylabel("ghosts, gaps" if gaps else "ghosts")
    for panel in panels[:2]:
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        for _, start, end in windows:
            alpha = 0.05 / len(windows) + 0.008
            panel.axvspan(start, end, color="#000000", alpha=alpha, zorder=0, linewidth=0)
    if windows:
        _windows(panels[2], windows)
    panels[-1].set_xlabel("scenario seconds from the start of the run")
    panels[-1].set_xlim(0, float(live["time_s"].max()))
    title = "Clients alive, sessions in the store, and the ghosts between"
    keys = _legend(engines, bool(windows), gaps)
    if tells:
        keys.append(line_key(_COUNTED["color"], "counted by the server itself", linestyle="--"))
    return finish(figure, title, caption, keys)


def _windows(panel: Axes, windows: Sequence[tuple[str, float, float]]) -> None:
    for row, (_, start, end) in enumerate(windows):
        panel.barh(row, end - start, left=start, height=0.62, color="#9A9A9A")
    panel.set_yticks(range(len(windows)), [fault for fault, _, _ in windows])
    panel.set_ylim(len(windows) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def _legend(engines: list[str], windows: bool, gaps: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        *(line_key(ENGINE_COLOURS[engine], engine) for engine in engines),
        line_key(
            "#555555", "clients alive; gaps" if gaps else "clients alive", linestyle=":", linewidth=None
        ),
        line_key("#555555", "shown by the store; ghosts", linewidth=1.8),
    ]
    return [*handles, Patch(color="#9A9A9A", label="faults begin")] if windows else handles
