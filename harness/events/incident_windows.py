"""The windows in which incidents of nodes and of the store acted: from an indexed history, in scenario seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.events.history import History
from reference_server.events import EventKind
from scenarios.faults import incident_of

__all__ = ["IncidentWindow", "incident_windows", "laid_to"]

_AFTERMATH_S = 60.0


class IncidentWindow(NamedTuple):
    """From when an incident took effect to when its cause was gone (inf: it never was)."""

    incident_id: str
    kind: str
    node: str
    start_s: float
    end_s: float

    @property
    def cuts_connections(self) -> bool:
        """Whether every connection of the node ended with it."""
        return incident_of(self.kind).cuts_connections

    @property
    def kills_node(self) -> bool:
        """Whether the node ended without a word: only its lease tells of it."""
        return incident_of(self.kind).settled_by == "lease"


def incident_windows(history: History) -> tuple[IncidentWindow, ...]:
    """Every incident that took effect, in the order of time."""
    ended_s = {e.detail["incident_id"]: history.time_s(e) for e in history.of(EventKind.INCIDENT_ENDED)}
    windows = [
        IncidentWindow(
            event.detail["incident_id"],
            event.detail["kind"],
            event.node,
            history.time_s(event),
            ended_s.get(event.detail["incident_id"], float("inf")),
        )
        for event in history.of(EventKind.INCIDENT_STARTED)
    ]
    return tuple(sorted(windows, key=lambda window: (window.start_s, window.incident_id)))


def laid_to(windows: Iterable[IncidentWindow], time_s: float, node: str) -> str:
    """The last incident of a node, or of the store, that was going on or had ended within a minute; empty: none."""
    found = ""
    for window in windows:
        near = window.start_s <= time_s <= window.end_s + _AFTERMATH_S
        if near and window.node in ("", node):
            found = window.incident_id
    return found
