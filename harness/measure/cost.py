"""What keeping watch costs: heartbeats and frames a second, bytes, the gateway's processor and memory.

From an indexed history to cost.csv, and a policy's predicted row beside it. Rates are per *scenario* second:
a run five times as fast sends five times as much in a real one. What no witness counts stays empty. Redis
operations are writes of records by refreshes, by its own count (INFO commandstats): those of logins, connections, ends
and leases are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.events.history import History
from harness.measure.series import dead_and_held
from harness.theory.costs import bytes_per_beat, cost, tls_bytes_per_beat, tls_handshakes
from harness.theory.record_laws import exact_refreshes_per_s, refreshes_per_s
from reference_server.events import EventKind
from reports.run_tables import frame
from scenarios.schema import Scenario

__all__ = ["expected_cost", "running_cost", "with_expected_refreshes", "with_tls"]

_RECORDS = 2  # that a refresh writes: the session's and the status
_SETTLES_S = 0.25  # real: between what is written for who comes, and the client's word of it

_PAYLOAD_OUT = len(b'{"type":"heartbeat"}')
_PAYLOAD_IN = len(b'{"type":"pong"}')
_BEAT_BYTES = bytes_per_beat(_PAYLOAD_OUT, _PAYLOAD_IN)
_NO_TLS = (np.nan, np.nan)


def running_cost(history: History, live: pd.DataFrame, detections: pd.DataFrame) -> pd.DataFrame:
    """One row: what this run's heartbeats cost after the ramp.

    The gateway counts the heartbeats that it sends. A log without its count (a simulation) has them of the
    traced sessions only; their rate is then taken for everyone's, and ``basis`` says so. To each heartbeat
    an answer is reckoned: ``frames_per_s`` is twice the heartbeats, and above the truth by what dead
    clients do not answer. Bytes are those of the frames and their TCP/IPv4 headers (`theory/costs.py`). How long the
    frames of a server that is not ours are, nobody knows, and it has no records of ours: both stay empty.

    Args:
        history: of one engine.
        live: population.csv of the same engine; ``clients`` is its mean number of connections to live clients and
            ghosts. Where nobody watches a store, a dead client is held until it is suspected.
        detections: detections.csv of the same engine.
    """
    steady = live[live["time_s"] >= history.plan.ramp_s]
    suspects = dead_and_held(history, detections, "suspected", steady["time_s"].to_numpy(dtype=float))
    held = float((steady["live_clients"] + steady["ghosts"].fillna(pd.Series(suspects, steady.index))).mean())
    rate, basis = _counted(history)
    if np.isnan(rate):
        rate, basis = _traced(history, held)
    samples = [
        event.detail
        for event in history.of(EventKind.RESOURCES)
        if event.detail.get("role") == "gateway" and history.time_s(event) >= history.plan.ramp_s
    ]
    foreign = history.witnessed is not None
    refreshes = _Refreshes() if foreign else _refreshes(history, live)
    used = pd.DataFrame(samples, columns=["cpu_percent", "rss_bytes"], dtype=float)
    row = (
        history.engine,
        held,
        rate,
        2 * rate,
        np.nan if foreign else _BEAT_BYTES * rate,
        refreshes.writes / refreshes.watched_s if refreshes.watched_s else np.nan,
        used["cpu_percent"].mean(),
        used["rss_bytes"].max(),
        basis,
        refreshes.writes,
        np.nan,
        refreshes.watched_s,
        refreshes.clients,
        *_NO_TLS,
    )
    return frame("cost", [row])


def with_expected_refreshes(measured: pd.DataFrame, scenario: Scenario) -> pd.DataFrame:
    """Put beside what refreshes wrote how much theory says that they do, in as much time of as many clients.

    A rate of the long run stays out where that time is shorter than from one refresh of a client to its next: most
    were not due in it.
    """
    rate, often = exact_refreshes_per_s(scenario), refreshes_per_s(scenario)
    each = _RECORDS * (np.nan if rate is None else rate)
    watched_s = measured["redis_watched_s"]
    expected = each * measured["redis_clients"] * watched_s
    counted = watched_s >= (1 / often if often else 0)
    return measured.assign(
        redis_operations_expected=expected.where(watched_s > 0),
        redis_operations_per_s=measured["redis_operations_per_s"].where(counted),
    )


def expected_cost(scenario: Scenario, clients: float) -> pd.DataFrame:
    """Theory's row for a fleet of so many connections (`theory/costs.py`, `theory/record_laws.py`).

    Of a server that is not ours it knows the heartbeats alone, and those only where its file claims a law.
    """
    expected = cost(scenario.liveness, round(clients), beat_bytes=_BEAT_BYTES)
    target = scenario.target
    refreshes = refreshes_per_s(scenario) if target is None else None
    frames_per_s = expected.frames_per_s if target is None or target.heartbeat.law_known else np.nan
    row = (
        "theory",
        clients,
        frames_per_s / 2,
        frames_per_s,
        expected.bytes_per_s if target is None else np.nan,
        np.nan if refreshes is None else _RECORDS * refreshes * clients,
        np.nan,
        np.nan,
        "2N/T frames a second",
        *(np.nan,) * 4,
        *_NO_TLS,
    )
    return frame("cost", [row])


def with_tls(cost: pd.DataFrame, clients: int, connects: Mapping[Any, int]) -> pd.DataFrame:
    """Reckon TLS's share: a record's bytes at each frame, and the handshakes of whoever connected.

    Args:
        cost: of all engines, without it.
        clients: of the run; the first connection of each is a full handshake, a later one resumes.
        connects: how often clients connected, by the engine; theory knows of the first times alone.
    """
    made = [connects.get(engine, clients) for engine in cost["engine"]]
    reckoned = [tls_handshakes(min(n, clients), max(0, n - clients)) for n in made]
    return cost.assign(
        bytes_per_s=cost["bytes_per_s"] + tls_bytes_per_beat() * cost["heartbeats_per_s"],
        tls_handshake_bytes=[float(one.bytes) for one in reckoned],
        tls_handshake_cpu_s=[one.cpu_s for one in reckoned],
    )


class _Refreshes(NamedTuple):
    """Writes of records by refreshes: how many, in how many seconds, of how many connected clients."""

    writes: float = np.nan
    watched_s: float = 0.0
    clients: float = np.nan


def _refreshes(history: History, live: pd.DataFrame) -> _Refreshes:
    """What refreshes alone write: from the ramp's end to the first fault or end, where nobody comes meanwhile.

    Redis counts calls by their name: ``SET`` writes a record, and once for each ``HSET`` of a node that renews its
    lease. A Redis that is started again counts anew.
    """
    ends = {
        *(EventKind.FAULT_INJECTED, EventKind.SUSPECTED, EventKind.DISCONNECTED, EventKind.OUTAGE_STARTED),
        *(EventKind.INCIDENT_STARTED, EventKind.SESSION_UNKNOWN, EventKind.RUN_ENDED),
    }
    ended_s = [history.times_s(kind).min(initial=history.end_s) for kind in ends]
    until_s = float(min(ended_s))
    comes = (EventKind.CONNECTED, EventKind.LOGGED_IN, EventKind.LOGIN_REFUSED)
    came_s = np.sort(np.concatenate([history.times_s(kind) for kind in comes]))
    near_s = history.clock.scenario_s(_SETTLES_S)
    samples = sorted(
        (history.time_s(event), event.detail["commands"])
        for event in history.of(EventKind.STORE_SAMPLE)
        if "commands" in event.detail and history.plan.ramp_s <= history.time_s(event) <= until_s - near_s
    )
    writes, watched_s = 0, 0.0
    for (a_s, before), (b_s, after) in pairwise(samples):
        more = {name: after.get(name, 0) - before.get(name, 0) for name in ("set", "hset")}
        came = np.searchsorted(came_s, b_s + near_s) - np.searchsorted(came_s, a_s - near_s)
        if min(more.values()) >= 0 and not came:
            writes += more["set"] - more["hset"]
            watched_s += b_s - a_s
    held = live[(live["time_s"] >= history.plan.ramp_s) & (live["time_s"] <= until_s)]
    if not watched_s or held.empty:
        return _Refreshes()
    return _Refreshes(float(writes), watched_s, float(held["live_clients"].mean()))


def _counted(history: History) -> tuple[float, str]:
    """Heartbeats a scenario second of all nodes: each count covers the time since that node's count before."""
    per_node: dict[str, list[tuple[float, int]]] = {}
    for event in history.of(EventKind.HEARTBEAT_LATENESS):
        if history.time_s(event) >= history.plan.ramp_s:
            counted = (history.time_s(event), int(event.detail.get("n", 0)))
            per_node.setdefault(event.node, []).append(counted)
    rates = []
    for counts in per_node.values():
        counts.sort()
        span_s = counts[-1][0] - counts[0][0]
        if span_s > 0:
            rates.append(sum(n for _, n in counts[1:]) / span_s)
    return (sum(rates), "counted by the gateway") if rates else (np.nan, "")


def _traced(history: History, held: float) -> tuple[float, str]:
    """Heartbeats a scenario second of so many, by the pauses between those of each traced session before its fault.

    A session's first heartbeat comes an interval after it connects: all heartbeats over all time would be too few.
    """
    beats, pauses, watched_s = 0, 0, 0.0
    sent = history.by_session(EventKind.HEARTBEAT_SENT)
    for injected in history.injected_faults:
        if injected.planned.traced and injected.injected_s is not None:
            times_s = sorted(map(history.time_s, sent.get(injected.session_id, [])))
            times_s = [time_s for time_s in times_s if time_s < injected.injected_s]
            if len(times_s) > 1:
                beats += len(times_s)
                pauses += len(times_s) - 1
                watched_s += times_s[-1] - times_s[0]
    if watched_s > 0:
        return held * pauses / watched_s, f"{beats} heartbeats of the traced sessions, taken for everyone's"
    if history.witnessed is not None and history.engine == "real":
        return np.nan, "not seen: nobody counts the heartbeats of a server that is not ours"
    return np.nan, "not seen: no traced session was sent two heartbeats before its fault"
