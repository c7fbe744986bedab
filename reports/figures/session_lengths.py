"""How long sessions last: the share that is longer than a time, by device."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from reports.figures.data import NothingToDraw, in_order, thinned
from reports.numbers import count, seconds
from reports.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    finish,
    new_figure,
    styled,
)

__all__ = ["session_lengths"]

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
_DASHES = ((0, ()), (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


@styled
def session_lengths(curves: pd.DataFrame, lengths: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw one curve a device.

    Args:
        curves: device, length_s, longer.
        lengths: device (``all`` among them), sessions, open, p50_s: for the legend.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no sessions.
    """
    if curves.empty:
        raise NothingToDraw("No chart of session lengths: the ledger has no sessions.")
    figure, (axes,) = new_figure(height=6.0)
    counted: dict[str, Any] = {str(r["device"]): r for r in lengths.to_dict("records")}
    handles = []
    shortest = (
        float(curves.loc[curves["length_s"] > 0, "length_s"].min())
        if curves["length_s"].any()
        else 1.0
    )
    for n, device in enumerate(in_order(curves["device"])):
        mine = thinned(curves[curves["device"] == device])
        colour = BLACK if device == "all" else _COLOURS[(n - 1) % len(_COLOURS)]
        dash = _DASHES[n % len(_DASHES)]
        x = mine["length_s"].clip(lower=shortest)  # a logarithmic axis has no zero
        axes.step(x, mine["longer"], where="post", color=colour, linestyle=dash, linewidth=2)
        row = counted[device]
        label = (
            f"{device or 'unknown'}: n = {count(row['sessions'])}, median {seconds(row['p50_s'])} s"
        )
        handles.append(Line2D([], [], color=colour, linestyle=dash, linewidth=2, label=label))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("length of the session, s")
    axes.set_ylabel("sessions that are longer")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1.02)
    everyone = counted["all"]
    note = f"n = {count(everyone['sessions'])} sessions, {count(everyone['open'])} of them open and censored."
    axes.legend(handles=handles, loc="upper right", frameon=False)
    return finish(figure, "How long sessions last", f"{caption} {note}".strip())
