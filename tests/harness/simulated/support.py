"""Small simulations with a plan written by hand, and a look into their logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.simulated import simulate
from reference_server.events import Event, EventKind
from scenarios.faults import PlannedFault, PlannedIncident
from scenarios.faults.registry import read_parameters
from scenarios.plan import Plan, PlannedOutage, make_plan
from scenarios.schema import Scenario

__all__ = ["RAMP_S", "Log", "fault", "incident", "run", "run_planned", "scenario"]

RAMP_S = 10.0
K = EventKind


class Log:
    """Events of one run."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events

    def of(self, kind: EventKind, client: int | None = None, cause: str = "") -> list[Event]:
        """Events of a kind about one client's sessions, whoever logged them."""
        return [
            event
            for event in self.events
            if event.kind is kind
            and (client is None or event.session_id.startswith(f"session-{client}-"))
            and (not cause or event.cause == cause)
        ]

    def one(self, kind: EventKind, client: int | None = None) -> Event:
        """The only event of a kind."""
        found = self.of(kind, client)
        assert len(found) == 1, f"{len(found)} × {kind}: {found}"
        return found[0]

    def since_fault_s(self, kind: EventKind) -> list[float]:
        """For each fault that took effect: the time to the first event of a kind on its session."""
        first: dict[str, float] = {}
        for event in self.of(kind):
            first.setdefault(event.session_id, event.time_s)
        return [
            first[hit.session_id] - hit.time_s for hit in self.of(K.FAULT_INJECTED) if hit.session_id in first
        ]


def scenario(**changes: Any) -> Scenario:
    """T=30 s, k=3, τ=10 s; a round trip of 1 ms; ten minutes."""
    given: dict[str, Any] = {"name": "small", "clients": 1, "ramp": RAMP_S, "duration": 600.0}
    return Scenario.model_validate(given | changes)


def fault(kind: str, client: int = 0, at_s: float = 100.0, **changes: Any) -> PlannedFault:
    """A fault of one client; unknown names are parameters of its kind."""
    fields = {field.name for field in dataclasses.fields(PlannedFault)}
    given: dict[str, Any] = {
        "fault_id": f"{kind}-{client:05d}",
        "fault": kind,
        "kind": kind,
        "client": client,
        "at_s": at_s,
        "heal_after_s": None,
        "relogin_after_s": None,
        "traced": False,
        "params": read_parameters(kind, {n: v for n, v in changes.items() if n not in fields}),
    }
    return PlannedFault(**given | {n: v for n, v in changes.items() if n in fields})


def incident(
    kind: str, node: int | None = 1, at_s: float = 100.0, lasts_s: float | None = None, **params: Any
) -> PlannedIncident:
    """An incident of a node or of the store."""
    return PlannedIncident(kind, kind, node, at_s, lasts_s, read_parameters(kind, params))


def run(
    what: Scenario,
    *faults: PlannedFault,
    outages: Sequence[PlannedOutage] = (),
    watches: dict[int, tuple[int, ...]] | None = None,
    incidents: Sequence[PlannedIncident] = (),
) -> Log:
    """Simulate a plan written by hand."""
    plan = Plan(
        seed=what.seed,
        clients=what.clients,
        ramp_s=what.ramp,
        horizon_s=what.horizon_s,
        faults=faults,
        outages=tuple(outages),
        watches=watches or {},
        incidents=tuple(incidents),
    )
    return Log(simulate(what, plan))


def run_planned(what: Scenario) -> Log:
    """Simulate the scenario's own plan."""
    return Log(simulate(what, make_plan(what)))
