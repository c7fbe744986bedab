"""Live counters of a run: connected clients, faults injected, faults detected, stale records in the store.

From events in any order, as the logs of several processes give them, to a small table and a curve of the last
minutes. Approximate on purpose: the report measures, this shows. Times are real seconds of the run; latencies
are told in scenario time.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from reference_server.events import Event, EventKind, Source
from scenarios.clock import SCENARIO_TIME, RunClock

__all__ = ["COLUMNS", "LiveView", "Point"]

COLUMNS = (
    ("what", "What"),
    ("fault", "Fault"),
    ("cause", "Cause"),
    ("count", "Count"),
    ("median_s", "Median latency (s)"),
)
"""Keys of a row, and what a reader calls them."""

_MOST_POINTS = 1800
_NO_WITNESS = "no store watch"


@dataclass(frozen=True, slots=True)
class Point:
    """One moment of the curve. ``ghosts`` and ``in_store`` are None without a store watch."""

    time_s: float
    live: int
    ghosts: int | None
    in_store: int | None
    faults: int  # injected so far
    detected: int  # of them, so far


class LiveView:
    """Counts events as they come.

    Args:
        clock: of the run; latencies are told in scenario time.
    """

    def __init__(self, clock: RunClock = SCENARIO_TIME) -> None:
        self._clock = clock
        self._live: set[str] = set()
        self._faulty: dict[str, tuple[str, float]] = {}  # session -> fault and when it took effect
        self._injected: Counter[str] = Counter()
        self._ended: dict[str, tuple[str, float]] = {}  # session -> cause and when, by the gateway
        self._latencies: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self._cleared: set[str] = set()
        self._in_store: int | None = None
        self._points: deque[Point] = deque(maxlen=_MOST_POINTS)

    def take(self, event: Event) -> None:
        """Take one event of any witness; those that say nothing here are passed over."""
        session = event.session_id
        match event.source, event.kind:
            case Source.CLIENT, EventKind.CONNECTED:
                self._live.add(session)
                self._ended.pop(session, None)  # it came back: that was another connection's end
            case Source.CLIENT, EventKind.DISCONNECTED:
                self._live.discard(session)
            case Source.CLIENT, EventKind.FAULT_INJECTED:
                fault = str(event.detail.get("fault", ""))
                self._injected[fault] += 1
                self._live.discard(session)
                self._faulty[session] = fault, event.time_s
                if session in self._ended:  # the gateway's log was read first
                    self._detected(session, *self._ended[session])
            case Source.CLIENT, EventKind.FAULT_RECOVERED:
                self._faulty.pop(session, None)
                self._live.add(session)
            case Source.GATEWAY, EventKind.SUSPECTED:
                self._ended[session] = event.cause, event.time_s
                self._detected(session, event.cause, event.time_s)
            case Source.STORE, EventKind.STORE_CLEARED:
                self._cleared.add(session)
            case Source.STORE, EventKind.STORE_SAMPLE:
                self._in_store = int(event.detail.get("sessions", 0))

    def _detected(self, session: str, cause: str, time_s: float) -> None:
        fault, since_s = self._faulty.get(session, ("", 0.0))
        if fault and time_s >= since_s:
            self._latencies[fault, cause].append(self._clock.scenario_s(time_s - since_s))

    def mark(self, time_s: float) -> Point:
        """Add a point to the curve: how things stand at ``time_s``."""
        ghosts = sum(self._ghosts().values()) if self._in_store is not None else None
        point = Point(
            round(time_s, 3),
            len(self._live),
            ghosts,
            self._in_store,
            sum(self._injected.values()),
            sum(map(len, self._latencies.values())),
        )
        self._points.append(point)
        return point

    def _ghosts(self) -> Counter[str]:
        """Count dead clients whose session the store still holds, by fault."""
        return Counter(fault for session, (fault, _) in self._faulty.items() if session not in self._cleared)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table; the keys of a row are those of :data:`COLUMNS`."""
        rows = [_row("live sessions", count=len(self._live))]
        rows += [_row("faults injected", fault, count=n) for fault, n in sorted(self._injected.items())]
        rows += [
            _row("detected", fault, cause, len(found), round(median(found), 3))
            for (fault, cause), found in sorted(self._latencies.items())
        ]
        if self._in_store is None:
            return [*rows, _row("ghosts", count=_NO_WITNESS)]
        ghosts = self._ghosts()
        rows += [_row("ghosts", fault, count=ghosts[fault]) for fault in sorted(self._injected)]
        return [*rows, _row("sessions in the store", count=self._in_store)]

    def points(self) -> list[dict[str, Any]]:
        """Return the curve, the oldest point first."""
        return [asdict(point) for point in self._points]


def _row(
    what: str, fault: str = "", cause: str = "", count: int | str = 0, median_s: float | str = ""
) -> dict[str, Any]:
    return {"what": what, "fault": fault, "cause": cause, "count": count, "median_s": median_s}
