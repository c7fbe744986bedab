"""The client stops reading in the middle of traffic: its receive window closes, the gateway's data stays unsent.

    client             |  network  |  gateway
    asks for a lot     |---------->|
    reads no more      |<----------|  answers, heartbeats: fill the client's buffer
    kernel: window 0   |---------->|  then the gateway's own: `send` must not wait for it
    kernel: window 0   |<--------->|  probes, acknowledged for ever; only TCP_USER_TIMEOUT gives up on them

Meaning: a client that cannot keep up, a stuck renderer, a proxy whose other side is slow. As frozen, but the
bytes are seen to be stuck: one blocked `send` must not hold up the heartbeats of the others.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, RealClient
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["SlowReader"]

_RECEIVE_BUFFER = (
    2048  # bytes; the kernel doubles it, and charges each small segment far above its size
)
# Answered with over a hundred bytes each. Less would do, but what the kernel has set aside for a socket lets
# small segments in above the limit for a while.
_REQUESTS = 400
_ODD = {"type": "what-a-client-asks-that-does-not-read-the-answers"}  # answered with an error


class SlowReader(ClientFault):
    """A small receive buffer, filled by answers that nobody reads."""

    kind = "slow_reader"
    summary = "stops reading while data comes: receive window 0, the gateway's send buffer fills"
    on_the_wire = "ACKs with window 0"
    mechanism = "small SO_RCVBUF, stops reading with answers on the way"
    cannot_show = (
        "traffic from elsewhere: what fills the buffers are answers to the client's own requests"
    )
    theory = "as frozen; none where TCP_USER_TIMEOUT may be first"
    example = "{kind: slow_reader, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Make the buffer small, have it filled, and read nothing."""
        wire = client.wire
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        for _ in range(_REQUESTS):
            wire.send_json(_ODD)
        client.deaf = True
        client.g.graveyard.append(wire)
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism)

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Freeze, with the window shut."""
        client.took_effect(fault)
        client.freeze()
        client.around.network.window_closes(connection)
