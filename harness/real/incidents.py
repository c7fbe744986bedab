"""Do the plan's incidents to the real nodes and the real store, at their times, and log what took effect.

From a plan to signals, restarts and flushes, as `incident_started` and `incident_ended` events of the harness.
It is called in between other things and never waits: what takes its time (a process that starts) is looked
after at the next call.

An incident that finds its node gone already does nothing and is not logged, as in the simulation.
"""

from __future__ import annotations

import heapq
import os
import shutil
import time
from collections.abc import Callable, MutableMapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from harness.real.errors import CannotRun
from harness.real.network import NetworkKind
from harness.real.network.hosts import hosts_network
from harness.real.processes.gateways import Nodes
from harness.real.processes.redis import RedisServer
from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source
from scenarios.clock import RunClock
from scenarios.faults import PlannedIncident
from scenarios.faults.incidents import DrawnNodeCrash, DrawnNodeDrain, DrawnStoreRestart
from scenarios.plan import Plan

__all__ = ["Incidents", "check_incidents", "drain_spread_s"]

_LOOK_S = 0.01  # how often a process that starts is asked whether it is there
_PREFIX_DELETE = "delete of the run's own keys, one batch after the other"


def check_incidents(
    plan: Plan, redis_url: str | None, network: NetworkKind = "loopback", hosts: int = 0
) -> None:
    """Return if the engine can do every incident of a plan.

    Raises:
        CannotRun: it cannot; nothing is faked.
    """
    for incident in plan.incidents:
        if incident.params == DrawnNodeCrash("host"):
            if redis_url is not None or network != "loopback" or hosts:
                raise CannotRun(
                    f"{incident.incident_id}: by: host gives each node a network namespace that reaches nothing "
                    "outside; leave --redis, --network and --hosts out"
                )
            try:
                with hosts_network(1):
                    pass
            except CannotRun as error:
                raise CannotRun(
                    f"{incident.incident_id}: a host that vanishes is a network namespace: {error}; "
                    "`flatline simulate` has it everywhere, and by: process needs no root"
                ) from error
        if incident.kind == "reconnect_storm" and (os.geteuid() != 0 or shutil.which("ss") is None):
            raise CannotRun(
                f"{incident.incident_id}: ending other processes' connections needs root and `ss` (iproute2)"
            )
        if incident.kind == "store_restart" and redis_url is not None:
            raise CannotRun(
                f"{incident.incident_id}: the server given by --redis is not ours to restart; leave --redis out "
                "to have a private one"
            )


def drain_spread_s(plan: Plan, clock: RunClock, node: int) -> float:
    """The longest window over which a node's drain is to spread its closes, real seconds; 0: all at once."""
    drains = [one.params for one in plan.incidents if one.node == node]
    return clock.real_s(max((one.spread for one in drains if isinstance(one, DrawnNodeDrain)), default=0.0))


class Incidents:
    """A plan's incidents. Called as a `Ticker` of `engine.py`.

    Args:
        plan: when what happens; scenario seconds.
        clock: of the run.
        nodes: what it happens to.
        redis: likewise.
        pids: the run's processes by role; kept up to date when one is started again.
        path: event log to write.
        origin_s: CLOCK_MONOTONIC at the run's origin.
    """

    def __init__(
        self,
        plan: Plan,
        clock: RunClock,
        nodes: Nodes,
        redis: RedisServer,
        pids: MutableMapping[str, int],
        path: Path,
        origin_s: float,
    ) -> None:
        self._clock = clock
        self._nodes = nodes
        self._redis = redis
        self._pids = pids
        self._origin_s = origin_s
        # At once: the store watch looks for it only now and then. None: nothing will be logged.
        self._out = EventWriter(path) if plan.incidents else None
        self._began_s = 0.0
        self._ties = count()
        self._steps: list[tuple[float, int, Callable[[], None]]] = []
        self._stalled: dict[int, int] = {}  # node -> stalls that are not over
        for incident in plan.incidents:
            self._at(clock.real_s(incident.at_s), partial(self._begin, incident))

    def close(self) -> None:
        """End the log."""
        if self._out is not None:
            self._out.close()

    def __call__(self, now_s: float, began_s: float) -> float:
        """Do what is due; return when the next thing is, inf: nothing more to come."""
        self._began_s = began_s
        while self._steps and began_s + self._steps[0][0] <= now_s:
            heapq.heappop(self._steps)[2]()
            now_s = time.monotonic()
        return began_s + self._steps[0][0] if self._steps else float("inf")

    # -- what happens ------------------------------------------------------------------------------

    def _begin(self, incident: PlannedIncident) -> None:
        number = incident.node
        if number is not None and not self._nodes[number].runs:
            return
        over_s = None if incident.lasts_s is None else self._now_s() + self._clock.real_s(incident.lasts_s)
        mechanism = incident.params.mechanism
        # Before the deed: whom it wakes may run at once, and would have been hurt before it began.
        at_s = time.monotonic()
        match incident.kind:
            case "gateway_stall":
                assert number is not None and over_s is not None
                self._stalled[number] = self._stalled.get(number, 0) + 1
                self._nodes.stall(number)
                self._at(over_s, partial(self._resume, incident, number))
            case "node_crash" | "node_drain":
                assert number is not None
                if incident.kind == "node_crash":
                    self._nodes.kill(number, host=incident.params == DrawnNodeCrash("host"))
                else:
                    self._nodes.drain(number)
                if over_s is not None:
                    self._at(over_s, partial(self._restart, incident, number))
            case "store_flush":
                if not self._redis.flush():
                    mechanism = _PREFIX_DELETE
            case "reconnect_storm":
                self._nodes.reset_connections()
            case "store_restart":
                assert over_s is not None
                self._redis.stop()
                self._at(over_s, partial(self._start_store, incident))
            case _:
                raise ValueError(f"unknown incident {incident.kind!r} in the plan")
        detail = {
            "incident_id": incident.incident_id,
            "kind": incident.kind,
            "mechanism": mechanism,
            "cuts_connections": incident.params.cuts_connections,
            "stops_loop": incident.params.stops_loop,
            "scheduled_s": self._began_s - self._origin_s + self._clock.real_s(incident.at_s),
        }
        self._log(EventKind.INCIDENT_STARTED, incident, detail, at_s)

    def _resume(self, incident: PlannedIncident, number: int) -> None:
        self._stalled[number] -= 1
        if not self._stalled[number]:
            self._nodes.resume(number)
        self._ended(incident)

    def _restart(self, incident: PlannedIncident, number: int) -> None:
        node = self._nodes[number]
        if node.runs:  # it drains still
            self._soon(partial(self._restart, incident, number))
            return
        self._nodes.start_again(number)
        self._pids[f"gateway/{node.name}"] = node.child.pid
        self._soon(partial(self._end_when, node.listens, incident))

    def _end_when(self, ready: Callable[[], bool], incident: PlannedIncident) -> None:
        """Log its end once a process that was started is there."""
        if ready():
            self._ended(incident)
        else:
            self._soon(partial(self._end_when, ready, incident))

    def _start_store(self, incident: PlannedIncident) -> None:
        self._redis.start(keeps=incident.params == DrawnStoreRestart(keeps=True))
        assert self._redis.child is not None
        self._pids["redis"] = self._redis.child.pid
        self._soon(partial(self._end_when, self._redis.answers, incident))

    # -- when and what is said ---------------------------------------------------------------------

    def _now_s(self) -> float:
        """Real seconds since the plan's time zero."""
        return time.monotonic() - self._began_s

    def _at(self, real_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._steps, (real_s, next(self._ties), do))

    def _soon(self, do: Callable[[], None]) -> None:
        self._at(self._now_s() + _LOOK_S, do)

    def _ended(self, incident: PlannedIncident) -> None:
        detail = {"incident_id": incident.incident_id, "kind": incident.kind}
        self._log(EventKind.INCIDENT_ENDED, incident, detail, time.monotonic())

    def _log(self, kind: EventKind, incident: PlannedIncident, detail: dict[str, Any], at_s: float) -> None:
        node = "" if incident.node is None else self._nodes[incident.node].name
        event = Event(at_s - self._origin_s, Source.HARNESS, kind, node=node, detail=detail)
        assert self._out is not None
        self._out.write(event)
        self._out.flush()
