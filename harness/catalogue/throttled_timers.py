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

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, RealClient
from harness.catalogue.late import answer_late
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["ThrottledTimers"]


class ThrottledTimers(ClientFault):
    """The first run of the timers is one period after the fault took effect."""

    kind = "throttled_timers"
    summary = "a hidden page answers only when its timers run, once a minute"
    on_the_wire = "ACKs at once; the answers in bundles"
    mechanism = "the client answers on a slow timer"
    cannot_show = "a browser: when it throttles, and which of its timers, is its own affair"
    theory = "with R = T exact: in the first timer period that is longer than what the phase leaves"
    example = (
        "{kind: throttled_timers, share: 10%, at: {uniform: {low: 40s, high: 90s}}, every: 60s}"
    )

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Answer at the next run of the timers."""
        every_s = fault.params["every_s"] / client.g.scenario.speedup
        began_s = client.g.now_s()
        answer_late(
            client, fault, self.mechanism, lambda now_s: every_s - (now_s - began_s) % every_s
        )

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Answer at the next run of the timers."""
        clock, every_s = client.around.clock, fault.params["every_s"]
        began_s = clock.now_s
        client.took_effect(fault)
        client.answer_late(lambda: every_s - (clock.now_s - began_s) % every_s, fault)
        if fault.heal_after_s is not None:
            clock.after(fault.heal_after_s, lambda: client.answer_at_once(fault))
