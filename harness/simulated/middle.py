"""The box on the way of every connection: a NAT, a balancer, a proxy that forgets or closes connections.

From a scenario's `network.nat` and `network.max_age` to connections that are forgotten, or closed on both sides. A box
at the client's end sees nothing while that end is cut; one next to the gateway sees all that the gateway sends, TCP's
tries included. It restarts its timer by what it counts; packets that acknowledge and carry nothing are left out.
"""

from __future__ import annotations

from functools import partial

from harness.simulated.clock import Clock
from harness.simulated.connection import Box, Connection
from harness.simulated.network import Network
from reference_server.liveness.kinds import DetectorKind
from scenarios.network import Network as NetworkKeys

__all__ = ["Middle"]


class Middle:
    """The boxes of all connections.

    Args:
        clock: simulated time.
        network: tells both ends of a close.
        keys: the scenario's.
        detector: says whether heartbeats are protocol pings, which are no data.
    """

    def __init__(self, clock: Clock, network: Network, keys: NetworkKeys, detector: DetectorKind) -> None:
        self._clock = clock
        self._network = network
        self._max_age_s = keys.max_age
        self._nat = nat = keys.nat
        self._box: Box | None = None
        if nat is not None:
            self._box = Box(
                at_gateway=nat.at == "gateway",
                to_client=nat.counts != "to_gateway",
                to_gateway=nat.counts != "to_client",
                pings=nat.counts != "data" or not detector.protocol_ping,
                probes=nat.counts != "data",
            )

    def begin(self, connection: Connection) -> None:
        """A connection has come about: its client knows it now."""
        if self._nat is not None and self._box is not None:
            connection.box = self._box
            connection.seen_s = connection.heard_s if self._box.at_gateway else self._clock.now_s
            self._clock.at(
                connection.seen_s + self._nat.idle_timeout,
                partial(self._look, connection, self._nat.idle_timeout, self._nat.expiry),
            )
        if self._max_age_s is not None:
            self._clock.after(self._max_age_s, partial(self._close, connection))

    def _look(self, connection: Connection, idle_s: float, expiry: str) -> None:
        """Forget or close it, unless something has passed: then look again when its timer runs out."""
        if not connection.open:
            return
        expires_s = self._network.last_seen_s(connection) + idle_s
        if self._clock.now_s < expires_s:
            self._clock.at(expires_s, partial(self._look, connection, idle_s, expiry))
        elif expiry == "close":
            self._close(connection)
        else:
            self._network.cancel_predicted(connection)
            connection.forget(expiry)

    def _close(self, connection: Connection) -> None:
        if connection.open:
            at_gateway = self._box is None or self._box.at_gateway
            self._network.close_between(connection, at_gateway=at_gateway)
