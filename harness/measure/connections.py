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

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.events.columns import Codes, Flags, Floats, Texts, texts
from harness.events.history import Columns, History, last_places, pairs
from harness.events.incident_windows import incident_windows, laid_to
from harness.measure.detections import first_of_each
from harness.measure.health import outages, poisson_interval
from harness.theory.law import Law
from reference_server.durations import DAY_S
from reference_server.events import Cause, EventKind, Source
from reports.run_tables import SCHEMAS, frame, frame_of_columns

__all__ = ["AUTHORS", "expected_losses", "healthy_connections", "losses", "table_of"]

AUTHORS = ("gateway", "middle", "client", "gateway_failure", "take_over", "drain")
_FIELDS = ["until_s" if name == "watched_s" else name for name in SCHEMAS["healthy_connections"]][1:]
_INF = float("inf")
_OPEN = "open"
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


def healthy_connections(history: History) -> pd.DataFrame:
    """Follow the connections of every client, the clients in the order of their first ones.

    Returns:
        The columns of healthy_connections.csv without the engine, and ``until_s`` in the place of ``watched_s``.
    """
    began = _begun(history)
    ends = _Ends(history, began)
    rows = _healthy_parts(history, began, ends)
    windows, away = incident_windows(history), outages(history)
    lost = np.flatnonzero(rows["outcome"].to_numpy() == "lost")
    mine, until_s = rows["row"].to_numpy()[lost], rows["until_s"].to_numpy()[lost]
    node, client = rows["node"].to_numpy()[lost], rows["client"].to_numpy()[lost]
    unknown = history.columns(EventKind.SESSION_UNKNOWN)
    i, j = pairs(began.session[mine], unknown.session)
    session_lost = began.next_is_other[mine].copy()
    session_lost[i[unknown.time_s[j] >= until_s[i]]] = True
    columns: dict[str, NDArray[Any]] = {str(name): rows[name].to_numpy() for name in rows}
    more = {"incident": texts([""] * len(rows)), "in_outage": np.zeros(len(rows), dtype=bool)}
    more |= {"session_lost": np.zeros(len(rows), dtype=bool), "offline_s": np.zeros(len(rows))}
    if windows:
        more["incident"][lost] = [laid_to(windows, *one) for one in zip(until_s, node, strict=True)]
    if away:
        more["in_outage"][lost] = [
            any(_bears_on(spell, time_s) for spell in away.get(one, ()))
            for one, time_s in zip(client, until_s, strict=True)
        ]
    more["session_lost"][lost] = session_lost
    more["offline_s"][lost] = np.maximum(0.0, np.minimum(began.next_s[mine], history.end_s) - until_s)
    columns |= more
    return _objects({name: columns[name] for name in _FIELDS})


def _objects(columns: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """Make a DataFrame whose texts stay objects: they are checked when the table is made."""
    return pd.DataFrame({name: pd.Series(column, dtype=column.dtype) for name, column in columns.items()})


class _Begun(NamedTuple):
    """Every connection of a client, by its own word: the clients by their first, and each one's in order of time."""

    client: Texts
    client_code: Codes
    session: Codes
    connection: Codes
    session_id: Texts
    node: Texts
    start_s: Floats
    next_s: Floats  # when the client's next one began; inf: none did
    next_is_other: Flags  # the next one is of another session


def _begun(history: History) -> _Begun:
    seen = history.columns(EventKind.CONNECTED, Source.CLIENT)
    _, first, same = np.unique(_key(seen), return_index=True, return_inverse=True)
    last = np.zeros(len(first), dtype=np.int64)
    last[same] = np.arange(len(seen))  # of a connection that is told of twice, the last word
    chosen = last[np.argsort(first, kind="stable")]
    _, first, same = np.unique(seen.client[chosen], return_index=True, return_inverse=True)
    number = first[same]
    order = np.lexsort((seen.time_s[chosen], number))
    chosen, number = chosen[order], number[order]
    client = seen.client[chosen]
    start_s, session = seen.time_s[chosen], seen.session[chosen]
    again = np.append(number[1:] == number[:-1], False)[: len(number)]
    return _Begun(
        history.names()[client],
        client,
        session,
        seen.connection[chosen],
        history.names()[session],
        seen.node[chosen],
        start_s,
        np.where(again, np.append(start_s[1:], _INF)[: len(start_s)], _INF),
        again & (np.append(session[1:], -1)[: len(session)] != session),
    )


def _key(seen: Columns | _Begun) -> Codes:
    """One number for a session and a connection together."""
    return seen.session << 32 | seen.connection


def _healthy_parts(history: History, began: _Begun, ends: _Ends) -> pd.DataFrame:
    """Cut each connection where a fault hit its client; ``row`` is its place in ``began``."""
    of = history.fault_columns
    hit = np.flatnonzero(~np.isnan(of.injected_s))
    place = last_places(of.client[hit], began.client_code)
    struck, fault = place >= 0, hit[place[place >= 0]]
    hit_s, again_s = np.full(len(place), _INF), np.full(len(place), _INF)
    hit_s[struck] = of.injected_s[fault]
    # When its client can be called healthy again, if hampered; inf: never.
    again_s[struck] = np.where(of.only_hampers, of.injected_s, of.recovered_s)[fault]
    label = np.full(len(place), "", dtype=object)
    label[struck] = texts(f.planned.fault for f in history.injected_faults)[fault]
    over = ends.author != _OPEN
    until_s = np.where(over, ends.time_s, history.end_s)
    outcome = np.where(~over, "censored", np.where(ends.author != "", "lost", "ended")).astype(object)
    author, cause = np.where(over, ends.author, ""), np.where(over, ends.cause, "")
    spared = hit_s >= until_s  # not hit while it lasted
    hit_before, hit_in = ~spared & (hit_s < began.start_s), ~spared & (hit_s > began.start_s)
    to_its_end = spared | hit_before
    first = np.flatnonzero(to_its_end | hit_in)
    second = np.flatnonzero(~to_its_end & (again_s < until_s))
    whole = to_its_end[first]
    row = np.concatenate((first, second))
    order = np.argsort(row, kind="stable")
    none = np.full(len(first), "", dtype=object)
    return _objects(
        {
            name: np.concatenate(parts)[order]
            for name, parts in {
                "row": (first, second),
                "session_id": (began.session_id[first], began.session_id[second]),
                "client": (began.client[first], began.client[second]),
                "node": (began.node[first], began.node[second]),
                "connected_s": (began.start_s[first], again_s[second]),
                "until_s": (np.where(whole, until_s[first], hit_s[first]), until_s[second]),
                "outcome": (np.where(whole, outcome[first], "ended"), outcome[second]),
                "author": (np.where(whole, author[first], ""), author[second]),
                "cause": (np.where(whole, cause[first], label[first]), cause[second]),
                "hampered_by": (np.where(hit_before[first], label[first], none), label[second]),
            }.items()
        }
    )


def _bears_on(spell: tuple[float, float], time_s: float) -> bool:
    """Whether an outage may have made a loss: TCP's tries wait for up to as long again as it lasted."""
    start_s, stop_s = spell
    return start_s <= time_s <= stop_s + (stop_s - start_s)


class _Ends:
    """How each connection ended, as far as it did: arrays of shape (connections,).

    ``author`` is empty where somebody asked for it, and `_OPEN` where it did not end.
    """

    def __init__(self, history: History, began: _Begun) -> None:
        n = len(began.client)
        self.time_s: Floats = np.full(n, _INF)
        self.author: Texts = np.full(n, _OPEN, dtype=object)
        self.cause: Texts = np.full(n, "", dtype=object)
        self._start_s = began.start_s
        key = _key(began)
        suspected = history.columns(EventKind.SUSPECTED)
        decided_s, verdict = _first_of(suspected, key, suspected.cause != Cause.NODE_LEASE)
        told = history.columns(EventKind.DISCONNECTED, Source.CLIENT)
        noticed_s, word = _first_of(told, key, np.ones(len(told), dtype=bool))
        first_s = np.minimum(decided_s, noticed_s)
        known_s = np.minimum(first_s, began.next_s)
        decided, noticed, next_came = decided_s < _INF, noticed_s < _INF, began.next_s < _INF
        for window in incident_windows(history):
            if window.kills_node:
                during = (began.start_s <= window.start_s) & (window.start_s <= known_s)
                died = during & (began.node == window.node)
                self._settle(died, np.full(n, window.start_s), "gateway_failure", texts([window.kind] * n))
        in_time = decided_s <= noticed_s + history.clock.scenario_s(_CLOCKS_S)
        decision = decided & in_time & _among(verdict, _DECISIONS)
        for cause, author in _SENT_AWAY.items():
            self._settle(decision & (verdict == cause), first_s, author, verdict)
        self._settle(decision, first_s, "gateway", verdict)
        self._settle(noticed & (word == Cause.CLIENT_LIMIT), first_s, "client", word)
        before = decided & (decided_s <= noticed_s)
        self._settle(before & (verdict == Cause.LOGOUT), decided_s, "", verdict)
        self._settle(before & _among(verdict, _LEARNT), decided_s, "middle", verdict)
        self._settle(before, decided_s, "gateway", verdict)
        self._settle(noticed, noticed_s, "middle", word)
        self._settle(next_came, began.next_s, "middle", np.full(n, "", dtype=object))

    def _settle(self, which: Flags, time_s: Floats, author: str, cause: Texts) -> None:
        """Say it of those that nothing was said of yet. Who is told of a connection late may know its end first."""
        which = which & (self.author == _OPEN)
        self.time_s[which] = np.maximum(time_s, self._start_s)[which]
        self.author[which], self.cause[which] = author, cause[which]


def _among(causes: Texts, wanted: Collection[str]) -> Flags:
    return np.array([cause in wanted for cause in causes], dtype=bool)


def _first_of(seen: Columns, key: Codes, which: Flags) -> tuple[Floats, Texts]:
    """When the first of some events about each connection was, and its cause; inf and empty where there is none."""
    time_s, cause = np.full(len(key), _INF), np.full(len(key), "", dtype=object)
    there = np.flatnonzero(which)
    i, j = pairs(key, _key(seen)[there])
    i, j = first_of_each(i, seen, there[j])
    time_s[i], cause[i] = seen.time_s[j], seen.cause[j]
    return time_s, cause


def table_of(engine: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return healthy_connections.csv of one engine, of what `healthy_connections` found."""
    watched_s = rows["until_s"] - rows["connected_s"]
    columns = [watched_s if name == "until_s" else rows[name] for name in _FIELDS]
    return frame_of_columns(
        "healthy_connections",
        [np.full(len(rows), engine, dtype=object), *(column.to_numpy() for column in columns)],
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
