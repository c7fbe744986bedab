"""What went on over the run: live clients and ghosts, one client's timeline, loop lag, lateness, resources.

From an indexed history to tables. `time_s` is scenario seconds; lags and latenesses are real seconds:
they are what this machine was late by, and a faster run does not shrink them.

Who came and went when: the counts that a reconnect storm is drawn from.

From an indexed history to reconnects.csv; judges nothing. The clients say it, except for what the gateway refused:
that too is what a client was told.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.events.history import History, last_places, pairs
from harness.measure.detections import first_of_each
from reference_server.events import Event, EventKind, Source
from reports.run_tables import frame, frame_of_columns

__all__ = [
    "at_same_phase",
    "counted",
    "ghosts",
    "handshakes",
    "injections",
    "lag",
    "lateness",
    "population",
    "reconnects",
    "resources",
    "tcp_info",
    "timelines",
]

Times = NDArray[np.float64]
_POINTS_WITHOUT_SAMPLES = 201
_LANES = {
    "gateway": {
        EventKind.HEARTBEAT_SENT,
        EventKind.HEARTBEAT_MISSED,
        EventKind.SUSPECTED,
        EventKind.SOCKET_CLOSED,
    },
    "store": {EventKind.STORE_CLEARED},
    "peers": {EventKind.PEER_NOTIFIED, EventKind.PEER_ONLINE},
}
_LANE_OF = {kind: lane for lane, kinds in _LANES.items() for kind in kinds}


def injections(history: History) -> pd.DataFrame:
    """When each fault was due and when it took effect; `late_s` is the generator's own delay.

    A fault that names no due time of its own is due when the plan says. Faults that never took effect
    have no row: a NAT mapping that traffic kept alive was not late.
    """
    hit = [f for f in history.injected_faults if f.injected_s is not None]
    due_s = np.array([f.planned.at_s if f.scheduled_s is None else f.scheduled_s for f in hit], dtype=float)
    injected_s = np.array([f.injected_s for f in hit], dtype=float)
    ids, labels = [f.planned.fault_id for f in hit], [f.planned.fault for f in hit]
    columns = ([history.engine] * len(hit), ids, labels, due_s, injected_s, injected_s - due_s)
    return frame_of_columns("injections", columns)


def ghosts(history: History, detections: pd.DataFrame) -> pd.DataFrame:
    """Ghost time per fault: how long the store showed a session whose client was dead.

    It starts with the fault and ends when the store is cleared, the client is back, or the run ends
    (`outcome` says which). A client that lives on, as after a refresh or with a slow network, makes no ghost.
    """
    rows = _dead_rows(history, detections, "store_cleared")[
        ["engine", "fault_id", "fault", "outcome", "duration_s"]
    ]
    return rows.set_axis(list(frame("ghosts")), axis=1).reset_index(drop=True)


def dead_and_held(
    history: History, detections: pd.DataFrame, until: str, times: Times
) -> NDArray[np.float64]:
    """How many clients that a fault took away are still held at each time, until a milestone; NaN: nobody sees it."""
    if history.witnessed is not None and until not in history.witnessed:
        return np.full(times.shape, np.nan)
    dead = _dead_rows(history, detections, until)
    began = dead["injected_at_s"].to_numpy(dtype=float)
    gone = began + dead["duration_s"].to_numpy(dtype=float)
    return _count(times, began, np.where(dead["outcome"] == "censored", np.inf, gone)).astype(float)


def _dead_rows(history: History, detections: pd.DataFrame, milestone: str) -> pd.DataFrame:
    rows = detections[detections["milestone"] == milestone]
    alive = {f.fault_id for f in history.plan.faults if f.params.user_stays}
    return rows[(rows["outcome"] != "not_applicable") & ~rows["fault_id"].isin(alive)]


def population(
    history: History, connections: pd.DataFrame, gaps: pd.DataFrame, detections: pd.DataFrame
) -> pd.DataFrame:
    """Live clients, those that should live, status records in the store, ghosts and gaps, at each sample of the store.

    Without a store watch there is a regular grid over the run and `store_sessions` is empty. Nobody watches the store
    of a server that is not ours for gaps; its ghosts are known where a witness sees `store_cleared`.

    Args:
        history: of one engine.
        connections: of its healthy clients, as `healthy_connections` finds them.
        gaps: its presence_gaps.csv.
        detections: its detections.csv.
    """
    samples = sorted(
        (history.time_s(event), event.detail.get("shown", event.detail.get("sessions", float("nan"))))
        for event in history.of(EventKind.STORE_SAMPLE)
    )
    if not samples:
        grid = np.linspace(0.0, history.end_s, _POINTS_WITHOUT_SAMPLES)
        samples = [(float(t), float("nan")) for t in grid]
    times = np.array([t for t, _ in samples])
    ours = history.witnessed is None
    if not ours:
        samples = [(time_s, float("nan")) for time_s, _ in samples]
    due = np.array([history.plan.connect_at_s(client) for client in range(history.plan.clients)])
    hit, over = _out_of_action(history)
    absent = gaps["begins_s"].to_numpy(dtype=float)
    return frame(
        "population",
        zip(
            [history.engine] * len(times),
            times,
            _alive_at(times, history, connections),
            _count(times, due, np.full_like(due, np.inf)) - _count(times, hit, over),
            [shown for _, shown in samples],
            dead_and_held(history, detections, "store_cleared", times),
            _count(times, absent, absent + gaps["lasts_s"].to_numpy(dtype=float))
            if ours
            else np.full(times.shape, np.nan),
            strict=True,
        ),
    )


def counted(history: History, connections: pd.DataFrame) -> pd.DataFrame:
    """What a server that is not ours says of its number of connections, beside the clients that live.

    It pairs no clients. What a healthy client's connection has just begun or ended may be in one of the two alone.
    """
    samples = [
        (history.time_s(event), float(event.detail["count"]))
        for event in history.of(EventKind.CONNECTIONS_COUNTED)
    ]
    times = np.array([time_s for time_s, _ in samples])
    alive = _alive_at(times, history, connections).tolist()
    return frame(
        "counted",
        (
            (history.engine, time_s, said, live, max(0.0, said - live))
            for (time_s, said), live in zip(samples, alive, strict=True)
        ),
    )


def _alive_at(times: Times, history: History, connections: pd.DataFrame) -> NDArray[np.int64]:
    """How many healthy clients were connected at each time."""
    # Whoever is alive when the run ends is alive in the sample at its end as well.
    until = connections["until_s"].where(connections["until_s"] < history.end_s, np.inf)
    return _count(times, connections["connected_s"].to_numpy(), until.to_numpy())


def _out_of_action(history: History) -> tuple[Times, Times]:
    """From when to when a fault kept each client from being connected: until it recovered or connected again."""
    of = history.fault_columns
    away = np.flatnonzero(~np.isnan(of.injected_s) & ~of.only_hampers)
    seen = history.columns(EventKind.CONNECTED, Source.CLIENT)
    place = last_places(of.client[away], seen.client)
    fault, time_s = away[place[place >= 0]], seen.time_s[place >= 0]
    later = time_s > of.injected_s[fault]
    over_s = of.recovered_s.copy()
    np.minimum.at(over_s, fault[later], time_s[later])
    return of.injected_s[away], over_s[away]


def _count(times: Times, starts: Times, stops: Times) -> NDArray[np.int64]:
    """How many spans [start, stop) hold each time."""
    begun = np.searchsorted(np.sort(starts), times, side="right")
    ended = np.searchsorted(np.sort(stops), times, side="right")
    return np.asarray(begun - ended, dtype=np.int64)


def timelines(history: History) -> pd.DataFrame:
    """Everything about the session of each traced fault, in time from the fault."""
    traced = {
        s.session_id: s for s in history.injected_faults if s.planned.traced and s.injected_s is not None
    }
    by_id = {s.planned.fault_id: s for s in traced.values()}
    seen = [(traced[e.session_id], _lane(e), e) for e in history.of_sessions(traced)]
    # The same user's attempts to log in again come from elsewhere: they make a session of their own.
    seen += [
        (by_id[event.detail["fault_id"]], "login", event)
        for kind in (EventKind.LOGGED_IN, EventKind.LOGIN_REFUSED)
        for event in history.naming(kind, by_id)
    ]
    rows = [
        (
            history.engine,
            injected.planned.fault,
            injected.planned.fault_id,
            history.time_s(event) - (injected.injected_s or 0.0),
            lane,
            str(event.kind),
            event.cause,
            _note(event),
        )
        for injected, lane, event in seen
    ]
    return frame("timelines", sorted(rows, key=lambda row: tuple(row[2:])))


def at_same_phase(found: pd.DataFrame) -> pd.DataFrame:
    """Keep one client of each fault, the same in all engines: timelines.csv of several engines.

    Of the traced ones it is the client whose last ping before the fault was nearest as long ago in every engine: else
    one would see the phase of the ping, and take it for a difference between the engines. Without pings, the first one.
    """
    pings = found[(found["kind"] == EventKind.HEARTBEAT_SENT) & (found["time_s"] < 0)]
    last = pings.groupby(["fault_id", "engine"])["time_s"].max().unstack("engine")
    apart_s = (last.max(axis=1) - last.min(axis=1))[last.notna().all(axis=1)]
    chosen = []
    for _, mine in found.groupby("fault", sort=False):
        seen = mine.groupby("fault_id")["engine"].nunique()
        everywhere = seen.index[seen == seen.max()]
        known = everywhere.intersection(apart_s.index)
        chosen.append(apart_s[known].idxmin() if len(known) else everywhere[0])
    return found[found["fault_id"].isin(chosen)].reset_index(drop=True)


def _lane(event: Event) -> str:
    if lane := _LANE_OF.get(event.kind):
        return lane
    return "client" if event.source is Source.SIMULATION else str(event.source)


def _note(event: Event) -> str:
    detail = event.detail
    match event.kind:
        case EventKind.HEARTBEAT_MISSED:
            return f"{detail.get('failures', '?')} of {detail.get('max_failures', '?')}"
        case EventKind.FAULT_INJECTED:
            return str(detail.get("fault", ""))
        case EventKind.CONNECTED:
            return "resumed" if detail.get("resumed") else ""
        case EventKind.LOGIN_REFUSED:
            return str(detail.get("code", ""))
        case EventKind.PEER_NOTIFIED | EventKind.PEER_ONLINE:
            return f"watcher {detail.get('watcher', '?')}"
        case _:
            return ""


def tcp_info(history: History) -> pd.DataFrame:
    """What the kernel knew of the socket when a faulted client was suspected, per fault.

    `unacked_share`: data on the way that nothing acknowledged. `retransmitted_share`: sent again at
    least once. Both are near 1 for real silence and 0 for a client that only does not answer.
    """
    of, suspected = history.fault_columns, history.columns(EventKind.SUSPECTED)
    hit = np.flatnonzero(~np.isnan(of.injected_s))
    i, j = pairs(of.session[hit], suspected.session)
    i = hit[i]
    about_it = (suspected.connection[j] == 0) | (suspected.connection[j] == of.connection[i])
    time_s = suspected.time_s[j]
    keep = about_it & (of.injected_s[i] <= time_s) & (time_s <= of.recovered_s[i])
    found: dict[str, list[tuple[bool, bool]]] = {}
    told = suspected.told("tcp_info")
    for fault, first in zip(*first_of_each(i[keep], suspected, j[keep]), strict=True):
        if info := told[first]:
            found.setdefault(history.injected_faults[fault].planned.fault, []).append(
                (info.get("unacked", 0) > 0, info.get("retransmits", 0) >= 1)
            )
    return frame(
        "tcp_info",
        (
            (
                history.engine,
                fault,
                len(seen),
                float(np.mean([u for u, _ in seen])),
                float(np.mean([r for _, r in seen])),
            )
            for fault, seen in sorted(found.items())
        ),
    )


def lag(history: History) -> pd.DataFrame:
    """Loop lag of every process that has a loop; `max_lag_s` is real seconds, `time_s` scenario seconds."""
    return _samples(history, "lag", EventKind.LOOP_LAG, ("max_lag_s",))


def resources(history: History) -> pd.DataFrame:
    """What each process used."""
    keys = ("cpu_percent", "rss_bytes", "descriptors")
    return _samples(history, "resources", EventKind.RESOURCES, keys)


def _samples(history: History, table: str, kind: EventKind, keys: Iterable[str]) -> pd.DataFrame:
    names = tuple(keys)
    rows = [
        (
            str(event.detail.get("role") or event.source),
            int(event.detail.get("pid", 0)),
            history.time_s(event),
            *(event.detail.get(key, 0) for key in names),
            event.node,
        )
        for event in history.of(kind)
    ]
    return frame(table, sorted(rows, key=lambda row: (row[2], row)))


def lateness(history: History) -> pd.DataFrame:
    """How late the gateway's heartbeats left, real seconds, one row per node and second."""
    keys = ("n", "p50_s", "p99_s", "max_s")
    rows = [
        (history.engine, event.node, history.time_s(event), *(event.detail.get(k, 0) for k in keys))
        for event in history.of(EventKind.HEARTBEAT_LATENESS)
    ]
    return frame("lateness", sorted(rows, key=lambda row: (row[2], row)))


def handshakes(history: History) -> pd.DataFrame:
    """How long each client took from its TCP connection to the answer to its authentication.

    `took_s` is real seconds; of a simulation, scenario seconds.
    """
    seen = history.columns(EventKind.CONNECTED, Source.CLIENT)
    took_s = np.array(seen.told("took_s"), dtype=float)  # None: NaN
    told = ~np.isnan(took_s)
    return frame_of_columns(
        "handshakes", ([history.engine] * int(told.sum()), seen.time_s[told], took_s[told])
    )


_BINS = 240  # as many as a slide's width can show
_KINDS = (
    EventKind.DISCONNECTED,
    EventKind.CONNECTED,
    EventKind.SESSION_UNKNOWN,
    EventKind.LOGGED_IN,
    EventKind.LOGIN_REFUSED,
)


def reconnects(history: History, width_s: float | None = None) -> pd.DataFrame:
    """Count connections, resumptions, errors and logins in spans of equal width from the run's start.

    Args:
        history: of one engine.
        width_s: of a span, scenario seconds; default: one second, or what makes at most 240 spans.

    ``time_s`` is the start of the span. ``resumed`` are those of ``connected`` that came back to a session.
    """
    width_s = width_s or max(1.0, float(np.ceil(history.end_s / _BINS)))
    edges = np.arange(0.0, history.end_s + width_s, width_s)
    if history.end_s <= 0:
        return frame("reconnects", [])

    def counts(kind: EventKind, resumed: bool = False) -> NDArray[np.int64]:
        seen = history.columns(kind, Source.CLIENT)
        times = seen.time_s
        if resumed:
            times = times[np.array([bool(one) for one in seen.told("resumed")], dtype=bool)]
        return np.histogram(times, edges)[0].astype(np.int64)

    gone, back, unknown, accepted, refused = map(counts, _KINDS)
    columns = (gone, back, counts(EventKind.CONNECTED, True), unknown, accepted, refused)
    return frame(
        "reconnects",
        (
            (history.engine, start, width_s, *numbers)
            for start, *numbers in zip(edges[:-1], *columns, strict=True)
        ),
    )
