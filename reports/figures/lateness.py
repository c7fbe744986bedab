"""How late the loops and the heartbeats were: loop lag of every role, lateness of the gateway's heartbeats."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw, in_order, peaks
from reports.numbers import milliseconds
from reports.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, finish, new_figure, styled

__all__ = ["lateness"]

_ROLES = {"gateway": BLUE, "generator": VERMILION, "store-watch": PURPLE}
_OTHERS = (GREEN, ORANGE, SKY)


@styled
def lateness(
    lag: pd.DataFrame,
    heartbeats: pd.DataFrame,
    *,
    window_s: tuple[float, float] | None = None,
    pace: float = 1.0,
    caption: str = "",
) -> Figure:
    """Draw over the run the largest loop lag of each role, and how late heartbeats were sent, each if it was logged.

    Args:
        lag: lag.csv; of several processes of a role the latest counts.
        heartbeats: lateness.csv; of several nodes the latest counts.
        window_s: from when to when lag counts for ε; the rest is grey.
        pace: of the run: a real millisecond is this many scenario milliseconds.
        caption: the line under the figure.

    Raises:
        NothingToDraw: neither was logged, as in a run without the real engine.
    """
    if lag.empty and heartbeats.empty:
        raise NothingToDraw("No chart of lateness: no loop logged its lag (the real engine did not run).")
    drawn = 2 - lag.empty - heartbeats.empty
    figure, panels = new_figure(drawn, 1, sharex=True, height=7.2 if drawn == 2 else 4.8)
    notes = [f"One real millisecond is {pace:g} ms of scenario time."] if pace != 1 else []
    if lag.empty:
        notes.append("No loop logged its lag.")
    else:
        notes += _lags(panels[0], lag, window_s)
    if heartbeats.empty:
        notes.append("Nobody logged how late heartbeats were sent.")
    else:
        for label, colour in (("max", VERMILION), ("p99", ORANGE), ("p50", BLUE)):
            _line(panels[-1], heartbeats, f"{label}_s", colour, label)
        panels[-1].set_title("Heartbeats sent late, each second")
    for panel in panels:
        panel.set_ylabel("real milliseconds")
        panel.set_ylim(bottom=0)
        panel.margins(y=0.12)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="largest of the run")
    panels[-1].set_xlabel("scenario seconds from the start of the run")
    title = "Was anything late? Lag of the loops" + ("" if heartbeats.empty else " and of the heartbeats")
    return finish(figure, title, " ".join([*notes, caption]))


def _lags(panel: Axes, lag: pd.DataFrame, window_s: tuple[float, float] | None) -> list[str]:
    """Draw a line a role; return what has to be said below."""
    spare = iter(_OTHERS * len(lag["role"].unique()))
    for role in in_order(lag["role"]):
        mine = lag[lag["role"] == role]
        _line(panel, mine, "max_lag_s", _ROLES.get(role) or next(spare), role)
    canary = (lag["role"] == "canary").any()
    waits = ", and a canary client’s wait for its answer" if canary else ""
    panel.set_title(f"Loop lag{waits}, largest of each half second")
    if window_s is None:
        return []
    left_s, right_s = panel.get_xlim()
    uncounted = [
        *([(left_s, window_s[0])] if (lag["time_s"] < window_s[0]).any() else []),
        *([(window_s[1], right_s)] if (lag["time_s"] > window_s[1]).any() else []),
    ]
    for low_s, high_s in uncounted:
        panel.axvspan(low_s, high_s, color="#000000", alpha=0.07, zorder=0, linewidth=0)
    panel.set_xlim(left_s, right_s)
    return ["Grey: lag then does not count for ε."] if uncounted else []


def _line(panel: Axes, table: pd.DataFrame, column: str, colour: str, label: str) -> None:
    # Several processes take turns: as many spans as one of them has samples, the latest in each.
    each = "pid" if "pid" in table else "node"
    bins = min(300, int(table.groupby(each).size().max()))
    times, values = peaks(table["time_s"].to_numpy(), table[column].to_numpy(), bins)
    label += f": {milliseconds(float(table[column].max()))}"
    panel.plot(times, values * 1000, color=colour, linewidth=1.5, label=label)
