"""Thresholds of a scenario: ``detection_latency{fault=host_crash}.p99 < 100s`` and what became of it.

From expressions to `Threshold`s (before a run: whatever cannot be checked is an error then, never a
silent pass), and from those and a run's tables to verdicts. The metrics themselves are in `threshold_metrics.py`.

An expression is ``metric{tag=value, …}.aggregate operator limit``; the tags may stand after the aggregate.
Without a tag the metric takes in everything, but ``milestone`` is then `suspected`, and ``engine`` the
real one if it ran, else the simulation. Limits carry units: ``100s`` for times, ``3%`` or ``0.03`` for
shares, ``1/client-week`` or ``2 per user-day`` for rates, a bare number for counts.

Verdicts are three: *pass* and *fail* where the value's whole 95 % interval is on one side of the limit,
*unknown* where it straddles the limit or is not there (the sample is too small), where there is nothing
to measure, or where the run is unsound. A threshold on what only machines have, as the lateness of heartbeats, is
*not_asked* of a model whose gateway takes no time.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.judge.threshold_metrics import METRICS, Estimate, Query, gaps, unprovoked
from harness.measure.connections import AUTHORS
from reference_server.durations import parse_duration
from reference_server.errors import FlatlineError, unknown_name
from reports.run_tables import MEASURED_ENGINES, MILESTONES, RunTables, frame
from scenarios.faults import catalogue
from scenarios.rates import parse_rate
from scenarios.schema import Scenario

__all__ = [
    "DEFAULT_THRESHOLDS",
    "NOT_ASKED",
    "UNSOUND",
    "Threshold",
    "ThresholdError",
    "check_thresholds",
    "default_thresholds",
    "evaluate",
    "parse_threshold",
    "with_what_is_seen",
    "wrong_thresholds",
]

_OPERATORS: dict[str, Any] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_PAIRS = ("real_vs_theory", "simulated_vs_theory", "real_vs_simulated")
_FORM = re.compile(
    r"^\s*(?P<metric>\w+(?:\.\w+)*?)(?:\.(?P<pair>\w+_vs_\w+))?\s*(?:\{(?P<tags>[^{}]*)\})?"
    r"\s*\.(?P<aggregate>p\d+(?:\.\d+)?|[a-z]\w*)\s*(?:\{(?P<late_tags>[^{}]*)\})?\s*(?P<operator><=|>=|==|!=|<|>)\s*(?P<limit>[^\s<>=!][^<>=!]*?)\s*$"
)
_EXAMPLE = "detection_latency{fault=host_crash}.p99 < 100s"


MOST_CLIENTS_LOST = 0.05
"""Of the healthy clients: a run in which more lost a connection is red, unless the scenario says what it allows."""
MOST_NOT_SHOWN = 0.05
"""Of the time of connected healthy clients: a run in which the store hid more of it is red, unless likewise."""
_LOST = f"healthy.clients_lost.share <= {MOST_CLIENTS_LOST:.0%} (default)"
_NOT_SHOWN = f"presence.gaps.share <= {MOST_NOT_SHOWN:.0%} (default)"
DEFAULT_THRESHOLDS = (_LOST, _NOT_SHOWN)
UNSOUND = "the run is unsound"
"""The reason of every threshold that rests on the real times of an unsound run; the verdict says once why it is."""
NOT_ASKED = "not_asked"
"""The verdict on a threshold that says nothing of such a run: it does not count."""
# What only our own gateway and its store have.
_OURS = frozenset(
    {"locked_out", "healthy.sessions_lost", "live", "presence.gaps", "heartbeat_lateness", "incidents"}
)
_RESTS_ON = {"false_suspicions": "suspected", "ghosts": "store_cleared", "ghost_seconds": "store_cleared"}
_SAYS_WHAT_LOSSES = ("healthy.losses", "healthy.clients_lost")


class ThresholdError(FlatlineError):
    """Thresholds that cannot be checked: every problem, with what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


@dataclass(frozen=True, slots=True)
class Threshold:
    """One parsed expression. ``limit`` is in seconds, a fraction, a count, or per client-day."""

    expression: str
    metric: str
    pair: str
    tags: tuple[tuple[str, str], ...]
    aggregate: str
    operator: str
    limit: float
    unit: str

    def allows(self, value: float) -> bool:
        """Whether a value keeps it; one that is not known (NaN) does not."""
        return value == value and bool(_OPERATORS[self.operator](value, self.limit))


def parse_threshold(expression: str, faults: Sequence[str], incidents: Sequence[str] = ()) -> Threshold:
    """Read one expression; ``faults`` and ``incidents`` are the labels that the scenario knows.

    Raises:
        ThresholdError: it is not an expression, or names something that is not there.
    """

    def wrong(what: str, got: str, allowed: Sequence[str]) -> ThresholdError:
        return ThresholdError([unknown_name(f"{expression!r}: {what} {got!r}", got, allowed)])

    match = _FORM.match(expression)
    if match is None:
        raise ThresholdError([f"{expression!r} is not a threshold; an example: {_EXAMPLE}"])
    name, pair, aggregate = match["metric"], match["pair"] or "", match["aggregate"]
    tags: dict[str, str] = {}
    if name not in METRICS and name.rpartition(".")[2] in AUTHORS:
        name, _, tags["author"] = name.rpartition(".")  # healthy.losses.middle.count
    metric = METRICS.get(name)
    if metric is None:
        raise wrong("unknown metric", name, list(METRICS))
    if name == "agreement" and pair not in _PAIRS:
        raise wrong("agreement of", pair, [f"agreement.{p}" for p in _PAIRS])
    if name != "agreement" and pair:
        raise wrong("only agreement compares engines, not", f"{name}.{pair}", ["agreement"])
    unit = metric.unit(aggregate)
    if unit is None:
        allowed = ["p50, p95, p99, or any other percentile" if a == "p" else a for a in metric.units]
        raise wrong(f"{name} has no", aggregate, allowed)
    values = {
        "fault": faults,
        "milestone": MILESTONES,
        "engine": MEASURED_ENGINES,
        "incident": incidents,
        "author": AUTHORS,
    }
    written_tags = f"{match['tags'] or ''},{match['late_tags'] or ''}"
    for written in filter(None, (tag.strip() for tag in written_tags.split(","))):
        tag, _, value = (part.strip() for part in written.partition("="))
        if tag not in metric.tags or tag in tags:
            raise wrong("unknown tag" if tag not in tags else "tag twice:", tag, metric.tags)
        if value not in values[tag]:
            raise wrong(f"unknown {tag}", value, values[tag] or [f"none: the scenario has no {tag}s"])
        tags[tag] = value
    try:
        limit = _limit(match["limit"], unit)
    except ValueError as error:
        raise ThresholdError([f"{expression!r}: {error}"]) from error
    return Threshold(
        expression, name, pair, tuple(sorted(tags.items())), aggregate, match["operator"], limit, unit
    )


def check_thresholds(scenario: Scenario) -> tuple[Threshold, ...]:
    """Parse all thresholds of a scenario, before it runs.

    Raises:
        ThresholdError: it lists every problem of every expression.
    """
    labels = [fault.label for fault in scenario.faults]
    incidents = [incident.label for incident in scenario.incidents]
    parsed: list[Threshold] = []
    problems: list[str] = []
    for n, expression in enumerate(scenario.thresholds):
        try:
            parsed.append(parse_threshold(expression, labels, incidents))
        except ThresholdError as error:
            problems += [f"{scenario.name}: thresholds[{n}]: {problem}" for problem in error.problems]
        else:
            if why := _unseen(parsed[-1], scenario):
                problems.append(f"{scenario.name}: thresholds[{n}]: {expression!r}: {why}")
    if problems:
        raise ThresholdError(problems)
    return tuple(parsed)


def wrong_thresholds(raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Thresholds that cannot be checked in a file that is no scenario anyway: the location of each, and why.

    Args:
        raw: what the file says; faults and incidents are taken by their names as far as these can be read.
    """
    labels = [
        [str(item.get("name") or item.get("kind")) for item in raw.get(key) or () if isinstance(item, dict)]
        for key in ("faults", "incidents")
    ]
    if not catalogue().keys() >= set(labels[0]):
        labels[0] += (
            catalogue()
        )  # one is misspelt, or goes by another name: which was meant is told where it stands
    written = raw.get("thresholds")
    for n, one in enumerate(written if isinstance(written, list) else ()):
        expression = one.get("threshold") if isinstance(one, dict) else one
        if isinstance(expression, str):
            try:
                parse_threshold(expression, *labels)
            except ThresholdError as error:
                yield from ((("thresholds", n), problem) for problem in error.problems)


def with_what_is_seen(scenario: Scenario) -> tuple[Scenario, tuple[str, ...]]:
    """A scenario without the thresholds that no witness of its target could measure, and these.

    Raises:
        ThresholdError: an expression that is none.
    """
    faults, incidents = ([item.label for item in items] for items in (scenario.faults, scenario.incidents))
    unseen = tuple(
        text for text in scenario.thresholds if _unseen(parse_threshold(text, faults, incidents), scenario)
    )
    kept = {
        key: tuple(text for text in getattr(scenario, key) if text not in unseen)
        for key in ("thresholds", "abort_on_fail")
    }
    return scenario.model_copy(update=kept), unseen


def _unseen(threshold: Threshold, scenario: Scenario) -> str:
    """Why nobody could measure it: the server is not ours, and no witness sees that; empty: somebody does."""
    tags = dict(threshold.tags)
    seen = scenario.witnessed(tags.get("engine", "real"))
    if seen is None or scenario.target is None:
        return ""
    if threshold.metric in _OURS:
        return f"only the reference gateway has this, {scenario.target.target} is another server"
    if threshold.metric == "counted_ghosts":
        if scenario.target.witnesses.count is not None and tags.get("engine", "real") == "real":
            return ""
        return f"nobody counts the connections of {scenario.target.target}; allowed: witnesses.count"
    if "milestone" in METRICS[threshold.metric].tags:
        needed = tags.get("milestone", "suspected")
    else:
        needed = _RESTS_ON.get(threshold.metric, "")
    if not needed or needed in seen:
        return ""
    return f"no witness of {scenario.target.target} sees {needed} in this run; allowed: " + (
        ", ".join(f"milestone={one}" for one in sorted(seen)) or "none"
    )


def evaluate(thresholds: Sequence[Threshold], tables: RunTables, *, unsound: bool = False) -> pd.DataFrame:
    """Judge thresholds on a run: thresholds.csv.

    ``unsound``: the real run is not to be believed, and what rests on it is unknown.
    ``value`` is in the threshold's own unit (seconds, fraction, count, per client-day), empty where
    it could not be measured.
    """
    rows = []
    for threshold in thresholds:
        tags = dict(threshold.tags)
        engine = tags.pop("engine", "real" if "real" in tables.measured_engines else "simulated")
        if "milestone" in METRICS[threshold.metric].tags:
            tags.setdefault("milestone", "suspected")
        needs = {engine} if not threshold.pair else set(threshold.pair.split("_vs_")) - {"theory"}
        if absent := needs - set(tables.measured_engines):
            verdict, value, reason = ("unknown", float("nan"), f"{' and '.join(sorted(absent))}: did not run")
        else:
            query = Query(engine, threshold.aggregate, tags, threshold.pair, threshold.metric)
            estimate = METRICS[threshold.metric].estimate(tables, query)
            value = estimate.value
            verdict, reason = _judge(threshold, estimate)
            alone = tables.measured_engines == (engine,) == ("simulated",)
            if METRICS[threshold.metric].of_machines and alone and value != value:
                verdict, reason = NOT_ASKED, "times of a machine: this model's gateway takes none"
            if unsound and "real" in needs:
                verdict, reason = "unknown", UNSOUND
        rows.append((threshold.expression, value, verdict, reason))
    return frame("thresholds", rows)


def default_thresholds(
    thresholds: Sequence[Threshold], tables: RunTables, *, unsound: bool = False
) -> pd.DataFrame:
    """Judge what holds without being written, each unless one of the thresholds says what is allowed.

    At most `MOST_CLIENTS_LOST` of the healthy clients lose a connection, for no reason that the scenario gives
    (`unprovoked`). At most `MOST_NOT_SHOWN` of the time of connected healthy clients the store does not show them;
    not asked where nobody looked at the store, or where incidents befall it.
    """
    engine = "real" if "real" in tables.measured_engines else "simulated"
    stated = {threshold.metric for threshold in thresholds}
    rows: list[tuple[str, float, str, str]] = []

    def hold(expression: str, most: float, found: Estimate) -> None:
        verdict, reason = ("fail" if found.value > most else "pass"), found.note
        if unsound and engine == "real":
            verdict, reason = "unknown", UNSOUND
        rows.append((expression, found.value, verdict, reason))

    if stated.isdisjoint(_SAYS_WHAT_LOSSES):
        hold(_LOST, MOST_CLIENTS_LOST, unprovoked(tables, engine))
    hidden = gaps(tables, Query(engine, "share", {}))
    if "presence.gaps" not in stated and tables.table("incidents").empty and hidden.value == hidden.value:
        hold(_NOT_SHOWN, MOST_NOT_SHOWN, hidden)
    return frame("thresholds", rows)


def _judge(threshold: Threshold, estimate: Estimate) -> tuple[str, str]:
    holds = _OPERATORS[threshold.operator]
    low, high = estimate.lo, estimate.hi
    if threshold.operator in ("==", "!="):
        inside = low <= threshold.limit <= high
        decided = not inside or low == high
    else:
        decided = holds(low, threshold.limit) == holds(high, threshold.limit)
    unknown = estimate.value != estimate.value
    text = "too few were noticed for a value" if unknown else _show(estimate.value, threshold.unit)
    if low < high:
        top = _show(high, threshold.unit) if high != float("inf") else "no bound"
        text += f" (95 %: {_show(low, threshold.unit)} to {top})"
    # A count's note begins with the count.
    text = estimate.note if estimate.note.startswith(f"{text} ") else f"{text}, {estimate.note}"
    if not decided:
        return (
            "unknown",
            f"{text}: on which side of the limit it lies cannot be told; more clients, or a longer run, would tell",
        )
    # Both bounds are on the same side, so a value that was not reached is there as well.
    return ("pass" if holds(low, threshold.limit) else "fail"), text


def _limit(text: str, unit: str) -> float:
    match unit:
        case "duration":
            return float(parse_duration(text))
        case "rate":
            return float(parse_rate(text))
        case "share" if text.endswith("%"):
            return _number(text[:-1], text) / 100
        case _:
            return _number(text, text)


def _number(digits: str, text: str) -> float:
    if not re.fullmatch(r"\s*\d+(\.\d+)?\s*", digits):
        raise ValueError(f"{text!r} is not a number that fits; allowed: as 0, 3, 0.5, and 3% for shares")
    return float(digits)


def _show(value: float, unit: str) -> str:
    match unit:
        case "duration":
            return f"{value:.2f} s"
        case "share":
            return f"{value:.2%}"
        case "rate":
            return f"{value:.3g}/client-day"
        case _:
            return f"{value:g}"
