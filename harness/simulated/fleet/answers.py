"""What each client of the fleet still owes the gateway: answers on their way, and pings stuck before a cut.

A small matrix of slots, one row a client, which grows when one runs out of slots. No time passes here.
"""

from __future__ import annotations

import numpy as np

from harness.simulated.fleet.draws import FloatArray, Index

__all__ = ["Answers"]

_SLOTS = 3


class Answers:
    """Outstanding pings of n clients. Seconds.

    A ping that reached its client has the time at which its answer arrives; one that is stuck has the half
    round trip that its answer will take.
    """

    def __init__(self, clients: int) -> None:
        self._arrives_s = np.full((clients, _SLOTS), np.inf)
        self._stuck_s = np.full((clients, _SLOTS), np.inf)

    def expect(self, who: Index, arrives_s: FloatArray) -> None:
        """Answers that will arrive at these times."""
        slot = self._free_slot(who)  # first: it may make the matrix larger
        self._arrives_s[who, slot] = arrives_s

    def stick(self, who: Index, half_trip_s: FloatArray) -> None:
        """Pings that wait for the way to open."""
        slot = self._free_slot(who)
        self._stuck_s[who, slot] = half_trip_s

    def release(self, who: Index, at_s: FloatArray) -> None:
        """Stuck pings reach their clients, all at once: each answer goes its own half round trip."""
        arrives_s = at_s[:, np.newaxis] + self._stuck_s[who]
        self._arrives_s[who] = np.minimum(self._arrives_s[who], arrives_s)
        self._stuck_s[who] = np.inf

    def take_next(self, who: Index) -> None:
        """The next answer of each has arrived."""
        self._arrives_s[who, self._arrives_s[who].argmin(axis=1)] = np.inf

    def next_s(self, who: Index) -> FloatArray:
        """When the next answer of each arrives, shape of ``who``; inf: none is on its way."""
        return np.asarray(self._arrives_s[who].min(axis=1))

    def clear(self, who: Index) -> None:
        """Nothing is owed on a new connection."""
        self._arrives_s[who] = np.inf
        self._stuck_s[who] = np.inf

    def _free_slot(self, who: Index) -> Index:
        free = np.isinf(self._arrives_s[who]) & np.isinf(self._stuck_s[who])
        if not free.any(axis=1).all():
            more = np.full_like(self._arrives_s, np.inf)
            self._arrives_s = np.hstack((self._arrives_s, more))
            self._stuck_s = np.hstack((self._stuck_s, more))
            return self._free_slot(who)
        return np.asarray(free.argmax(axis=1), dtype=np.intp)
