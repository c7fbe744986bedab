"""Answers that come late, for the faults that need them: a real client that holds each answer back."""

from __future__ import annotations

from collections.abc import Callable

from harness.catalogue.fault import RealClient
from harness.faults import PlannedFault

__all__ = ["answer_late"]

_PONG = {"type": "pong"}


def answer_late(
    client: RealClient,
    fault: PlannedFault,
    mechanism: str,
    after_s: Callable[[float], float],
    over: Callable[[], None] = lambda: None,
) -> None:
    """From now on hold the answer to each heartbeat back, until the fault heals or the connection ends.

    Args:
        client: connected.
        fault: logged as in effect; ``heal_after_s`` ends it.
        mechanism: for the log.
        after_s: from the real time of a heartbeat to how long its answer waits, real seconds.
        over: called when the fault heals on the connection that it began on.
    """
    wire = client.wire

    def answer() -> None:
        if client.wire is wire and wire is not None:
            wire.send_json(_PONG)
            client.last_packet_s = client.g.now_s()

    def hold_back() -> None:
        if client.wire is not wire:  # thrown out, and back: the page is looked at again
            client.on_heartbeat = None
            client.wire.send_json(_PONG)
            return
        now_s = client.g.now_s()
        client.at(now_s + after_s(now_s), answer)

    def heal() -> None:
        if client.wire is wire:
            over()
            client.on_heartbeat = None
            client.healed(fault)

    client.on_heartbeat = hold_back
    client.took_effect(fault, client.g.at_s(fault.at_s), mechanism)
    client.expect_recovery(fault)  # one that is thrown out comes back by itself
    if fault.heal_after_s is not None:
        client.at(client.g.now_s() + fault.heal_after_s / client.g.scenario.speedup, heal)
