"""What all clients of one generator process share: settings, clock, event log, login, heartbeats, loop lag.

Makes the clients, reads the clock and writes the log; decides nothing about clients.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from numpy.random import Generator as Rng
from numpy.random import SeedSequence, default_rng

from harness.real.generator.behind_nat import nats_of
from harness.real.generator.client import Client, Nat, OnRequest
from harness.real.generator.event_loop import ClientEventLoop
from harness.real.generator.gateway_client import Gateways, Target
from harness.real.generator.shard import WorkerShard
from harness.real.generator.websocket import WebSocketConnection
from harness.real.generator.websocket_frames import TEXT, ReadyMade
from harness.runs.directory import RunDir
from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source
from reference_server.frames import PONG_TEXT
from reference_server.liveness.kinds import ClientBeats
from scenarios.faults import PlannedFault
from scenarios.plan import Plan, PlannedOutage
from scenarios.schema import Scenario

__all__ = ["ClientHeartbeats", "Generator"]

_FLUSH_S = 0.2  # what a SIGKILL may cost of the log
_LAG_TIMER_S = 0.01
_LAG_REPORT_S = 0.5
_OWN_ROUND_TRIP_S = 0.002  # what loopback and two event loops take themselves; only more is added
_DELAYS_AT_ONCE = 1024
_ALL = WorkerShard()


class ClientHeartbeats:
    """Heartbeats that clients send by themselves, one every interval, from the event loop's heap of steps.

    A client whose reading is paused sends nothing, and goes on at the next moment of its own grid.

    Args:
        interval_s: from one heartbeat of a client to its next, real seconds.
        at: does something at a real time of the run.
        now_s: the run's clock.
        rng: draws the time to a connection's first heartbeat.
    """

    def __init__(
        self,
        interval_s: float,
        at: Callable[[float, Callable[[], None]], None],
        now_s: Callable[[], float],
        rng: Rng,
    ) -> None:
        self._interval_s = interval_s
        self._at = at
        self._now_s = now_s
        self._rng = rng
        self._frame = ReadyMade(TEXT, b'{"type":"heartbeat"}')

    def begin(self, client: Client, wire: WebSocketConnection) -> None:
        """Begin on a new connection, at a uniformly random phase."""
        first_s = self._now_s() + self._interval_s * (1 - float(self._rng.random()))
        self._at(first_s, partial(self._send, client, wire, first_s))

    def _send(self, client: Client, wire: WebSocketConnection, due_s: float) -> None:
        if client.wire is not wire or client.has_gone:
            return
        due_s += self._interval_s
        self._at(due_s, partial(self._send, client, wire, due_s))
        if not client.reading_paused:
            client.send_heartbeat(self._frame.take())


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
    ) -> None:
        self.scenario = scenario
        self.plan = plan
        self.origin_s = origin_s
        self.shard = shard
        self.start_s = 0.0  # set by `start`: when the plan's time zero was
        self.on_request = on_request
        self.loop = ClientEventLoop(self.now_s)
        self.pong = ReadyMade(TEXT, PONG_TEXT)
        self._faults: dict[int, PlannedFault] = {fault.client: fault for fault in plan.faults}
        self._outages: dict[int, list[PlannedOutage]] = {}
        for outage in plan.outages:
            self._outages.setdefault(outage.client, []).append(outage)
        # A blackholed socket must outlive its client: closing it would send a FIN and end the silence.
        self.kept_open_sockets: list[Any] = []
        self.rng: Rng = default_rng(SeedSequence([scenario.seed, 0x67656E, shard.position]))
        self._nats = nats_of(run.nat_boxes, self._faults)
        self._heartbeats = self._client_heartbeats()
        self._writer = EventWriter(run.log("client", os.getpid()))
        self.gateways = Gateways(target, self.rng)
        self._background: list[Any] = []
        self._round_trip = scenario.network.round_trip
        self._delays: list[float] = []

    def _client_heartbeats(self) -> ClientHeartbeats | None:
        """What has clients send heartbeats by themselves, where the scenario says so."""
        interval_s = self.scenario.liveness.heartbeat_interval
        if not isinstance(self.scenario.detector, ClientBeats) or interval_s is None:
            return None
        return ClientHeartbeats(
            self.scenario.clock.real_s(interval_s), self.loop.at, self.now_s, self.rng.spawn(1)[0]
        )

    def start_client(self, index: int, paced: bool) -> Client:
        """Begin the life of a client of the plan, at once or (``paced``) at its moment of the plan's ramp."""
        client = Client(index, self, self._faults.get(index))
        connect_at_s = self.at_s(self.plan.connect_at_s(index)) if paced else self.now_s()
        client.start(connect_at_s, self._outages.get(index, ()))
        return client

    def nat_of(self, client: int) -> Nat | None:
        """The real NAT of the run's network that a client is behind; None: none."""
        return self._nats.get(client)

    def begin_heartbeats(self, client: Client, wire: WebSocketConnection) -> None:
        """Have a client send heartbeats on a new connection, where clients do so by themselves."""
        if self._heartbeats is not None:
            self._heartbeats.begin(client, wire)

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
        self._background = [gevent.spawn(self._sample_lag), gevent.spawn(self._mark_steady)]

    def stop(self) -> None:
        """End: log it, flush and close the log. Safe to call twice."""
        if self._background:
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
        if not self._background and kind not in (EventKind.RUN_STARTED, EventKind.RUN_ENDED):
            return
        self._writer.write(
            Event(
                self.now_s() if time_s is None else time_s,
                Source.CLIENT,
                kind,
                session_id,
                connection_id,
                node,
                cause,
                detail or {},
            )
        )
        if kind is EventKind.FAULT_INJECTED:
            # The store watch looks from this line on, and records may go at once.
            self._writer.flush()

    def answer_delay_s(self) -> float:
        """How long a heartbeat's answer is to be held back so that the round trip is the network's. Draws anew."""
        if not self._delays:
            drawn = self._round_trip.sample(self.rng, _DELAYS_AT_ONCE) - _OWN_ROUND_TRIP_S
            self._delays = drawn.tolist()
        return self._delays.pop()

    def _mark_steady(self) -> None:
        gevent.sleep(self.at_s(self.plan.ramp_s) - self.now_s())
        self.log(EventKind.STEADY, detail={"clients": self.plan.clients})

    def _sample_lag(self) -> None:
        """Log the largest lateness of a short timer, twice a second: this loop's shard of any delay seen."""
        worst = 0.0
        reported = flushed = self.now_s()
        while True:
            due = self.now_s() + _LAG_TIMER_S
            gevent.sleep(_LAG_TIMER_S)
            now = self.now_s()
            worst = max(worst, now - due)
            if now - reported >= _LAG_REPORT_S:
                detail = {"max_lag_s": worst, "role": "generator", "pid": os.getpid()}
                self.log(EventKind.LOOP_LAG, detail=detail, time_s=now)
                worst, reported = 0.0, now
            if now - flushed >= _FLUSH_S:
                self._writer.flush()
                flushed = now
