"""Connections that each do something else, side by side: which of them does the server keep, and when are others ended?

    role          answers pings   answers heartbeats   beats          if it is ended, and `healthy` is not
    healthy       yes             yes                  as told
    silent        no              no                   no             a silent client is noticed: when, and how
    no_pongs      no              yes                  as told        pongs of the protocol matter
    no_answers    yes             no                   as told        the dialect's answers matter
    no_beats      yes             yes                  no             beats of the client's own matter
    beats_alone   no              no                   as told        answers matter, whatever else is sent
    stopped       yes             yes                  until it stops  how long after its last beat it is ended

Where every client that only answers is ended, they are tried again with beats of their own, three in the time that the
others lived. Two more are canaries: they ask twice a second, so that a round trip is known.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

import numpy as np

from harness.real.targets.revival import (
    End,
    Manners,
    NobodyListens,
    OutsideClient,
    OutsideServer,
    Refusal,
    declares_beat,
)
from harness.studies.probe.heard import Ended, Heard, Role

__all__ = ["DEFAULT_BEAT_S", "Stopped", "listen", "pause", "still_there", "unless_stopped"]

DEFAULT_BEAT_S = 20.0
"""Of clients whose dialect tells the server how often they beat, where nobody says how often."""
_LOOK_EVERY_S = 0.05
_CANARY_EVERY_S = 0.5
_APART_S = 0.037  # between two connections: silent ones shall not all have one phase
_FEW, _SILENT, _CANARIES = 3, 8, 2
_BEATS_SEEN = 3
_LONGER = 1.5  # healthy clients have to live for so many lives of silent ones
_REGULAR = 0.2  # of their median: gaps of a heartbeat differ by no more

T = TypeVar("T")
Clients = dict[str, list[OutsideClient]]
_numbers = count()


class Stopped(Exception):
    """Somebody has asked to stop: what was measured stands."""


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """Wait for so long.

    Raises:
        Stopped: meanwhile somebody has asked to stop.
    """
    try:
        await asyncio.wait_for(stop.wait(), max(0.0, seconds))
    except TimeoutError:
        return
    raise Stopped


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T:
    """Await some work, or cancel it.

    Raises:
        Stopped: meanwhile somebody has asked to stop.
    """
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    either: list[asyncio.Future[Any]] = [task, stopped]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Stopped
        return await task
    finally:
        for one in either:
            one.cancel()
        await asyncio.gather(*either, return_exceptions=True)


async def listen(
    server: OutsideServer,
    heard: Heard,
    *,
    beat_s: float | None,
    within_s: float,
    stop: asyncio.Event,
    progress: Callable[[float], None],
) -> None:
    """Fill ``heard``.

    Args:
        server: which.
        heard: filled as far as it goes, so that it stands when this is interrupted.
        beat_s: how often clients beat by themselves; None: only if they must.
        within_s: the longest that is watched.
        stop: set: stop.
        progress: told the share that is done.

    Raises:
        Refusal: a client is not let in; NobodyListens: the server is not there, or no more.
        Stopped: see `pause`.
    """
    if beat_s is None and declares_beat(server.dialect, server.options):
        beat_s = DEFAULT_BEAT_S
    heard.beat_s = beat_s
    roles: dict[Role | str, tuple[int, Manners]] = {
        "healthy": (_FEW, Manners(beat_s=beat_s)),
        "canary": (_CANARIES, Manners(beat_s=beat_s)),
        "silent": (_SILENT, Manners(pongs=False, answers=False)),
    }
    if not server.dialect.ready_at_once or server.options:
        roles["no_pongs"] = (_CANARIES, Manners(pongs=False, beat_s=beat_s))
        roles["no_answers"] = (_CANARIES, Manners(answers=False, beat_s=beat_s))
    if beat_s is not None:
        roles["no_beats"] = (_FEW, Manners())
        roles["beats_alone"] = (_CANARIES, Manners(pongs=False, answers=False, beat_s=beat_s))
        roles["stopped"] = (_SILENT, Manners(beat_s=beat_s))
    await _watch(server, roles, heard, within_s, stop, progress)
    if heard.all_ended("healthy"):
        await still_there(server)
    if beat_s is None and heard.all_ended("healthy"):
        # No answer keeps it content: does a beat?
        heard.ended["no_beats"], heard.clients["no_beats"] = heard.ended.pop("healthy"), _FEW
        life_s = min(one.life_s for one in heard.ended["no_beats"])
        heard.beat_s = life_s / 3
        for role in ("no_pongs", "no_answers"):
            heard.ended.pop(role, None)
            heard.clients.pop(role, None)
        beating = Manners(beat_s=heard.beat_s)
        again: dict[Role | str, tuple[int, Manners]] = {
            "healthy": (_FEW, beating),
            "beats_alone": (_CANARIES, Manners(pongs=False, answers=False, beat_s=heard.beat_s)),
            "stopped": (_SILENT, beating),
        }
        await _watch(server, again, heard, max(within_s, 4 * life_s), stop, progress)


async def still_there(server: OutsideServer) -> None:
    """Ask for one more connection: clients that all ended at once may have lost their server.

    Raises:
        NobodyListens: it is gone.
    """
    client = OutsideClient(server, next(_numbers), Manners(), float("inf"))
    try:
        await client.open()
    except NobodyListens:
        raise
    except Refusal:
        return
    finally:
        client.close()


async def _watch(
    server: OutsideServer,
    roles: Mapping[Role | str, tuple[int, Manners]],
    heard: Heard,
    within_s: float,
    stop: asyncio.Event,
    progress: Callable[[float], None],
) -> None:
    """Have so many clients of each role live until it is clear what becomes of each."""
    clients: Clients = {role: [] for role in roles}
    began_s = time.monotonic()
    stopping: list[tuple[float, OutsideClient]] = []
    try:
        for role, (number, manners) in roles.items():
            for nth in range(number):
                if role == "stopped" and manners.beat_s is not None:
                    # Last words all over a beat: a server that looks now and then is to be met at all its phases.
                    manners = replace(manners, first_beat_s=manners.beat_s * (nth + 0.5) / number)
                declared_s = float("inf") if heard.beat_s is None else heard.beat_s
                client = OutsideClient(server, next(_numbers), manners, declared_s)
                await client.open()
                clients[role].append(client)
                heard.clients[role] += 1
                if role == "stopped" and manners.beat_s is not None:
                    after_s = manners.beat_s * (1.5 + len(clients[role]) / number)
                    stopping.append((client.connected_s + after_s, client))
                await pause(_APART_S, stop)
        asked_s = 0.0
        while (now_s := time.monotonic()) - began_s < within_s:
            if now_s >= asked_s + _CANARY_EVERY_S:
                asked_s = now_s
                for client in clients.get("canary", ()):
                    client.ping()
            for at_s, client in stopping:
                if now_s >= at_s:
                    client.stop_beating()
            wanted_s = _wanted_s(clients, heard)
            if wanted_s is not None and now_s - began_s >= wanted_s:
                break
            progress(min(1.0, (now_s - began_s) / min(within_s, wanted_s or within_s)))
            await pause(_LOOK_EVERY_S, stop)
    finally:
        _note(clients, heard, time.monotonic() - began_s)
        for those in clients.values():
            for client in those:
                client.close()


def _wanted_s(clients: Clients, heard: Heard) -> float | None:
    """How long has to be watched in all; None: nobody knows yet."""
    now_s = time.monotonic()
    healthy = clients["healthy"]
    quiet = [*clients.get("silent", ()), *clients.get("stopped", ())]
    if all(client.over.is_set() for client in healthy):
        # No client lives so: the silent ones are watched for as long as that.
        return 0.0 if all(client.over.is_set() for client in quiet) else None
    lives_s = [client.end.time_s - client.connected_s for client in quiet if client.end is not None]
    if len(lives_s) < len(quiet) or not quiet:
        return None
    if any(not client.over.is_set() for client in quiet):  # a close frame, and the socket is still there
        return None
    period_s = _period_s(healthy)[0]
    lived_s = min(now_s - client.connected_s for client in healthy)
    wanted_s = _LONGER * max(lives_s)
    if period_s:
        wanted_s = max(wanted_s, (_BEATS_SEEN + 0.5) * float(np.median(period_s)))
    began_s = min(client.connected_s for client in healthy)
    return float(max(0.0, wanted_s - lived_s) + now_s - began_s)


def _period_s(clients: list[OutsideClient]) -> tuple[list[float], str]:
    """Gaps between heartbeats on these connections, and their kind: the first that there is."""
    for kind in ("ping", "heartbeat", "message"):
        gaps_s = [gap for client in clients for gap in np.diff(client.heard_s[kind]).tolist()]
        if not gaps_s:
            continue
        if kind == "message":
            middle_s = float(np.median(gaps_s))
            beat_s = clients[0].manners.beat_s
            if beat_s is not None and abs(middle_s - beat_s) <= _REGULAR * beat_s:
                continue  # answers to beats of the client's own
            if len(gaps_s) < _BEATS_SEEN or any(abs(gap - middle_s) > _REGULAR * middle_s for gap in gaps_s):
                continue
        return gaps_s, kind
    return [], "none"


def _note(clients: Clients, heard: Heard, watched_s: float) -> None:
    """Write down what these clients have seen."""
    heard.watched_s += watched_s
    for role, those in clients.items():
        for client in those:
            if client.end is not None and role != "canary":
                heard.ended.setdefault(role, []).append(_ended(client, client.end))
    healthy = [*clients["healthy"], *clients.get("canary", ())]
    gaps_s, kind = _period_s(clients["healthy"])
    if gaps_s:
        heard.interval_s = gaps_s
        heard.kind = kind  # type: ignore[assignment]  # one of `Heard.kind`
        heard.first_s = [
            client.heard_s[kind][0] - client.connected_s
            for client in clients["healthy"]
            if client.heard_s[kind]
        ]
    trips_s = [trip for client in healthy for trip in client.round_trips_s]
    if trips_s:
        heard.round_trip_s = float(np.median(trips_s))
        heard.longest_trip_s = max(heard.longest_trip_s, *trips_s)
    lived = [client for client in clients["healthy"] if client.end is None]
    if lived:
        sums = sum((client.frames for client in lived), Counter())
        lived_s = sum(time.monotonic() - client.connected_s for client in lived)
        heard.frames_s = (sums["in"] + sums["out"]) / lived_s
        heard.bytes_s = (sums["bytes_in"] + sums["bytes_out"]) / lived_s
    heard.samples = next((client.samples for client in healthy if client.samples), heard.samples)


def _ended(client: OutsideClient, end: End) -> Ended:
    beats = sorted([*client.heard_s["ping"], *client.heard_s["heartbeat"]])
    unanswered = end.how == "close_frame" and not client.manners.pongs
    is_open = np.isinf(end.socket_s)
    return Ended(
        life_s=end.time_s - client.connected_s,
        unanswered_s=end.time_s - beats[0] if beats else None,
        unheard_s=end.time_s - client.sent_s,
        how=end.how,
        code=end.code,
        socket_lag_s=end.socket_s - end.time_s if unanswered and not is_open else None,
        socket_open_s=time.monotonic() - end.time_s if unanswered and is_open else None,
    )
