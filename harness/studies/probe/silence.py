"""Clients that fall silent and are revived, in rounds: each round's moments follow the answers of those before.

From a server and what was heard of it to one bit a client. All clients connect at the beginning and live as healthy
ones until their turn, so each falls silent at a random moment of the heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from harness.real.targets.revival import (
    Manners,
    NobodyListens,
    OutsideClient,
    OutsideServer,
    Refusal,
    Revival,
    Silence,
)
from harness.statistics.current_status import CurrentStatus, bracket, current_status, next_moments
from harness.studies.probe.heard import Heard
from harness.studies.probe.listen import pause, still_there, unless_stopped

__all__ = ["Revived", "revive_in_rounds"]

ROUNDS = 3
_CONNECTS_A_SECOND = 100.0
_BRACKET = 0.2  # of the clients, where nothing is known
_BELOW, _ABOVE = 0.7, 1.15  # of the range that was heard: the first round's
_numbers = count(1000)
Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(slots=True)
class Revived:
    """All answers so far.

    Attributes:
        lost: clients that the server ended while they were healthy.
        refused: that it never let in.
    """

    answers: list[Revival] = field(default_factory=list)
    lost: int = 0
    refused: int = 0
    rounds: int = 0

    @property
    def told(self) -> list[Revival]:
        """Those that tell."""
        return [one for one in self.answers if one.gone is not None]

    @property
    def law(self) -> CurrentStatus | None:
        """What they say of the law; None: there are none."""
        told = self.told
        if not told:
            return None
        return current_status([one.silent_s for one in told], [bool(one.gone) for one in told])


async def revive_in_rounds(
    server: OutsideServer,
    heard: Heard,
    revived: Revived,
    *,
    how: Silence,
    clients: int,
    within_s: float,
    seed: int,
    stop: asyncio.Event,
    progress: Callable[[float], None],
) -> None:
    """Fill ``revived``.

    Raises:
        NobodyListens: the server is gone; what was measured before the round that saw it go stands.
        Stopped: somebody has asked to stop.
    """
    rng = np.random.default_rng(seed)
    beat_s = heard.beat_s
    declared_s = float("inf") if beat_s is None else beat_s
    pool = [OutsideClient(server, next(_numbers), Manners(beat_s=beat_s), declared_s) for _ in range(clients)]
    phase_s = heard.period_s or beat_s or 1.0
    try:
        for client in pool:
            try:
                await client.open()
            except NobodyListens:
                raise
            except Refusal:
                revived.refused += 1
            await pause(max(1 / _CONNECTS_A_SECOND, min(phase_s, 2.0) / clients), stop)
        alive = [client for client in pool if client.connected_s == client.connected_s]
        await pause(min(phase_s, 2.0), stop)
        began_s = time.monotonic()
        while alive:
            number = _number(len(alive), clients, revived, heard)
            part, alive = alive[:number], alive[number:]
            moments = _moments(revived.law, number, heard, within_s, rng)
            length_s = phase_s + float(moments.max())
            whole_s = time.monotonic() - began_s + length_s * (1 + (len(alive) + number - 1) // number)
            shown = asyncio.create_task(_show(began_s, whole_s, progress))
            before, lost = len(revived.answers), revived.lost
            try:
                await _round(part, moments, heard, revived, how, phase_s, rng, stop)
                await still_there(server)
            except NobodyListens:  # their answers may be those of a kernel without a server
                del revived.answers[before:]
                revived.lost = lost
                raise
            finally:
                shown.cancel()
            revived.rounds += 1
    finally:
        for client in pool:
            client.close()


def _number(left: int, clients: int, revived: Revived, heard: Heard) -> int:
    """How many fall silent in the next round: a third, few in a first that brackets, all where nobody was noticed."""
    if not revived.rounds:
        share = _BRACKET if _range_s(heard) is None else 1 / ROUNDS
        return min(left, max(1, round(share * clients)))
    last = revived.rounds >= ROUNDS - 1 or not any(one.gone for one in revived.told)
    return left if last else (left + 1) // 2


def _range_s(heard: Heard) -> tuple[float, float] | None:
    """The law's range as far as it was heard; None: nothing was."""
    if heard.needs_beats and heard.beat_s is not None:
        unheard_s = [one.unheard_s for one in heard.silent_ends]
        return max(0.0, min(unheard_s) - heard.beat_s), max(unheard_s)
    delays_s = [one.unanswered_s for one in heard.silent_ends if one.unanswered_s is not None]
    if not delays_s or heard.period_s is None:
        return None
    return min(delays_s), heard.period_s + max(delays_s)


def _moments(
    known: CurrentStatus | None, number: int, heard: Heard, within_s: float, rng: np.random.Generator
) -> Numbers:
    if known is not None:
        return next_moments(known, number, within_s, rng)
    if (heard_s := _range_s(heard)) is None:
        return bracket(within_s, number)
    low_s, high_s = _BELOW * heard_s[0], min(within_s, _ABOVE * heard_s[1])
    return low_s + (high_s - low_s) * (np.arange(number) + rng.random(number)) / max(1, number)


async def _show(began_s: float, whole_s: float, progress: Callable[[float], None]) -> None:
    while True:
        progress(min(1.0, (time.monotonic() - began_s) / max(whole_s, 0.1)))
        await asyncio.sleep(0.2)


async def _round(
    clients: list[OutsideClient],
    moments: Numbers,
    heard: Heard,
    revived: Revived,
    how: Silence,
    phase_s: float,
    rng: np.random.Generator,
    stop: asyncio.Event,
) -> None:
    """Have them fall silent within one heartbeat, and revive each at its moment."""

    async def one(client: OutsideClient, wait_s: float, moment_s: float) -> None:
        await asyncio.sleep(wait_s)
        if client.end is not None:
            revived.lost += 1
            return
        client.silence(how)
        await asyncio.sleep(moment_s)
        in_order = any(ended.how == "close_frame" for ended in heard.silent_ends)
        revived.answers.append(await client.revive(round_trip_s=heard.round_trip_s, closes_in_order=in_order))

    waits_s = phase_s * rng.random(len(clients))
    order = rng.permutation(len(moments))

    async def every() -> None:
        async with asyncio.TaskGroup() as group:
            for client, wait_s, at in zip(clients, waits_s, order, strict=True):
                group.create_task(one(client, float(wait_s), float(moments[at])))

    await unless_stopped(every(), stop)
