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

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, ClientGone, RealClient
from harness.catalogue.silence import SOCKET_FILTER, fall_silent
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["REAL_NAT", "NatTimeout"]

REAL_NAT = (
    "namespace NAT: nftables masquerade, conntrack's idle timeout",
    "another maker's NAT: how it counts, what it answers; delayed ACKs, which would refresh the mapping "
    "40 ms later, are off on the gateway's routes",
)
"""With ``--network netns-nat``: the mechanism, and what it cannot show."""


class NatTimeout(ClientFault):
    """An idle timer on this connection's own traffic; the fault takes effect when it runs out."""

    kind = "nat_timeout"
    summary = "a NAT forgets the idle connection: silence, or RST to the next packet"
    on_the_wire = "drop: nothing; reset: RST to the next packet"
    mechanism = f"{SOCKET_FILTER}, idle timer on this connection's own traffic"
    cannot_show = (
        "a real translation table; with expiry reset the RST comes from the client, after one ACK"
    )
    theory = "(T − N) + (k−1)R + τ; reset: T − N; prevented where T < N"
    example = (
        "{kind: nat_timeout, share: 10%, at: {uniform: {low: 40s, high: 80s}}, "
        "nat: {idle_timeout: 20s, expiry: drop}}"
    )
    silent = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Watch the connection's packets from now on, or have a real NAT do so."""
        if client.behind is not None:
            client.behind.let_expire(client, fault)
            return
        idle_s = fault.params["idle_timeout_s"] / client.g.scenario.speedup
        armed_s = client.g.now_s()
        armed_for = client.wire

        def check() -> None:
            if client.wire is None or client.wire is not armed_for:
                return
            now_s = client.g.now_s()
            if client.last_packet_s <= armed_s:  # no mapping; one made from now on outlasts idle_s
                client.at(now_s + idle_s, check)
            elif now_s < client.last_packet_s + idle_s:
                client.at(client.last_packet_s + idle_s, check)
            else:
                self._expire(client, fault, client.last_packet_s + idle_s)

        client.at(armed_s + idle_s, check)

    def _expire(self, client: RealClient, fault: PlannedFault, expires_s: float) -> None:
        if fault.params["expiry"] == "drop":
            fall_silent(client)
            client.took_effect(fault, expires_s, SOCKET_FILTER)
            return

        def reset() -> None:
            client.wire.reset()
            raise ClientGone

        client.on_heartbeat = reset
        client.took_effect(fault, expires_s, "RST to the next packet")

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """The same; a connection made later has a mapping of its own, which does not expire."""
        # Here, not above: the generator's processes do not load the model.
        from harness.simulated.network import forget_when_idle

        clock = client.around.clock

        def expired() -> None:
            client.took_effect(fault, scheduled_s=clock.now_s)
            client.disturb()
            connection.forget(fault.params["expiry"])

        forget_when_idle(clock, connection, fault.params["idle_timeout_s"], clock.now_s, expired)
