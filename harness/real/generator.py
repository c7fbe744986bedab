"""What all clients of one generator process share: settings, clock, event log, login, loop lag.

Reads the clock and writes the log; decides nothing about clients.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import orjson
from geventhttpclient import HTTPClient
from numpy.random import Generator as Rng
from numpy.random import SeedSequence, default_rng
from websockets.uri import WebSocketURI, parse_uri

from harness.eventlog import EventWriter
from harness.faults import Plan, PlannedFault, PlannedOutage
from harness.real.behind_nat import nats_of
from harness.real.network import NETWORK_RECORD
from reference_server.events import Event, EventKind, Source
from scenarios.schema import Scenario

__all__ = ["Generator", "LoginRefused", "LoginUnavailable", "Target"]

_FLUSH_S = 0.2  # what a SIGKILL may cost of the log
_LAG_TIMER_S = 0.01
_LAG_REPORT_S = 0.5


class LoginRefused(Exception):
    """The gateway answered a login with an error: its code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class LoginUnavailable(Exception):
    """No answer to a login, or one that says "later" (5xx)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway under test is: one URL a node, node-1 first."""

    ws_urls: tuple[str, ...]
    http_urls: tuple[str, ...]


class Generator:
    """Shared by the clients of one process. All times are real seconds on the run's clock."""

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        target: Target,
        log: Path,
        origin_s: float,
        worker: int = 0,
    ) -> None:
        self.scenario = scenario
        self.plan = plan
        self.origin_s = origin_s
        self.start_s = 0.0  # set by `start`: when the plan's time zero was
        self.uris: tuple[WebSocketURI, ...] = tuple(map(parse_uri, target.ws_urls))
        self.faults: dict[int, PlannedFault] = {fault.client: fault for fault in plan.faults}
        self.outages: dict[int, list[PlannedOutage]] = {}
        for outage in plan.outages:
            self.outages.setdefault(outage.client, []).append(outage)
        # A blackholed socket must outlive its client: closing it would send a FIN and end the silence.
        self.graveyard: list[Any] = []
        self.rng: Rng = default_rng(SeedSequence([scenario.seed, 0x67656E, worker]))
        self.nats = nats_of(log.with_name(NETWORK_RECORD), self.faults)
        self._writer = EventWriter(log)
        self._http = tuple(
            HTTPClient.from_url(url, concurrency=64, connection_timeout=10.0, network_timeout=10.0)
            for url in target.http_urls
        )
        self._background: list[Any] = []

    def now_s(self) -> float:
        """Real seconds since the run's origin."""
        return time.monotonic() - self.origin_s

    def at_s(self, scenario_s: float) -> float:
        """The real time of a moment of the plan."""
        return self.start_s + scenario_s / self.scenario.speedup

    @property
    def horizon_s(self) -> float:
        """The real time at which the run ends."""
        return self.at_s(self.plan.horizon_s)

    def start(self) -> None:
        """Begin: the plan's time zero is now."""
        self.start_s = self.now_s()
        self.log(EventKind.RUN_STARTED, detail={"clients": self.plan.clients})
        self._background = [gevent.spawn(self._sample_lag), gevent.spawn(self._mark_steady)]

    def stop(self) -> None:
        """End: log it, flush and close the log. Safe to call twice."""
        if self._background:
            gevent.killall(self._background)
            self._background = []
            self.log(EventKind.RUN_ENDED)
            self._writer.close()

    @property
    def running(self) -> bool:
        """Whether the run has begun and not ended."""
        return bool(self._background)

    def log(
        self, kind: EventKind, *, session_id: str = "", connection_id: str = "", cause: str = "",
        detail: dict[str, Any] | None = None, time_s: float | None = None, node: str = "",
    ) -> None:  # fmt: skip
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

    def nodes_to_try(self, home: int | None) -> list[int]:
        """Return the places of the nodes' URLs in the order to try them: home (from 1) first, then at random.

        What a load balancer does that knows at once which node is there: whoever is refused by one asks
        the next in the same attempt.
        """
        count = len(self.uris)
        if count == 1:
            return [0]
        order: list[int] = self.rng.permutation(count).tolist()
        if home is not None and home <= count:
            order.remove(home - 1)
            order.insert(0, home - 1)
        return order

    def login(self, user_id: str, home: int | None = None) -> str:
        """Log a user in over HTTP, at any node; returns the session id.

        Raises:
            LoginRefused: the gateway said no, for instance `already_online`.
            LoginUnavailable: no answer, or a 5xx.
        """
        body = orjson.dumps({"user_id": user_id, "device_type": "web"})
        refused: OSError | None = None
        for n in self.nodes_to_try(home):
            try:
                response = self._http[n % len(self._http)].post(
                    "/user/login", body, {"Content-Type": "application/json"}
                )
                status, answer = response.status_code, orjson.loads(response.read() or b"{}")
                break
            except ConnectionRefusedError as error:
                refused = error
            except (OSError, ValueError, ConnectionError) as error:
                raise LoginUnavailable(str(error)) from error
        else:
            raise LoginUnavailable(str(refused)) from refused
        if status == 200:
            return str(answer["session_id"])
        code = str(answer.get("error", {}).get("code", status))
        raise LoginUnavailable(code) if status >= 500 else LoginRefused(code)

    def _mark_steady(self) -> None:
        gevent.sleep(self.at_s(self.plan.ramp_s) - self.now_s())
        self.log(EventKind.STEADY, detail={"clients": self.plan.clients})

    def _sample_lag(self) -> None:
        """Log the largest lateness of a short timer, twice a second: this loop's share of any delay seen."""
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
