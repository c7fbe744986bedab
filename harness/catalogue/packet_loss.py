"""Packets to the client get lost, each by a throw of dice; TCP sends them again, and waits twice as long each time.

    client           |  network  |  gateway
                     |     ✗ <---|  ping
                     |     ✗ <---|  again after 0.2 s, then 0.4, 0.8, 1.7, 3.3 …
                     |<----------|  one gets through, with all that was queued behind it
    answer           |---------->|  late by what the tries took

Meaning: a bad radio link, an overloaded router. A healthy client all the while. TCP hides loss and shows it as
lateness: one that loses every other packet is more than 10 s late with about every hundredth heartbeat, and a
policy with no more patience than that throws it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.catalogue.fault import ClientFault, RealClient
from harness.catalogue.late import answer_late
from harness.catalogue.silence import SOCKET_FILTER
from harness.faults import PlannedFault
from harness.real.network.silence import attach_lossy, detach

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["PacketLoss"]


class PacketLoss(ClientFault):
    """A filter that keeps some packets; TCP is the kernel's own. Until healed, or until the next connection."""

    kind = "packet_loss"
    summary = "packets to the client get lost at random; TCP's retransmissions make it late"
    on_the_wire = "retransmissions; ACKs of those that get through"
    mechanism = f"{SOCKET_FILTER} that drops at random"
    cannot_show = "loss of what the client sends, loss in bursts; the kernel throws the dice, and no seed repeats them"
    theory = "(J + U)T + (k−1)R + τ: J of the first heartbeat of which all tries in time are lost"
    example = "{kind: packet_loss, rate: 30%, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"
    silent = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Drop inbound packets at random, before they are acknowledged."""
        sock = client.wire.sock
        attach_lossy(sock, fault.params["rate"])
        answer_late(client, fault, self.mechanism, lambda _now_s: 0.0, over=lambda: detach(sock))

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Lose messages at random; the model's TCP sends them again."""
        dice, rate = np.random.default_rng(fault.params["seed"]), fault.params["rate"]
        client.took_effect(fault)
        client.lose(lambda: bool(dice.random() < rate), fault)
        if fault.heal_after_s is not None:
            client.around.clock.after(fault.heal_after_s, lambda: client.lose_nothing(fault))
