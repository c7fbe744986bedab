"""How late the loops and the heartbeats were: loop lag of every role, lateness of the gateway's heartbeats."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw, in_order, peaks
from reports.numbers import milliseconds
from reports.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, finish, new_figure, no_data, styled

__all__ = ["lateness"]

_ROLES = {"gateway": BLUE, "generator": VERMILION, "store-watch": PURPLE}
_OTHERS = (GREEN, ORANGE, SKY)


@styled
def lateness(lag: pd.DataFrame, heartbeats: pd.DataFrame, *, pace: float = 1.0, caption: str = "") -> Figure:
    """Draw two panels over the run: largest loop lag of each role, and how late heartbeats were sent.

    Args:
        lag: lag.csv; of several processes of a role the latest counts.
        heartbeats: lateness.csv; of several nodes the latest counts.
        pace: of the run: a real millisecond is this many scenario milliseconds.
        caption: the line under the figure.

    Raises:
        NothingToDraw: neither was logged, as in a run without the real engine.
    """
    if lag.empty and heartbeats.empty:
        raise NothingToDraw("No chart of lateness: no loop logged its lag (the real engine did not run).")
    figure, (top, bottom) = new_figure(2, 1, sharex=True)
    if lag.empty:
        no_data(top, "no loop logged its lag")
    spare = iter(_OTHERS * len(lag["role"].unique()))
    for role in in_order(lag["role"]):
        mine = lag[lag["role"] == role]
        _line(top, mine, "max_lag_s", _ROLES.get(role) or next(spare), role)
    top.set_title("Loop lag, largest of each half second")
    if heartbeats.empty:
        no_data(bottom, "the gateway logged no heartbeat lateness")
    else:
        for label, colour in (("max", VERMILION), ("p99", ORANGE), ("p50", BLUE)):
            _line(bottom, heartbeats, f"{label}_s", colour, label)
    bottom.set_title("Heartbeats sent late, each second")
    for panel in (top, bottom):
        panel.set_ylabel("real milliseconds")
        panel.set_ylim(bottom=0)
        panel.margins(y=0.12)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        if panel.get_lines():
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    bottom.set_xlabel("scenario seconds from the start of the run")
    note = f"One real millisecond is {pace:g} ms of scenario time. " if pace != 1 else ""
    return finish(figure, "Was anything late? Lag of the loops and of the heartbeats", note + caption)


def _line(panel: Axes, table: pd.DataFrame, column: str, colour: str, label: str) -> None:
    # Several processes take turns: as many spans as one of them has samples, the latest in each.
    each = "pid" if "pid" in table else "node"
    bins = min(300, int(table.groupby(each).size().max()))
    times, values = peaks(table["time_s"].to_numpy(), table[column].to_numpy(), bins)
    label += f": {milliseconds(float(table[column].max()))}"
    panel.plot(times, values * 1000, color=colour, linewidth=1.5, label=label)
