"""Canaries: clients whose pings show how long a server that is not ours stalls; its loop nobody else can see.

Those of one process take turns, one ping every `LAG_SAMPLED_EVERY_S`: a stall that begins between two pings is told so
much too short at most. Their longest wait is logged twice a second, answered or not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

__all__ = ["LAG_REPORT_S", "Canaries", "Canary"]

LAG_REPORT_S = 0.5
"""From one line about a lag to the next, real seconds."""


class Canary(Protocol):
    """A client, as far as it pings."""

    @property
    def deaf(self) -> bool:
        """Whether an answer would not come to it, for its own sake or its network's."""

    @property
    def connected(self) -> bool:
        """Whether it has a connection."""

    def ping(self) -> bool:
        """Ping the server; whether that could be sent."""


class Canaries:
    """The canaries of one process. Real seconds.

    Args:
        clients: which ones are canaries, by their index.
        log: takes the longest wait since it was called before.
    """

    def __init__(self, clients: Collection[int], log: Callable[[float], None]) -> None:
        self._clients = frozenset(clients)
        self._log = log
        self._turns: dict[Canary, None] = {}  # whose turn it is first
        self._since_s: dict[Canary, float] = {}  # those who wait for an answer: the longest first
        self._worst_s: float | None = None  # None: nobody has waited since the last line
        self._logged_s = 0.0

    def __contains__(self, client: int) -> bool:
        return client in self._clients

    def __bool__(self) -> bool:
        return bool(self._clients)

    def join(self, canary: Canary, now_s: float) -> None:
        """A canary is connected, perhaps again."""
        self.answered(canary, now_s)
        self._turns[canary] = None

    def answered(self, canary: Canary, now_s: float) -> None:
        """The answer is here; or will not come, for the connection has ended."""
        if (since_s := self._since_s.pop(canary, None)) is not None:
            self._waited(now_s - since_s)
            self._turns[canary] = None

    def turn(self, now_s: float) -> None:
        """Have the next one ping, and look after those who wait. To be called every `LAG_SAMPLED_EVERY_S`."""
        for canary in [one for one in self._since_s if one.deaf or not one.connected]:
            if canary.deaf and canary.connected:  # its own network's silence is no stall of the server's
                del self._since_s[canary]
                self._turns[canary] = None
            else:
                self.answered(canary, now_s)
        for canary in list(self._turns):
            del self._turns[canary]
            if canary.connected and canary.ping():
                self._since_s[canary] = now_s
                break
            if canary.connected:  # and its path is cut
                self._turns[canary] = None
        if self._since_s:
            self._waited(now_s - next(iter(self._since_s.values())))
        if now_s - self._logged_s >= LAG_REPORT_S:
            self.tell(now_s)

    def tell(self, now_s: float) -> None:
        """Log the longest wait that is not logged yet."""
        if self._worst_s is not None:
            self._log(self._worst_s)
        self._worst_s, self._logged_s = None, now_s

    def _waited(self, took_s: float) -> None:
        self._worst_s = max(self._worst_s or 0.0, took_s)
