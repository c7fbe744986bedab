"""Application traffic to clients: data frames that nobody asked for, at random times on each connection.

From a law's draws to writes on connections. It stands for what an application says to its clients: load for a test.
"""

from __future__ import annotations

import numpy as np
import orjson

from reference_server.config import GatewayConfig
from reference_server.frames import text_frame
from reference_server.heartbeat.timer_wheel import Clock, TimerWheel
from reference_server.websocket.connection import GatewayConnection, Phase

__all__ = ["Pushes"]


class _Push:
    """The next burst of one connection."""

    __slots__ = ("bucket", "connection")

    def __init__(self, connection: GatewayConnection) -> None:
        self.connection = connection
        self.bucket = 0


class Pushes:
    """Sends bursts to every connection in service.

    Args:
        config: its ``push_every_s`` (draws of the time between two bursts, real seconds), ``push_bytes`` (payload of
            a frame) and ``push_burst`` (frames together).
        clock: the loop's.
        rng: takes one of the draws for each burst.
    """

    def __init__(self, config: GatewayConfig, clock: Clock, rng: np.random.Generator) -> None:
        self._every_s = np.array(config.push_every_s)
        frame = text_frame(orjson.dumps({"type": "data", "pad": "x" * config.push_bytes}))
        self._burst = [frame] * config.push_burst
        self._clock = clock
        self._rng = rng
        self._wheel: TimerWheel[_Push] = TimerWheel(clock, self._on_due)

    def begin(self, connection: GatewayConnection) -> None:
        """Send to a connection from now on, until it ends."""
        self._wait(_Push(connection))

    def _wait(self, push: _Push) -> None:
        self._wheel.schedule(push, self._clock.now_s() + float(self._rng.choice(self._every_s)))

    def _on_due(self, push: _Push, _now_s: float) -> None:
        if push.connection.phase is Phase.READY:
            for frame in self._burst:
                push.connection.send_frame(frame)
            self._wait(push)
