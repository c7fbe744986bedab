"""Active users: each day, in the month before it, and the ratio of the two."""

from __future__ import annotations

import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reports.figures.data import NothingToDraw
from reports.numbers import count
from reports.style import BLUE, GREEN, ORANGE, PURPLE, finish, line_key, new_figure, styled

__all__ = ["active_users"]

_LINES = (
    ("monthly", ORANGE, "active within 30 days (MAU)"),
    ("active", BLUE, "active on the day (DAU)"),
    ("new", GREEN, "new"),
)


@styled
def active_users(daily: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw users over days above, stickiness below.

    Args:
        daily: day, active, new, monthly, stickiness.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no days.
    """
    if daily.empty:
        raise NothingToDraw("No chart of active users: the ledger has no sessions.")
    figure, (users, ratio) = new_figure(
        2, 1, sharex=True, height=6.6, gridspec_kw={"height_ratios": [2.4, 1]}
    )
    marker = "o" if len(daily) < 40 else ""
    for column, colour, _ in _LINES:
        users.plot(daily["day"], daily[column], color=colour, linewidth=2, marker=marker, markersize=4)
    users.set_ylabel("users")
    users.set_ylim(bottom=0)
    users.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ratio.plot(daily["day"], daily["stickiness"], color=PURPLE, linewidth=2, marker=marker, markersize=4)
    ratio.set_ylabel("DAU / MAU")
    ratio.set_ylim(0, 1.05)
    ratio.yaxis.set_major_formatter(PercentFormatter(1.0))
    locator = AutoDateLocator(minticks=2, maxticks=10)  # type: ignore[no-untyped-call]
    ratio.xaxis.set_major_locator(locator)
    ratio.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ratio.set_xlabel("day (UTC)")
    handles = [line_key(colour, label) for _, colour, label in _LINES]
    note = f"n = {count(int(daily['new'].sum()))} users over {count(len(daily))} days; new: not in this ledger before."
    if len(daily) < 30:
        note += " The ledger is younger than 30 days: MAU still grows for that reason alone."
    return finish(figure, "Active users", f"{caption} {note}".strip(), handles)
