"""Forget every record at a gateway's start: how a system without TTLs gets rid of its ghosts.

From a key prefix to no key below it, verification codes and all. It throws out the living as well: their
records are gone while they are connected.
"""

from __future__ import annotations

from redis.asyncio import Redis

__all__ = ["flush_records"]

_AT_ONCE = 500
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "*?[]\\^-"})  # of Redis's glob patterns


async def flush_records(redis: Redis, prefix: str) -> int:
    """Delete every key that begins with the prefix; return how many there were.

    Raises:
        RedisError: Redis does not answer.
    """
    deleted = 0
    batch: list[bytes] = []
    async for key in redis.scan_iter(match=f"{prefix.translate(_SPECIAL)}*", count=_AT_ONCE):
        batch.append(key)
        if len(batch) == _AT_ONCE:
            deleted += await redis.unlink(*batch)
            batch.clear()
    if batch:
        deleted += await redis.unlink(*batch)
    return deleted
