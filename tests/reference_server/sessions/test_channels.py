"""The channels that a gateway hears: begun and left at any time, and heard again after an outage."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from harness.real.processes.redis import RedisServer
from reference_server.sessions.channels import Channels
from reference_server.sessions.redis_writer import open_redis
from tests.reference_server.gateways import run

pytestmark = pytest.mark.real


class Ears:
    """Channels of a gateway, and what came of them."""

    def __init__(self, channels: Channels, redis: Redis, prefix: str) -> None:
        self.channels, self._redis, self._prefix = channels, redis, prefix
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def hear(self, name: str) -> None:
        self.channels.hear(self._prefix + name, self.heard.put_nowait, self._begin)

    def _begin(self, channel: str) -> None:
        self.begun.put_nowait(channel.removeprefix(self._prefix))

    def stands(self, name: str) -> bool:
        return self.channels.stands(self._prefix + name)

    def leave(self, name: str) -> None:
        self.channels.leave(self._prefix + name)

    async def begins(self) -> str:
        return await asyncio.wait_for(self.begun.get(), 5)

    async def publish(self, name: str, text: str) -> int:
        reached: int = await self._redis.publish(self._prefix + name, text)
        return reached

    async def hears(self) -> bytes:
        return await asyncio.wait_for(self.heard.get(), 5)


@contextlib.asynccontextmanager
async def listening(url: str, prefix: str) -> AsyncIterator[Ears]:
    redis = open_redis(url)
    ears = Ears(Channels(redis), redis, prefix)
    ears.hear("own")
    task = asyncio.create_task(ears.channels.run())
    try:
        yield ears
    finally:
        while not task.done():  # Python 3.11's `wait_for`, below redis-py, may swallow a cancel
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
        await redis.aclose()


def test_channels_are_begun_and_left_while_others_are_heard(
    private_redis: RedisServer, key_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_server.sessions.channels._TRIED_EVERY_S", 0.05)  # pings in between

    async def scenario() -> None:
        async with listening(private_redis.url, key_prefix) as ears:
            assert await ears.begins() == "own"
            for n in range(4096):
                ears.hear(f"u{n}")
            assert {await ears.begins() for _ in range(4096)} == {f"u{n}" for n in range(4096)}
            assert await ears.publish("u4095", "a") == await ears.publish("own", "b") == 1
            assert [await ears.hears(), await ears.hears()] == [b"a", b"b"]
            for n in range(4096):
                ears.leave(f"u{n}")
            while await ears.publish("u4095", "late") or await ears.publish("u0", "late"):
                await asyncio.sleep(0.01)
            assert await ears.publish("own", "c") == 1
            assert await ears.hears() == b"c", "what comes of a channel that was left is nobody's"

    run(scenario())


def test_one_that_is_left_and_wanted_again_is_heard(private_redis: RedisServer, key_prefix: str) -> None:
    async def scenario() -> None:
        async with listening(private_redis.url, key_prefix) as ears:
            ears.hear("ann")
            assert {await ears.begins(), await ears.begins()} == {"own", "ann"}
            ears.leave("ann")
            ears.hear("ann")  # before Redis was told, so that nothing begins
            assert ears.stands("ann")
            ears.leave("ann")
            while await ears.publish("ann", "?"):
                await asyncio.sleep(0.01)
            assert not ears.stands("ann")
            ears.hear("ann")
            assert await ears.begins() == "ann"
            ears.hear("bob")
            ears.leave("bob")
            ears.hear("eve")
            assert await ears.begins() == "eve"
            assert await ears.publish("bob", "?") == 0
            assert await ears.publish("ann", "x") == 1 and await ears.hears() == b"x"

    run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_what_stands_is_heard_however_often_it_is_left_and_wanted_again(
    private_redis: RedisServer, key_prefix: str, seed: int
) -> None:
    """And what is wanted stands soon, what is not is left: no step may overtake another."""

    async def scenario() -> None:
        draw, wanted = random.Random(seed), set[str]()
        async with listening(private_redis.url, key_prefix) as ears:
            assert await ears.begins() == "own"
            for step in range(400):
                name = draw.choice("abcdef")
                (ears.leave if name in wanted else ears.hear)(name)
                wanted ^= {name}
                await asyncio.sleep(draw.choice((0, 0, 0.001, 0.012)))
                standing = sorted(name for name in wanted if ears.stands(name))
                if standing:
                    heard = draw.choice(standing)
                    assert await ears.publish(heard, str(step)) == 1
                    while await ears.hears() != str(step).encode():
                        pass
            for name in "abcdef":
                # Redis passes messages on before its word that it does has come here.
                while await ears.publish(name, "?") != (name in wanted) or ears.stands(name) != (
                    name in wanted
                ):
                    await asyncio.sleep(0.01)

    run(scenario())


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_after_an_outage_all_that_is_wanted_is_heard_and_the_first_begins_last(
    private_redis: RedisServer, key_prefix: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Silent: redis-py says nothing (None) of an ETIMEDOUT, and goes on saying it."""

    async def dead(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0)

    async def scenario() -> None:
        async with listening(private_redis.url, key_prefix) as ears:
            for name in ("ann", "bob"):
                ears.hear(name)
            assert {await ears.begins() for _ in range(3)} == {"own", "ann", "bob"}
            if how == "killed":
                await ears._redis.client_kill_filter(_type="pubsub")
            else:
                with monkeypatch.context() as patch:
                    patch.setattr(PubSub, "get_message", dead)
                    await ears.publish("own", "one for the read that is under way")
                    assert await ears.hears()
                    await asyncio.sleep(0.1)
            async with asyncio.timeout(5):
                while ears.stands("ann") or ears.stands("own"):
                    await asyncio.sleep(0.005)
            assert [await ears.begins() for _ in range(3)] == ["bob", "ann", "own"]
            assert await ears.publish("ann", "x") == 1 and await ears.hears() == b"x"
            assert await ears.publish("own", "y") == 1 and await ears.hears() == b"y"

    run(scenario())
