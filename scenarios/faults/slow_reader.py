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
from typing import Literal

from scenarios.faults.base import ClientFault, Fault, ModelClient, PlannedFault, RealClient

__all__ = ["DrawnSlowReader", "SlowReader"]

_RECEIVE_BUFFER = 2048  # bytes; the kernel doubles it, and charges each small segment far above its size
# Answered with over a hundred bytes each; the gateway takes 200 frames a second of one client for a flood.
_REQUESTS = 85
# The kernel takes whatever comes first into an empty queue, and small segments from what it has set aside for the
# socket. A second burst is neither: it is dropped, and the window shuts.
_SECOND_BURST_S = 0.05
_ODD = {"type": "what-a-client-asks-that-does-not-read-the-answers"}  # answered with an error


class DrawnSlowReader(ClientFault):
    """A small receive buffer, filled by answers that nobody reads."""

    kind = "slow_reader"
    summary = "stops reading while data comes: receive window 0, the gateway's send buffer fills"
    on_the_wire = "ACKs with window 0"
    mechanism = "small SO_RCVBUF, stops reading with answers on the way"
    cannot_show = "traffic from elsewhere: what fills the buffers are answers to the client's own requests"
    theory = "as frozen; none where TCP_USER_TIMEOUT may be first"
    example = "{kind: slow_reader, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"
    silent = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Make the buffer small, have it filled, and read nothing."""
        wire = client.wire
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        client.reading_paused = True
        client.keep_open()
        self._ask(client)
        shuts_s = client.now_s() + _SECOND_BURST_S

        def shut() -> None:
            if client.wire is wire:
                self._ask(client)
                client.took_effect(fault, shuts_s)

        client.at(shuts_s, shut)

    def _ask(self, client: RealClient) -> None:
        for _ in range(_REQUESTS):
            client.wire.send_json(_ODD)

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Freeze, with the window shut."""
        client.took_effect(fault)
        client.shut_window()


class SlowReader(Fault):
    """The client stops reading in the middle of traffic: its receive window closes, the gateway's data stays unsent."""

    drawn = DrawnSlowReader

    kind: Literal["slow_reader"]
