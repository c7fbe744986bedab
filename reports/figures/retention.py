"""Retention: which share of users is active again so many days after their first."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reports.figures.data import NothingToDraw
from reports.numbers import count
from reports.style import BLUE, SKY, finish, new_figure, styled

__all__ = ["retention"]


@styled
def retention(rows: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw the share with its 95 % interval over days.

    Args:
        rows: after_days, users, back, share, lo, hi.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no user is older than a day.
    """
    if rows.empty:
        raise NothingToDraw("No chart of retention: no user was first seen before the last day.")
    figure, (axes,) = new_figure(height=5.6)
    axes.fill_between(
        rows["after_days"], rows["lo"], rows["hi"], color=SKY, alpha=0.35, linewidth=0
    )
    axes.plot(rows["after_days"], rows["share"], color=BLUE, linewidth=2, marker="o", markersize=4)
    axes.set_xlabel("days after the first")
    axes.set_ylabel("active again on that day")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1.02)
    first, last = rows.iloc[0], rows.iloc[-1]
    note = (
        f"n = {count(int(first['users']))} users after {count(int(first['after_days']))} day, "
        f"{count(int(last['users']))} after {count(int(last['after_days']))}: only those first seen so long ago. "
        "Band: exact 95 % interval."
    )
    return finish(figure, "Who comes back", f"{caption} {note}".strip())
