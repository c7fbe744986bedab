"""What a threshold is about, as an estimate: a value and the interval in which it lies.

From the tables of a run to one `Estimate`. Facts of the run (counts, maxima) have no width; what stands
for more than this run (percentiles, means, rates, shares) has its 95 % interval. Judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from harness.measure.health import poisson_interval
from harness.statistics.incidence import CONFIDENCE, incidence
from reports.run_tables import PERCENTILES, RunTables

__all__ = ["METRICS", "Estimate", "Metric", "Query", "gaps", "unprovoked"]

_INF = float("inf")
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Estimate:
    """``lo`` ≤ ``value`` ≤ ``hi``; a value of NaN is not known. ``note`` says what it rests on."""

    value: float
    lo: float
    hi: float
    note: str

    @classmethod
    def fact(cls, value: float, note: str) -> Estimate:
        """A value without uncertainty."""
        return cls(value, value, value, note)

    @classmethod
    def nothing(cls, note: str) -> Estimate:
        """No data."""
        return cls(_NAN, 0.0, _INF, note)


@dataclass(frozen=True, slots=True)
class Query:
    """One aggregate of one metric over the rows that its tags select."""

    engine: str
    aggregate: str
    tags: Mapping[str, str]
    pair: str = ""  # of agreement: real_vs_theory, …
    name: str = ""  # of the metric

    @property
    def quantile(self) -> float:
        """0.99 for p99."""
        return float(self.aggregate[1:]) / 100

    def of(self, table: pd.DataFrame, **more: str) -> pd.DataFrame:
        """The table's rows of this engine and these tags."""
        wanted = {"engine": self.engine, **self.tags, **more}
        keep = np.ones(len(table), dtype=bool)
        for column, value in wanted.items():
            if column in table:
                keep &= (table[column] == value).to_numpy()
        return table[keep]


class Metric(NamedTuple):
    """A name that thresholds may use: the unit of each aggregate (``p``: any percentile), tags, and how it is taken.

    Units are duration, count, share and rate.
    """

    units: Mapping[str, str]
    tags: tuple[str, ...]
    estimate: Callable[[RunTables, Query], Estimate]
    of_machines: bool = False  # a model may have no such times

    def unit(self, aggregate: str) -> str | None:
        """The unit of an aggregate, ``p99.9`` for instance; None: there is no such aggregate."""
        percentile = re.fullmatch(r"p(\d+(?:\.\d+)?)", aggregate)
        if aggregate in self.units or percentile is None or not 0 < float(percentile[1]) < 100:
            return self.units.get(aggregate) if aggregate != "p" else None
        return self.units.get("p")


def _durations(seconds: pd.Series[float], censored: pd.Series[bool], query: Query) -> Estimate:
    """Mean or maximum; what is censored lasts at least as long as it was watched."""
    n, cut = len(seconds), int(censored.sum())
    note = f"n = {n}" + (f", {cut} not noticed by the run's end" if cut else "")
    if query.aggregate == "max":
        longest = float(seconds.max())
        return Estimate(longest, longest, _INF if cut else longest, note)
    mean = float(seconds.mean())
    error = float(stats.sem(seconds)) if n > 1 else _INF
    spread = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error if n > 1 else _INF
    return Estimate(mean, max(0.0, mean - spread), _INF if cut else mean + spread, note)


def _latency(tables: RunTables, query: Query) -> Estimate:
    rows = query.of(tables.table("detections"))
    rows = rows[rows["outcome"] != "not_applicable"]
    if rows.empty:
        return Estimate.nothing("no such fault took effect")
    if query.aggregate in ("mean", "max"):
        rows = rows[rows["outcome"] != "recovered"]
        if rows.empty:
            return Estimate.nothing("every one recovered first")
    late, early = (_times(rows[name], rows["outcome"], query) for name in ("duration_s", "earliest_s"))
    return replace(late, lo=min(late.lo, early.lo))  # what the store watch sees lies between two looks


def _times(seconds: pd.Series[float], outcomes: pd.Series[str], query: Query) -> Estimate:
    if query.aggregate in ("mean", "max"):
        return _durations(seconds, outcomes == "censored", query)
    return _percentile(seconds, outcomes, query)


def _percentile(seconds: pd.Series[float], outcomes: pd.Series[str], query: Query) -> Estimate:
    curve = incidence(seconds.to_numpy(), outcomes.to_numpy())
    found = curve.quantile(query.quantile)
    back = int((outcomes == "recovered").sum())
    note = f"n = {curve.n}" + (f", {back} alive again before they were noticed" if back else "")
    note += f", {curve.censored} not noticed by the run's end" if curve.censored else ""
    if not found.exists:
        note += f", too few for a 95 % interval of {query.aggregate}"
    return Estimate(found.value_s, found.lo_s, found.hi_s, note)


def _locked_out(tables: RunTables, query: Query) -> Estimate:
    tags = {**query.tags, "milestone": "locked_out"}
    return _latency(tables, Query(query.engine, query.aggregate, tags))


def _ghost_seconds(tables: RunTables, query: Query) -> Estimate:
    rows = query.of(tables.table("ghosts"))
    if rows.empty:
        return Estimate.nothing("no fault that makes a ghost took effect")
    # A ghost ends with its recovery as with its removal: nothing competes here.
    return _times(rows["ghost_s"], rows["outcome"].replace("recovered", "detected"), query)


def _ghosts(tables: RunTables, query: Query) -> Estimate:
    if query.aggregate == "at_end":
        rows = query.of(tables.table("ghosts"))
        return Estimate.fact(int((rows["outcome"] == "censored").sum()), f"of {len(rows)} ghosts")
    rows = query.of(tables.table("population"))
    if rows.empty:
        return Estimate.nothing("no samples")
    return Estimate.fact(float(rows["ghosts"].max()), f"{len(rows)} samples")


def _counted_ghosts(tables: RunTables, query: Query) -> Estimate:
    """Connections that a server tells of beyond the clients that live, at its last answer or at the worst one."""
    rows = query.of(tables.table("counted"))
    if rows.empty:
        return Estimate.nothing("the server told no number of connections")
    beyond = rows["ghosts"].iloc[-1] if query.aggregate == "at_end" else rows["ghosts"].max()
    return Estimate.fact(float(beyond), f"{len(rows)} answers, {rows['connections'].max():g} at most")


def _false_suspicions(tables: RunTables, query: Query) -> Estimate:
    rows = query.of(tables.table("false_suspicions"))
    if rows.empty:
        return Estimate.nothing("not measured")
    row = rows.iloc[0]
    note = f"{row['count']} in {row['client_days']:.3g} client-days"
    if query.aggregate == "count":
        return Estimate.fact(int(row["count"]), note)
    return Estimate(float(row["rate_per_client_day"]), float(row["rate_lo"]), float(row["rate_hi"]), note)


def _losses(tables: RunTables, query: Query) -> Estimate:
    """Of all losses, or of one author's: how many, how often, whose, how many sessions with them, for how long."""
    of_all = query.of(tables.table("losses"), author="")
    if of_all.empty:
        return Estimate.nothing("not measured")
    rows = query.of(tables.table("losses"), author=query.tags.get("author", ""))
    if rows.empty:  # that author ended none
        rows = of_all.assign(**dict.fromkeys(_LOST, 0), offline_share=0.0)
    row = rows.iloc[0]
    days, clients = float(row["client_days"]), int(row["healthy_clients"])
    note = (
        f"{row['connections']:g} lost in {days:.3g} client-days, by {row['clients']:g} of {clients} clients"
    )
    match query.name, query.aggregate:
        case "healthy.losses", "rate":
            count = int(row["connections"])
            return Estimate(count / days if days else _NAN, *poisson_interval(count, days), note)
        case "healthy.clients_lost", "share":
            return _share(int(row["clients"]), clients, note)
        case "healthy.offline", _:
            return Estimate.fact(float(row["offline_share"]), note)
        case name, _:
            return Estimate.fact(float(row[_LOST_BY[name]]), note)


_LOST_BY = {
    "healthy.losses": "connections",
    "healthy.clients_lost": "clients",
    "healthy.sessions_lost": "sessions",
}
_LOST = tuple(_LOST_BY.values())


def _share(count: int, n: int, note: str) -> Estimate:
    if not n:
        return Estimate.nothing(note)
    interval = stats.binomtest(count, n).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(count / n, interval.low, interval.high, note)


def unprovoked(tables: RunTables, engine: str) -> Estimate:
    """Return the share of healthy clients that lost a connection for no reason that the scenario gives.

    Not counted: losses laid to an incident, drains, take-overs, losses in an outage of the client's network, and
    what a fault hampers.
    """
    rows = tables.table("healthy_connections")
    rows = rows[(rows["engine"] == engine) & (rows["hampered_by"] == "")]
    if rows.empty:
        return Estimate.nothing("no healthy client was connected")
    given = (rows["incident"] != "") | rows["in_outage"] | rows["author"].isin(["drain", "take_over"])
    lost = rows.loc[(rows["outcome"] == "lost") & ~given]
    clients, n = lost["client"].nunique(), rows["client"].nunique()
    authors = ", ".join(f"{count} by {author}" for author, count in lost["author"].value_counts().items())
    note = f"{clients} of {n} healthy clients lost a connection" + (f": {authors}" if authors else "")
    spared = rows.loc[(rows["outcome"] == "lost") & given, "client"].nunique()
    note += f", besides {spared} for reasons that the scenario gives" if spared else ""
    return Estimate.fact(clients / n, note)


def _live(tables: RunTables, query: Query) -> Estimate:
    """Of those that should be connected after the ramp, the mean share that was."""
    rows = query.of(tables.table("population"))
    ramp_s = tables.number("ramp_s") or 0.0
    rows = rows[(rows["time_s"] >= ramp_s) & (rows["expected_clients"] > 0)]
    if rows.empty:
        return Estimate.nothing("no samples")
    share = np.minimum(1.0, rows["live_clients"] / rows["expected_clients"])
    return Estimate.fact(float(share.mean()), f"{len(rows)} samples, {share.min():.1%} at the least")


def gaps(tables: RunTables, query: Query) -> Estimate:
    """Of the time in which healthy clients were connected: how often, and for how long, the store did not show them."""
    seen = query.of(tables.table("population"))
    if seen["store_sessions"].isna().all():
        return Estimate.nothing("nobody looked at the store")
    rows, held = query.of(tables.table("presence_gaps")), query.of(tables.table("healthy_connections"))
    connected_s, absent_s = float(held["watched_s"].sum()), float(rows["lasts_s"].sum())
    of_clients = f"{len(rows)} gaps of {rows['client'].nunique()} clients, {absent_s:.4g} s together"
    note = of_clients if len(rows) else f"no gap in {connected_s / 86_400:.3g} client-days"
    if query.aggregate == "count":
        return Estimate.fact(len(rows), note)
    return (
        Estimate.fact(absent_s / connected_s, note) if connected_s else Estimate.nothing("nobody connected")
    )


def _handshakes(tables: RunTables, query: Query) -> Estimate:
    """Of all connections that were made: facts of the run, real seconds."""
    rows = query.of(tables.table("handshakes"))
    if rows.empty:
        return Estimate.nothing("nobody connected")
    share = 1.0 if query.aggregate == "max" else query.quantile
    taken_s = float(np.quantile(rows["took_s"], share, method="higher"))
    return Estimate.fact(taken_s, f"{len(rows)} handshakes")


def _lateness(tables: RunTables, query: Query) -> Estimate:
    """Of all heartbeats, real seconds. The log has each second's p50, p99 and maximum: between them, straight lines."""
    rows = query.of(tables.table("lateness"))
    rows = rows[rows["n"] > 0] if len(rows) else rows
    if rows.empty:
        return Estimate.nothing("no heartbeat was sent")
    note = f"{rows['n'].sum()} heartbeats, from the figures of {len(rows)} seconds"
    if query.aggregate == "max":
        return Estimate.fact(float(rows["max_s"].max()), note)
    corners = rows[["p50_s", "p99_s", "max_s"]].cummax(axis=1).to_numpy(dtype=float)
    late_s = np.unique(np.concatenate(([0.0], corners.ravel())))
    shares = [np.interp(late_s, [0.0, *seen], [0.0, 0.5, 0.99, 1.0]) for seen in corners]
    pooled = np.average(shares, axis=0, weights=rows["n"])
    return Estimate.fact(float(np.interp(query.quantile, pooled, late_s)), note)


def _outcome(name: str) -> Callable[[RunTables, Query], Estimate]:
    def estimate(tables: RunTables, query: Query) -> Estimate:
        rows = query.of(tables.table("detections"))
        if name != "not_applicable":
            rows = rows[rows["outcome"] != "not_applicable"]
        n, count = len(rows), int((rows["outcome"] == name).sum())
        if query.aggregate == "count":
            return Estimate.fact(count, f"of {n}")
        return _share(count, n, f"{count} of {n}" if n else "no such fault took effect")

    return estimate


def _agreement(tables: RunTables, query: Query) -> Estimate:
    """Largest relative difference |left − right| / right of the rows that the tags select.

    Two values that are both within ε of zero can't be told apart: they differ by 0. A row whose own
    verdict is `unknown` may differ by anything.
    """
    table, epsilon_s = tables.table("agreement"), tables.number("epsilon_s") or 0.0
    left, right = query.pair.split("_vs_")
    rows = query.of(table, figure=query.aggregate, left=left, right=right)
    if rows.empty:
        return Estimate.nothing("no such comparison")
    a, b = rows["left_s"].to_numpy(dtype=float), rows["right_s"].to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(np.maximum(a, b) <= epsilon_s, 0.0, np.abs(a - b) / b)
    open_ = ~np.isfinite(relative) | (rows["verdict"] == "unknown").to_numpy()
    note = f"{len(rows)} comparisons" + (f", {open_.sum()} not decided" if open_.any() else "")
    known = relative[~open_]
    if not known.size:
        return Estimate.nothing(note)
    worst = float(known.max())
    return Estimate(worst, worst, _INF if open_.any() else worst, note)


def _incident(tables: RunTables, query: Query) -> Estimate:
    """The worst of the incidents that the tags select; what did not come to pass is without end."""
    tags = {"incident_id": query.tags["incident"]} if "incident" in query.tags else {}
    rows = Query(query.engine, query.aggregate, tags).of(tables.table("incidents"))
    if rows.empty:
        return Estimate.nothing("no such incident took effect")
    note = f"{len(rows)} incidents" if len(rows) > 1 else f"{rows.iloc[0]['clients_lost']} clients lost"
    column = query.aggregate if query.aggregate in rows else f"{query.aggregate}_s"
    values = rows[column]
    if column.startswith("back_"):
        values = values.where((rows["clients_away"] == 0) | values.isna(), _INF)
        values = values.where(rows["clients_lost"] > 0, 0.0)
    return Estimate.fact(float(values.fillna(_INF).max()), note)


_FAULT = ("fault", "engine")
_MILESTONE = (*_FAULT, "milestone")
_AUTHOR = ("author", "engine")
_SECONDS = {"p": "duration", "mean": "duration", "max": "duration"}
_COUNT_AND_SHARE = {"count": "count", "share": "share"}
_OF_INCIDENTS = {
    **dict.fromkeys(("clients_hit", "clients_lost", "clients_away", "false_suspicions"), "count"),
    **dict.fromkeys(
        ("back_p50", "back_p99", "back_max", "detected", "ghosts_gone", "store_agrees"), "duration"
    ),
}

METRICS: Final[Mapping[str, Metric]] = {
    "detection_latency": Metric(_SECONDS, _MILESTONE, _latency),
    "locked_out": Metric(_SECONDS, _FAULT, _locked_out),
    "ghost_seconds": Metric(_SECONDS, _FAULT, _ghost_seconds),
    "ghosts": Metric({"at_end": "count", "max": "count"}, ("engine",), _ghosts),
    "counted_ghosts": Metric({"at_end": "count", "max": "count"}, ("engine",), _counted_ghosts),
    "false_suspicions": Metric({"count": "count", "rate": "rate"}, ("engine",), _false_suspicions),
    "healthy.losses": Metric({"count": "count", "rate": "rate"}, _AUTHOR, _losses),
    "healthy.clients_lost": Metric(_COUNT_AND_SHARE, _AUTHOR, _losses),
    "healthy.sessions_lost": Metric({"count": "count"}, _AUTHOR, _losses),
    "healthy.offline": Metric({"share": "share"}, _AUTHOR, _losses),
    "live": Metric({"share": "share"}, ("engine",), _live),
    "presence.gaps": Metric(_COUNT_AND_SHARE, ("engine",), gaps),
    "handshake": Metric({"p": "duration", "max": "duration"}, ("engine",), _handshakes),
    "heartbeat_lateness": Metric({"p": "duration", "max": "duration"}, ("engine",), _lateness, True),
    "agreement": Metric(dict.fromkeys(PERCENTILES, "share"), ("fault", "milestone"), _agreement),
    "incidents": Metric(_OF_INCIDENTS, ("incident", "engine"), _incident),
    **{
        name: Metric(_COUNT_AND_SHARE, _MILESTONE, _outcome(name))
        for name in ("detected", "censored", "recovered", "not_applicable")
    },
}
"""Every metric by its name in thresholds."""
