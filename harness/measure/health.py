"""Healthy clients: how long they were watched, and how often the gateway took one for dead.

From an indexed history to false suspicions, exposure, and the times at which clients were alive.

A suspicion is the gateway's own conclusion. What the other end announced (close frame, FIN, RST) and
what somebody asked for (logout, a newer login, shutdown in order) is none. It is false where the client
was connected and no fault was in effect: before the fault, after the recovery, or without one. An
outage of a healthy client's network is no fault: suspicions during one are false.

What a peer says of a connection whose node had crashed or drained is no mistake: the connection was dead. Of a
node that only stood still, it is one. A false suspicion is laid to the incident of its node, or of the store,
that was going on or had ended within the last minute.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.events.history import History
from harness.events.incident_windows import IncidentWindow, incident_windows, laid_to
from reference_server.durations import DAY_S
from reference_server.events import Cause, Event, EventKind, Source
from reports.run_tables import frame

__all__ = [
    "Health",
    "Mistake",
    "accuracy",
    "false_suspicion_events",
    "false_suspicions",
    "find_health",
    "outages",
    "poisson_interval",
    "round_trips_s",
]

_NODE_DIED = "node_died"  # instead of the cause: it was so
_NO_SUSPICION = frozenset(
    {
        Cause.CLOSE_FRAME,
        Cause.TCP_FIN,
        Cause.TCP_RESET,
        Cause.LOGOUT,
        Cause.TAKE_OVER,
        Cause.DRAIN,
        _NODE_DIED,
    }
)


class Mistake(NamedTuple):
    """A healthy client taken for dead. Scenario seconds."""

    time_s: float
    session_id: str
    client: str
    node: str  # that held the connection
    cause: str
    incident: str = ""  # that it is laid to


@dataclass(slots=True)
class Health:
    """When clients were connected with no fault in effect, and the false suspicions among them."""

    alive_s: list[tuple[float, float]] = field(default_factory=list)  # [from, to) of one client each
    mistakes: list[Mistake] = field(default_factory=list)
    connected_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # per client

    @property
    def client_days(self) -> float:
        """Healthy connected time of all clients, scenario days."""
        return sum(stop - start for start, stop in self.alive_s) / DAY_S


class _Step(NamedTuple):
    """Something that changes a session's state. At equal times the rank decides, not the log's order.

    A fault precedes the suspicion and the suspicion precedes the recovery, as in `detections.py`: the same
    verdict is never both a detection and a false suspicion.
    """

    time_s: float
    rank: int
    connection_id: str
    cause: str
    node: str


_CONNECTED, _INJECTED, _SUSPECTED, _RECOVERED, _DISCONNECTED = range(5)


def find_health(history: History) -> Health:
    """Follow every session through connections, faults and verdicts."""
    steps: dict[str, list[_Step]] = defaultdict(list)
    clients: dict[str, str] = {}
    health = Health()

    happened = incident_windows(history)
    reaped = any(e.cause == Cause.NODE_LEASE for e in history.of(EventKind.SUSPECTED))
    begun = {e.connection_id: e for e in history.of(EventKind.CONNECTED) if e.node} if reaped else {}

    def note(event: Event, rank: int) -> None:
        time_s, cause, node = history.time_s(event), event.cause, event.node
        if cause == Cause.NODE_LEASE and (first := begun.get(event.connection_id)) is not None:
            node = first.node  # its peer says it
            if _had_died(happened, node, history.time_s(first), time_s):
                cause = _NODE_DIED
        steps[event.session_id].append(_Step(time_s, rank, event.connection_id, cause, node))

    for event in history.of(EventKind.LOGGED_IN):
        clients[event.session_id] = str(event.detail.get("client", event.session_id))
    for event in history.of(EventKind.CONNECTED, Source.CLIENT):
        client = clients[event.session_id] = str(
            event.detail.get("client", clients.get(event.session_id, event.session_id))
        )
        health.connected_s[client].append(history.time_s(event))
        note(event, _CONNECTED)
    for event in history.of(EventKind.SUSPECTED):
        note(event, _SUSPECTED)
    for event in history.of(EventKind.DISCONNECTED, Source.CLIENT):
        note(event, _DISCONNECTED)
    for injected in history.injected_faults:
        if injected.injected_s is not None:
            steps[injected.session_id].append(_Step(injected.injected_s, _INJECTED, "", "", ""))
            if injected.recovered_s is not None:
                steps[injected.session_id].append(_Step(injected.recovered_s, _RECOVERED, "", "", ""))
    for session_id in sorted(steps):
        _follow(session_id, clients.get(session_id), sorted(steps[session_id]), health, history.end_s)
    health.mistakes = [
        one._replace(incident=laid_to(happened, one.time_s, one.node)) for one in health.mistakes
    ]
    return health


def _had_died(happened: Iterable[IncidentWindow], node: str, connected_s: float, now_s: float) -> bool:
    return any(
        window.cuts_connections and window.node == node and connected_s <= window.start_s <= now_s
        for window in happened
    )


def _follow(session_id: str, client: str | None, steps: list[_Step], health: Health, end_s: float) -> None:
    connection: str | None = None
    since_s: float | None = None
    dead = False

    def bank(until_s: float) -> None:
        nonlocal since_s
        if since_s is not None and until_s > since_s:
            health.alive_s.append((since_s, until_s))
        since_s = None

    for step in steps:
        match step.rank:
            case 0:  # connected
                connection = step.connection_id
                if not dead and since_s is None:
                    since_s = step.time_s
            case 1:  # a fault takes effect
                bank(step.time_s)
                dead = True
            case 2:  # suspected
                # A session that no client ever logged is taken for healthy: rather a false suspicion
                # too many than one too few. Where the client has left this connection, it is none.
                ours = connection is not None and (
                    not connection or not step.connection_id or connection == step.connection_id
                )
                if not dead and (ours or client is None) and step.cause not in _NO_SUSPICION:
                    health.mistakes.append(
                        Mistake(step.time_s, session_id, client or session_id, step.node, step.cause)
                    )
                if ours:
                    bank(step.time_s)
                    connection = None
            case 3:  # recovered
                dead = False
                since_s = step.time_s if connection is not None else None
            case _ if not step.connection_id or step.connection_id == connection:  # disconnected
                bank(step.time_s)
                connection = None
    bank(end_s)


def poisson_interval(count: int, exposure: float, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate: ``count`` events in ``exposure`` (Garwood 1936, Biometrika 28).

    No event gives (0, 3.69 / exposure) at 95 %; no exposure gives (0, inf): nothing is known.
    """
    if exposure <= 0:
        return 0.0, float("inf")
    tail = (1 - confidence) / 2
    low = float(stats.chi2.ppf(tail, 2 * count)) / 2 if count else 0.0
    return low / exposure, float(stats.chi2.ppf(1 - tail, 2 * count + 2)) / 2 / exposure


def false_suspicions(history: History, health: Health) -> pd.DataFrame:
    """One row: clients that no fault hit, healthy connected time, false suspicions and their rate."""
    hit = {str(s.planned.client) for s in history.injected_faults if s.injected_s is not None}
    count, days = len(health.mistakes), health.client_days
    low, high = poisson_interval(count, days)
    rate = count / days if days > 0 else float("nan")
    row = (history.engine, len(health.connected_s.keys() - hit), days, count, rate, low, high)
    return frame("false_suspicions", [row])


def false_suspicion_events(history: History, health: Health) -> pd.DataFrame:
    """One row per false suspicion. It lasts until the client connects again, or else until the run's end."""
    away = outages(history)
    rows = []
    for one in sorted(health.mistakes):
        again = min((t for t in health.connected_s.get(one.client, []) if t > one.time_s), default=None)
        stop_s = history.end_s if again is None else again
        in_outage = any(start <= one.time_s < stop for start, stop in away.get(one.client, []))
        rows.append(
            (
                history.engine,
                one.session_id,
                one.client,
                one.node,
                one.cause,
                one.time_s,
                in_outage,
                again is not None,
                stop_s - one.time_s,
                one.incident,
            )
        )
    return frame("false_suspicion_events", rows)


def outages(history: History) -> dict[str, list[tuple[float, float]]]:
    """When each client's network was away: (begin, end) in scenario seconds; the end is infinite while it lasts."""
    ends: dict[str, list[float]] = defaultdict(list)
    for event in history.of(EventKind.OUTAGE_ENDED):
        ends[str(event.detail.get("client", ""))].append(history.time_s(event))
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in history.of(EventKind.OUTAGE_STARTED):
        client, start = str(event.detail.get("client", "")), history.time_s(event)
        stop = min((t for t in ends[client] if t >= start), default=float("inf"))
        spans[client].append((start, stop))
    return spans


def round_trips_s(events: Iterable[Event]) -> NDArray[np.float64]:
    """Twice the way of each traced ping, from its sending (gateway) to its arrival (client).

    Args:
        events: of one engine, in any order.

    Returns:
        Seconds of the log's own clock, shape (n,): round trips are not sped up.
    """
    sent: dict[str, float] = {}
    trips = []
    for event in sorted(events, key=lambda e: e.time_s):
        if event.kind is EventKind.HEARTBEAT_SENT:
            sent[event.session_id] = event.time_s
        # An answer belongs to the last ping before it, and to no other.
        elif event.kind is EventKind.HEARTBEAT_ANSWERED and event.session_id in sent:
            trips.append(2 * (event.time_s - sent.pop(event.session_id)))
    found = np.array(trips, dtype=float)
    return found[found > 0]


def accuracy(engine: str, mistakes: pd.DataFrame, client_days: float) -> pd.DataFrame:
    """Chen's accuracy figures: T_MR, T_M (mean seconds) and P_A, one row.

    Healthy time is when the detector trusts; mistakes add to it the time in which it does not. So
    ``T_MR = (trusted + mistaken) / count``, ``T_M = mistaken / count``, ``P_A = 1 − T_M/T_MR``. A
    mistake that outlasts the run counts as far as it was watched: T_M is then a lower bound. Without
    any mistake T_MR and T_M are not known, and P_A is 1 as far as the run can tell.

    Source: Chen, Toueg, Aguilera, IEEE Transactions on Computers 51(5), 2002.
    """
    count, mistaken_s = len(mistakes), float(mistakes["duration_s"].sum())
    total_s = client_days * DAY_S + mistaken_s
    if not count or total_s <= 0:
        nan = float("nan")
        return frame("accuracy", [(engine, count, nan, nan, 1.0 if total_s > 0 else nan)])
    return frame("accuracy", [(engine, count, total_s / count, mistaken_s / count, 1 - mistaken_s / total_s)])
