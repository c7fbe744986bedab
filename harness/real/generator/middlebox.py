"""A box on one client's path: it forgets an idle connection, resets or closes it, or ends it at a certain age.

    gateway ──── half a round trip ──── [ box ] client        at: client
    gateway [ box ] ──── half a round trip ──── client        at: gateway

From the packets of one connection, as the client sees them, to what is done to its socket. The client keeps the box's
timer, and its kernel drops, resets or closes in its stead. A real one is a NAT (`network/nat.py`) or a proxy
(`processes/proxy.py`).

The client makes the round trip, too: it answers a heartbeat that much later. So the heartbeat passes a box at the
client's end half of that after it was read, and one next to the gateway at once; its answer passes the first at that
very moment, and the second when it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from reference_server.events import Cause
from scenarios.network import Nat

__all__ = ["BoxRules", "Boxed", "Middlebox"]


@dataclass(frozen=True, slots=True)
class BoxRules:
    """Of one kind of box, in real seconds."""

    nat: Nat | None  # None: no idle timer
    idle_s: float  # `nat.idle_timeout`
    max_age_s: float | None  # it closes a connection of this age; None: never


class Boxed(Protocol):
    """A client's connection, as far as a box can touch it."""

    def unseen(self, at: str) -> bool:
        """Whether packets from the gateway may pass a box at this end of the path that the client does not see now."""

    def vanish(self) -> None:
        """From now on packets vanish in both directions, without a word."""

    def reset_gateway(self) -> None:
        """Send the gateway an RST; the client is told nothing."""

    def end(self, cause: Cause, *, beyond_cut: bool) -> None:
        """End the connection for both sides; where the client's path is cut, for one.

        Args:
            cause: what they see.
            beyond_cut: the box is on the gateway's side of a cut, and tells the gateway alone.

        Raises:
            ConnectionEnded: the client has seen it.
        """


class Middlebox:
    """The box on the path of one connection; times are real seconds on the run's clock.

    Args:
        connection: whose packets pass it.
        rules: what it does.
        began_s: when the connection was made.
    """

    __slots__ = ("_connection", "_ended", "_forgotten", "_idle_s", "_nat", "_passed_s")

    def __init__(self, connection: Boxed, rules: BoxRules, began_s: float) -> None:
        self._connection, self._nat, self._idle_s = connection, rules.nat, rules.idle_s
        self._passed_s = began_s  # the last packet that counts
        self._ended = False  # it has closed or dropped the connection
        self._forgotten = False  # it answers the next packet with RST

    def read(self, now_s: float, *, is_data: bool, round_trip_s: float = 0.0) -> bool:
        """A packet from the gateway was read; return whether it has passed the box.

        Args:
            now_s: when.
            is_data: a data frame, not a protocol ping or pong.
            round_trip_s: how long the client waits before it answers this one.

        Raises:
            ConnectionEnded: the box has closed the connection meanwhile.
        """
        passes = self._passes(now_s + self._half(round_trip_s), "to_client", is_data)
        if self._forgotten:
            self._connection.reset_gateway()
        return passes

    def sends(self, now_s: float, *, is_data: bool, round_trip_s: float = 0.0) -> bool:
        """A packet is about to be sent to the gateway; return whether it will pass. Arguments as of `read`.

        Raises:
            ConnectionEnded: the box has closed the connection, or answers with RST.
        """
        passes = self._passes(now_s - self._half(round_trip_s), "to_gateway", is_data)
        if self._forgotten:
            self._connection.end(Cause.TCP_RESET, beyond_cut=True)
        return passes

    def look(self, now_s: float) -> float | None:
        """See whether it has been idle for too long; return when to look again, None: never.

        Raises:
            ConnectionEnded: it has, and closes the connection.
        """
        if self._nat is None or self._ended or self._forgotten:
            return None
        if self._nat.counts != "to_gateway" and self._connection.unseen(self._nat.at):
            self._passed_s = now_s  # the gateway's pings keep it, unseen
        if now_s < self._passed_s + self._idle_s:
            return self._passed_s + self._idle_s
        self._expire()
        return None

    def close(self) -> None:
        """Close the connection on both sides, for its age.

        Raises:
            ConnectionEnded: the client has seen it.
        """
        self._ended = True
        self._connection.end(Cause.TCP_FIN, beyond_cut=self._nat is None or self._nat.at == "gateway")

    def _half(self, round_trip_s: float) -> float:
        return round_trip_s / 2 if self._nat is not None and self._nat.at == "client" else 0.0

    def _passes(self, at_s: float, direction: str, is_data: bool) -> bool:
        if self._nat is not None and not (self._ended or self._forgotten):
            if at_s > self._passed_s + self._idle_s:
                self._expire()
            elif self._nat.counts in ("any", direction) or (self._nat.counts == "data" and is_data):
                self._passed_s = max(self._passed_s, at_s)
        return not (self._ended or self._forgotten)

    def _expire(self) -> None:
        assert self._nat is not None
        if self._nat.expiry == "reset":
            self._forgotten = True
        elif self._nat.expiry == "drop":
            self._ended = True
            self._connection.vanish()
        else:
            self.close()
