"""Events → tables: detections, false suspicions, ghosts, live sessions, what became of sessions, cost, lag.

Pure: from an event log and the fault plan to DataFrames in scenario time; statistics over them are
`quality_of_service.py`. Each table is computed where its name says: milestones and outcomes in `detections.py`,
false suspicions in `health.py`, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness.events.history import History
from harness.events.log import gc_paused
from harness.measure import health as healthy
from harness.measure import series
from harness.measure.cost import running_cost
from harness.measure.detections import find_outcomes
from harness.measure.incidents import incidents
from harness.measure.omission import omission
from harness.measure.series import reconnects
from harness.measure.sessions import presence_flaps, session_quality
from reference_server.events import Event, Source
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.plan import Plan

__all__ = ["Measured", "measure"]


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
    """Measure one engine's part of an event log.

    Args:
        events: the merged log, of one engine or of both.
        plan: the fault plan that was run.
        engine: ``real`` or ``simulated``.
        clock: of the real run; a simulation logs scenario time.
        horizon_s: the planned end in scenario seconds; it bounds a log without ``run_ended``.

    Raises:
        ValueError: another engine.
    """
    with gc_paused():
        return _tables(History(events, plan, engine=engine, clock=clock, horizon_s=horizon_s))


def _tables(history: History) -> Measured:
    outcomes = find_outcomes(history)
    health = healthy.find_health(history)
    mistakes = healthy.false_suspicion_events(history, health)
    live = series.population(history, health, outcomes.detections)
    flaps = presence_flaps(history)
    tables = {
        "detections": outcomes.detections,
        "not_applicable": outcomes.not_applicable,
        "injections": series.injections(history),
        "false_suspicions": healthy.false_suspicions(history, health),
        "false_suspicion_events": mistakes,
        "accuracy": healthy.accuracy(history.engine, mistakes, health.client_days),
        "ghosts": series.ghosts(history, outcomes.detections),
        "population": live,
        "timelines": series.timelines(history),
        "tcp_info": series.tcp_info(history),
        "lag": series.lag(history),
        "lateness": series.lateness(history),
        "handshakes": series.handshakes(history),
        "resources": series.resources(history),
        "omission": omission(history, outcomes.detections),
        "presence_flaps": flaps,
        "session_quality": session_quality(history, outcomes.detections, live, flaps),
        "cost": running_cost(history, live),
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
