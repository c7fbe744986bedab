"""The client stops answering while its kernel goes on acknowledging.

    client           |  network  |  gateway
    process stopped  |           |
    kernel: ACK      |<--------->|  ping acknowledged: TCP, keepalive and TCP_USER_TIMEOUT see a live peer
    no answer        |           |  only the missing answer tells

Meaning: SIGSTOP, a debugger, a frozen tab, a blocked event loop. What was kept is answered after a thaw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, RealClient
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["Frozen"]


class Frozen(ClientFault):
    """Reads nothing, sends nothing, for a time or for good."""

    kind = "frozen"
    summary = "acknowledges and answers nothing, for a time or for good"
    on_the_wire = "ACKs, no answer"
    mechanism = "stops reading"
    cannot_show = "nothing at the socket: the client's kernel acknowledges, its process is silent"
    theory = "as host_crash, but TCP never gives up; raced by the thaw"
    example = (
        "{kind: frozen, share: 20%, at: {uniform: {low: 40s, high: 90s}}, "
        "thaw_after: {exponential: {mean: 60s}}}"
    )

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Read nothing until the thaw."""
        client.deaf = True
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism)

        def thaw() -> None:
            client.deaf = False
            client.healed(fault)

        if fault.heal_after_s is not None:
            client.at(client.g.now_s() + fault.heal_after_s / client.g.scenario.speedup, thaw)

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Keep what comes until the thaw."""
        client.took_effect(fault)
        client.freeze()

        def thaw() -> None:
            client.healed(fault)
            client.thaw()

        if fault.heal_after_s is not None:
            client.around.clock.after(fault.heal_after_s, thaw)
