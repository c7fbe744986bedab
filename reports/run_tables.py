"""Every table of a run directory, declared once: its columns, their types, units and meaning.

Writers make their DataFrames with :func:`frame`, readers get them from :func:`load_run`, and
docs/reference-tables.md is made from what stands here. Computes nothing.

A run may lack tables (one engine only, an interrupted run): a table that is missing or has no rows is an
empty DataFrame with its columns. A table that is there and lacks a column is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import pandas as pd

__all__ = [
    "ENGINES",
    "FORMAT",
    "HEALTHY",
    "LOST",
    "LOST_BY",
    "LOST_IN_OUTAGE",
    "MEASURED_ENGINES",
    "MILESTONES",
    "PERCENTILES",
    "REFRESHED",
    "SCHEMAS",
    "TABLES",
    "Column",
    "RunTables",
    "TableSchema",
    "TablesError",
    "check_format",
    "frame",
    "frame_of_columns",
    "load_run",
]

FORMAT: Final = 2  # of a run directory: names of tables and columns; in run.json
HEALTHY, LOST, LOST_IN_OUTAGE = "healthy", "lost", "lost_in_outage"
"""What stands for a fault and a milestone where connections of healthy clients are meant, in laws and in agreement."""
REFRESHED: Final = "refreshed"
"""Such a milestone in agreement: records that refreshes wrote."""
LOST_BY: Final = "lost_by_"
"""Begins such a milestone of losses of one author; of the gateway's, of one cause."""
ENGINES: Final = ("theory", "simulated", "real")
MEASURED_ENGINES: Final = ("simulated", "real")
MILESTONES: Final = ("suspected", "socket_closed", "store_cleared", "peers_notified", "locked_out")
PERCENTILES: Final[Mapping[str, float]] = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Column(NamedTuple):
    """One column. ``unit`` is "s" for scenario seconds, "real s" for seconds of the clock on the wall."""

    name: str
    dtype: str
    unit: str
    meaning: str


class TableSchema(NamedTuple):
    """One table: what a row of it is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]


def _text(name: str, meaning: str) -> Column:
    return Column(name, "str", "", meaning)


def _count(name: str, meaning: str) -> Column:
    return Column(name, "int64", "", meaning)


def _flag(name: str, meaning: str) -> Column:
    return Column(name, "bool", "", meaning)


def _number(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "float64", unit, meaning)


def _seconds(name: str, meaning: str) -> Column:
    return _number(name, "s", meaning)


def _bounds(unit: str, of: str) -> tuple[Column, Column]:
    return _number("lo", unit, f"lower 95 % bound of {of}"), _number("hi", unit, "upper bound")


_ENGINE = _text("engine", "simulated or real")
_ANY_ENGINE = _text("engine", "theory, simulated or real")
_FAULT = _text("fault", "label of the fault in the scenario")
_FAULT_ID = _text("fault_id", "which of the planned faults")
_MILESTONE = _text("milestone", ", ".join(MILESTONES))
_CAUSE = _text("cause", "the layer that decided")
_SESSION = _text("session_id", "the session")
_NODE = _text("node", "gateway node; empty: the only one, or none")
_TIME = _seconds("time_s", "since the run's origin")
_FIGURES = (
    _count("n", "detected + censored + recovered"),
    _count("detected", "reached the milestone"),
    _count("censored", "not by the end of the run"),
    _count("recovered", "alive again first"),
    _count("not_applicable", "the milestone cannot happen, or the fault never took effect"),
    _seconds("mean_s", "of the detected; empty where any is censored"),
    *(
        column
        for p in PERCENTILES
        for column in (
            _seconds(f"{p}_s", f"by when {p[1:]} % of all n were detected; empty: never"),
            _seconds(f"{p}_lo_s", "lower 95 % bound; empty where n is too small"),
            _seconds(f"{p}_hi_s", "upper bound"),
        )
    ),
    _seconds("max_s", "longest detection"),
)
_PROCESS = (_text("role", "gateway, generator, store, …"), _count("pid", "process id"), _TIME)

_DECLARED: Final = (
    TableSchema(
        "detections",
        "engine, planned fault and milestone; undetected ones too",
        (
            _ANY_ENGINE,
            _FAULT_ID,
            _FAULT,
            _SESSION,
            _NODE,
            _MILESTONE,
            _CAUSE,
            _text("outcome", "detected, censored, recovered or not_applicable"),
            _seconds("injected_at_s", "when the fault took effect"),
            _seconds("duration_s", "from then to the outcome; censored: how long it was watched"),
            _number("speedup", "", "of this engine's run"),
            _seconds(
                "earliest_s", "duration_s at the least: what the store watch sees lies between two looks"
            ),
        ),
    ),
    TableSchema(
        "laws",
        "fault and milestone, as theory has it; numbers are empty where theory is not exact",
        (
            _FAULT,
            _MILESTONE,
            _CAUSE,
            _seconds("lo_s", "shortest duration"),
            _seconds("hi_s", "longest duration"),
            _seconds("mean_s", "of the detected"),
            *(_seconds(f"{p}_s", "of all faults; empty above detected_share") for p in PERCENTILES),
            _number("detected_share", "fraction", "that is ever detected"),
            _text("note", "why theory is not exact, or what it assumes"),
            _text("shared", "what random thing the faults share, so that they are no independent draws"),
        ),
    ),
    TableSchema(
        "law_curves",
        "point of a law's distribution function; a jump is two rows of the same time",
        (
            _FAULT,
            _MILESTONE,
            _seconds("duration_s", "from the fault"),
            _number("probability", "fraction", "detected by then"),
        ),
    ),
    TableSchema("qos", "engine, fault and milestone", (_ENGINE, _FAULT, _MILESTONE, *_FIGURES)),
    TableSchema(
        "breakdown",
        "engine, fault, milestone and value, where there is more than one node or deciding layer",
        (
            _ENGINE,
            _FAULT,
            _MILESTONE,
            _text("dimension", "node or cause"),
            _text("value", "which node or cause; a cause's rows hold only what it caught"),
            *_FIGURES,
        ),
    ),
    TableSchema(
        "survival",
        "step of a curve: the share of faults not yet detected (recovery competes)",
        (
            _ENGINE,
            _FAULT,
            _MILESTONE,
            _seconds("duration_s", "from the fault"),
            _number("survival", "fraction", "not detected by then"),
            *_bounds("fraction", "survival"),
            _count("at_risk", "neither detected, recovered nor censored just before"),
        ),
    ),
    TableSchema(
        "detections_by_layer",
        "engine, fault and layer that suspected",
        (
            _ENGINE,
            _FAULT,
            _CAUSE,
            _count("count", "suspicions"),
            _seconds("median_s", "their median duration"),
        ),
    ),
    TableSchema(
        "incidence",
        "step of an Aalen–Johansen curve: the share that one layer had caught",
        (
            _ENGINE,
            _FAULT,
            _text("cause", "a layer, or recovered"),
            _seconds("duration_s", "from the fault"),
            _number("incidence", "fraction", "ended by this cause by then"),
            *_bounds("fraction", "incidence"),
        ),
    ),
    TableSchema(
        "agreement",
        "comparison of two engines; numbers of share and shape are fractions, of count connections, not seconds",
        (
            _FAULT,
            _MILESTONE,
            _text("figure", "p50, p95, p99, range, share, shape or count"),
            _text("left", "an engine"),
            _text("right", "the engine that it is held against"),
            _seconds("left_s", "its value"),
            _seconds("right_s", "the other's"),
            _seconds("difference_s", "left − right"),
            _seconds("tolerance_s", "the most that is allowed"),
            _text("verdict", "pass, fail or unknown"),
            _text("reason", "why, in a sentence"),
            _count("n", "size of the smaller sample"),
            _seconds("lo_s", "lower 95 % bound of the difference; empty where n sets none"),
            _seconds("hi_s", "upper bound"),
        ),
    ),
    TableSchema(
        "false_suspicions",
        "engine: healthy clients that were taken for dead",
        (
            _ENGINE,
            _count("healthy_clients", "that no fault hit"),
            _number("client_days", "scenario days", "healthy and connected, all clients together"),
            _count("count", "healthy clients taken for dead"),
            _number("rate_per_client_day", "1/client-day", "count / client_days"),
            _number("rate_lo", "1/client-day", "lower 95 % bound (Garwood)"),
            _number("rate_hi", "1/client-day", "upper bound"),
        ),
    ),
    TableSchema(
        "false_suspicion_events",
        "false suspicion: a healthy client taken for dead",
        (
            _ENGINE,
            _SESSION,
            _text("client", "its number in the plan"),
            _text("node", "that held the connection"),
            _CAUSE,
            _TIME,
            _flag("in_outage", "the client's network was away, which is no fault"),
            _flag("ended", "the client connected again"),
            _seconds("duration_s", "until then, or else until the run's end"),
            _text("incident", "that it is laid to; empty: none"),
        ),
    ),
    TableSchema(
        "accuracy",
        "engine: the accuracy figures of Chen, Toueg and Aguilera (2002)",
        (
            _ENGINE,
            _count("count", "false suspicions"),
            _seconds("mistake_recurrence_s", "T_MR: mean time from one mistake to the next"),
            _seconds("mistake_duration_s", "T_M: mean duration of a mistake"),
            _number("query_accuracy", "fraction", "P_A: of healthy time, rightly trusted"),
        ),
    ),
    TableSchema(
        "healthy_connections",
        "connection of a healthy client; a fault ends the row and begins another one",
        (
            _ENGINE,
            _SESSION,
            _text("client", "its number in the plan"),
            _text("node", "that held it"),
            _seconds("connected_s", "when it, or this part of it, began, since the run's origin"),
            _seconds("watched_s", "until it was lost, a fault hit its client, or the run ended"),
            _text("outcome", "lost, ended (by a fault, or as asked for) or censored by the run's end"),
            _text("author", "who ended it: gateway, middle, client, gateway_failure, take_over or drain"),
            _text("cause", "the layer, the kind of incident, or the fault that ended it"),
            _text("incident", "that the loss is laid to; empty: none"),
            _text("hampered_by", "fault that had hit its client before, or slows it; empty: none"),
            _flag("in_outage", "lost while its client's network was away, or TCP was making up for that"),
            _flag("session_lost", "its client had to log in anew"),
            _seconds("offline_s", "until its client was connected again, or the run's end"),
        ),
    ),
    TableSchema(
        "losses",
        "engine and author: connections that healthy clients lost",
        (
            _ANY_ENGINE,
            _text("author", "who ended them, as in healthy_connections; empty: all"),
            _count("healthy_clients", "that had a connection while healthy"),
            _number("client_days", "scenario days", "that these were watched, all together"),
            _number("connections", "", "lost; of theory: expected"),
            _number("clients", "", "that lost one or more; empty for theory"),
            _number("sessions", "", "that were lost with them; empty for theory"),
            _number("rate_per_client_day", "1/client-day", "connections / client_days"),
            _number("rate_lo", "1/client-day", "lower 95 % bound (Garwood); empty for theory"),
            _number("rate_hi", "1/client-day", "upper bound"),
            _seconds("offline_s", "from each loss until its client was connected again, all together"),
            _number("offline_share", "fraction", "of the time that healthy clients wanted to be connected"),
        ),
    ),
    TableSchema(
        "presence_gaps",
        "time in which a healthy client was connected and the store did not show it online",
        (
            _ENGINE,
            _SESSION,
            _text("client", "its number in the plan"),
            _seconds("begins_s", "when the store watch first saw no record, since the run's origin"),
            _seconds("after_s", "from its connection until then"),
            _seconds("lasts_s", "until it was seen again, the connection was over, or the run ended"),
            _flag("ended", "it was seen again"),
        ),
    ),
    TableSchema(
        "not_applicable",
        "reason why a milestone has no duration",
        (_ENGINE, _FAULT, _MILESTONE, _text("reason", "in a sentence"), _count("count", "faults")),
    ),
    TableSchema(
        "injections",
        "fault that took effect",
        (
            _ENGINE,
            _FAULT_ID,
            _FAULT,
            _seconds("scheduled_s", "when it was due"),
            _seconds("injected_at_s", "when it took effect"),
            _seconds("late_s", "the difference: the generator's own delay"),
        ),
    ),
    TableSchema(
        "ghosts",
        "session that the store showed although its client was dead",
        (
            _ENGINE,
            _FAULT_ID,
            _FAULT,
            _text("outcome", "detected (cleared), recovered, or censored by the run's end"),
            _seconds("ghost_s", "from the fault until then"),
        ),
    ),
    TableSchema(
        "population",
        "look at the store: who is alive, what it shows, how many ghosts",
        (
            _ENGINE,
            _TIME,
            _count("live_clients", "healthy and connected"),
            _count("expected_clients", "healthy, and due to have connected by then"),
            _number("store_sessions", "", "status records in the store; empty: nobody looked"),
            _number("ghosts", "", "dead clients that the store shows; empty: nobody looked"),
            _number("gaps", "", "live clients that the store does not show; empty: nobody looked"),
        ),
    ),
    TableSchema(
        "revivals",
        "client whose fault healed and that was told whether a server that is not ours still held it",
        (
            _ENGINE,
            _FAULT_ID,
            _FAULT,
            _seconds("silent_s", "from the fault to its end, when it asked"),
            _flag("gone", "the server had given it up by then"),
            _text("how", "pong, or how the connection ended"),
        ),
    ),
    TableSchema(
        "revival_law",
        "fault: when a server gives its clients up, by revivals alone (current-status data)",
        (
            _ENGINE,
            _FAULT,
            _count("n", "clients that were told"),
            _count("gone", "of them were given up"),
            _seconds("held_until_s", "none was gone who asked up to then"),
            _seconds("gone_from_s", "all were gone who asked from then on; infinite: no such time"),
            *(
                column
                for p in ("p10", "p50", "p90")
                for column in (
                    _seconds(f"{p}_s", f"{p[1:]} % are given up by then; empty: not reached"),
                    _seconds(f"{p}_lo_s", "lower 95 % bound, exact; 0: none"),
                    _seconds(f"{p}_hi_s", "upper bound; infinite: none"),
                )
            ),
        ),
    ),
    TableSchema(
        "counted",
        "answer of a server that is not ours to how many connections it has",
        (
            _ENGINE,
            _TIME,
            _number("connections", "", "that the server tells of"),
            _count("live_clients", "healthy and connected"),
            _number("ghosts", "", "connections beyond the live clients, at least 0"),
        ),
    ),
    TableSchema(
        "timelines",
        "event of one client of each fault, the same in all engines: whom the fault met at nearly the same phase",
        (
            _ENGINE,
            _FAULT,
            _FAULT_ID,
            _seconds("time_s", "from the fault"),
            _text("lane", "client, gateway, store, peers or login"),
            _text("kind", "of event"),
            _CAUSE,
            _text("note", "what else is to be known"),
        ),
    ),
    TableSchema(
        "tcp_info",
        "engine and fault: what the gateway's kernel said at suspicion",
        (
            _ENGINE,
            _FAULT,
            _count("n", "suspicions with TCP_INFO"),
            _number("unacked_share", "fraction", "with unacknowledged data"),
            _number("retransmitted_share", "fraction", "that had sent again"),
        ),
    ),
    TableSchema(
        "lag",
        "sample of a process' event loop",
        (*_PROCESS, _number("max_lag_s", "real s", "largest lag since the sample before"), _NODE),
    ),
    TableSchema(
        "lateness",
        "node and second: how late its heartbeats left",
        (
            _ENGINE,
            _NODE,
            _TIME,
            _count("n", "heartbeats"),
            _number("p50_s", "real s", "median lateness"),
            _number("p99_s", "real s", "99th percentile"),
            _number("max_s", "real s", "largest"),
        ),
    ),
    TableSchema(
        "handshakes",
        "connection that was made",
        (
            _ENGINE,
            _TIME,
            _number("took_s", "real s", "TCP, WebSocket and authentication; simulated: scenario s"),
        ),
    ),
    TableSchema(
        "resources",
        "sample of a process",
        (
            *_PROCESS,
            _number("cpu_percent", "% of a core", "since the sample before, real time"),
            Column("rss_bytes", "int64", "bytes", "resident memory"),
            _count("descriptors", "open file descriptors"),
            _NODE,
        ),
    ),
    TableSchema(
        "omission",
        "engine and fault: what a stalled load generator may hide",
        (
            _ENGINE,
            _FAULT,
            _count("planned", "faults in the plan"),
            _count("injected", "that took effect"),
            _seconds("late_p50_s", "their median lateness"),
            _seconds("late_max_s", "the largest"),
            _seconds("p50_s", "median latency as measured"),
            _seconds("p50_longest_s", "counted from when the generator was last known to be on time"),
            _seconds("p99_s", "99th percentile as measured"),
            _seconds("p99_longest_s", "counted likewise"),
        ),
    ),
    TableSchema(
        "session_quality",
        "figure and fault: what became of sessions",
        (
            _ENGINE,
            _text("fault", "label of the fault; empty: all"),
            _text(
                "figure",
                "resumed, stale_session_errors, presence_flicker, records_of_dead_sessions, "
                "records_left_after_verdict, live_sessions_without_record, records_of_nobody, "
                "ledger_inconsistencies",
            ),
            _count("count", "how many"),
            _count("denominator", "out of how many"),
            _number("share", "fraction", "the quotient"),
            *_bounds("fraction", "share"),
            _text("note", "what else is to be known"),
        ),
    ),
    TableSchema(
        "presence_flaps",
        "user shown offline and online again within 60 s to a watcher",
        (
            _ENGINE,
            _SESSION,
            _text("user_id", "who"),
            _text("watcher", "client that was told"),
            _seconds("offline_s", "when it was told offline, since the run's origin"),
            _seconds("gap_s", "until it was told online"),
        ),
    ),
    TableSchema(
        "cost",
        "engine: heartbeats, bytes, CPU, memory; rates are per scenario second after the ramp",
        (
            _ANY_ENGINE,
            _number("clients", "", "connections, mean"),
            _number("heartbeats_per_s", "1/s", "sent by the gateway"),
            _number("frames_per_s", "1/s", "heartbeats and answers"),
            _number(
                "bytes_per_s", "bytes/s", "theirs, with WebSocket, TCP and IPv4 headers, and TLS's if spoken"
            ),
            _number(
                "redis_operations_per_s",
                "1/s",
                "writes of records by refreshes, two for each; empty: watched for less time than a client's are apart",
            ),
            _number("gateway_cpu_percent", "% of a core", "a gateway process, mean, real time"),
            _number("gateway_rss_bytes", "bytes", "a gateway process, most"),
            _text("basis", "who counted"),
            _number("redis_operations", "", "of refreshes, counted while nobody came or went"),
            _number("redis_operations_expected", "", "by theory in that time; empty: it does not know"),
            _seconds("redis_watched_s", "how long that was"),
            _number("redis_clients", "", "connected in that time, mean"),
            _number("tls_handshake_bytes", "bytes", "of TLS's handshakes, reckoned; empty: no TLS"),
            _seconds("tls_handshake_cpu_s", "what those take of the gateway's core, reckoned, real time"),
        ),
    ),
    TableSchema(
        "reconnects",
        "span of time: who came and went",
        (
            _ENGINE,
            _seconds("time_s", "begin of the span"),
            _seconds("width_s", "of the span"),
            _count("disconnected", "connections that ended"),
            _count("connected", "connections made"),
            _count("resumed", "with their old session"),
            _count("session_unknown", "told that their session is unknown"),
            _count("logged_in", "new sessions"),
            _count("login_refused", "logins refused"),
        ),
    ),
    TableSchema(
        "incidents",
        "incident of a node or the store that took effect; times count from at_s",
        (
            _ENGINE,
            _text("incident_id", "which of the planned incidents"),
            _text("kind", "node_crash, node_drain, gateway_stall, store_flush, store_restart, …"),
            _text("node", "that it befell; empty: the store"),
            _flag("cuts_connections", "whether it ends every connection of the node"),
            _seconds("at_s", "when it took effect, since the run's origin"),
            _seconds("lasts_s", "until its cause was gone"),
            _seconds("watched_s", "until the run's end"),
            _count("clients_hit", "connected and alive at that moment"),
            _count("clients_lost", "of those, whose connection ended"),
            _count("clients_back", "of those, who connected again"),
            _count("clients_away", "who did not"),
            _seconds("back_p50_s", "median time until a client was back"),
            _seconds("back_p99_s", "99th percentile"),
            _seconds("back_max_s", "longest"),
            _seconds("detected_s", "when a peer first said that the lease had ended"),
            _seconds("ghosts_gone_s", "when the store watch saw no record of it any more"),
            _seconds("store_agrees_s", "when it saw every record right again"),
            _seconds("grain_s", "time between the store watch's looks at that moment"),
            _count("false_suspicions", "laid to it"),
            _seconds("bound_s", "by when the store must agree, at the latest"),
            _text("in_time", "pass, fail or unknown: whether it did, give or take ε and grain_s"),
        ),
    ),
    TableSchema(
        "thresholds",
        "threshold of the scenario, with its verdict",
        (
            _text("expression", "as the scenario says it"),
            _number("value", "its own", "what was measured; empty: it could not be"),
            _text("verdict", "pass, fail, unknown or not_asked (a simulation without such times)"),
            _text("reason", "why, in a sentence"),
        ),
    ),
)
TABLES: Final[Mapping[str, TableSchema]] = {table.name: table for table in _DECLARED}
"""Every table of a run directory by the name of its CSV file."""
SCHEMAS: Final[Mapping[str, Mapping[str, str]]] = {
    name: {column.name: column.dtype for column in table.columns} for name, table in TABLES.items()
}
"""The types of each table's columns, in order."""


def frame(name: str, rows: Iterable[Sequence[Any]] = ()) -> pd.DataFrame:
    """Make the table ``name`` of rows that have its columns in order.

    Raises:
        KeyError: no such table.
        ValueError: a row has other columns.
    """
    given = list(rows)
    return frame_of_columns(name, list(zip(*given, strict=True)) if given else [()] * len(SCHEMAS[name]))


def frame_of_columns(name: str, columns: Sequence[Sequence[Any] | np.ndarray[Any, Any]]) -> pd.DataFrame:
    """Make the table ``name`` of its columns in order, each of the same length.

    Raises:
        KeyError: no such table.
        ValueError: other columns.
    """
    schema = SCHEMAS[name]
    if len(columns) != len(schema):
        raise ValueError(f"{name}: {len(columns)} columns; allowed: {len(schema)}")
    if not len(columns[0]):  # as most tables of most runs are
        return _empty(name).copy()
    # Each column with its type: pandas takes four times as long to find the types out and then to change them.
    typed = {
        column: pd.array(values, dtype="str") if dtype == "str" else np.array(values, dtype=dtype)
        for (column, dtype), values in zip(schema.items(), columns, strict=True)
    }
    return pd.DataFrame(typed)


@cache
def _empty(name: str) -> pd.DataFrame:
    return pd.DataFrame([], columns=list(SCHEMAS[name])).astype(dict(SCHEMAS[name]))


class TablesError(ValueError):
    """A run directory cannot be read. Its text names the file and what is wrong with it."""

    exit_code = 2  # bad input, as `reference_server.errors.Exit` has it: this package imports nothing of ours


@dataclass(frozen=True)
class RunTables:
    """One run, as its directory tells it. Times are in the units that `TABLES` names.

    ``summary`` and ``provenance`` are summary.json and run.json; ``absent`` names the tables that have no
    file. The properties below answer with None or an empty value for what the run does not say.
    """

    path: Path
    summary: Mapping[str, Any]
    provenance: Mapping[str, Any]
    absent: frozenset[str]
    frames: Mapping[str, pd.DataFrame] = field(repr=False)

    def table(self, name: str) -> pd.DataFrame:
        """One table by name, with the columns that `SCHEMAS` lists; empty where the run has none.

        Raises:
            KeyError: no such table in any run.
        """
        return self.frames[name]

    @cached_property
    def name(self) -> str:
        """The scenario's name."""
        return str(self._fact("name") or self._fact("scenario") or self.path.name)

    @cached_property
    def description(self) -> str:
        """What the scenario shows, one paragraph."""
        return " ".join(str(self._fact("description") or "").split())

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """The engines of this run in the order theory, simulated, real: stated, or else seen in its tables."""
        stated = self._fact("engines")
        if isinstance(stated, list):
            known = {str(engine) for engine in stated}
        else:
            known = {str(engine) for engine in self.table("detections")["engine"]}
            known |= set() if self.table("laws").empty else {"theory"}
        return tuple(engine for engine in ENGINES if engine in known)

    @cached_property
    def foreign(self) -> bool:
        """Whether the real engine's server is not ours: it is seen as far as its target file names witnesses."""
        return bool(self.provenance.get("target"))

    @cached_property
    def epsilon_window_s(self) -> tuple[float, float] | None:
        """From when to when (perhaps infinite) lag counts for ε, scenario seconds; None: not known."""
        parts = self.summary.get("epsilon_parts")
        if not isinstance(parts, dict) or not isinstance(parts.get("window_from_s"), int | float):
            return None
        to_s = parts.get("window_to_s")
        return float(parts["window_from_s"]), float(math.inf if to_s is None else to_s)

    @cached_property
    def measured_engines(self) -> tuple[str, ...]:
        """The engines that measure: simulated, real."""
        return tuple(engine for engine in self.engines if engine != "theory")

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """Every fault's label, in the order in which the tables name them."""
        laws = self.table("laws")
        names = [
            *laws.loc[~laws["milestone"].str.startswith(LOST), "fault"],
            *self.table("detections")["fault"],
            *self.table("qos")["fault"],
        ]
        return tuple(dict.fromkeys(map(str, names)))

    @cached_property
    def pace(self) -> float:
        """How many seconds of the scenario one real second of the run was; 1 where nothing ran for real."""
        return (self.number("speedup") or 1.0) if "real" in self.engines else 1.0

    @cached_property
    def complete(self) -> bool | None:
        """Whether the run reached its end; None where it does not say."""
        status = self._fact("status")
        return None if status is None else status == "complete"

    @cached_property
    def sound(self) -> bool | None:
        """Whether a real run's numbers may be believed; None where nobody judged (no real engine)."""
        sound = self._fact("sound")
        return None if sound is None else bool(sound)

    @cached_property
    def unsound_reasons(self) -> tuple[str, ...]:
        """Why the run is not sound, one sentence each."""
        return tuple(map(str, self._fact("unsound_reasons") or ()))

    @cached_property
    def negative_control(self) -> bool:
        """Whether the gateway was given another policy than the scenario's, to see the report turn red."""
        return bool(self._fact("negative_control"))

    def number(self, key: str) -> float | None:
        """Return a number of summary.json or run.json; None where it is absent, null or not a number."""
        value = self._fact(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return None if math.isnan(value) else float(value)

    def records(self, key: str) -> list[dict[str, Any]]:
        """Return a list of objects of summary.json, as ``fault_windows``; empty where it is absent."""
        value = self._fact(key)
        return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []

    def _fact(self, key: str) -> Any:
        value = self.summary.get(key)
        return self.provenance.get(key) if value is None else value


def check_format(path: Path, provenance: Mapping[str, Any]) -> None:
    """Refuse a run directory whose tables have other names.

    Args:
        path: the run directory.
        provenance: run.json; empty where there is none.

    Raises:
        TablesError: an older flatline made it, or a newer one.
    """
    found = provenance.get("format", 1) if provenance else FORMAT
    if found != FORMAT:
        by = "a newer" if isinstance(found, int) and found > FORMAT else "an older"
        raise TablesError(
            f"{path}: made by {by} flatline (format {found}, this one reads {FORMAT}); "
            "read it with that version, or run the scenario again"
        )


def load_run(path: Path) -> RunTables:
    """Read a run directory.

    Raises:
        TablesError: no such directory, one of another format, a file that is not what its name says, a
            table without one of its columns, or a number that is none.
    """
    if not path.is_dir():
        raise TablesError(f"{path}: no such run directory")
    provenance = _read_json(path / "run.json")
    check_format(path, provenance)
    frames = {name: _read_table(path / f"{name}.csv", name) for name in SCHEMAS}
    absent = frozenset(name for name, table in frames.items() if table is None)
    return RunTables(
        path=path,
        summary=_read_json(path / "summary.json"),
        provenance=provenance,
        absent=absent,
        frames={name: frame(name) if table is None else table for name, table in frames.items()},
    )


def _read_table(path: Path, name: str) -> pd.DataFrame | None:
    schema = SCHEMAS[name]
    text = {column: "str" for column, kind in schema.items() if kind == "str"}
    # Only an empty cell is "no value": a user, a note or a node may be called "NA" or "null".
    blanks = {column: [""] for column, kind in schema.items() if kind != "str"}
    try:
        found = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blanks)
    except FileNotFoundError:
        return None
    except pd.errors.EmptyDataError:
        return frame(name)
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise TablesError(f"{path}: not a table: {error}") from error
    if lacking := [column for column in schema if column not in found.columns]:
        raise TablesError(
            f"{path}: no column {', '.join(lacking)}; it has {', '.join(map(str, found.columns))}"
        )
    try:
        return found.astype(dict(schema))
    except ValueError as error:
        raise TablesError(f"{path}: a cell that should be a number is none: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TablesError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise TablesError(f"{path}: not a JSON object")
    return content
