"""A hidden page: its timers run once a minute, and what they would send waits for them.

    client               |  network  |  gateway
    hidden               |<----------|  ping
      … timer at 60 s …  |           |  misses, and perhaps the verdict
    answers, all at once |---------->|  the count of misses starts again - if there is still somebody to count

Meaning: Chrome and others run the timers of a page that nobody looks at once a minute after five minutes. A
heartbeat that the page's code times then makes every patience below a minute throw healthy tabs out. A page that
answers at once in `onmessage` is not affected; nor are protocol pings, which the browser answers itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from reference_server.durations import PositiveDuration
from scenarios.client_rules import Reconnect
from scenarios.distributions import Law
from scenarios.faults.base import ClientFault, Fault, ModelClient, PlannedFault, RealClient, answer_late

__all__ = ["DrawnThrottledTimers", "ThrottledTimers"]


@dataclass(frozen=True)
class DrawnThrottledTimers(ClientFault):
    """The first run of the timers is one period after the fault took effect."""

    every_s: float  # from one run of the timers to the next

    kind = "throttled_timers"
    summary = "a hidden page answers only when its timers run, once a minute"
    on_the_wire = "ACKs at once; the answers in bundles"
    mechanism = "the client answers on a slow timer"
    cannot_show = "a browser: when it throttles, and which of its timers, is its own affair"
    theory = "with R = T exact: in the first timer period that is longer than what the phase leaves"
    example = "{kind: throttled_timers, share: 10%, at: {uniform: {low: 40s, high: 90s}}, every: 60s}"
    user_stays = True
    only_hampers = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Answer at the next run of the timers."""
        every_s = client.real_s(self.every_s)
        began_s = client.now_s()
        answer_late(client, fault, lambda now_s: every_s - (now_s - began_s) % every_s)

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Answer at the next run of the timers."""
        began_s, every_s = client.now_s, self.every_s
        client.took_effect(fault)
        client.answer_late(lambda: every_s - (client.now_s - began_s) % every_s, fault)
        if fault.heal_after_s is not None:
            client.after(fault.heal_after_s, lambda: client.answer_at_once(fault))


class ThrottledTimers(Fault):
    """A hidden page whose timers run once a minute; its heartbeat answers wait for the next one."""

    drawn = DrawnThrottledTimers

    kind: Literal["throttled_timers"]
    every: Annotated[PositiveDuration, Field(description="from one run of the timers to the next")] = 60.0
    heal_after: Annotated[
        Law | None, Field(description="law of the time until the page is looked at; null: never")
    ] = None

    def draw(self, count: int, reconnect: Reconnect, rng: np.random.Generator) -> list[DrawnThrottledTimers]:
        """The same period for every client."""
        return [DrawnThrottledTimers(self.every)] * count
