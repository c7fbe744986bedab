"""A client behind a real NAT: it keeps its mapping alive until its fault's time, then leaves that to heartbeats.

    connect ──keepalives──► at ──► next answered heartbeat ──N without a packet──► mapping gone
            (TCP, each N/2)        (keepalives off)                                = fault_injected

The NAT is there from the start (`nat.py`), the plan's fault begins at its own moment: until then TCP
keepalives, which gateway and page do not see, refresh the mapping. The moment at which the fault takes
effect is conntrack's (`conntrack.py`), not computed. The client is told nothing, as behind any NAT.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import gevent

from harness.real.network.conntrack import Conntrack
from harness.real.network.nat import NatBox, is_behind_nat, load_boxes
from scenarios.faults import PlannedFault, RealClient

__all__ = ["BehindNat", "nats_of"]

MECHANISM = "namespace NAT"
_LOOK_AFTER_S = 0.01  # past the expiry: two ticks of a kernel at 250 Hz


class BehindNat:
    """One NAT, and the clients of this process that are behind it."""

    def __init__(self, box: NatBox) -> None:
        self.source = box.source
        self._idle_s = box.idle_timeout_s
        self._conntrack = Conntrack(box.namespace)
        self._expiring: set[RealClient] = set()  # what keeps their mapping ends with the next answer
        # By the client's own port.
        self._connected: dict[int, tuple[RealClient, PlannedFault, Any]] = {}
        gevent.spawn(self._listen)

    def connected(self, client: RealClient, fault: PlannedFault) -> None:
        """A client has connected: keep its mapping alive until it is let go of."""
        sock = client.wire.sock
        self._connected[sock.getsockname()[1]] = (client, fault, client.wire)
        every_s = max(1, self._idle_s // 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every_s)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def let_expire(self, client: RealClient) -> None:
        """From the next answered heartbeat on nothing but heartbeats keeps the mapping."""
        self._expiring.add(client)

    def answered(self, client: RealClient) -> None:
        """A client has answered a heartbeat: let go of its mapping, if it is time."""
        if client in self._expiring:
            self._expiring.remove(client)
            client.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
            client.at(self._due_s(client), partial(self._check, client))

    def _due_s(self, client: RealClient) -> float:
        return client.last_packet_s + self._idle_s + _LOOK_AFTER_S

    def _check(self, client: RealClient) -> None:
        due_s = self._due_s(client)
        if client.now_s() < due_s:  # traffic has kept it
            client.at(due_s, partial(self._check, client))
        else:
            self._conntrack.look()

    def _listen(self) -> None:
        while True:
            try:
                ended = self._conntrack.receive()
            except OSError as error:
                # Faults of which nobody knows when they took effect: no result is better than a wrong one.
                print(f"{MECHANISM}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            for one in ended:
                if one.address != self.source or one.port not in self._connected:
                    continue
                client, fault, wire = self._connected.pop(one.port)
                if client.wire is not wire:
                    continue  # closed, and another connection may have its place
                self._expiring.discard(client)
                client.took_effect(
                    fault,
                    client.last_packet_s + self._idle_s,
                    MECHANISM,
                    at_s=client.now_s() - (time.time() - one.at_s),
                )


def nats_of(record: Path, faults: dict[int, PlannedFault]) -> dict[int, BehindNat]:
    """The NAT that each faulted client is behind; without a record there are none.

    Raises:
        OSError: its namespace is gone, or may not be entered.
    """
    by_label: dict[str, BehindNat] = {}
    for box in load_boxes(record):
        by_label |= dict.fromkeys(box.faults, BehindNat(box))
    return {
        client: by_label[fault.fault]
        for client, fault in faults.items()
        if is_behind_nat(fault) and fault.fault in by_label
    }
