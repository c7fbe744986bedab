"""Events → tables: detections, false suspicions, ghosts, live sessions, what became of sessions, cost, lag.

Pure: from an event log and the fault plan to DataFrames in scenario time; statistics over them are
`quality_of_service.py`. Each table is computed where its name says: milestones and outcomes in `detections.py`,
false suspicions in `health.py`, losses of healthy clients in `connections.py`, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness.events.history import History
from harness.events.log import gc_paused
from harness.measure import health as healthy
from harness.measure import series
from harness.measure.connections import healthy_connections, losses, table_of
from harness.measure.cost import running_cost
from harness.measure.detections import find_outcomes
from harness.measure.incidents import incidents
from harness.measure.omission import omission
from harness.measure.presence import presence_gaps
from harness.measure.revivals import revival_law, revivals
from harness.measure.series import reconnects
from harness.measure.sessions import presence_flaps, session_quality
from reference_server.events import Event, Source
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.plan import Plan

__all__ = ["Measured", "measure", "measure_history"]


@dataclass(frozen=True, slots=True)
class Measured:
    """All tables of one engine's run."""

    engine: str
    speedup: float
    end_s: float  # scenario seconds: what was not seen by then is censored
    complete: bool  # the run's own end is in the log
    witnesses: frozenset[Source]
    tables: Mapping[str, pd.DataFrame]  # by name, as `reports/run_tables.py` declares them


def measure(
    events: Iterable[Event], plan: Plan, *, engine: str, horizon_s: float, clock: RunClock = SCENARIO_TIME
) -> Measured:
    """Measure one engine's part of an event log; the arguments are those of `History`.

    Raises:
        ValueError: another engine.
    """
    with gc_paused():
        return measure_history(History(events, plan, engine=engine, clock=clock, horizon_s=horizon_s))


def measure_history(history: History) -> Measured:
    """Measure one engine's history."""
    outcomes = find_outcomes(history)
    revived = revivals(history)
    health = healthy.find_health(history)
    mistakes = healthy.false_suspicion_events(history, health)
    connections = healthy_connections(history)
    held = table_of(history.engine, connections)
    gaps = presence_gaps(history, connections)
    live = series.population(history, connections, gaps, outcomes.detections)
    flaps = presence_flaps(history)
    suspicions = healthy.false_suspicions(history, health)
    accuracy = healthy.accuracy(history.engine, mistakes, health.client_days)
    if history.witnessed is not None and "suspected" not in history.witnessed:  # nobody saw: that is not none
        suspicions, accuracy = suspicions.iloc[:0], accuracy.iloc[:0]
    tables = {
        "detections": outcomes.detections,
        "not_applicable": outcomes.not_applicable,
        "injections": series.injections(history),
        "healthy_connections": held,
        "losses": losses(history.engine, held),
        "presence_gaps": gaps,
        "false_suspicions": suspicions,
        "false_suspicion_events": mistakes,
        "accuracy": accuracy,
        "ghosts": series.ghosts(history, outcomes.detections),
        "population": live,
        "revivals": revived,
        "revival_law": revival_law(revived),
        "counted": series.counted(history, connections),
        "timelines": series.timelines(history),
        "tcp_info": series.tcp_info(history),
        "lag": series.lag(history),
        "lateness": series.lateness(history),
        "handshakes": series.handshakes(history),
        "resources": series.resources(history),
        "omission": omission(history, outcomes.detections),
        "presence_flaps": flaps,
        "session_quality": session_quality(history, outcomes.detections, live, flaps),
        "cost": running_cost(history, live, outcomes.detections),
        "reconnects": reconnects(history),
        "incidents": incidents(history, mistakes),
    }
    return Measured(
        engine=history.engine,
        speedup=history.clock.speedup,
        end_s=history.end_s,
        complete=history.complete,
        witnesses=history.witnesses,
        tables=tables,
    )
