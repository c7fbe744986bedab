"""Which clients of a plan are one generator's: client i is the one's whose position is i modulo their number.

Locust hands its users out to workers in turns, so each worker is given as many users as it has clients here.
Pure.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

__all__ = ["Places", "Share"]


@dataclass(frozen=True, slots=True)
class Share:
    """One generator's part: ``position``, from 0, of ``of`` generators."""

    position: int = 0
    of: int = 1

    def count(self, clients: int) -> int:
        """How many of so many clients are in it."""
        return len(range(self.position, clients, self.of))


class Places:
    """The places for clients that a generator has: the lowest free one is taken first."""

    def __init__(self, share: Share, clients: int) -> None:
        self._share, self._clients = share, clients
        self._next = share.position
        self._free: list[int] = []

    def take(self) -> int | None:
        """Return a client's index; None: there are no more clients than are taken."""
        if self._free:
            return heapq.heappop(self._free)
        index, self._next = self._next, self._next + self._share.of
        return index if index < self._clients else None

    def give_back(self, index: int) -> None:
        """Let another user have a client's place: a load that goes down and up again."""
        heapq.heappush(self._free, index)
