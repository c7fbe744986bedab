"""Connections that healthy clients lost, over the run: how many by whom, and how many clients were offline."""

from __future__ import annotations

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw, engines_in, in_order
from reports.numbers import words
from reports.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    finish,
    line_key,
    new_figure,
    styled,
)

__all__ = ["losses"]

_COLOURS = {
    "gateway": VERMILION,
    "middle": BLUE,
    "client": ORANGE,
    "gateway_failure": PURPLE,
    "take_over": GREEN,
    "drain": SKY,
}
_LAST_S = 1e-3
_DASHES = {"simulated": (0, (4, 1.5)), "real": "-"}


@styled
def losses(connections: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw two panels over time: losses until then by author, and clients that are offline because of one.

    Args:
        connections: healthy_connections.csv.
        caption: the line under the figure.

    Raises:
        NothingToDraw: nobody lost a connection.
    """
    lost = connections[connections["outcome"] == "lost"]
    if lost.empty:
        raise NothingToDraw("No healthy client lost its connection.")
    figure, panels = new_figure(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
    engines = engines_in(connections)
    lines = dict(_DASHES) if len(engines) > 1 else dict.fromkeys(engines, "-")
    end_s = float(connections[["connected_s", "watched_s", "offline_s"]].sum(axis=1).max())
    for engine in engines:
        mine = lost[lost["engine"] == engine].assign(at_s=lambda t: t["connected_s"] + t["watched_s"])
        for author, by in mine.groupby("author"):
            times = sorted(by["at_s"])
            panels[0].step(
                [0.0, *times, end_s],
                [0, *range(1, len(times) + 1), len(times)],
                where="post",
                color=_COLOURS[str(author)],
                linestyle=lines[engine],
            )
        back_s = mine["at_s"] + mine["offline_s"]
        back_s = back_s[back_s < end_s - _LAST_S]  # who is away to the end has not come back at the end
        went = pd.concat([pd.Series(1, mine["at_s"]), pd.Series(-1, back_s)])
        away = went.groupby(level=0).sum().cumsum()
        panels[1].step(
            [0.0, *away.index, end_s],
            [0, *away, away.iloc[-1] if len(away) else 0],
            where="post",
            color=INK,
            linestyle=lines[engine],
        )
    for panel, label in zip(panels, ("connections lost", "clients offline"), strict=True):
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[1].set_xlabel("scenario seconds from the start of the run")
    panels[1].set_xlim(0, end_s)
    keys: list[Artist] = [line_key(_COLOURS[by], f"by {words(by)}") for by in in_order(lost["author"])]
    if len(engines) > 1:
        keys += [line_key(INK, engine, linestyle=lines[engine], linewidth=1.8) for engine in engines]
    return finish(figure, "Healthy clients that lost their connection", caption, keys)
