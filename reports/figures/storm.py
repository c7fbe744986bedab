"""A reconnect storm: who is connected, who comes and goes, and who is turned away, over the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw, engines_in, span
from reports.numbers import count, plain
from reports.style import (
    BLUE,
    ENGINE_COLOURS,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    finish,
    line_key,
    new_figure,
    styled,
    tag,
)

__all__ = ["en_masse", "storm"]

_MASS = 0.2  # of the most that were ever connected, within so many seconds
_WITHIN_S = 10.0
_FEWEST = 10

_COMING = (("connected", GREEN, "connect"), ("disconnected", BLUE, "lose their connection"))
_TROUBLE = (
    ("session_unknown", VERMILION, "told session unknown"),
    ("login_refused", ORANGE, "login refused"),
    ("logged_in", PURPLE, "log in"),
)


def en_masse(rows: pd.DataFrame) -> bool:
    """Whether a fifth of the clients, ten at least, lost their connections or came back within ten seconds.

    Seconds are scenario seconds. Who comes back is resumed or told "session unknown": a first login is the ramp.
    """
    for _, mine in rows.sort_values("time_s", kind="stable").groupby("engine"):
        spans = max(1, math.ceil(_WITHIN_S / float(mine["width_s"].iloc[0])))
        most = float((mine["connected"] - mine["disconnected"]).cumsum().max())
        for moved in (mine["disconnected"], mine["resumed"] + mine["session_unknown"]):
            together = float(moved.rolling(spans, min_periods=1).sum().max())
            if together >= max(_FEWEST, _MASS * most):
                return True
    return False


@styled
def storm(
    rows: pd.DataFrame,
    fault_windows: Sequence[Mapping[str, Any]] = (),
    *,
    engine: str = "",
    caption: str = "",
) -> Figure:
    """Draw three panels over time: clients that believe themselves connected, arrivals and losses, trouble.

    A client that died in silence never says that it lost its connection: it stays in the first panel.

    Args:
        rows: reconnects.csv.
        fault_windows: objects with ``fault``, ``start_s``, ``end_s``: shaded.
        engine: which one's arrivals the lower panels show; default: the real one where it ran.
        caption: the line under the figure.

    Raises:
        NothingToDraw: nobody ever connected.
    """
    if rows.empty or not rows["connected"].any():
        raise NothingToDraw("No chart of reconnections: nobody connected in this run.")
    engines = engines_in(rows)
    shown = engine or engines[-1]
    figure, panels = new_figure(3, 1, sharex=True, gridspec_kw={"height_ratios": [2.2, 2.2, 1.6]}, height=7.6)
    for name in engines:
        mine = rows[rows["engine"] == name].sort_values("time_s", kind="stable")
        held = (mine["connected"] - mine["disconnected"]).cumsum()
        panels[0].step(
            mine["time_s"] + mine["width_s"],
            held,
            where="post",
            color=ENGINE_COLOURS[name],
            linestyle="-" if name == shown else (0, (4, 1.5)),
        )
        end, side = (float(mine["time_s"].iloc[-1]), float(held.iloc[-1])), ("bottom", "top")[name == "real"]
        offset = (-4, -8 if name == "real" else 4)
        tag(panels[0], name, end, ENGINE_COLOURS[name], fontsize=12, xytext=offset, ha="right", va=side)
    mine = rows[rows["engine"] == shown].sort_values("time_s", kind="stable")
    for panel, lines in ((panels[1], _COMING), (panels[2], _TROUBLE)):
        for column, colour, _ in lines:
            panel.step(
                mine["time_s"],
                mine[column] / mine["width_s"],
                where="post",
                color=colour,
                # Who loses a connection and has another within the same span shows as both.
                linewidth=4.0 if column == "connected" else 1.7,
            )
    _peak(panels[1], mine)
    for panel, label in zip(panels, ("clients connected", "clients a second", "a second"), strict=True):
        panel.set_ylabel(label)
        panel.set_ylim(0, max(panel.dataLim.y1, 1e-9) * 1.2)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        for window in fault_windows:
            if at := span(window):
                stop = max(at[1], at[0] + mine["width_s"].iloc[0])
                panel.axvspan(at[0], stop, color="#000000", alpha=0.07, linewidth=0, zorder=0)
    panels[-1].set_xlabel("scenario seconds from the start of the run")
    panels[-1].set_xlim(0, float((mine["time_s"] + mine["width_s"]).max()))
    handles: list[Line2D | Patch] = [
        line_key(colour, label) for column, colour, label in (*_COMING, *_TROUBLE) if mine[column].any()
    ]
    if fault_windows:
        handles.append(Patch(color="#000000", alpha=0.1, label="faults begin"))
    spans = f"Spans of {plain(float(mine['width_s'].iloc[0]))} s, {shown} engine below."
    return finish(figure, "Who comes, who goes, who is turned away", f"{caption} {spans}".strip(), handles)


def _peak(panel: Axes, mine: pd.DataFrame) -> None:
    """Write the most connections a second once clients had begun to lose theirs: what login and store had to take."""
    lost = mine.loc[mine["disconnected"] > 0, "time_s"]
    back = mine[mine["time_s"] >= lost.min()] if len(lost) else mine.iloc[:0]
    if not back["connected"].any():
        return
    rates = back["connected"] / back["width_s"]
    rate, at = float(rates.max()), float((back["time_s"] + back["width_s"]).to_numpy()[rates.argmax()])
    said = count(rate) if rate >= 10 else plain(rate)
    tag(panel, f"{said} a second come back", (at, rate), GREEN, xytext=(10, -2))
