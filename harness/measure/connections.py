"""Connections of healthy clients: how long each was held, who ended it, and how long its client was offline.

From an indexed history to healthy_connections.csv and losses.csv. A **loss** is an end that the client did not want:

* ``gateway``: the gateway's own verdict, whatever its layer (a false suspicion, the idle limit, a full gateway);
* ``take_over``, ``drain``: it sent the client away for a newer connection, or because it shuts down in order;
* ``client``: the client's own idle limit;
* ``gateway_failure``: its node died; the cause is the kind of incident;
* ``middle``: everything else: neither end decided it. A box closed the connection, or reset it.

Who said it first decides: a gateway that finds a socket closed which its client had lost before has decided nothing.

A client is healthy until a fault hits it, one that only hampers it aside. A row is a part of a connection: where a
fault begins the row has ``ended``, and what follows (the hampered client, the recovered one, its next connections) has
the fault's label in ``hampered_by``. So a row without one begins with its connection, whatever became of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.events.history import History, InjectedFault
from harness.events.incident_windows import IncidentWindow, incident_windows, laid_to
from harness.measure.health import outages, poisson_interval
from harness.theory.law import Law
from reference_server.durations import DAY_S
from reference_server.events import Cause, Event, EventKind, Source
from reports.run_tables import frame

__all__ = ["AUTHORS", "HealthyConnection", "expected_losses", "healthy_connections", "losses", "table_of"]

AUTHORS = ("gateway", "middle", "client", "gateway_failure", "take_over", "drain")
_INF = float("inf")
_SENT_AWAY = {Cause.TAKE_OVER: "take_over", Cause.DRAIN: "drain"}
# What the gateway decides by itself; every other cause of its is how it learnt of an end.
_DECISIONS = frozenset(
    {
        Cause.HEARTBEAT,
        Cause.SESSION_TIMEOUT,
        Cause.MEMORY_PRESSURE,
        Cause.PROTOCOL_ERROR,
        Cause.TTL,
        *_SENT_AWAY,
    }
)
_LEARNT = frozenset({Cause.CLOSE_FRAME, Cause.TCP_FIN, Cause.TCP_RESET})
_CLOCKS_S = 1.0  # real seconds by which a client on another host may seem to have known first


class HealthyConnection(NamedTuple):
    """One row of healthy_connections.csv, and where its time lies. Scenario seconds."""

    session_id: str
    client: str
    node: str
    connected_s: float
    until_s: float
    outcome: str  # lost, ended, censored
    author: str = ""
    cause: str = ""
    incident: str = ""
    hampered_by: str = ""
    in_outage: bool = False
    session_lost: bool = False
    offline_s: float = 0.0


class _End(NamedTuple):
    """How a connection ended, as far as it did."""

    time_s: float
    author: str  # empty: somebody asked for it
    cause: str


def healthy_connections(history: History) -> list[HealthyConnection]:
    """Follow the connections of every client, the clients in the order of their first ones."""
    windows = incident_windows(history)
    ended = _ends(history, windows)
    away = outages(history)
    hit = {str(f.planned.client): f for f in history.injected_faults if f.injected_s is not None}
    unknown = history.by_session(EventKind.SESSION_UNKNOWN)
    begun = {
        (event.session_id, event.connection_id): event
        for event in history.of(EventKind.CONNECTED, Source.CLIENT)
    }
    starts: dict[str, list[tuple[float, Event]]] = defaultdict(list)
    for event in begun.values():
        client = str(event.detail.get("client", event.session_id))
        starts[client].append((history.time_s(event), event))
    rows: list[HealthyConnection] = []
    for client, mine in starts.items():
        mine.sort(key=lambda pair: pair[0])
        for n, (start_s, event) in enumerate(mine):
            next_s, later = mine[n + 1] if n + 1 < len(mine) else (_INF, None)
            end = ended(event, start_s, next_s)
            for row in _healthy_parts(client, event, start_s, end, hit.get(client), history.end_s):
                if row.outcome != "lost":
                    rows.append(row)
                    continue
                back_s = min(next_s, history.end_s)
                told_unknown = any(history.time_s(e) >= row.until_s for e in unknown.get(row.session_id, ()))
                rows.append(
                    row._replace(
                        incident=laid_to(windows, row.until_s, row.node),
                        in_outage=any(_bears_on(spell, row.until_s) for spell in away.get(client, ())),
                        session_lost=told_unknown or bool(later and later.session_id != row.session_id),
                        offline_s=max(0.0, back_s - row.until_s),
                    )
                )
    return rows


def _healthy_parts(
    client: str, event: Event, start_s: float, end: _End | None, fault: InjectedFault | None, run_end_s: float
) -> Iterator[HealthyConnection]:
    until_s = end.time_s if end else run_end_s
    outcome = "censored" if end is None else "lost" if end.author else "ended"
    author, cause = (end.author, end.cause) if end else ("", "")
    whole = HealthyConnection(event.session_id, client, event.node, start_s, until_s, outcome, author, cause)
    if fault is None or fault.injected_s is None or fault.injected_s >= until_s:
        yield whole
        return
    label, hit_s, back_s = fault.planned.fault, fault.injected_s, fault.recovered_s
    if hit_s < start_s:
        yield whole._replace(hampered_by=label)
        return
    if hit_s > start_s:
        yield whole._replace(until_s=hit_s, outcome="ended", author="", cause=label)
    again_s = hit_s if fault.planned.params.only_hampers else back_s
    if again_s is not None and again_s < until_s:
        yield whole._replace(connected_s=again_s, hampered_by=label)


def _bears_on(spell: tuple[float, float], time_s: float) -> bool:
    """Whether an outage may have made a loss: TCP's tries wait for up to as long again as it lasted."""
    start_s, stop_s = spell
    return start_s <= time_s <= stop_s + (stop_s - start_s)


def _ends(
    history: History, windows: Sequence[IncidentWindow]
) -> Callable[[Event, float, float], _End | None]:
    """Return what tells of a connection, its begin and the client's next one how it ended; None: it did not."""
    verdicts = _first_of_each([e for e in history.of(EventKind.SUSPECTED) if e.cause != Cause.NODE_LEASE])
    told = _first_of_each(history.of(EventKind.DISCONNECTED, Source.CLIENT))
    clocks_s = history.clock.scenario_s(_CLOCKS_S)

    def end_of(event: Event, start_s: float, next_s: float) -> _End | None:
        key = (event.session_id, event.connection_id)
        verdict, word = verdicts.get(key), told.get(key)
        decided_s = history.time_s(verdict) if verdict else _INF
        noticed_s = history.time_s(word) if word else _INF
        known_s = min(decided_s, noticed_s, next_s)
        for window in windows:
            if window.kills_node and window.node == event.node and start_s <= window.start_s <= known_s:
                return _End(window.start_s, "gateway_failure", window.kind)
        if verdict is not None and verdict.cause in _DECISIONS and decided_s <= noticed_s + clocks_s:
            return _End(
                min(decided_s, noticed_s), _SENT_AWAY.get(Cause(verdict.cause), "gateway"), verdict.cause
            )
        if word is not None and word.cause == Cause.CLIENT_LIMIT:
            return _End(min(decided_s, noticed_s), "client", word.cause)
        if verdict is not None and decided_s <= noticed_s:
            if verdict.cause == Cause.LOGOUT:
                return _End(decided_s, "", verdict.cause)
            return _End(decided_s, "middle" if verdict.cause in _LEARNT else "gateway", verdict.cause)
        if word is not None:
            return _End(noticed_s, "middle", word.cause)
        return _End(next_s, "middle", "") if next_s < _INF else None

    return end_of


def _first_of_each(events: Sequence[Event]) -> dict[tuple[str, str], Event]:
    found: dict[tuple[str, str], Event] = {}
    for event in sorted(events, key=lambda e: (e.time_s, e.cause), reverse=True):
        found[event.session_id, event.connection_id] = event
    return found


def table_of(engine: str, rows: Sequence[HealthyConnection]) -> pd.DataFrame:
    """Return healthy_connections.csv of one engine."""
    return frame(
        "healthy_connections",
        (
            (engine, r.session_id, r.client, r.node, r.connected_s, r.until_s - r.connected_s, *r[5:])
            for r in rows
        ),
    )


def losses(engine: str, connections: pd.DataFrame) -> pd.DataFrame:
    """Return losses.csv of one engine: a row for all authors (its ``author`` is empty) and one for each that there is.

    Args:
        engine: that the rows are of.
        connections: its healthy_connections.csv.
    """
    lost = connections[connections["outcome"] == "lost"]
    clients, days = connections["client"].nunique(), float(connections["watched_s"].sum()) / DAY_S
    rows = [_loss_row(engine, "", clients, days, lost)]
    rows += [
        _loss_row(engine, author, clients, days, mine)
        for author in AUTHORS
        if len(mine := lost[lost["author"] == author])
    ]
    return frame("losses", rows)


def expected_losses(connections: pd.DataFrame, life: Law, outages_per_day: float) -> pd.DataFrame:
    """Return theory's row of losses.csv, for as many connections, each for as long as it could have been watched.

    Not for as long as it was: who is lost early was watched for a short time because of that.

    Args:
        connections: healthy_connections.csv of one engine; those that a fault has hit are left out.
        life: law of the time from connecting to a loss.
        outages_per_day: losses of one client a day in outages of its own network; those that a fault hits have none.
    """
    hit = connections.loc[(connections["outcome"] == "ended") | (connections["hampered_by"] != ""), "client"]
    held = connections[connections["hampered_by"] == ""]
    days, nan = float(held["watched_s"].sum()) / DAY_S, float("nan")
    over_s = held["connected_s"] + held["watched_s"] + held["offline_s"]
    could_s = over_s.groupby(held["client"]).transform("max") - held["connected_s"]
    elsewise = (held["outcome"] == "lost") & (held["in_outage"] | (held["incident"] != ""))
    expected = float(life.cdf(could_s.where(~elsewise, held["watched_s"]).to_numpy()).sum())
    expected += outages_per_day * float(held.loc[~held["client"].isin(hit), "watched_s"].sum()) / DAY_S
    rate = expected / days if days > 0 else nan
    row = ("theory", "", held["client"].nunique(), days, expected, nan, nan, rate, nan, nan, nan, nan)
    return frame("losses", [row])


def _loss_row(engine: str, author: str, clients: int, days: float, lost: pd.DataFrame) -> tuple[object, ...]:
    """Return one row; ``lost`` are its connections, ``days`` the client-days that all were watched."""
    count, offline_s = len(lost), float(lost["offline_s"].sum())
    total_s = days * DAY_S + offline_s
    return (
        engine,
        author,
        clients,
        days,
        count,
        lost["client"].nunique(),
        int(lost["session_lost"].sum()),
        count / days if days > 0 else np.nan,
        *poisson_interval(count, days),
        offline_s,
        offline_s / total_s if total_s > 0 else np.nan,
    )
