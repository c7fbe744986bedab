"""TCP keepalive in the model: the kernel's probes of an idle connection, and the end that they bring.

From a connection's last segment to `TCP_TIMEOUT`. While data is in flight nothing is probed (Linux
`tcp_keepalive_timer`); a frozen client's kernel answers.
"""

from __future__ import annotations

from functools import partial

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from reference_server.events import Cause
from reference_server.liveness import TcpKeepalive

__all__ = ["KernelProbes"]


class KernelProbes:
    """The probes of all connections of a gateway's node. Scenario seconds."""

    def __init__(self, clock: Clock, keepalive: TcpKeepalive) -> None:
        self._clock = clock
        self._idle_s = keepalive.idle
        self._interval_s = keepalive.interval
        self._count = keepalive.count

    def start(self, connection: Connection) -> None:
        """Probe a connection whenever it is idle."""
        self._clock.after(self._idle_s, partial(self._look, connection, self._clock.now_s, 0))

    def _look(self, connection: Connection, answered_s: float, unanswered: int) -> None:
        """Probe, or wait until it is idle; ``answered_s``: when the peer's kernel was last heard of."""
        if not connection.open or connection.lost is not None:
            return
        now_s = self._clock.now_s
        connection.settle(now_s)
        if connection.unacked_since_s is not None:  # the retransmission timer is in charge
            self._clock.after(self._idle_s, partial(self._look, connection, answered_s, 0))
            return
        heard_s = max(answered_s, connection.heard_s)
        if unanswered == 0 and now_s < heard_s + self._idle_s:
            self._clock.at(heard_s + self._idle_s, partial(self._look, connection, heard_s, 0))
        elif unanswered == self._count:
            connection.gateway.on_end(connection, Cause.TCP_TIMEOUT)
        elif connection.nat_resets:
            connection.gateway.on_end(connection, Cause.TCP_RESET)
        elif connection.passes:
            connection.packet_s = now_s
            self._clock.after(self._idle_s, partial(self._look, connection, now_s, 0))
        else:
            again = partial(self._look, connection, answered_s, unanswered + 1)
            self._clock.after(self._interval_s, again)
