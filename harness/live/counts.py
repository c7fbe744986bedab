"""Count a run's events as they come: connected clients, faults, their detections, ghosts, losses, lag.

From events in any order, as the logs of several processes give them, to totals, a small table and a curve. Every
number of the live view is counted here and nowhere else. Counts what the report measures, by simpler rules: a
milestone is matched by its session alone, and a loss has no author. The curve has real seconds of the run; latencies
are told in scenario time.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from statistics import median
from typing import Any

from reference_server.events import Cause, Event, EventKind, Source
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.faults.base import PlannedFault

__all__ = ["BUCKETS_S", "COLUMNS", "LiveCounts", "Point", "counts_for_something"]

COLUMNS = (
    ("what", "What"),
    ("fault", "Fault"),
    ("cause", "Cause"),
    ("count", "Count"),
    ("median_s", "Median latency (s)"),
)
"""Keys of a row, and what a reader calls them."""

BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 75, 90, 100, 120, 150, 200, 300, 600, 1200, 3600)
"""Upper bounds of a histogram of detection latencies, scenario seconds."""

_MOST_POINTS = 1200  # then every second one goes: a long run keeps its beginning
_EARLY_HOLDS_S, _MANY_EARLY = 30.0, 10_000  # logs are written out every second
_LAG_HOLDS_S = 3.0  # a process that has said nothing for so long is no part of the present lag
_NO_WITNESS = "no store watch"

# How a gateway learns of an end that somebody else made; the client's own word tells whether it wanted it.
_HEARD = frozenset({Cause.CLOSE_FRAME, Cause.TCP_FIN, Cause.TCP_RESET, Cause.LOGOUT, Cause.NODE_LEASE})
_DETECTIONS = frozenset({"suspected", "socket_closed"})

_OF_CLIENTS = frozenset(
    {
        b"connected",
        b"disconnected",
        b"fault_injected",
        b"fault_recovered",
        b"peer_notified",
        b"login_refused",
        b"run_started",
        b"run_ended",
    }
)
_OF_ANYBODY = frozenset(
    {b"suspected", b"socket_closed", b"store_cleared", b"store_sample", b"loop_lag", b"clock"}
)


def counts_for_something(line: bytes) -> bool:
    """Whether a line of a log says anything here: most say nothing, and need not be read as JSON."""
    words = line.split(b'"', 10)  # {"time_s":1.5,"source":"client","kind":"connected","…
    if len(words) < 10:
        return False
    source, kind = words[5], words[9]
    return (
        kind in _OF_ANYBODY
        or (source == b"client" and kind in _OF_CLIENTS)
        or (kind == b"logged_in" and b'"fault_id"' in words[10])
    )


@dataclass(frozen=True, slots=True)
class Point:
    """One moment of the curve. ``ghosts`` and ``in_store`` are None without a store watch."""

    time_s: float
    live: int
    ghosts: int | None
    in_store: int | None
    faults: int  # injected so far
    detected: int  # of them, so far
    losses: int  # of healthy clients, so far


@dataclass(slots=True)
class _Fault:
    """A fault that took effect. Real seconds of the run's clock."""

    label: str
    since_s: float
    client: int | None
    makes_ghost: bool
    back_s: float = inf  # its client was alive on its session again
    seen: set[str] = field(default_factory=set)  # milestones
    told: set[object] = field(default_factory=set)  # watchers


class LiveCounts:
    """Counts events as they come.

    Args:
        clock: of the run; latencies are told in scenario time.
        faults: of the plan; a fault that is not among them ends its client.
        watches: watching client to the clients whose user it watches.
        on_detection: told (fault, milestone, scenario seconds) of each detection, once.
    """

    def __init__(
        self,
        clock: RunClock = SCENARIO_TIME,
        faults: Iterable[PlannedFault] = (),
        watches: Mapping[int, Iterable[int]] | None = None,
        on_detection: Callable[[str, str, float], None] = lambda _fault, _milestone, _s: None,
    ) -> None:
        self._clock, self._on_detection = clock, on_detection
        self._planned = {fault.fault_id: fault for fault in faults}
        self._watchers = Counter(one for watched in (watches or {}).values() for one in set(watched))
        self._live: dict[str, str] = {}  # session -> connection
        self._heard: set[tuple[str, str]] = set()  # the gateway was told of their end: session, connection
        self._faults: dict[str, _Fault] = {}  # by session
        self._by_id: dict[str, _Fault] = {}
        self._by_user: dict[str, _Fault] = {}
        # Read before their fault: the logs of several processes come in any order.
        self._early: defaultdict[str, list[tuple[str, Event]]] = defaultdict(list)
        self._refused: set[str] = set()
        self._lost: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)  # session -> cause, when
        self._lag: dict[tuple[str, object], tuple[float, float]] = {}  # role, pid -> when, seconds
        self._clocks_differ_s = 0.0  # by which those of generators on other hosts may be off, real seconds
        self._ended_s = inf
        self.began_s: float | None = None  # the plan's time zero
        self.now_s = 0.0  # of the latest event
        self.in_store: int | None = None
        self.injected: Counter[str] = Counter()
        self.detected: Counter[str] = Counter()
        self.ghosts_of: Counter[str] = Counter()
        self.losses_by: Counter[str] = Counter()
        self.worst_lag_s: dict[str, float] = {}
        self.latencies: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
        self._points: list[Point] = []
        self._keep_every, self._marks = 1, 0

    # -- events --------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Take one event of any witness; those that say nothing here are passed over."""
        if event.time_s > self._ended_s:
            return  # what the clients' ends do to the gateway is no part of the run
        self.now_s = max(self.now_s, event.time_s)
        session = event.session_id
        match event.source, event.kind:
            case Source.CLIENT, EventKind.CONNECTED:
                self._live[session] = event.connection_id
            case Source.CLIENT, EventKind.DISCONNECTED:
                key = session, event.connection_id
                if self._live.pop(session, None) is not None or key in self._heard:
                    self._heard.discard(key)
                    self._lose(event)
            case Source.CLIENT, EventKind.FAULT_INJECTED:
                self._inject(event)
            case Source.CLIENT, EventKind.FAULT_RECOVERED:
                self._recover(event)
            case Source.CLIENT, EventKind.PEER_NOTIFIED:
                self._tell(event)
            case Source.CLIENT, EventKind.LOGIN_REFUSED:
                self._refused.add(str(event.detail.get("fault_id", "")))
            case Source.CLIENT, EventKind.LOGGED_IN if "fault_id" in event.detail:
                self._let_in(event)
            case Source.CLIENT, EventKind.RUN_STARTED:
                self.began_s = event.time_s if self.began_s is None else min(self.began_s, event.time_s)
            case Source.CLIENT, EventKind.RUN_ENDED:
                self._ended_s = min(self._ended_s, event.time_s)
            case Source.GATEWAY | Source.OBSERVER, EventKind.SUSPECTED:
                self._suspect(event)
            case Source.GATEWAY | Source.OBSERVER, EventKind.SOCKET_CLOSED:
                self._reach("socket_closed", event)
            case Source.STORE | Source.OBSERVER, EventKind.STORE_CLEARED:
                self._reach("store_cleared", event)
            case Source.STORE, EventKind.STORE_SAMPLE:
                self.in_store = int(event.detail.get("sessions", 0))
            case _, EventKind.CLOCK:
                bound_s = float(event.detail.get("bound_s", 0.0))
                self._clocks_differ_s = max(self._clocks_differ_s, bound_s)
            case _, EventKind.LOOP_LAG:
                role, lag_s = str(event.detail.get("role", "")), float(event.detail.get("max_lag_s", 0.0))
                self._lag[role, event.detail.get("pid")] = event.time_s, lag_s
                self.worst_lag_s[role] = max(lag_s, self.worst_lag_s.get(role, 0.0))

    def _inject(self, event: Event) -> None:
        session, fault_id = event.session_id, str(event.detail.get("fault_id", ""))
        label, planned = str(event.detail.get("fault", "")), self._planned.get(fault_id)
        hampers = planned is not None and planned.params.only_hampers
        ghost = planned is None or not planned.params.user_stays
        client = planned.client if planned is not None else None
        fault = self._faults[session] = _Fault(label, event.time_s, client, ghost)
        self._by_id[fault_id] = self._by_user[f"user-{client}"] = fault
        self.injected[label] += 1
        self.ghosts_of[label] += ghost
        if not hampers:
            self._live.pop(session, None)
            for cause, time_s in self._lost.pop(session, ()):
                # The gateway's log was read first.
                self.losses_by[cause] -= time_s >= event.time_s - self._clocks_differ_s
        for milestone, early in self._early.pop(session, ()):
            self._reach(milestone, early)

    def _recover(self, event: Event) -> None:
        fault = self._faults.get(event.session_id)
        if fault is not None:
            fault.back_s = event.time_s
            if fault.makes_ghost and "store_cleared" not in fault.seen:
                self.ghosts_of[fault.label] -= 1
                fault.makes_ghost = False
        self._live.setdefault(event.session_id, event.connection_id)

    def _suspect(self, event: Event) -> None:
        self._reach("suspected", event)
        if self._live.get(event.session_id) == event.connection_id:
            del self._live[event.session_id]
            if event.cause in _HEARD:
                self._heard.add((event.session_id, event.connection_id))
            else:
                self._lose(event)

    def _lose(self, event: Event) -> None:
        self._lost[event.session_id].append((event.cause, event.time_s))
        self.losses_by[event.cause] += 1

    def _reach(self, milestone: str, event: Event, fault: _Fault | None = None) -> None:
        fault = fault or self._faults.get(event.session_id)
        if fault is None:
            self._early[event.session_id].append((milestone, event))
            return
        if not self._since_s(fault) <= event.time_s <= fault.back_s or milestone in fault.seen:
            return
        if not fault.seen & _DETECTIONS and milestone in _DETECTIONS:
            self.detected[fault.label] += 1
        fault.seen.add(milestone)
        if milestone == "store_cleared" and fault.makes_ghost:
            self.ghosts_of[fault.label] -= 1
        self._took(fault, milestone, event.cause, max(0.0, event.time_s - fault.since_s))

    def _since_s(self, fault: _Fault) -> float:
        """What comes later may be of the fault: by another host's clock it can be a little before it."""
        return fault.since_s - self._clocks_differ_s

    def _took(self, fault: _Fault, milestone: str, cause: str, real_s: float) -> None:
        latency_s = self._clock.scenario_s(real_s)
        insort(self.latencies[fault.label, milestone, cause], latency_s)
        self._on_detection(fault.label, milestone, latency_s)

    def _tell(self, event: Event) -> None:
        fault = self._faults.get(event.session_id) or self._by_user.get(event.session_id)
        if fault is not None and fault.client is not None and event.time_s >= self._since_s(fault):
            fault.told.add(event.detail.get("watcher"))
            if len(fault.told) >= self._watchers[fault.client] > 0:
                self._reach("peers_notified", event, fault)

    def _let_in(self, event: Event) -> None:
        fault_id = str(event.detail["fault_id"])
        fault = self._by_id.get(fault_id)
        if fault is not None and "locked_out" not in fault.seen:
            fault.seen.add("locked_out")
            # Their own wait before the first attempt is not a lock-out.
            waited_s = event.time_s - fault.since_s if fault_id in self._refused else 0.0
            self._took(fault, "locked_out", "", waited_s)

    # -- numbers -------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        """Clients that are connected and have no fault in effect."""
        return len(self._live)

    @property
    def ghosts(self) -> int | None:
        """Dead clients whose session the store still holds; None: there is no store watch."""
        return None if self.in_store is None else self.ghosts_of.total()

    @property
    def losses(self) -> int:
        """Connections that healthy clients lost."""
        return self.losses_by.total()

    @property
    def ended(self) -> bool:
        """Whether the clients have come to the run's end."""
        return self._ended_s < inf

    @property
    def lag_s(self) -> dict[str, float]:
        """The largest lag of the loops of each role in the last sample of each process, real seconds."""
        found: dict[str, float] = {}
        for (role, _), (time_s, lag_s) in self._lag.items():
            if time_s > self.now_s - _LAG_HOLDS_S:
                found[role] = max(lag_s, found.get(role, 0.0))
        return found

    def mark(self) -> Point:
        """Add a point to the curve: how things stand at the latest event."""
        point = Point(
            round(self.now_s, 3),
            self.live,
            self.ghosts,
            self.in_store,
            self.injected.total(),
            self.detected.total(),
            self.losses,
        )
        if self._points and point.time_s == self._points[-1].time_s:
            return point  # nothing has been logged since
        if self._marks % self._keep_every == 0:
            self._points.append(point)
        self._marks += 1
        if len(self._points) >= _MOST_POINTS:
            self._points, self._keep_every = self._points[::2], 2 * self._keep_every
        if len(self._early) > _MANY_EARLY:  # the end of a healthy connection stays early for ever
            for session in [s for s, found in self._early.items() if self._is_old(found[-1][1])]:
                del self._early[session]
        return point

    def _is_old(self, event: Event) -> bool:
        return event.time_s < self.now_s - _EARLY_HOLDS_S

    def histograms(self) -> dict[tuple[str, str], tuple[list[int], float]]:
        """Return by (fault, milestone) how many latencies are at most each of :data:`BUCKETS_S`, then all, and their
        sum in scenario seconds.
        """
        found: dict[tuple[str, str], tuple[list[int], float]] = {}
        for (fault, milestone, _), sample in self.latencies.items():
            counts, sum_s = found.get((fault, milestone), ([0] * (len(BUCKETS_S) + 1), 0.0))
            mine = [bisect_right(sample, bound) for bound in BUCKETS_S] + [len(sample)]
            found[fault, milestone] = [a + b for a, b in zip(counts, mine, strict=True)], sum_s + sum(sample)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return the table; the keys of a row are those of :data:`COLUMNS`."""
        rows = [_row("live clients", count=self.live)]
        rows += [_row("faults injected", fault, count=n) for fault, n in sorted(self.injected.items())]
        rows += [
            _row(milestone.replace("_", " "), fault, cause, len(found), round(median(found), 3))
            for (fault, milestone, cause), found in sorted(self.latencies.items(), key=_in_order)
        ]
        rows += [_row("losses", cause=cause, count=n) for cause, n in sorted(self.losses_by.items()) if n]
        if self.in_store is None:
            return [*rows, _row("ghosts", count=_NO_WITNESS)]
        rows += [_row("ghosts", fault, count=self.ghosts_of[fault]) for fault in sorted(self.injected)]
        return [*rows, _row("sessions in the store", count=self.in_store)]

    def points(self) -> list[dict[str, Any]]:
        """Return the curve, the oldest point first."""
        return [asdict(point) for point in self._points]


def _in_order(item: tuple[tuple[str, str, str], list[float]]) -> tuple[str, float]:
    """By fault, what comes sooner first."""
    (fault, _, _), found = item
    return fault, median(found)


def _row(
    what: str, fault: str = "", cause: str = "", count: int | str = 0, median_s: float | str = ""
) -> dict[str, Any]:
    return {"what": what, "fault": fault, "cause": cause, "count": count, "median_s": median_s}
