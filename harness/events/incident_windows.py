"""When which incident of nodes or store was going on: from an indexed history to spells, in scenario seconds."""

from __future__ import annotations

from typing import NamedTuple

from harness.events.history import History
from reference_server.events import EventKind

__all__ = ["Spell", "spells"]

_CUTS_CONNECTIONS = ("node_crash", "node_drain")


class Spell(NamedTuple):
    """An incident as it went: from when it took effect to when its cause was gone (inf: it never was)."""

    incident_id: str
    kind: str
    node: str
    start_s: float
    end_s: float

    @property
    def cuts_connections(self) -> bool:
        """Whether every connection of the node ended with it."""
        return self.kind in _CUTS_CONNECTIONS


def spells(history: History) -> tuple[Spell, ...]:
    """Every incident that took effect, in the order of time."""
    over = {
        e.detail["incident_id"]: history.time_s(e) for e in history.of(EventKind.INCIDENT_ENDED)
    }
    found = [
        Spell(
            event.detail["incident_id"], event.detail["kind"], event.node, history.time_s(event),
            over.get(event.detail["incident_id"], float("inf")),
        )
        for event in history.of(EventKind.INCIDENT_STARTED)
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: (one.start_s, one.incident_id)))
