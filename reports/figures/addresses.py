"""Sessions by IP address: those with most of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw
from reports.numbers import count
from reports.style import BLUE, ORANGE, finish, new_figure, styled

__all__ = ["addresses"]


@styled
def addresses(rows: pd.DataFrame, *, sessions: int, caption: str = "") -> Figure:
    """Draw a bar of sessions and one of users for each address.

    Args:
        rows: ip_address, sessions, users; most sessions first.
        sessions: in the whole ledger.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no sessions.
    """
    if rows.empty:
        raise NothingToDraw("No chart of addresses: the ledger has no sessions.")
    figure, (axes,) = new_figure(height=2.2 + 0.3 * len(rows))
    at = np.arange(len(rows))
    axes.barh(at - 0.2, rows["sessions"], height=0.38, color=BLUE)
    axes.barh(at + 0.2, rows["users"], height=0.38, color=ORANGE, hatch="//", edgecolor="white")
    axes.set_yticks(at, [address or "unknown" for address in rows["ip_address"]])
    axes.invert_yaxis()
    axes.set_xlabel("sessions, users")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    shown = int(rows["sessions"].sum())
    note = f"n = {count(sessions)} sessions, {count(shown)} of them from these {count(len(rows))} addresses."
    handles = [
        Patch(color=BLUE, label="sessions"),
        Patch(facecolor=ORANGE, hatch="//", edgecolor="white", label="users"),
    ]
    return finish(figure, "Sessions by address", f"{caption} {note}".strip(), handles)
