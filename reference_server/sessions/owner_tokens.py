"""Owner tokens: which connection wrote a record, on which start of which node, and which of two is newer.

    owner        {incarnation}:{number}    number: 14 hexadecimal digits
    incarnation  {node}.{8 hexadecimal digits}    one start of one process

The number is the moment of authentication in microseconds since 1970, made to grow by one at least, and it
runs ahead to any larger one that the node is shown (a hybrid logical clock: Kulkarni et al., OPODIS 2014).
So of two connections of one user the one that asked later is the newer, in whatever order Redis carries
their calls out, even when their nodes' clocks disagree: the first refusal teaches the slower one. Only a
flush between the two lets a disagreement decide.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

__all__ = ["Owners", "made_at_s"]


class Owners:
    """Makes the tokens of one process.

    Args:
        node: the process's name; no ``:``, ``|`` or ``/``.
        wall_us: microseconds since 1970.
    """

    def __init__(self, node: str, wall_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.node = node
        self.incarnation = f"{node}.{secrets.token_hex(4)}"
        self._wall_us = wall_us
        self._last = 0

    def next(self) -> str:
        """Return the token of a connection that authenticates now."""
        self._last = max(self._last + 1, self._wall_us())
        return f"{self.incarnation}:{self._last:014x}"

    def learn(self, owner: str) -> None:
        """Take note of another node's token: what is made from now on is newer."""
        self._last = max(self._last, _number(owner))


def made_at_s(owner: str) -> float:
    """Return when a token was made: seconds since 1970 by its node's clock."""
    return _number(owner) / 1e6


def _number(owner: str) -> int:
    return int(owner.rpartition(":")[2], 16)
