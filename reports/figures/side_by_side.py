"""Runs side by side: clients alive, ghosts and lost connections over time, a column a run, on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw, thinned
from reports.numbers import change, count
from reports.style import BLUE, INK, MUTED, VERMILION, finish, line_key, new_figure, no_data, styled

__all__ = ["MOST_RUNS", "OneRun", "side_by_side"]

MOST_RUNS = 4
_LONGEST_LABEL = 34
_ROOM = 1.24  # above a curve, for its number
_ROOM_FOR_WORDS = 1.45  # two lines stand above what is drawn


class OneRun(NamedTuple):
    """One run of one engine: its label, population.csv and healthy_connections.csv."""

    label: str
    population: pd.DataFrame
    connections: pd.DataFrame


@styled
def side_by_side(runs: Sequence[OneRun], *, caption: str = "") -> Figure:
    """Draw a column for each run, the baseline first, and write beside each curve what changed.

    Args:
        runs: `MOST_RUNS` at most.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no run has a sample.
        ValueError: too many runs.
    """
    if len(runs) > MOST_RUNS:
        raise ValueError(f"{len(runs)} runs; allowed side by side: {MOST_RUNS}")
    if all(run.population.empty for run in runs):
        raise NothingToDraw("No runs side by side: nothing was sampled in any of them.")
    lost = [run.connections[run.connections["outcome"] == "lost"] for run in runs]
    rows = 3 if any(map(len, lost)) else 2
    figure, panels = new_figure(rows, len(runs), sharex=True, sharey="row", height=2.4 + 2.3 * rows)
    ghost_s = [_ghost_seconds(run.population) for run in runs]
    for n, run in enumerate(runs):
        column = panels[n :: len(runs)]
        column[0].set_title(_short(run.label, n))
        if run.population.empty:
            no_data(column[0], "nothing was sampled")
            continue
        seen = thinned(run.population.sort_values("time_s", kind="stable"), 1200)
        column[0].step(seen["time_s"], seen["live_clients"], where="post", color=INK, linestyle=":")
        column[0].step(seen["time_s"], seen["store_sessions"], where="post", color=BLUE, linewidth=1.8)
        column[1].step(seen["time_s"], seen["ghosts"], where="post", color=VERMILION, linewidth=1.8)
        column[1].fill_between(seen["time_s"], seen["ghosts"], step="post", color=VERMILION, alpha=0.12)
        if seen["ghosts"].isna().all():
            _say(column[1], "not seen: nobody watched a store")
        else:
            _say(column[1], f"at most {count(seen['ghosts'].max())} at once")
            _say(column[1], f"{count(ghost_s[n])} ghost-seconds{_change(ghost_s, n)}", line=1)
        if rows == 3:
            ends = (lost[n]["connected_s"] + lost[n]["watched_s"]).sort_values()
            end_s = float(seen["time_s"].max())
            steps = [0.0, *ends, end_s], [0, *range(1, len(ends) + 1), len(ends)]
            column[2].step(*steps, where="post", color=MUTED, linewidth=1.8)
            _say(column[2], f"{count(len(ends))} lost{_change(list(map(len, lost)), n)}")
        column[-1].set_xlabel("scenario seconds from the start")
    labels = ("clients", "ghosts", "healthy clients:\nconnections lost")
    for panel, label in zip(panels[:: len(runs)], labels, strict=False):
        panel.set_ylabel(label)
        most = max(1.0, *(p.dataLim.y1 for p in _row(panels, panel, len(runs))))
        panel.set_ylim(
            0, most * (_ROOM_FOR_WORDS if any(p.texts for p in _row(panels, panel, len(runs))) else _ROOM)
        )
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    keys = [
        line_key(INK, "clients alive", linestyle=":", linewidth=None),
        line_key(BLUE, "shown online by the store"),
        line_key(VERMILION, "ghosts"),
    ]
    return finish(figure, "Side by side, on the same axes", caption, keys)


def _row(panels: list[Axes], first: Axes, columns: int) -> list[Axes]:
    at = panels.index(first)
    return panels[at : at + columns]


def _say(panel: Axes, text: str, line: int = 0) -> None:
    panel.text(
        0.985,
        0.97 - 0.13 * line,
        text,
        transform=panel.transAxes,
        ha="right",
        va="top",
        fontsize=11,
        color="#444444",
    )


def _ghost_seconds(population: pd.DataFrame) -> float:
    seen = population.sort_values("time_s", kind="stable")
    return float((seen["ghosts"].iloc[:-1].to_numpy() * seen["time_s"].diff().iloc[1:].to_numpy()).sum())


def _change(values: Sequence[float], n: int) -> str:
    """How a run's value is above or below the baseline's."""
    return f" ({change(values[0], values[n])})" if n and values[0] else ""


def _short(label: str, n: int) -> str:
    text = label if len(label) <= _LONGEST_LABEL else "…" + label[1 - _LONGEST_LABEL :]
    return f"{text} (baseline)" if n == 0 else text
