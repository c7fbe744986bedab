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
from dataclasses import dataclass
from itertools import count as endless
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from scenarios.distributions import Distribution, Law
from scenarios.faults.base import ClientFault, Fault, ModelClient, PlannedFault, RealClient, answer_late

__all__ = ["Delayed", "DrawnDelayed"]

_BLOCK = 64  # draws at once


@dataclass(frozen=True)
class DrawnDelayed(ClientFault):
    """Both engines draw the same lateness, one draw a heartbeat."""

    by: Distribution  # law of one answer's lateness
    seed: int  # of its draws

    kind = "delayed"
    summary = "every answer comes late by a law: latency and jitter"
    on_the_wire = "ACKs at once; the answers later"
    mechanism = "the client holds its answers back"
    cannot_show = "late segments: TCP's own ACKs are as fast as before, nothing is lost or out of order"
    theory = "never below (k−1)R + τ, as host_crash above; between them no closed form"
    example = (
        "{kind: delayed, share: 10%, at: {uniform: {low: 40s, high: 90s}}, "
        "by: {lognormal: {median: 8s, sigma: 0.5}}}"
    )
    user_stays = True
    only_hampers = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Answer each heartbeat later."""
        lateness_s = self._lateness_s()
        answer_late(client, fault, lambda _now_s: client.real_s(lateness_s()))

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Answer each heartbeat later."""
        client.took_effect(fault)
        client.answer_late(self._lateness_s(), fault)
        if fault.heal_after_s is not None:
            client.after(fault.heal_after_s, lambda: client.answer_at_once(fault))

    def _lateness_s(self) -> Callable[[], float]:
        """One lateness after the other, scenario seconds: the same for the same planned fault."""
        rng = np.random.default_rng(self.seed)
        drawn = (late_s for _ in endless() for late_s in self.by.sample(rng, _BLOCK).tolist())
        return lambda: next(drawn)


class Delayed(Fault):
    """Every answer to a heartbeat comes late: a long, uneven way, or a busy client."""

    drawn = DrawnDelayed

    kind: Literal["delayed"]
    by: Annotated[Law, Field(description="law of one answer's lateness; a constant is no jitter")]
    heal_after: Annotated[
        Law | None, Field(description="law of the time until it is fast again; null: never")
    ] = None
