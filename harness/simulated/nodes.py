"""All gateway nodes and the load balancer before them: who is there, dies, ends in order, comes back.

A node that comes back is a new one of the same name: nothing of its memory is left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.simulated.gateway import Gateway
from harness.simulated.leases import Leases

__all__ = ["Nodes"]


class Nodes:
    """The nodes, counted from 1.

    Args:
        count: how many.
        make: builds the node of a name.
        leases: told who starts and ends; None: a single node has no peer that would look.
        picks: draws of the node that a connection goes to.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[str], Gateway],
        leases: Leases | None,
        picks: np.random.Generator,
    ) -> None:
        self._make = make
        self._leases = leases
        self._picks = picks
        self._nodes = [self._started(f"node-{n}") for n in range(1, count + 1)]

    def __getitem__(self, number: int) -> Gateway:
        return self._nodes[number - 1]

    def pick(self, home: int | None = None) -> Gateway | None:
        """The node for a new connection: its home, else any that is there; None: there is none."""
        if home is not None and self[home].alive:
            return self[home]
        if len(self._nodes) == 1:
            return self._nodes[0] if self._nodes[0].alive else None
        there = [node for node in self._nodes if node.alive]
        return there[int(self._picks.integers(len(there)))] if there else None

    def crash(self, number: int, *, host: bool) -> None:
        """A node dies; its peers find out by its lease."""
        self[number].crash(host=host)

    def drain(self, number: int) -> None:
        """A node ends in order."""
        node = self[number]
        node.drain()
        if self._leases is not None:
            self._leases.leave(node)

    def reset_connections(self) -> None:
        """All connections of all nodes are reset from in between; the nodes live on."""
        for node in self._nodes:
            if node.alive:
                node.reset_connections()

    def start(self, number: int) -> None:
        """A node is back, empty."""
        if not self[number].alive:
            self._nodes[number - 1] = self._started(self[number].node)

    def _started(self, name: str) -> Gateway:
        node = self._make(name)
        if self._leases is not None:
            self._leases.join(node)
        return node
