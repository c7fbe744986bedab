"""The event loop of one gateway node: a single server, first come first served. Scenario seconds.

From jobs with a service time to the moment at which each is done. A stall is a job like any other that takes
long. What waits in a socket while the loop is busy and what waits for a timer stand in the same queue, in the
order in which they came.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from harness.simulated.clock import Clock
from harness.simulated.network import RoundTrips
from reference_server.heartbeat.scheduler import Lateness
from scenarios.gateway import Gateway as GatewayModel

__all__ = ["Loop"]

# A lag is looked at for two half seconds, the one that goes on and the one before: 0.75 s, for a limit of 1 s.
_REMEMBERED = 0.75


class Loop:
    """One node's loop.

    Args:
        clock: simulated time.
        model: service times.
        rng: draws them.
        busy: whether the loop has other work or is ever to be stalled; without this and without service times it
            takes no time, and nobody has to ask it.
    """

    def __init__(self, clock: Clock, model: GatewayModel, rng: np.random.Generator, *, busy: bool) -> None:
        self._clock = clock
        self._free_s = 0.0
        # Loop time of one frame: a heartbeat sent, or its answer read.
        self.frame_s = RoundTrips(model.heartbeat_service.scaled(0.5), rng).next_s
        self._handshakes = RoundTrips(model.handshake_service, rng)
        self.takes_time = model.takes_time or busy
        self._most_lag_s = math.inf if model.refuse_above_lag is None else model.refuse_above_lag
        self._overloaded_until_s = -math.inf
        self.lateness = Lateness()
        self._newcomers: dict[str, deque[Callable[[], object]]] = {"ws": deque(), "http": deque()}

    def handshake_s(self) -> float:
        """Loop time of one handshake."""
        return self._handshakes.next_s()

    @property
    def idle(self) -> bool:
        """Whether a job that comes now is begun at once: then nothing else is done before it is."""
        return self._free_s <= self._clock.env.now

    def reserve(self, service_s: float) -> float:
        """Put a job at the end of the queue; return when it will be done."""
        now_s = self._clock.env.now
        self._free_s = max(now_s, self._free_s) + service_s
        if self._free_s - now_s > self._most_lag_s:
            self._overloaded_until_s = self._free_s + _REMEMBERED * self._most_lag_s
        return self._free_s

    @property
    def overloaded(self) -> bool:
        """Whether it has been so late within about the last second that the node lets nobody new in."""
        return self._clock.now_s < self._overloaded_until_s

    def submit(self, service_s: float, act: Callable[[], None]) -> None:
        """Do something when its turn has come and its service time is over; at once on an idle loop."""
        done_s = self.reserve(service_s)
        if done_s <= self._clock.now_s:
            act()
        else:
            self._clock.at(done_s, act)

    def accept(self, port: Literal["ws", "http"], accepted: Callable[[], object]) -> None:
        """Take a newcomer in: in each turn of the loop one of a port, in the order in which they came (libuv's way)."""
        waiting = self._newcomers[port]
        waiting.append(accepted)
        if len(waiting) == 1:
            self.submit(0.0, partial(self._accept_next, waiting))

    def _accept_next(self, waiting: deque[Callable[[], object]]) -> None:
        while waiting:  # thousands may be, so it does not call itself
            waiting[0]()
            waiting.popleft()
            if waiting and (done_s := self.reserve(0.0)) > self._clock.now_s:
                self._clock.at(done_s, partial(self._accept_next, waiting))
                return

    def after_reading(self, act: Callable[[], None]) -> None:
        """Do something, when a timer that is due now gets its turn, after all that lay in the sockets by then.

        This is the gateway's second look (`reference_server/heartbeat/scheduler.py`): the timer's callback finds a
        deadline passed, and has it judged only when the loop has read its sockets once more.
        """
        self.submit(0.0, lambda: self.submit(0.0, act))
