"""Event logs and plans written by hand, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reference_server.events import Event, EventKind, Source
from scenarios.faults import PlannedFault
from scenarios.faults.registry import read_parameters
from scenarios.plan import Plan

CLIENT, GATEWAY, STORE = Source.CLIENT, Source.GATEWAY, Source.STORE
K = EventKind
FAULT_AT_S = 100.0
_PARAMS: dict[str, dict[str, Any]] = {
    "nat_timeout": {"idle_timeout_s": 20.0, "expiry": "drop"},
    "process_crash": {"by": "fin"},
    "refresh": {"page_load_s": 1.0},
}
END_S = 300.0


def fault(n: int = 0, kind: str = "host_crash", **changes: Any) -> PlannedFault:
    given: dict[str, Any] = {
        "fault_id": f"{kind}-{n:05d}",
        "fault": kind,
        "kind": kind,
        "client": n,
        "at_s": FAULT_AT_S,
        "heal_after_s": None,
        "relogin_after_s": None,
        "traced": n == 0,
        "params": read_parameters(kind, _PARAMS.get(kind, {})),
    }
    return PlannedFault(**{**given, **changes})


def plan(*faults: PlannedFault, watches: dict[int, tuple[int, ...]] | None = None) -> Plan:
    return Plan(
        seed=1, clients=10, ramp_s=10.0, horizon_s=END_S, faults=faults, outages=(), watches=watches or {}
    )


def event(
    time_s: float,
    source: Source,
    kind: EventKind,
    session: str = "s0",
    connection: str = "c0",
    cause: str = "",
    **detail: Any,
) -> Event:
    node = "node-1" if source is GATEWAY else ""
    return Event(time_s, source, kind, session, connection, node, cause, detail)


def connected(time_s: float, n: int = 0, session: str = "", connection: str = "") -> list[Event]:
    session, connection = session or f"s{n}", connection or f"c{n}"
    return [
        event(time_s, GATEWAY, K.CONNECTED, session, connection, user_id=f"user-{n}"),
        event(time_s + 0.001, CLIENT, K.CONNECTED, session, connection, client=n, user_id=f"user-{n}"),
    ]


def injected(planned: PlannedFault, time_s: float = FAULT_AT_S, **changes: Any) -> Event:
    n = planned.client
    given = {"fault_id": planned.fault_id, "fault": planned.fault, "scheduled_s": time_s - 0.002}
    return event(time_s, CLIENT, K.FAULT_INJECTED, f"s{n}", f"c{n}", **{**given, **changes})


def frame_of_run(end_s: float = END_S) -> list[Event]:
    """What every log has: a sign of life of each witness, and the end."""
    return [
        event(0.5, GATEWAY, K.LOOP_LAG, "", "", role="gateway", pid=2, max_lag_s=0.001),
        event(1.0, STORE, K.STORE_SAMPLE, "", "", sessions=1, online=1),
        event(end_s, CLIENT, K.RUN_ENDED, "", ""),
    ]


def log(*parts: Event | Sequence[Event]) -> list[Event]:
    flat: list[Event] = []
    for part in parts:
        flat.extend([part] if isinstance(part, Event) else part)
    return sorted(flat, key=lambda one: one.time_s)
