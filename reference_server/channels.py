"""One subscription to Redis for a whole gateway: from channels to the functions that take their messages.

Pub/sub keeps nothing: what is published while the subscription is down is lost, and whoever listens is told
when it stands again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError

__all__ = ["listen_to"]

_LISTEN_S = 5.0  # without a word for this long, the connection itself is tried
_AGAIN_S = 0.2
_BREATHE_EVERY = 32  # announcements come in thousands when a network fails

_log = logging.getLogger(__name__)


async def listen_to(
    redis: Redis,
    channels: Mapping[str, Callable[[bytes], None]],
    on_subscribed: Callable[[], None],
) -> None:
    """Listen until cancelled; an outage of Redis interrupts it, no more.

    Args:
        redis: of which one connection is kept.
        channels: by name, what takes each of its messages.
        on_subscribed: called whenever the subscription to all of them stands.
    """
    while True:
        try:
            await _listen(redis, channels, on_subscribed)
        except (RedisError, OSError, TimeoutError) as error:
            _log.info("channels: %s; subscribing again", error)
            await asyncio.sleep(_AGAIN_S)


async def _listen(
    redis: Redis,
    channels: Mapping[str, Callable[[bytes], None]],
    on_subscribed: Callable[[], None],
) -> None:
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(*channels)
        missing, taken = len(channels), 0
        while True:
            message = await pubsub.get_message(timeout=_LISTEN_S)
            if message is None:
                await pubsub.ping()  # raises when the connection has died in silence
            elif message["type"] == "subscribe":
                missing -= 1
                if missing == 0:
                    on_subscribed()
            elif message["type"] == "message":
                channels[message["channel"].decode()](message["data"])
                taken += 1
                if taken % _BREATHE_EVERY == 0:
                    await asyncio.sleep(0)
