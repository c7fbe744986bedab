"""Clients that beat by themselves: each sends a heartbeat every interval, from the swarm's heap of steps.

From connections to frames on the wire; a client that is deaf sends nothing and goes on at the next moment of its
own grid. What the answer means is the client's business.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from numpy.random import Generator as Rng

from harness.real.frames import TEXT, ReadyMade

if TYPE_CHECKING:
    from harness.real.client import Client
    from harness.real.wire import Wire

__all__ = ["Beating"]


class Beating:
    """The beats of all clients of a generator.

    Args:
        interval_s: from one beat of a client to its next, real seconds.
        at: does something at a real time of the run.
        now_s: the run's clock.
        rng: draws the time to a connection's first beat.
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
        self.frame = ReadyMade(TEXT, b'{"type":"heartbeat"}')

    def begin(self, client: Client, wire: Wire) -> None:
        """Begin on a new connection, at a uniformly random phase."""
        first_s = self._now_s() + self._interval_s * (1 - float(self._rng.random()))
        self._at(first_s, partial(self._beat, client, wire, first_s))

    def _beat(self, client: Client, wire: Wire, due_s: float) -> None:
        if client.wire is not wire or client.has_gone:
            return
        due_s += self._interval_s
        self._at(due_s, partial(self._beat, client, wire, due_s))
        if not client.deaf:
            client.beat()
