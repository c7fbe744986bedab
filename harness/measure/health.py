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
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.events.columns import Codes, Flags, Floats, Texts, texts
from harness.events.history import History, ranks
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


@dataclass(frozen=True, slots=True)
class Health:
    """When clients were connected with no fault in effect, and the false suspicions among them."""

    alive_s: Floats  # (n, 2): [from, to) of one client each
    mistakes: list[Mistake]
    clients: Texts  # of each connection that began: whose it is
    connected_s: Floats  # and when it began

    @property
    def client_days(self) -> float:
        """Healthy connected time of all clients, scenario days."""
        lengths_s: list[float] = (self.alive_s[:, 1] - self.alive_s[:, 0]).tolist()
        return sum(lengths_s) / DAY_S


# Something that changes a session's state. At equal times this order decides, not the log's:
# a fault precedes the suspicion and the suspicion precedes the recovery, as in `detections.py`: the same
# verdict is never both a detection and a false suspicion.
_CONNECTED, _INJECTED, _SUSPECTED, _RECOVERED, _DISCONNECTED = range(5)


class _Steps(NamedTuple):
    """Arrays of shape (n,): a session's steps are together and in order."""

    session: Codes
    time_s: Floats
    rank: Codes
    connection: Codes
    cause: Texts
    node: Texts

    def at(self, places: Codes | Flags) -> _Steps:
        return _Steps._make(array[places] for array in self)


def find_health(history: History) -> Health:
    """Follow every session through connections, faults and verdicts."""
    happened = incident_windows(history)
    logged, came = history.columns(EventKind.LOGGED_IN), history.columns(EventKind.CONNECTED, Source.CLIENT)
    steps = _steps(history, happened)
    clients = np.arange(
        len(history.names())
    )  # by the session's code: whose it is, for all that is known itself
    clients[logged.session] = logged.client
    whose = np.where(came.client != came.session, came.client, clients[came.session])
    clients[came.session] = whose
    names = history.names()
    known = np.zeros(len(names), dtype=bool)
    known[logged.session] = known[came.session] = True
    alive_s, wrong = _follow(steps, known, history.end_s)
    mistakes = []
    for n in wrong.tolist():
        session, time_s, node = steps.session[n], float(steps.time_s[n]), steps.node[n]
        incident = laid_to(happened, time_s, node)
        mistakes.append(
            Mistake(time_s, names[session], names[clients[session]], node, steps.cause[n], incident)
        )
    return Health(alive_s, mistakes, names[whose], came.time_s)


def _steps(history: History, happened: Iterable[IncidentWindow]) -> _Steps:
    """Gather what changes a session's state: the sessions in the order of their names."""
    parts = []
    for kind, witness, rank in (
        (EventKind.CONNECTED, Source.CLIENT, _CONNECTED),
        (EventKind.SUSPECTED, None, _SUSPECTED),
        (EventKind.DISCONNECTED, Source.CLIENT, _DISCONNECTED),
    ):
        seen = history.columns(kind, witness)
        parts.append(
            _Steps(
                seen.session,
                seen.time_s,
                np.full(len(seen), rank),
                seen.connection,
                seen.cause.copy(),  # may be corrected
                seen.node.copy(),
            )
        )
    _lay_to_dead_nodes(history, happened, parts[1])
    of = history.fault_columns
    for time_s, rank in ((of.injected_s, _INJECTED), (of.recovered_s, _RECOVERED)):
        n = len(time_s)
        none, empty = np.zeros(n, dtype=np.int64), texts([""] * n)
        took_effect = np.isfinite(time_s) & np.isfinite(of.injected_s)
        parts.append(_Steps(of.session, time_s, np.full(n, rank), none, empty, empty).at(took_effect))
    steps = _Steps._make(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    names = history.names().tolist()
    by_name = np.zeros(len(names), dtype=np.int64)
    there = np.flatnonzero(np.bincount(steps.session)).tolist()
    by_name[sorted(there, key=names.__getitem__)] = np.arange(len(there))
    steps = steps.at(np.lexsort((steps.rank, steps.time_s, by_name[steps.session])))
    same = np.ones(max(0, len(steps.rank) - 1), dtype=bool)
    for array in (steps.session, steps.time_s, steps.rank):
        same &= array[1:] == array[:-1]
    if same.any():  # then the texts decide
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        told = [(names[steps.connection[n]], steps.cause[n], steps.node[n]) for n in tied.tolist()]
        by_text = np.zeros(len(steps.rank), dtype=np.int64)
        by_text[tied] = ranks(told)
        steps = steps.at(np.lexsort((by_text, steps.rank, steps.time_s, by_name[steps.session])))
    return steps


def _lay_to_dead_nodes(history: History, happened: Iterable[IncidentWindow], suspected: _Steps) -> None:
    """Of verdicts that a peer gave because of a lease: which node held the connection, and whether it had died."""
    reaped = np.flatnonzero(suspected.cause == Cause.NODE_LEASE)
    if not len(reaped):
        return
    events = history.of(EventKind.SUSPECTED)
    begun = {e.connection_id: e for e in history.of(EventKind.CONNECTED) if e.node}
    for n in reaped.tolist():
        first = begun.get(events[n].connection_id)
        if first is not None:
            suspected.node[n] = first.node
            if _had_died(happened, first.node, history.time_s(first), float(suspected.time_s[n])):
                suspected.cause[n] = _NODE_DIED


def _had_died(happened: Iterable[IncidentWindow], node: str, connected_s: float, now_s: float) -> bool:
    return any(
        window.cuts_connections and window.node == node and connected_s <= window.start_s <= now_s
        for window in happened
    )


def _follow(steps: _Steps, known: Flags, end_s: float) -> tuple[Floats, Codes]:
    """Follow all sessions at once: the first step of each, the second of each, and so on.

    Args:
        steps: of the sessions.
        known: of each session's code, whether a client ever logged it.
        end_s: the run's end.

    Returns:
        When a client was alive, [from, to), ordered by session and time, shape (n, 2); and which steps are suspicions
        of a healthy client.
    """
    begin = np.flatnonzero(np.diff(steps.session, prepend=-1) != 0)
    count = np.diff(begin, append=len(steps.session))
    by_count = np.argsort(-count, kind="stable")  # so those that go on come first
    begin, count = begin[by_count], count[by_count]
    connection = np.full(len(begin), -1)  # -1: none
    since_s = np.full(len(begin), np.nan)  # NaN: not alive
    dead = np.zeros(len(begin), dtype=bool)
    verdicts = np.flatnonzero(steps.rank == _SUSPECTED)
    doubts = np.zeros(len(steps.rank), dtype=bool)
    doubts[verdicts] = [cause not in _NO_SUSPICION for cause in steps.cause[verdicts].tolist()]
    of_client = known[steps.session]
    spans: list[tuple[Codes, Floats, Floats]] = []
    mistakes: list[Codes] = []

    def bank(which: Flags, places: Codes, until_s: Floats) -> None:
        """Those end their time alive, if they were."""
        now = since_s[: len(which)]
        full = which & (until_s > now)
        spans.append((places[full], now[full], until_s[full]))
        now[which] = np.nan

    for k in range(int(count.max(initial=0))):
        going = int(np.searchsorted(-count, -k, side="left"))
        at = begin[:going] + k
        rank, time_s, its = steps.rank[at], steps.time_s[at], steps.connection[at]
        mine, doomed, alive_since_s = connection[:going], dead[:going], since_s[:going]
        match = (mine == 0) | (its == 0) | (mine == its)

        came = rank == _CONNECTED
        mine[came] = its[came]
        begins = came & ~doomed & np.isnan(alive_since_s)
        alive_since_s[begins] = time_s[begins]

        injected = rank == _INJECTED
        bank(injected, at, time_s)
        doomed[injected] = True

        # A session that no client ever logged is taken for healthy: rather a false suspicion
        # too many than one too few. Where the client has left this connection, it is none.
        suspected = rank == _SUSPECTED
        ours = suspected & (mine != -1) & match
        mistakes.append(at[suspected & ~doomed & (ours | ~of_client[at]) & doubts[at]])

        back = rank == _RECOVERED
        doomed[back] = False
        alive_since_s[back] = np.where(mine[back] != -1, time_s[back], np.nan)

        left = (rank == _DISCONNECTED) & ((its == 0) | (its == mine))
        over = ours | left
        bank(over, at, time_s)
        mine[over] = -1
    # The last step of a session has banked nothing where something is left to bank: its place is free.
    bank(np.ones(len(begin), dtype=bool), begin + count - 1, np.full(len(begin), end_s))
    place, start_s, stop_s = map(np.concatenate, zip(*spans, strict=True))
    order = np.argsort(place, kind="stable")
    wrong = np.sort(np.concatenate(mistakes)) if mistakes else np.zeros(0, dtype=np.int64)
    return np.column_stack((start_s, stop_s))[order], wrong


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
    row = (history.engine, len(set(health.clients) - hit), days, count, rate, low, high)
    return frame("false_suspicions", [row])


def false_suspicion_events(history: History, health: Health) -> pd.DataFrame:
    """One row per false suspicion. It lasts until the client connects again, or else until the run's end."""
    away = outages(history)
    rows = []
    wronged = {one.client for one in health.mistakes}
    connected_s: dict[str, list[float]] = defaultdict(list)
    for client, time_s in zip(health.clients, health.connected_s.tolist(), strict=True):
        if client in wronged:
            connected_s[client].append(time_s)
    for one in sorted(health.mistakes):
        again = min((t for t in connected_s[one.client] if t > one.time_s), default=None)
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
