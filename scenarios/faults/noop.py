"""Nothing happens. What is detected all the same is noise.

    client           |  network  |  gateway
    as before        |<--------->|  as before

Meaning: the baseline. The fault is planned, injected and measured as any other, and does nothing at all.
"""

from __future__ import annotations

from typing import Literal

from scenarios.faults.base import ClientFault, Fault, ModelClient, PlannedFault, RealClient

__all__ = ["DrawnNoop", "Noop"]


class DrawnNoop(ClientFault):
    """Only its log line."""

    kind = "noop"
    summary = "nothing happens: the baseline"
    on_the_wire = "nothing out of the ordinary"
    mechanism = "none"
    cannot_show = "nothing: there is nothing to show"
    theory = "never suspected"
    example = "{kind: noop, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"
    user_stays = True
    only_hampers = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Log it."""
        client.took_effect(fault)

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Log it."""
        client.took_effect(fault)


class Noop(Fault):
    """Nothing happens: the baseline."""

    drawn = DrawnNoop

    kind: Literal["noop"]
