"""Which clients of a plan one worker runs: client i is run by the worker whose position is i modulo their number.

Locust hands its users out to the workers in turn, so each worker is given as many users as its shard has clients.
Pure.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

__all__ = ["ClientIndexPool", "WorkerShard"]


@dataclass(frozen=True, slots=True)
class WorkerShard:
    """One worker's part of the clients: ``position``, from 0, of ``of`` workers."""

    position: int = 0
    of: int = 1

    def count(self, clients: int) -> int:
        """How many of so many clients are in it."""
        return len(range(self.position, clients, self.of))


class ClientIndexPool:
    """The indices of a shard's clients; the lowest free one is taken first."""

    def __init__(self, shard: WorkerShard, clients: int) -> None:
        self._shard, self._clients = shard, clients
        self._next = shard.position
        self._free: list[int] = []

    def take(self) -> int | None:
        """Return the index of a client that nobody runs; None: there is none left."""
        if self._free:
            return heapq.heappop(self._free)
        index, self._next = self._next, self._next + self._shard.of
        return index if index < self._clients else None

    def give_back(self, index: int) -> None:
        """Let another user run this client: a load that goes down and up again."""
        heapq.heappush(self._free, index)
