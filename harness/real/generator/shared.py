"""What all clients of one generator process share: plan, clock, event loop, event log, gateways, loop lag.

Reads the clock and writes the log; knows no client.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import orjson
from numpy.random import Generator as Rng
from numpy.random import SeedSequence, default_rng
from websockets.frames import Frame, Opcode

from harness.real.dialects import find_dialect
from harness.real.generator.behind_nat import nats_of
from harness.real.generator.canaries import LAG_REPORT_S, Canaries
from harness.real.generator.event_loop import ClientEventLoop
from harness.real.generator.gateway_client import Gateways, Target
from harness.real.generator.middlebox import BoxRules
from harness.real.generator.shard import WorkerShard
from harness.runs.directory import RunDir
from reference_server.event_log import LAG_SAMPLED_EVERY_S, EventWriter
from reference_server.events import Event, EventKind, Source
from reference_server.liveness.kinds import ClientBeats
from scenarios.client_rules import TrafficOneWay
from scenarios.clock import RunClock
from scenarios.distributions import Distribution
from scenarios.faults import PlannedFault
from scenarios.plan import Plan, PlannedOutage
from scenarios.schema import Scenario

__all__ = ["Generator", "OnRequest"]

OnRequest = Callable[[str, str, float, Exception | None], None]
"""Told about each connect and heartbeat: type, name, milliseconds, what went wrong."""

_FLUSH_S = 0.2  # what a SIGKILL may cost of the log
_OWN_ROUND_TRIP_S = 0.002  # what loopback and two event loops take themselves; only more is added
_DRAWS_AT_ONCE = 1024
_CANARIES = 3  # at least
_ALL = WorkerShard()


class _Draws:
    """Draws of a law, made in blocks."""

    def __init__(self, law: Distribution, rng: Rng) -> None:
        self._law, self._rng = law, rng
        self._drawn: list[float] = []

    def next(self) -> float:
        """One more draw."""
        if not self._drawn:
            self._drawn = self._law.sample(self._rng, _DRAWS_AT_ONCE).tolist()
        return self._drawn.pop()


class ApplicationTraffic:
    """What clients send of their own accord besides heartbeats.

    Args:
        rules: of one direction, times of the scenario.
        service: law of the time that the gateway's loop is busy with one frame, real seconds.
        clock: of the run.
        rng: draws both.
    """

    def __init__(self, rules: TrafficOneWay, service: Distribution, clock: RunClock, rng: Rng) -> None:
        self._rules, self._clock = rules, clock
        self._waits, self._work = _Draws(rules.every, rng), _Draws(service, rng)

    def wait_s(self) -> float:
        """Real seconds from one burst to the next. Draws anew."""
        return self._clock.real_s(self._waits.next())

    def burst(self) -> list[Frame]:
        """The frames to send now; each says how long the gateway's loop is busy with it."""
        return [self._frame(self._work.next()) for _ in range(self._rules.burst)]

    def _frame(self, work_s: float) -> Frame:
        message: dict[str, Any] = {"type": "data", "work_s": work_s, "pad": ""}
        room = self._rules.bytes - len(orjson.dumps(message))
        return Frame(Opcode.TEXT, orjson.dumps(message | {"pad": "x" * max(0, room)}))


class Generator:
    """Shared by the clients of one process. All times are real seconds on the run's clock."""

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        target: Target,
        run: RunDir,
        origin_s: float,
        shard: WorkerShard = _ALL,
        on_request: OnRequest = lambda *_: None,
        has_real_middle: bool = False,
        has_real_round_trip: bool = False,
    ) -> None:
        self.scenario = scenario
        self.plan = plan
        self.origin_s = origin_s
        self._has_real_middle, self._has_real_round_trip = has_real_middle, has_real_round_trip
        self.shard = shard
        self.start_s = 0.0  # set by `start`: when the plan's time zero was
        self.on_request = on_request
        self.loop = ClientEventLoop(self.now_s)
        self.beats_every_s = self._beats_every_s()
        self.faults: dict[int, PlannedFault] = {fault.client: fault for fault in plan.faults}
        self.outages: dict[int, list[PlannedOutage]] = {}
        for outage in plan.outages:
            self.outages.setdefault(outage.client, []).append(outage)
        # A blackholed socket must outlive its client: closing it would send a FIN and end the silence.
        self.kept_open_sockets: list[Any] = []
        self.rng: Rng = default_rng(SeedSequence([scenario.seed, 0x67656E, shard.position]))
        self.nats = nats_of(run.nat_boxes, self.faults)  # by the client that is behind it
        self._writer = EventWriter(run.log("client", os.getpid()))
        self.gateways = Gateways(target, self.rng)
        self._background: list[Any] = []
        self._round_trips = _Draws(scenario.network.round_trip, self.rng)
        self.traffic = self._traffic()  # None: clients send none
        self.middle = self._middle()  # None: no box on their path, or a real one
        about = scenario.target
        self.dialect = find_dialect(about.dialect_name, Path(about.folder)) if about is not None else None
        self.canaries = Canaries(self._canaries() if about is not None else (), self._log_wait)

    def _canaries(self) -> list[int]:
        """One in a hundred of this process's healthy clients, three at least, those without outages first."""
        mine = range(self.shard.position, self.plan.clients, self.shard.of)
        healthy = sorted((c for c in mine if c not in self.faults), key=self.outages.__contains__)
        return healthy[: max(_CANARIES, len(healthy) // 100)]

    def _log_wait(self, worst_s: float) -> None:
        self.log(EventKind.LOOP_LAG, detail={"max_lag_s": worst_s, "role": "canary", "pid": os.getpid()})

    def _take_turns(self) -> None:
        now_s = self.now_s()
        self.loop.at(now_s + LAG_SAMPLED_EVERY_S, self._take_turns)
        self.canaries.turn(now_s)

    def _beats_every_s(self) -> float | None:
        """From one heartbeat of a client's own to its next; None: clients send none by themselves."""
        interval_s = self.scenario.liveness.heartbeat_interval
        if not isinstance(self.scenario.detector, ClientBeats) or interval_s is None:
            return None
        return self.scenario.clock.real_s(interval_s)

    def _traffic(self) -> ApplicationTraffic | None:
        traffic = self.scenario.traffic
        if traffic.to_gateway is None:
            return None
        return ApplicationTraffic(
            traffic.to_gateway, traffic.service, self.scenario.clock, self.rng.spawn(1)[0]
        )

    def _middle(self) -> BoxRules | None:
        network, clock = self.scenario.network, self.scenario.clock
        if self._has_real_middle or (network.nat is None and network.max_age is None):
            return None
        return BoxRules(
            network.nat,
            clock.real_s(network.nat.idle_timeout) if network.nat is not None else float("inf"),
            clock.real_s(network.max_age) if network.max_age is not None else None,
        )

    def now_s(self) -> float:
        """Real seconds since the run's origin."""
        return time.monotonic() - self.origin_s

    def at_s(self, scenario_s: float) -> float:
        """The real time of a moment of the plan."""
        return self.start_s + self.scenario.clock.real_s(scenario_s)

    @property
    def horizon_s(self) -> float:
        """The real time at which the run ends."""
        return self.at_s(self.plan.horizon_s)

    def start(self, start_s: float | None = None) -> None:
        """Begin.

        Args:
            start_s: the plan's time zero, on the run's clock; None: now.
        """
        self.start_s = self.now_s() if start_s is None else start_s
        detail = {
            "clients": self.shard.count(self.plan.clients),
            "worker": self.shard.position,
            "workers": self.shard.of,
        }
        self.log(EventKind.RUN_STARTED, detail=detail, time_s=self.start_s)
        self.loop.start()
        if self.canaries:
            self._take_turns()
        self._background = [gevent.spawn(self._sample_lag), gevent.spawn(self._mark_steady)]

    def stop(self) -> None:
        """End: log it, flush and close the log. Safe to call twice."""
        if self._background:
            self.canaries.tell(self.now_s())
            gevent.killall(self._background)
            self._background = []
            self.loop.stop()
            self.log(EventKind.RUN_ENDED)
            self._writer.close()

    @property
    def running(self) -> bool:
        """Whether the run has begun and not ended."""
        return bool(self._background)

    def log(
        self,
        kind: EventKind,
        *,
        session_id: str = "",
        connection_id: str = "",
        cause: str = "",
        detail: dict[str, Any] | None = None,
        time_s: float | None = None,
        node: str = "",
    ) -> None:
        """Write one client event, now or at a time already taken. After the end nothing is logged."""
        time_s = self.now_s() if time_s is None else time_s
        self.write(Event(time_s, Source.CLIENT, kind, session_id, connection_id, node, cause, detail or {}))

    def write(self, event: Event) -> None:
        """Write an event. After the end nothing is logged."""
        if not self._background and event.kind not in (EventKind.RUN_STARTED, EventKind.RUN_ENDED):
            return
        self._writer.write(event)
        if event.kind is EventKind.FAULT_INJECTED:
            # The store watch looks from this line on, and records may go at once.
            self._writer.flush()

    def answer_delay_s(self) -> float:
        """How long a heartbeat's answer is to be held back so that the round trip is the network's. Draws anew."""
        return 0.0 if self._has_real_round_trip else self._round_trips.next() - _OWN_ROUND_TRIP_S

    def _mark_steady(self) -> None:
        gevent.sleep(self.at_s(self.plan.ramp_s) - self.now_s())
        self.log(EventKind.STEADY, detail={"clients": self.plan.clients})

    def _sample_lag(self) -> None:
        """Log the largest lateness of a short timer, twice a second: this loop's shard of any delay seen."""
        worst = 0.0
        reported = flushed = self.now_s()
        while True:
            due = self.now_s() + LAG_SAMPLED_EVERY_S
            gevent.sleep(LAG_SAMPLED_EVERY_S)
            now = self.now_s()
            worst = max(worst, now - due)
            if now - reported >= LAG_REPORT_S:
                detail = {"max_lag_s": worst, "role": "generator", "pid": os.getpid()}
                self.log(EventKind.LOOP_LAG, detail=detail, time_s=now)
                worst, reported = 0.0, now
            if now - flushed >= _FLUSH_S:
                self._writer.flush()
                flushed = now
