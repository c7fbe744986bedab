"""What each incident of nodes and store did: whom it hit, when they were back, when the store showed nothing of it.

From an indexed history to incidents.csv. All times are scenario seconds after the incident took effect;
empty: it did not come to pass before the run's end, or there is nothing that could.
Judges nothing: `bound_s` and `in_time` are left to `harness/judge/incidents.py`.

* **hit**: clients that were connected to the node (for one of the store: to any), and alive, by their own word.
* **lost**: those of them whose connection ended. A crash or a drain ends all; for the others it is who logged
  an end before the next incident. **back** is their next connection, to whichever session; one whose client
  met a fault of its own before is not counted.
* **detected**: a peer found the lease ended and said so of a first session; there is nothing to say where every
  client was back before that.
* **ghosts gone**, **store agrees**: what the store watch saw (`store_convergence.py`); **grain** is how wide the
  moment of the latter is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.events.history import History
from harness.events.incident_windows import IncidentWindow, incident_windows
from reference_server.events import Cause, Event, EventKind, Source
from reports.run_tables import frame

__all__ = ["incidents"]

_NAN = float("nan")


class _Held(NamedTuple):
    """One connection of a client, by its own word."""

    start_s: float
    end_s: float
    node: str
    session_id: str
    connection_id: str
    lost: bool  # it ended otherwise than by the client's own fault, or by the run's end


def incidents(history: History, mistakes: pd.DataFrame) -> pd.DataFrame:
    """One row per incident that took effect; see the module for what the columns mean.

    Args:
        history: of one engine.
        mistakes: false_suspicion_events.csv of the same engine, with the incident that each is laid to.
    """
    windows = incident_windows(history)
    if not windows:
        return frame("incidents", [])
    held = _held(history)
    affected = _affected(history)
    gone = _first(history, EventKind.GHOSTS_GONE)
    agrees = _first(history, EventKind.STORE_AGREES)
    laid = mistakes["incident"].value_counts()
    reaped = [e for e in history.of(EventKind.SUSPECTED) if e.cause == Cause.NODE_LEASE]
    rows = []
    for n, window in enumerate(windows):
        until_s = windows[n + 1].start_s if n + 1 < len(windows) else history.end_s
        hit = {
            client: mine[place]
            for client, mine in held.items()
            if (place := _at(mine, window.start_s)) is not None
            and (not window.node or mine[place].node == window.node)
        }
        lost, back_s = _back(window, hit, held, affected, until_s)
        rows.append(
            (
                history.engine,
                window.incident_id,
                window.kind,
                window.node,
                window.cuts_connections,
                window.start_s,
                min(window.end_s, history.end_s) - window.start_s if window.end_s <= history.end_s else _NAN,
                history.end_s - window.start_s,
                len(hit),
                lost,
                len(back_s),
                lost - len(back_s),
                *_figures(back_s),
                _detected_s(window, reaped, history),
                _after(gone, window),
                _after(agrees, window),
                _grain_s(window, history),
                int(laid.get(window.incident_id, 0)),
                _NAN,
                "",
            )
        )
    return frame("incidents", rows)


def _held(history: History) -> dict[str, list[_Held]]:
    """Every client's connections, in order of time."""
    ended: dict[tuple[str, str], float] = {}
    for event in history.of(EventKind.DISCONNECTED, Source.CLIENT):
        ended.setdefault((event.session_id, event.connection_id), history.time_s(event))
    struck = {
        (s.session_id, s.connection_id): s.injected_s
        for s in history.injected_faults
        if s.injected_s is not None
    }
    starts: dict[str, list[tuple[float, Event]]] = defaultdict(list)
    for event in history.of(EventKind.CONNECTED, Source.CLIENT):
        client = str(event.detail.get("client", event.session_id))
        starts[client].append((history.time_s(event), event))
    held: dict[str, list[_Held]] = {}
    for client, found in starts.items():
        found.sort(key=lambda pair: pair[0])
        spans = []
        for n, (start_s, event) in enumerate(found):
            key = (event.session_id, event.connection_id)
            next_s = found[n + 1][0] if n + 1 < len(found) else float("inf")
            ends_s, fault_s = ended.get(key, float("inf")), struck.get(key, float("inf"))
            end_s = min(ends_s, fault_s, next_s)
            lost = ends_s <= min(fault_s, next_s) and ends_s < float("inf")
            spans.append(_Held(start_s, end_s, event.node, *key, lost))
        held[client] = spans
    return held


def _affected(history: History) -> dict[str, float]:
    """When each client's own fault took effect."""
    return {str(s.planned.client): s.injected_s for s in history.injected_faults if s.injected_s is not None}


def _at(spans: list[_Held], time_s: float) -> int | None:
    """The place of the connection that holds a moment; None: none does."""
    place = bisect_right([span.start_s for span in spans], time_s) - 1
    return place if place >= 0 and time_s < spans[place].end_s else None


def _back(
    window: IncidentWindow,
    hit: dict[str, _Held],
    held: dict[str, list[_Held]],
    affected: dict[str, float],
    until_s: float,
) -> tuple[int, list[float]]:
    """How many lost their connection, and how long each was away, of those who came back."""
    lost, away = 0, []
    for client, span in hit.items():
        if not window.cuts_connections and not (span.lost and span.end_s < until_s):
            continue
        next_s = min((s.start_s for s in held[client] if s.start_s > window.start_s), default=None)
        fault_s = affected.get(client, float("inf"))
        if window.start_s <= fault_s <= (float("inf") if next_s is None else next_s):
            continue
        lost += 1
        if next_s is not None:
            away.append(next_s - window.start_s)
    return lost, away


def _figures(away_s: list[float]) -> tuple[float, float, float]:
    if not away_s:
        return _NAN, _NAN, _NAN
    times = np.array(away_s)
    p50, p99 = np.quantile(times, (0.5, 0.99), method="inverted_cdf")
    return float(p50), float(p99), float(times.max())


def _detected_s(window: IncidentWindow, reaped: list[Event], history: History) -> float:
    """The first session that a peer ended because of the lease, of a connection made before the incident."""
    if not window.node:
        return _NAN
    made = {
        e.connection_id
        for e in history.of(EventKind.CONNECTED)
        if e.node == window.node and history.time_s(e) <= window.start_s
    }
    times = [history.time_s(e) for e in reaped if e.connection_id in made]
    later = [time_s - window.start_s for time_s in times if time_s >= window.start_s]
    return min(later, default=_NAN)


def _grain_s(window: IncidentWindow, history: History) -> float:
    """How wide the moment is at which the store agreed: since the look before."""
    for event in history.of(EventKind.STORE_AGREES):
        before_s = event.detail["previous_poll_s"]
        if event.detail["incident_id"] == window.incident_id and before_s is not None:
            return history.time_s(event) - history.clock.scenario_s(float(before_s))
    return 0.0


def _first(history: History, kind: EventKind) -> dict[str, float]:
    return {e.detail["incident_id"]: history.time_s(e) for e in reversed(history.of(kind))}


def _after(seen: dict[str, float], window: IncidentWindow) -> float:
    return seen[window.incident_id] - window.start_s if window.incident_id in seen else _NAN
