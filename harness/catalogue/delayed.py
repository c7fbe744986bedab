"""Every answer to a heartbeat comes late, by a law: latency and its jitter.

    client              |  network  |  gateway
                        |<----------|  ping
      … late by a law … |           |  deadline τ: a miss
    answer              |---------->|  any frame resets the count of misses

Meaning: a satellite link, a full radio cell, a phone that does too much. A healthy client all the while: what
is suspected here was thrown out too early. One that is later than τ misses, but only one that is later than
(k−1)R + τ is suspected, for each answer wipes the slate.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from harness.catalogue.fault import ClientFault, RealClient
from harness.catalogue.late import answer_late
from harness.faults import PlannedFault
from scenarios.distributions import Distribution

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["Delayed"]

_BLOCK = 64  # draws at once


class Delayed(ClientFault):
    """Both engines draw the same lateness, one draw a heartbeat."""

    kind = "delayed"
    summary = "every answer comes late by a law: latency and jitter"
    on_the_wire = "ACKs at once; the answers later"
    mechanism = "the client holds its answers back"
    cannot_show = (
        "late segments: TCP's own ACKs are as fast as before, nothing is lost or out of order"
    )
    theory = "never below (k−1)R + τ, as host_crash above; between them no closed form"
    example = (
        "{kind: delayed, share: 10%, at: {uniform: {low: 40s, high: 90s}}, "
        "by: {lognormal: {median: 8s, sigma: 0.5}}}"
    )

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Answer each heartbeat later."""
        speedup = client.g.scenario.speedup
        draw = _draws(fault)
        answer_late(client, fault, self.mechanism, lambda _now_s: draw() / speedup)

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Answer each heartbeat later."""
        client.took_effect(fault)
        client.answer_late(_draws(fault), fault)
        if fault.heal_after_s is not None:
            client.around.clock.after(fault.heal_after_s, lambda: client.answer_at_once(fault))


def _draws(fault: PlannedFault) -> Callable[[], float]:
    """One lateness after the other, scenario seconds: the same for the same planned fault."""
    law = Distribution.model_validate(fault.params["by"])
    rng = np.random.default_rng(fault.params["seed"])
    drawn = (late_s for _ in count() for late_s in law.sample(rng, _BLOCK).tolist())
    return lambda: next(drawn)
