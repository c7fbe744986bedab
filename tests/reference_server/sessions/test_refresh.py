"""Refreshes in numbers: what becomes of a thousand page reloads at random times, under two systems.

Each client lives for a moment, goes in one of the ways in which pages and networks go, and comes back with
its session id within the resume window. Counted are sessions that were unknown, broadcasts that flickered,
and what is left over. The times are the presets' own, twice as fast.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from websockets.asyncio.client import ClientConnection, connect

from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.presets import find_preset
from tests.reference_server.apart import ask, start
from tests.reference_server.gateways import PONG, run, until

SPEEDUP = 2.0
LIFE_S, GAP_S = 0.5, 0.8  # at most; the resume window of `ours` is 5 s here
WAYS = ("close frame", "FIN", "RST", "comes back before the old one goes")


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


class World:
    """A gateway, and what its clients have met with."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = ports
        self.met: Counter[str] = Counter()  # resumed, begun, or the code of a refusal; by refresh
        self.ways: Counter[str] = Counter()
        self.told: dict[str, list[str]] = defaultdict(list)  # what the watcher heard of each user
        self.sessions: set[str] = set()
        self.away_s = 0.0  # the longest that anybody was

    async def log_in(self, user_id: str) -> str:
        """Log in; a user who is not let in tries again until the ghost is gone."""
        while True:
            status, answer = await asyncio.to_thread(ask, self.ports, "/user/login", {"user_id": user_id})
            if status == 200:
                token: str = answer["token"]
                self.sessions.add(answer["session_id"])
                return token
            self.met[f"login: {answer['error']['code']}"] += 1
            await asyncio.sleep(0.05)

    async def connect(self, token: str) -> tuple[ClientConnection, dict[str, Any]]:
        """Connect; return the connection and the first message."""
        url = f"ws://127.0.0.1:{self.ports['port']}/ws/{token}"
        connection = await connect(url, ping_interval=None, close_timeout=1, compression=None)
        while True:
            first = orjson.loads(await connection.recv())
            if first["type"] != "heartbeat":
                return connection, first

    async def live(self, connection: ClientConnection, seconds: float) -> None:
        """Answer heartbeats for a while."""
        try:
            async with asyncio.timeout(seconds):
                async for text in connection:
                    message = orjson.loads(text)
                    if message["type"] == "heartbeat":
                        await connection.send(PONG)
                    elif message["type"] in ("online", "offline"):
                        self.told[message["user_id"]].append(message["type"])
        except TimeoutError:
            pass

    async def watch(self, users: list[str]) -> ClientConnection:
        """Have somebody told who comes and goes; return when that has begun."""
        connection, _ = await self.connect(await self.log_in("watcher"))
        await connection.send(orjson.dumps({"type": "watch", "user_ids": users}).decode())
        assert orjson.loads(await connection.recv())["count"] == len(users)
        return connection

    async def refresh(self, user_id: str, times: int, rng: random.Random) -> None:
        """Come, and go and come back so many times, and go for good."""
        token = await self.log_in(user_id)
        connection, first = await self.connect(token)
        assert first["type"] == "ready", first
        for _ in range(times):
            await self.live(connection, rng.uniform(0, LIFE_S))
            way = rng.choice(WAYS)
            self.ways[way] += 1
            if way == WAYS[-1]:
                old = connection
                connection, first = await self.connect(token)
                old.transport.abort()
            else:
                gone_s = time.monotonic()
                await go(connection, way)
                await asyncio.sleep(rng.uniform(0, GAP_S))
                connection, first = await self.connect(token)
                self.away_s = max(self.away_s, time.monotonic() - gone_s)
            if first["type"] == "error":
                self.met[first["code"]] += 1
                token = await self.log_in(user_id)  # as the page does
                connection, first = await self.connect(token)
                assert first["type"] == "ready", first
            else:
                self.met["resumed" if first["resumed"] else "begun"] += 1
        await self.live(connection, 0.5)
        await connection.close()


async def go(connection: ClientConnection, way: str) -> None:
    match way:
        case "close frame":
            await connection.close(1001)
        case "FIN":
            connection.transport.abort()
        case "RST":
            sock: socket.socket = connection.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.transport.abort()


@pytest.mark.real
@pytest.mark.alone  # 250 clients at once; who waits for longer than the resume window is told offline
@pytest.mark.parametrize(("preset", "clients", "times"), [("ours", 250, 4), ("a-before", 60, 2)])
def test_refreshes(
    children: Children,
    private_redis: RedisServer,
    key_prefix: str,
    tmp_path: Path,
    preset: str,
    clients: int,
    times: int,
) -> None:
    """Ours: all resume, nobody is told, nobody is shown who has gone. A before its fix: sessions are unknown."""
    keys = find_preset(preset).gateway_keys
    policy = LivenessPolicy.model_validate(keys["policy"]).faster(SPEEDUP)
    records = {**keys.get("records", {}), "token_in_path": True}
    options = {**keys, "policy": policy.model_dump(mode="json"), "records": records}
    _, ports = start(children, private_redis, key_prefix, tmp_path, **options)
    users = [f"user-{n}" for n in range(clients)]

    async def scenario() -> World:
        world = World(ports)
        watching = asyncio.create_task(world.live(await world.watch(users), 100))
        lives = [world.refresh(user, times, random.Random(n)) for n, user in enumerate(users)]
        await asyncio.gather(*lives)
        if preset == "ours":
            sessions = [f"{key_prefix}session:{one}" for one in world.sessions]
            shown = [f"{key_prefix}status:{one}" for one in users]
            with redis.Redis.from_url(private_redis.url) as store:
                await until(lambda: not store.exists(*shown), "nobody is shown but the watcher", 15)
                assert store.exists(*sessions) == clients + 1, "a session survives its connection"
                online: Any = store.zrange(f"{key_prefix}online", 0, -1)
                assert online == [b"watcher"]
            ends = ["offline"] * clients
            await until(lambda: [told[-1] for told in world.told.values()] == ends, "told")
        watching.cancel()
        return world

    world = run(scenario())
    heard = Counter(" ".join(told) for told in world.told.values())
    print(
        f"\n{preset}: {dict(world.met)}; {dict(world.ways)}; heard {dict(heard)}; "
        f"away for {world.away_s:.2f} s at most"
    )
    refreshes = clients * times
    assert sum(n for what, n in world.met.items() if not what.startswith("login")) == refreshes
    if preset == "ours":
        assert world.met == {"resumed": refreshes}
        assert heard == {"online offline": clients}, "when they came, and when they went for good"
    else:
        # Only an orderly close deletes the record: of the others the page finds the ghost that it left.
        assert world.met["session_unknown"] == world.ways["close frame"] > 0
