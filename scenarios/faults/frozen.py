"""The client stops answering while its kernel goes on acknowledging.

    client           |  network  |  gateway
    process stopped  |           |
    kernel: ACK      |<--------->|  ping acknowledged: TCP, keepalive and TCP_USER_TIMEOUT see a live peer
    no answer        |           |  only the missing answer tells

Meaning: SIGSTOP, a debugger, a frozen tab, a blocked event loop. What was kept is answered after a thaw.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scenarios.distributions import Law
from scenarios.faults.base import ClientFault, Fault, ModelClient, PlannedFault, RealClient

__all__ = ["DrawnFrozen", "Frozen"]


class DrawnFrozen(ClientFault):
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
    silent = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Read nothing until the thaw."""
        client.reading_paused = True
        client.took_effect(fault)

        def thaw() -> None:
            client.reading_paused = False
            client.healed(fault)

        if fault.heal_after_s is not None:
            client.after(fault.heal_after_s, thaw)

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Keep what comes until the thaw."""
        client.took_effect(fault)
        client.freeze()

        def thaw() -> None:
            client.healed(fault)
            client.thaw()

        if fault.heal_after_s is not None:
            client.after(fault.heal_after_s, thaw)


class Frozen(Fault):
    """The client stops answering while its kernel acknowledges (SIGSTOP, frozen tab)."""

    drawn = DrawnFrozen
    heals_by = "thaw_after"

    kind: Literal["frozen"]
    thaw_after: Annotated[Law | None, Field(description="law of the freeze's length; null: never")] = None
