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

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from scenarios.distributions import Law
from scenarios.faults.base import (
    SOCKET_FILTER,
    ClientFault,
    Fault,
    ModelClient,
    PlannedFault,
    RealClient,
    answer_late,
)
from scenarios.parts import Share

__all__ = ["DrawnPacketLoss", "PacketLoss"]


@dataclass(frozen=True)
class DrawnPacketLoss(ClientFault):
    """A filter that keeps some packets; TCP is the kernel's own. Until healed, or until the next connection."""

    rate: float  # probability that one packet gets lost
    seed: int  # of the model's dice

    kind = "packet_loss"
    summary = "packets to the client get lost at random; TCP's retransmissions make it late"
    on_the_wire = "retransmissions; ACKs of those that get through"
    mechanism = (
        f"{SOCKET_FILTER} that drops at random; own heartbeats held back for as long as TCP's tries take"
    )
    cannot_show = (
        "loss of what the client sends, loss in bursts; the kernel throws the dice, and no seed repeats them"
    )
    theory = "(J + U)T + (k−1)R + τ: J of the first heartbeat of which all tries in time are lost"
    example = "{kind: packet_loss, rate: 30%, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"
    user_stays = True
    only_hampers = True
    needs_socket_filter = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Drop inbound packets at random, before they are acknowledged; own heartbeats come as late as TCP's tries."""
        client.lose(self.rate)
        dice, tries_s = np.random.default_rng(self.seed), (0.0, *client.retransmits_after_s)
        arrives_s = 0.0

        def late_s(now_s: float) -> float:
            nonlocal arrives_s
            if not client.beats_by_itself:
                return 0.0
            lost = min(int(dice.geometric(1 - self.rate)), len(tries_s)) - 1
            arrives_s = max(arrives_s, now_s + tries_s[lost])  # in order: behind those that are still late
            return arrives_s - now_s

        answer_late(client, fault, late_s, over=lambda: client.lose(0))

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Lose messages at random; the model's TCP sends them again."""
        dice, rate = np.random.default_rng(self.seed), self.rate
        client.took_effect(fault)
        client.lose(lambda: bool(dice.random() < rate), fault)
        if fault.heal_after_s is not None:
            client.after(fault.heal_after_s, lambda: client.lose_nothing(fault))


class PacketLoss(Fault):
    """Packets to the client get lost at random; TCP sends them again, each time after twice as long."""

    drawn = DrawnPacketLoss

    kind: Literal["packet_loss"]
    rate: Annotated[
        Share, Field(gt=0, lt=1, description="probability that one packet gets lost, each by itself")
    ]
    heal_after: Annotated[
        Law | None, Field(description="law of the time until nothing is lost any more; null: never")
    ] = None
