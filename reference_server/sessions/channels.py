"""The channels of Redis that a gateway hears: its node's own, and those of the users whom somebody here watches.

One connection for all of them. Pub/sub keeps nothing: what is published while it is down is lost, and whoever listens
is told when it stands again.
"""

from __future__ import annotations

import logging
from asyncio import Timeout, get_running_loop, sleep, timeout
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from reference_server.sessions.redis_writer import STORE_LOST

__all__ = ["Channels"]

_TRIED_EVERY_S = 5.0
_AGAIN_S = 0.2
_GATHER_S = 0.03
_BREATHE_EVERY = 32  # announcements come in thousands when a network fails

_log = logging.getLogger(__name__)


class Channels:
    """Use: `hear` and `leave` at any time, without waiting; `run` in a task.

    Args:
        redis: of which one connection is kept.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._wanted: dict[str, tuple[Callable[[bytes], None], Callable[[str], None]]] = {}
        self._standing: set[str] = set()
        self._changed = False  # what is wanted, since Redis was told of it
        self._waiting: Timeout | None = None  # for what Redis says

    def hear(self, channel: str, take: Callable[[bytes], None], begin: Callable[[str], None]) -> None:
        """Hear a channel, until it is left.

        Args:
            channel: its name.
            take: takes each message.
            begin: called with the name when its messages are heard from now on: soon, but not for one that
                `stands` already, and after each outage.
        """
        self._wanted[channel] = take, begin
        self._note_change()

    def leave(self, channel: str) -> None:
        """Hear a channel no more."""
        del self._wanted[channel]
        self._note_change()

    def stands(self, channel: str) -> bool:
        """Tell whether Redis has said that it passes a channel's messages on."""
        return channel in self._standing

    async def run(self) -> None:
        """Listen until cancelled; an outage of Redis interrupts it, no more."""
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await self._listen(pubsub)
            except STORE_LOST as error:
                _log.info("channels: %s; subscribing again", error)
            self._standing.clear()
            await sleep(_AGAIN_S)

    def _note_change(self) -> None:
        if not self._changed:
            self._changed = True
            if self._waiting is not None and not self._waiting.expired():
                self._waiting.reschedule(get_running_loop().time() + _GATHER_S)

    async def _listen(self, pubsub: PubSub) -> None:
        asked: set[str] = set()
        while True:
            self._changed = False
            # What was wanted first comes last: when it begins, so have all others.
            more = [channel for channel in reversed(self._wanted) if channel not in asked]
            # Only one that stands is left, so that what Redis says of a channel is said of the last request.
            fewer = self._standing - self._wanted.keys()
            self._standing -= fewer
            asked = asked.union(more) - fewer
            if fewer:
                await pubsub.unsubscribe(*fewer)
            if more:
                await pubsub.subscribe(*more)
            if not (fewer or more):
                await pubsub.ping()  # the kernel finds out that a connection has died in silence
            try:
                # One timer for many messages: one for each would be as much work as the message.
                with suppress(TimeoutError):
                    async with timeout(_GATHER_S if self._changed else _TRIED_EVERY_S) as self._waiting:
                        await self._take(pubsub)
            finally:
                self._waiting = None

    async def _take(self, pubsub: PubSub) -> None:
        """Take messages until cancelled: a wait for the next one is cut short without loss."""
        for taken in count(1):
            message = await pubsub.get_message(timeout=None)
            if message is None:  # so redis-py tells of the kernel's ETIMEDOUT
                raise ConnectionError("its connection has died")
            if (kind := message["type"]) in ("message", "subscribe"):
                channel = message["channel"].decode()
                take, begin = self._wanted.get(channel, (None, None))
                if kind == "message" and take is not None:
                    take(message["data"])
                elif kind == "subscribe":
                    self._standing.add(channel)
                    if begin is not None:
                        begin(channel)
            if taken % _BREATHE_EVERY == 0:
                await sleep(0)
