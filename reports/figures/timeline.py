"""One client's timeline: heartbeats and answers, the fault, the verdict, the store, its peers."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw
from reports.numbers import caption_seconds, cause_name
from reports.style import (
    BLUE,
    ENGINE_COLOURS,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    VERMILION,
    dot_key,
    dots,
    finish,
    new_figure,
    styled,
    tag,
)

__all__ = ["timeline"]

# lane: its colour, and kinds with their markers; a lane without events is left out, unless it is one of the story's own
_LANES: Final = {
    "heartbeat sent": (BLUE, {"heartbeat_sent": "|"}),
    "heartbeat answered": (GREEN, {"heartbeat_answered": "|"}),
    "heartbeat missed": (ORANGE, {"heartbeat_missed": "x"}),
    "fault": (INK, {"fault_injected": "X", "fault_healed": "o", "fault_recovered": "^"}),
    "client": (GREEN, {"connected": "^", "disconnected": "v", "session_unknown": "s"}),
    "suspected": (VERMILION, {"suspected": "D"}),
    "socket closed": (VERMILION, {"socket_closed": "s"}),
    "store cleared": (PURPLE, {"store_cleared": "s"}),
    "peers told": (BLUE, {"peer_notified": "s", "peer_online": "^"}),
    "login": (ORANGE, {"login_refused": "x", "logged_in": "^"}),
}
_OPTIONAL: Final = {"client", "login"}
_LANE_OF: Final = {kind: lane for lane, (_, kinds) in _LANES.items() for kind in kinds}
_NAMED: Final = {
    "suspected",
    "socket_closed",
    "store_cleared",
    "peer_notified",
    "fault_healed",
    "fault_recovered",
    "logged_in",
    "session_unknown",
}
_TEXTS: Final = {
    "heartbeat_missed": "{note}",
    "suspected": "{at}, {cause}",
    "fault_healed": "healed, {at}",
    "fault_recovered": "alive again, {at}",
    "logged_in": "accepted, {at}",
    "session_unknown": "session unknown, {at}",
}
_STORY: Final = {*_NAMED, "heartbeat_missed", "fault_injected"} - {"session_unknown"}
_BEFORE: Final = 0.28  # of the story's length is shown of the time before the fault


@styled
def timeline(timelines: pd.DataFrame, fault: str, *, caption: str = "") -> Figure:
    """Draw lanes over time from the fault, for the traced client of one fault; a panel for each engine.

    Args:
        timelines: timelines.csv.
        fault: its label.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no client with this fault was traced.
    """
    mine = timelines[(timelines["fault"] == fault) & timelines["kind"].isin(list(_LANE_OF))]
    if mine.empty:
        raise NothingToDraw(f"No timeline of {fault}: no traced client had this fault.")
    left, right = _window(mine)
    mine = mine[mine["time_s"].between(left, right)]
    engines = [engine for engine in ("real", "simulated") if (mine["engine"] == engine).any()]
    used = set(mine["kind"].map(_LANE_OF))
    lanes = [lane for lane in _LANES if lane not in _OPTIONAL or lane in used]
    height = 7.2 if len(engines) > 1 else 4.8
    figure, panels = new_figure(len(engines), 1, sharex=True, height=height)
    for panel, engine in zip(panels, engines, strict=True):
        _panel(panel, mine[mine["engine"] == engine], lanes, left, right)
        panel.set_title(f"{engine}{_phase(mine[mine['engine'] == engine])}", color=ENGINE_COLOURS[engine])
    panels[-1].set_xlabel("scenario seconds from the fault")
    return finish(figure, f"One client's timeline: {fault}", caption, _legend(mine))


def _window(events: pd.DataFrame) -> tuple[float, float]:
    """From the last heartbeat before the fault to the end of the story: what comes after it is another one."""
    after = events[(events["time_s"] >= 0) & events["kind"].isin(_STORY)]
    firsts = after.groupby(["engine", "kind"])["time_s"].min()
    ends = [float(firsts.max())] if len(firsts) else []
    if not (after["kind"] == "suspected").any():  # the story ends with the last heartbeat that was missed
        ends += after.loc[after["kind"] == "heartbeat_missed", "time_s"].tolist()
    sent = events.loc[(events["kind"] == "heartbeat_sent") & (events["time_s"] < 0)]
    beat = float(-sent.groupby("engine")["time_s"].max().min()) if len(sent) else 0.0
    length = max([0.5, 1.25 * beat, *ends])
    return -max(_BEFORE * length, 1.15 * beat), 1.3 * length


def _phase(events: pd.DataFrame) -> str:
    """How long before the fault the last ping was sent."""
    sent = events.loc[(events["kind"] == "heartbeat_sent") & (events["time_s"] < 0), "time_s"]
    return f": last ping {caption_seconds(-float(sent.max()))} before the fault" if len(sent) else ""


def _panel(panel: Axes, events: pd.DataFrame, lanes: list[str], left: float, right: float) -> None:
    panel.axvspan(0, right, color="#F3F3F3", zorder=0)
    panel.axvline(0, color=INK, linewidth=1.2, zorder=1)
    for row, lane in enumerate(lanes):
        colour, kinds = _LANES[lane]
        for kind, marker in kinds.items():
            these = events[events["kind"] == kind].sort_values("time_s", kind="stable")
            if these.empty:
                continue
            rows, size = np.full(len(these), row), 13 if marker == "|" else 8
            edge = 2.4 if marker in "|x" else 0
            dots(
                panel,
                these["time_s"],
                rows,
                colour,
                marker,
                markersize=size,
                markeredgewidth=edge,
                clip_on=False,
            )
            labelled = (
                these.head(1) if kind in _NAMED else these if kind == "heartbeat_missed" else these.head(0)
            )
            for _, event in labelled.iterrows():
                at_s = float(event["time_s"])
                said = {
                    "at": caption_seconds(at_s),
                    "cause": f"{'by ' if event['cause'] else ''}{cause_name(str(event['cause']))}",
                    "note": event["note"],
                }
                text = _TEXTS.get(kind, "{at}").format_map(said)
                tag(panel, text, (at_s, row), "#333333", zorder=4)
    panel.set_xlim(left, right)
    panel.set_ylim(len(lanes) - 0.5, -0.5)
    panel.set_yticks(range(len(lanes)), lanes)
    panel.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 3, 5, 10]))
    panel.tick_params(axis="y", length=0)


def _legend(events: pd.DataFrame) -> list[Line2D]:
    """Only markers whose lane does not say what they are."""
    names = {
        "connected": "connected",
        "disconnected": "disconnected",
        "peer_online": "told “online”",
        "login_refused": "login refused",
        "logged_in": "login accepted",
    }
    shown = [(*_LANES[_LANE_OF[kind]], kind) for kind in names if (events["kind"] == kind).any()]
    return [
        dot_key(colour, names[kind], kinds[kind], markeredgewidth=2.2 if kinds[kind] == "x" else 0)
        for colour, kinds, kind in shown
    ]
