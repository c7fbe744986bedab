"""A NAT forgets an idle connection, and drops its packets or answers them with RST.

    client           |  NAT             |  gateway
    packet           |-- mapped ------->|
       … idle for N …|  mapping expires |
                     |          ✗ <-----|  expiry drop: silence, as after a cut
                     |    RST ------->  |  expiry reset: the next packet ends the connection

Meaning: a home router, a phone network, a load balancer between two heartbeats. From `at` on there is a NAT;
the first packet from then on makes the mapping, and each later one, of either direction, keeps it for N. A
heartbeat below N prevents the fault. With a real NAT (`--network netns-nat`,
`harness/real/generator/behind_nat.py`) the client keeps its mapping alive until `at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from scenarios.client_rules import Reconnect
from scenarios.faults.base import (
    SOCKET_FILTER,
    ClientFault,
    ClientGone,
    Fault,
    ModelClient,
    PlannedFault,
    RealClient,
)
from scenarios.network import Nat

__all__ = ["REAL_NAT", "DrawnNatTimeout", "NatTimeout"]

REAL_NAT = (
    "namespace NAT: nftables masquerade, conntrack's idle timeout",
    "another maker's NAT: how it counts, what it answers; delayed ACKs, which would refresh the mapping "
    "40 ms later, are off on the gateway's routes",
)
"""With ``--network netns-nat``: the mechanism, and what it cannot show."""


Mechanism = Literal["any", "socket_filter", "netns"]


@dataclass(frozen=True)
class DrawnNatTimeout(ClientFault):
    """An idle timer on this connection's own traffic; the fault takes effect when it runs out."""

    idle_timeout_s: float
    expiry: Literal["drop", "reset", "close"]
    by: Mechanism = "any"

    kind = "nat_timeout"
    summary = "a NAT forgets the idle connection: silence, or RST to the next packet"
    on_the_wire = "drop: nothing; reset: RST to the next packet"
    mechanism = f"{SOCKET_FILTER}, idle timer on this connection's own traffic"
    cannot_show = "a real translation table; with expiry reset the RST comes from the client, after one ACK"
    theory = "(T − N) + (k−1)R + τ; reset: T − N; prevented where T < N"
    may_not_happen = True
    example = (
        "{kind: nat_timeout, share: 10%, at: {uniform: {low: 40s, high: 80s}}, "
        "nat: {idle_timeout: 20s, expiry: drop}}"
    )
    needs_socket_filter = True

    @property
    def silent(self) -> bool:
        """An RST is not."""
        return self.expiry == "drop"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Watch the connection's packets from now on, or have a real NAT do so."""
        if client.behind is not None:
            client.behind.let_expire(client)
            return
        idle_s = client.real_s(self.idle_timeout_s)
        armed_s = client.now_s()
        armed_for = client.wire

        def check() -> None:
            if client.wire is None or client.wire is not armed_for:
                return
            now_s = client.now_s()
            if client.last_packet_s <= armed_s:  # no mapping; one made from now on outlasts idle_s
                client.at(now_s + idle_s, check)
            elif now_s < client.last_packet_s + idle_s:
                client.at(client.last_packet_s + idle_s, check)
            else:
                self._expire(client, fault, client.last_packet_s + idle_s)

        client.at(armed_s + idle_s, check)

    def _expire(self, client: RealClient, fault: PlannedFault, expires_s: float) -> None:
        if self.expiry == "drop":
            client.vanish()
            client.took_effect(fault, expires_s, SOCKET_FILTER)
            return

        def reset() -> None:
            client.wire.reset()
            raise ClientGone

        client.on_heartbeat = reset
        client.took_effect(fault, expires_s, "RST to the next packet")

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """The same; a connection made later has a mapping of its own, which does not expire."""

        def forgotten() -> None:
            client.took_effect(fault, scheduled_s=client.now_s)

        client.forget_when_idle(self.idle_timeout_s, self.expiry, forgotten)


class NatTimeout(Fault):
    """From `at` on the client is behind a NAT with an idle timeout; traffic keeps its mapping alive."""

    drawn = DrawnNatTimeout

    kind: Literal["nat_timeout"]
    nat: Annotated[Nat, Field(description="its idle_timeout and expiry; the other keys are network.nat's")]
    by: Annotated[
        Mechanism,
        Field(description="how a real run does it; any: netns with --network netns-nat, else socket_filter"),
    ] = "any"

    @field_validator("nat", mode="after")
    @classmethod
    def _is_a_nat(cls, nat: Nat) -> Nat:
        if nat.expiry == "close" or (nat.counts, nat.at) != ("any", "client"):
            raise ValueError("expiry close, counts and at: allowed with network.nat")
        return nat

    def draw(self, count: int, reconnect: Reconnect, rng: np.random.Generator) -> list[DrawnNatTimeout]:
        """The same NAT for every client."""
        return [DrawnNatTimeout(self.nat.idle_timeout, self.nat.expiry, self.by)] * count
