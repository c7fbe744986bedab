"""One engine's part of an event log, indexed once: what happened, by kind and session, in scenario seconds.

From events and the plan to faults as they took effect (`InjectedFault`); it decides nothing about outcomes, that is
`harness/measure/detections.py`. Events of equal times may come in any order. `workers_of` tells what the log says of
generators on other hosts: how well their clocks are known, and which of them died.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from harness.events.columns import Codes, Events, Flags, Floats, Texts
from reference_server.events import Event, EventKind, Source
from reports.run_tables import MEASURED_ENGINES
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.faults import PlannedFault
from scenarios.plan import Plan

__all__ = [
    "Columns",
    "FaultColumns",
    "History",
    "InjectedFault",
    "Lost",
    "Workers",
    "last_places",
    "pairs",
    "ranks",
    "workers_of",
]


class Columns:
    """Events of one kind as arrays, in the log's order: what is asked of a million at once.

    ``time_s`` is scenario seconds, float64. ``session`` and ``connection`` are a history's codes of the texts
    (`History.codes`), int64, 0 for none. All have shape (n,).
    """

    def __init__(self, events: Events, speedup: float) -> None:
        self.events = events
        self.time_s: Floats = events.time_s * speedup
        self.session: Codes = events.session.astype(np.int64)
        self.connection: Codes = events.connection.astype(np.int64)
        self._told: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.events)

    def told(self, key: str) -> list[Any]:
        """What each event's detail says under a key; None: nothing."""
        if key not in self._told:
            self._told[key] = self.events.told(key).tolist()
        return self._told[key]

    @cached_property
    def client(self) -> Codes:
        """The client that each event names, as a code; where it names none, its session."""
        code, told = self.events.books.ids.code, zip(self.told("client"), self.session.tolist(), strict=True)
        return np.array(
            [session if client is None else code(str(client)) for client, session in told], dtype=np.int64
        )

    @cached_property
    def cause(self) -> Texts:
        """Each event's cause."""
        return self.events.cause

    @cached_property
    def node(self) -> Texts:
        """Each event's node."""
        return self.events.node

    @cached_property
    def cause_rank(self) -> Codes:
        """Numbers in the order of the causes as texts."""
        return ranks(self.cause)

    @cached_property
    def node_rank(self) -> Codes:
        """Numbers in the order of the nodes as texts."""
        return ranks(self.node)


class FaultColumns(NamedTuple):
    """`History.injected_faults` as arrays of shape (n,). Scenario seconds."""

    injected_s: Floats  # NaN: it never took effect
    recovered_s: Floats  # inf: never
    session: Codes
    connection: Codes
    client: Codes
    only_hampers: Flags


def ranks(values: Iterable[Any]) -> Codes:
    """Return a number for each value, in their order. For few different ones."""
    given = list(values)
    place = {value: n for n, value in enumerate(sorted(set(given)))}
    return np.array([place[value] for value in given], dtype=np.int64)


def pairs(left: Codes, right: Codes) -> tuple[Codes, Codes]:
    """Return every (i, j) with ``left[i] == right[j]``, ordered by i and then by j."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    begin = np.searchsorted(ordered, left, side="left")
    count = np.searchsorted(ordered, left, side="right") - begin
    i = np.repeat(np.arange(len(left)), count)
    within = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    return i, order[np.repeat(begin, count) + within]


def last_places(codes: Codes, wanted: Codes) -> Codes:
    """Return the last place at which ``codes`` has each wanted code; -1: it has it nowhere."""
    place = np.full(int(max(codes.max(initial=0), wanted.max(initial=0))) + 1, -1)
    place[codes] = np.arange(len(codes))  # NumPy lets the last one win
    found: Codes = place[wanted]
    return found


class InjectedFault(NamedTuple):
    """A planned fault as it went. Times are scenario seconds from the run's origin.

    ``injected_s`` is None for a fault that never took effect before the run's end. Where another host's clock says that
    the server noticed it before, by no more than clocks are known, it is just before the server did.
    """

    planned: PlannedFault
    injected_s: float | None
    scheduled_s: float | None
    session_id: str
    connection_id: str  # "": not known, any connection of the session
    recovered_s: float | None


class History:
    """What the witnesses of one engine saw until the run's end.

    ``end_s`` is the first ``run_ended``; a log without one is of a partial run and ends with its last
    event, but not after the horizon. What is logged later is not part of the run: there, clients and
    gateway are being shut down.

    Args:
        events: the merged log; with both engines in it, the other one's events are passed over.
        plan: the fault plan that both engines ran.
        engine: ``real`` or ``simulated``.
        clock: of the real run. A simulation logs scenario time.
        horizon_s: the planned end, scenario seconds.
        witnessed: the milestones that somebody sees; None: the gateway is ours, and all of them have a witness.

    Raises:
        ValueError: another engine.
    """

    def __init__(
        self,
        events: Iterable[Event],
        plan: Plan,
        *,
        engine: str,
        clock: RunClock,
        horizon_s: float,
        witnessed: Collection[str] | None = None,
    ) -> None:
        if engine not in MEASURED_ENGINES:
            raise ValueError(f"engine {engine!r}; allowed: {', '.join(MEASURED_ENGINES)}")
        self.plan = plan
        self.witnessed = witnessed
        self.engine = engine
        self.clock = clock if engine == "real" else SCENARIO_TIME
        self._speedup = self.clock.speedup
        given = events if isinstance(events, Events) else Events.gather(events)
        simulated = given.is_of(source=Source.SIMULATION)
        ours = simulated if engine == "simulated" else ~simulated
        audited = given.is_of(EventKind.AUDITED)
        self.audits = given.take(ours & audited)  # they come when the run is over
        seen = given.take(ours & ~audited)
        ended_s = seen.time_s[seen.is_of(EventKind.RUN_ENDED)]
        self.complete = len(ended_s) > 0
        # In the log's own time: converting to scenario seconds and back loses an ulp, and maybe the last event.
        last_s = float(seen.time_s.max()) if len(seen) else 0.0
        cut_s = float(ended_s.min()) if self.complete else min(last_s, self.clock.real_s(horizon_s))
        self.end_s = self.clock.scenario_s(cut_s)
        self.witnesses = seen.sources
        self._seen = seen.take(seen.time_s <= cut_s)
        self._places = self._seen.places()
        # Numbers for ids of sessions, connections and clients, the same whenever asked.
        self.codes = self._seen.books.ids.codes
        # Several tables ask for the same groups, and grouping is much of what measuring takes.
        self._of: dict[tuple[EventKind, Source | None], Events] = {}
        self._by_session: dict[tuple[EventKind, Source | None], dict[str, list[Event]]] = {}
        self._columns: dict[tuple[EventKind, Source | None], Columns] = {}

    def saw(self, witness: Source) -> bool:
        """Whether this witness left a log. A simulation plays all of them."""
        return witness in self.witnesses or Source.SIMULATION in self.witnesses

    def of(self, kind: EventKind, witness: Source | None = None) -> Events:
        """Events of one kind, of one witness where two log it (a simulation has only one)."""
        if self.engine == "simulated":
            witness = None
        if (kind, witness) not in self._of:
            if witness is None:
                self._of[kind, witness] = self._seen.take(self._places[kind])
            else:
                self._of[kind, witness] = self.of(kind).of(source=witness)
        return self._of[kind, witness]

    def columns(self, kind: EventKind, witness: Source | None = None) -> Columns:
        """Events of one kind as arrays; the arguments are those of `of`."""
        if (kind, witness) not in self._columns:
            self._columns[kind, witness] = Columns(self.of(kind, witness), self._speedup)
        return self._columns[kind, witness]

    def names(self) -> Texts:
        """What each code stands for, by the code."""
        return self._seen.books.ids.texts()

    def of_sessions(self, session_ids: Collection[str]) -> Events:
        """Every event of some sessions."""
        return self._seen.take(np.isin(self._seen.session, self.codes(session_ids)))

    def time_s(self, event: Event) -> float:
        """When it happened, scenario seconds from the run's origin."""
        return event.time_s * self._speedup  # as the clock has it, in a quarter of the time

    def times_s(self, kind: EventKind, witness: Source | None = None) -> Floats:
        """When each event of one kind happened, as `time_s`."""
        return self.columns(kind, witness).time_s

    def by_session(self, kind: EventKind, witness: Source | None = None) -> dict[str, list[Event]]:
        """Events of one kind, grouped by session."""
        if (kind, witness) not in self._by_session:
            groups: dict[str, list[Event]] = defaultdict(list)
            for event in self.of(kind, witness):
                groups[event.session_id].append(event)
            self._by_session[kind, witness] = dict(groups)
        return self._by_session[kind, witness]

    def naming(self, kind: EventKind, fault_ids: Container[str]) -> Events:
        """Events of one kind that name one of some faults."""
        told = self.columns(kind).told("fault_id")
        places = [place for place, fault_id in enumerate(told) if fault_id in fault_ids]
        return self.of(kind).take(np.array(places, dtype=np.int64))

    def by_fault(self, kind: EventKind) -> dict[str, list[Event]]:
        """Events of one kind that name a fault, grouped by it."""
        groups: dict[str, list[Event]] = defaultdict(list)
        for event in self.of(kind):
            if "fault_id" in event.detail:
                groups[event.detail["fault_id"]].append(event)
        return dict(groups)

    @cached_property
    def injected_faults(self) -> tuple[InjectedFault, ...]:
        """Every planned fault, in the plan's order."""
        injected: dict[str | None, Event] = {}
        for event in self.of(EventKind.FAULT_INJECTED):
            fault_id = event.detail.get("fault_id")
            if fault_id not in injected or _order(event) < _order(injected[fault_id]):
                injected[fault_id] = event
        recovered = self.by_fault(EventKind.FAULT_RECOVERED)
        ended_s = self._ended_s()
        return tuple(
            self._injected_fault(fault, injected.get(fault.fault_id), recovered.get(fault.fault_id), ended_s)
            for fault in self.plan.faults
        )

    def _ended_s(self) -> dict[str, float]:
        """When the server noticed each connection's end; empty where all clients read its clock."""
        if not self.of(EventKind.CLOCK):
            return {}
        ends = self.columns(EventKind.SUSPECTED)
        order = np.argsort(-ends.time_s, kind="stable")  # the first of several is the last to be put in
        return dict(
            zip(self.names()[ends.connection[order]].tolist(), ends.time_s[order].tolist(), strict=True)
        )

    @cached_property
    def _clocks_differ_s(self) -> float:
        """By how much the clocks of generators elsewhere may be off, scenario seconds."""
        return self.clock.scenario_s(workers_of(self._seen).clock_error_s or 0.0)

    @cached_property
    def fault_columns(self) -> FaultColumns:
        """`injected_faults` as arrays."""
        faults, nan, never = self.injected_faults, float("nan"), float("inf")
        return FaultColumns(
            np.array([nan if f.injected_s is None else f.injected_s for f in faults], dtype=float),
            np.array([never if f.recovered_s is None else f.recovered_s for f in faults], dtype=float),
            self.codes([f.session_id for f in faults]),
            self.codes([f.connection_id for f in faults]),
            self.codes([str(f.planned.client) for f in faults]),
            np.array([f.planned.params.only_hampers for f in faults], dtype=bool),
        )

    def _injected_fault(
        self,
        fault: PlannedFault,
        hit: Event | None,
        recovered: list[Event] | None,
        ended_s: Mapping[str, float],
    ) -> InjectedFault:
        if hit is None:
            return InjectedFault(fault, None, None, "", "", None)
        back = [event.time_s for event in recovered or () if event.time_s >= hit.time_s]
        scheduled = hit.detail.get("scheduled_s")
        connection = hit.connection_id
        if not connection:
            earlier = [
                (event.time_s, event.connection_id)
                for event in self.by_session(EventKind.CONNECTED, Source.CLIENT).get(hit.session_id, ())
                if event.time_s <= hit.time_s
            ]
            connection = max(earlier)[1] if earlier else ""
        injected_s = self.time_s(hit)
        # A goodbye is heard in less time than another host's clock is known by, as if before it was said.
        if 0 < injected_s - (heard_s := ended_s.get(connection, injected_s)) <= self._clocks_differ_s:
            injected_s = math.nextafter(heard_s, -math.inf)
        return InjectedFault(
            planned=fault,
            injected_s=injected_s,
            scheduled_s=None if scheduled is None else self.clock.scenario_s(float(scheduled)),
            session_id=hit.session_id,
            connection_id=connection,
            recovered_s=self.clock.scenario_s(min(back)) if back else None,
        )


def _order(event: Event) -> tuple[float, str, str]:
    return event.time_s, event.session_id, event.connection_id


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that died in mid-run. ``at_s``: real seconds of the run, when its master noticed."""

    worker: str
    clients: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Workers:
    """``clock_error_s``: the most by which any worker's times are off, real seconds; None: all on one clock."""

    clock_error_s: float | None
    lost: tuple[Lost, ...]


def workers_of(events: Events) -> Workers:
    """Gather it from a merged log."""
    bounds = [float(event.detail["bound_s"]) for event in events.of(EventKind.CLOCK)]
    lost = [
        Lost(event.detail["worker"], int(event.detail["clients"]), event.time_s)
        for event in events.of(EventKind.WORKER_LOST)
    ]
    return Workers(max(bounds, default=None), tuple(lost))
