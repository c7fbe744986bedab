"""What the log says of generators on other hosts: how well their clocks are known, and which of them died.

From events to what soundness needs. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reference_server.events import Event, EventKind

__all__ = ["Lost", "Workers", "workers_of"]


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that died in mid-run. ``at_s``: real seconds of the run, when its master noticed."""

    worker: str
    clients: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Workers:
    """``clock_error_s``: the most by which any worker's times are off, real seconds; None: all on one clock."""

    clock_error_s: float | None
    lost: tuple[Lost, ...]


def workers_of(events: Iterable[Event]) -> Workers:
    """Gather it from a merged log."""
    bounds: list[float] = []
    lost = []
    for event in events:
        if event.kind is EventKind.CLOCK:
            bounds.append(float(event.detail["bound_s"]))
        elif event.kind is EventKind.WORKER_LOST:
            lost.append(Lost(event.detail["worker"], int(event.detail["clients"]), event.time_s))
    return Workers(max(bounds, default=None), tuple(lost))
