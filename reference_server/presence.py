"""Who is told when a user goes offline or comes online: from the Redis channel to the clients that watch.

The set of online users and the announcements are written by the scripts, in one step with the records
(`scripts.py`); this is the receiving end, one subscription a gateway. Pub/sub keeps nothing: what is
announced while the subscription is down is not seen by the clients of this gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from reference_server.frames import text_frame

__all__ = ["Presence", "Watcher"]

_LISTEN_S = 5.0  # without a word for this long, the connection itself is tried
_AGAIN_S = 0.2
_BREATHE_EVERY = 32  # announcements come in thousands when a network fails

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """A client that wants to know."""

    def send_frame(self, frame: bytes) -> bool:
        """Write a frame without waiting; False: not now."""
        ...


class Presence:
    """Which client watches whom."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._channel = f"{prefix}presence"
        self._watchers: dict[str, set[Watcher]] = {}
        self._watched: dict[Watcher, set[str]] = {}
        self.undelivered = 0  # announcements dropped because a client's buffer was full

    def watch(self, watcher: Watcher, user_ids: Iterable[str], most: int) -> int | None:
        """Watch these users too; return how many it watches now, None: they would be above ``most``."""
        watched = self._watched.get(watcher, set()) | set(user_ids)
        if len(watched) > most:
            return None
        self._watched[watcher] = watched
        for user_id in watched:
            self._watchers.setdefault(user_id, set()).add(watcher)
        return len(watched)

    def forget(self, watcher: Watcher) -> None:
        """Take a client that has ended out of the index."""
        for user_id in self._watched.pop(watcher, ()):
            watchers = self._watchers[user_id]
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[user_id]

    async def run(self, on_subscribed: Callable[[], None]) -> None:
        """Listen until cancelled; an outage of Redis interrupts it, no more."""
        while True:
            try:
                await self._listen(on_subscribed)
            except (RedisError, OSError, TimeoutError) as error:
                _log.info("presence: %s; subscribing again", error)
                await asyncio.sleep(_AGAIN_S)

    async def _listen(self, on_subscribed: Callable[[], None]) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            taken = 0
            while True:
                message = await pubsub.get_message(timeout=_LISTEN_S)
                if message is None:
                    await pubsub.ping()  # raises when the connection has died in silence
                elif message["type"] == "subscribe":
                    on_subscribed()
                elif message["type"] == "message":
                    self.deliver(message["data"])
                    taken += 1
                    if taken % _BREATHE_EVERY == 0:
                        await asyncio.sleep(0)

    def deliver(self, announcement: bytes) -> None:
        """Pass one announcement on to those who watch its user."""
        try:
            told = orjson.loads(announcement)
            kind, user_id, session_id = told["type"], told["user_id"], told["session_id"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            _log.warning("presence: not an announcement: %.200r", announcement)
            return
        watchers = self._watchers.get(user_id)
        if not watchers:
            return
        frame = text_frame(
            orjson.dumps({"type": kind, "user_id": user_id, "session_id": session_id})
        )
        for watcher in watchers:
            if not watcher.send_frame(frame):
                self.undelivered += 1
