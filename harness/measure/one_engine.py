"""Events → tables: detections, false suspicions, ghosts, live sessions, what became of sessions, cost, lag.

Pure: from an event log and the fault plan to DataFrames in scenario time; statistics over them are
`qos.py`. Each table is defined where it is made: milestones and outcomes in `detect.py`, false suspicions in
`healthy.py`, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from harness.events.history import History
from harness.events.log import gc_paused
from harness.faults import Plan
from harness.measure import health as healthy
from harness.measure import series
from harness.measure.cost import running_cost
from harness.measure.detections import find_outcomes
from harness.measure.incidents import incidents
from harness.measure.omission import omission
from harness.measure.series import storm
from harness.measure.sessions import flicker, session_quality
from reference_server.events import Event, Source

__all__ = ["Measured", "detections", "measure"]


@dataclass(frozen=True, slots=True)
class Measured:
    """All tables of one engine's run; their columns are in `reports/run_tables.py`."""

    engine: str
    speedup: float
    end_s: float  # scenario seconds: what was not seen by then is censored
    complete: bool  # the run's own end is in the log
    witnesses: frozenset[Source]
    detections: pd.DataFrame
    not_applicable: pd.DataFrame
    injections: pd.DataFrame
    false_suspicions: pd.DataFrame
    mistakes: pd.DataFrame
    accuracy: pd.DataFrame
    ghosts: pd.DataFrame
    live: pd.DataFrame
    timelines: pd.DataFrame
    tcp_info: pd.DataFrame
    lag: pd.DataFrame
    lateness: pd.DataFrame
    handshakes: pd.DataFrame
    resources: pd.DataFrame
    omission: pd.DataFrame
    flicker: pd.DataFrame
    session_quality: pd.DataFrame
    cost: pd.DataFrame
    storm: pd.DataFrame
    incidents: pd.DataFrame


def measure(
    events: Iterable[Event], plan: Plan, *, engine: str, speedup: float, horizon_s: float
) -> Measured:
    """Measure one engine's part of an event log.

    Args:
        events: the merged log, of one engine or of both.
        plan: the fault plan that was run.
        engine: ``real`` or ``simulated``.
        speedup: of the real run; a simulation logs scenario time.
        horizon_s: the planned end in scenario seconds; it bounds a log without ``run_ended``.

    Raises:
        ValueError: another engine.
    """
    with gc_paused():
        return _tables(History(events, plan, engine=engine, speedup=speedup, horizon_s=horizon_s))


def _tables(history: History) -> Measured:
    outcomes = find_outcomes(history)
    health = healthy.find_health(history)
    mistakes = healthy.mistakes(history, health)
    live = series.live(history, health, outcomes.detections)
    flickers = flicker(history)
    return Measured(
        engine=history.engine,
        speedup=history.speedup,
        end_s=history.end_s,
        complete=history.complete,
        witnesses=history.witnesses,
        detections=outcomes.detections,
        not_applicable=outcomes.not_applicable,
        injections=series.injections(history),
        false_suspicions=healthy.false_suspicions(history, health),
        mistakes=mistakes,
        accuracy=healthy.accuracy(history.engine, mistakes, health.client_days),
        ghosts=series.ghosts(history, outcomes.detections),
        live=live,
        timelines=series.timelines(history),
        tcp_info=series.tcp_info(history),
        lag=series.lag(history),
        lateness=series.lateness(history),
        handshakes=series.handshakes(history),
        resources=series.resources(history),
        omission=omission(history, outcomes.detections),
        flicker=flickers,
        session_quality=session_quality(history, outcomes.detections, live, flickers),
        cost=running_cost(history, live),
        storm=storm(history),
        incidents=incidents(history, mistakes),
    )


def detections(
    events: Iterable[Event], plan: Plan, *, engine: str, speedup: float, horizon_s: float
) -> pd.DataFrame:
    """Return detections.csv of one engine: one row per planned fault and milestone. Arguments as :func:`measure`."""
    history = History(events, plan, engine=engine, speedup=speedup, horizon_s=horizon_s)
    return find_outcomes(history).detections
