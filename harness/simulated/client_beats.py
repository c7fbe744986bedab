"""Clients that beat by themselves: each sends a frame every interval, the gateway answers it.

From connections to frames at the gateway and pongs back. A client that is frozen or cut off sends nothing, and
goes on at the next moment of its own grid. TCP's retransmission of what a cut swallowed is left out: a beat that
is sent into a cut that nobody has noticed yet is lost.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from harness.simulated.network import Network

if TYPE_CHECKING:
    pass

__all__ = ["ClientBeating"]


class ClientBeating:
    """The beats of all clients.

    Args:
        clock: simulated time.
        network: carries them.
        interval_s: from one beat of a client to its next.
        phases: draws of the time to a connection's first beat.
    """

    def __init__(
        self, clock: Clock, network: Network, interval_s: float, phases: np.random.Generator
    ) -> None:
        self._clock = clock
        self._network = network
        self._interval_s = interval_s
        self._phases = phases

    def start(self, connection: Connection) -> None:
        """Begin on a new connection, at a uniformly random phase."""
        first_s = self._interval_s * (1 - float(self._phases.random()))
        self._clock.after(first_s, partial(self._beat, connection))

    def _beat(self, connection: Connection) -> None:
        client = connection.client
        if client.connection is not connection or not client.alive:
            return
        if not client.frozen and connection.nat_resets:
            self._network.meets_reset(connection)
        elif not client.frozen and connection.passes:
            self._network.beat(connection)
        self._clock.after(self._interval_s, partial(self._beat, connection))
