"""Application traffic: what of it counts as a sign of life, what it costs the loop, what the gateway sends."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.sync import client as sync_client

from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer
from harness.simulated.clients import TURNS
from reference_server.events import Cause, EventKind
from tests.reference_server.apart import events, log_in, start
from tests.reference_server.gateways import QUICK, QUIET, Running, run, running, until
from tests.support import MachineLate, again_if_late

pytestmark = pytest.mark.real


@pytest.fixture
def make(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    def begin(policy: Any = QUICK, **options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, policy, **options)

    return begin


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as running_now:
        yield running_now


async def talk(it: Running, user_id: str, say: Any) -> tuple[str, asyncio.Task[None]]:
    """Connect a client that says something every 50 ms and answers no heartbeat; return its session."""
    client = await it.join(user_id)

    async def go() -> None:
        while True:
            await say(client)
            await asyncio.sleep(0.05)

    return client.session_id, asyncio.create_task(go())


SAYS: dict[str, Any] = {
    "data": lambda client: client.send(type="data", pad="x"),
    "an answer": lambda client: client.send(type="pong"),
    "an answer in other words": lambda client: client.socket.send('{"type": "pong"}'),
    "a heartbeat of its own": lambda client: client.send(type="heartbeat"),
    "a protocol ping": lambda client: client.socket.ping(),
}


@pytest.mark.parametrize("limit", ["heartbeat", "idle"])
@pytest.mark.parametrize("data_counts", [True, False])
def test_data_is_a_sign_of_life_where_it_counts_and_answers_always_are(
    make: Any, limit: str, data_counts: bool
) -> None:
    policy = QUICK.model_copy(update={"data_counts": data_counts})
    if limit == "idle":
        idle = {"heartbeat_interval": None, "session_timeout": 0.8}
        policy = policy.model_copy(update=idle)

    async def scenario() -> None:
        async with make(policy) as it:
            talking = {what: await talk(it, what.replace(" ", "-"), say) for what, say in SAYS.items()}
            await asyncio.sleep(2.0)  # a silent one is found after 1.35 s at the latest
            ended = {e.session_id: e.cause for e in it.events(EventKind.SUSPECTED)}
            cause = Cause.HEARTBEAT if limit == "heartbeat" else Cause.SESSION_TIMEOUT
            expected = {} if data_counts else {talking["data"][0]: cause}
            assert ended == expected
            for _, task in talking.values():
                task.cancel()

    run(scenario())


# Data frames on many connections, each answering its heartbeats at once; until they are closed or killed.
TALKERS = r"""
import json, select, socket, sys, time
port, work_s, every_s, *sessions = sys.argv[1:]
mask = lambda text: bytes((0x81, 0x80 | len(text))) + bytes(4) + text
data = mask(json.dumps({"type": "data", "work_s": float(work_s)}).encode())
pong = mask(b'{"type":"pong"}')
socks = []
for session in sessions:
    s = socket.create_connection(("127.0.0.1", int(port)))
    s.sendall((f"GET /ws/{session} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
    socks.append(s)
due_s = time.monotonic() + 0.5
while socks:
    for s in select.select(socks, [], [], max(0.0, due_s - time.monotonic()))[0]:
        try:
            came = s.recv(65536)
            s.sendall(pong * came.count(b"heartbeat"))
        except OSError:
            came = b""
        if not came:
            socks.remove(s)
    if time.monotonic() >= due_s:
        due_s += float(every_s)
        for s in list(socks):
            try:
                s.sendall(data)
            except OSError:
                socks.remove(s)
"""


@pytest.mark.parametrize("data_counts", [True, False])
def test_work_that_the_loop_cannot_keep_up_with_starves_answers_and_delays_no_timer(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path, data_counts: bool
) -> None:
    """8 clients x 25 frames a second x 10 ms: twice what the loop can do. A pong due at t is read at about 2t."""
    heartbeat = {"heartbeat_interval": "1s", "heartbeat_timeout": "1s", "max_failures": 1}
    policy = {**heartbeat, "data_counts": data_counts, "session_timeout": None}

    def measured() -> tuple[float, float]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        _, ports = start(children, private_redis, key_prefix, folder, policy=policy, data_work=True)
        sessions = [log_in(ports, f"{folder.name}-{n}") for n in range(8)]
        argv = [sys.executable, "-c", TALKERS, str(ports["port"]), "0.01", "0.04", *sessions]
        with subprocess.Popen(argv) as talkers:
            try:
                with suppress(subprocess.TimeoutExpired):
                    talkers.wait(5.0)
                talking = talkers.poll() is None
                thrown_out = {e.session_id for e in events(folder, EventKind.SUSPECTED)}
            finally:
                talkers.kill()
        late_s = max(float(e.detail["max_s"]) for e in events(folder, EventKind.HEARTBEAT_LATENESS))
        turn_s = max(float(e.detail["max_lag_s"]) for e in events(folder, EventKind.LOOP_LAG))
        if turn_s > 0.3:  # one frame a client and turn: that is 8 x 10 ms
            raise MachineLate(f"the loop was {turn_s:.2f} s late")
        # Where answers alone count, a loop that shares its core loses all of them, and the talkers end.
        assert talking or not data_counts
        # Once four are gone, the loop keeps up with the others.
        assert len(thrown_out) == 0 if data_counts else len(thrown_out) >= 4
        return late_s, turn_s

    late_s, turn_s = again_if_late(measured)
    # A timer is a turn late, and who is overdue is judged two turns later; one more in which the lag has no sample.
    assert late_s < 4 * turn_s + 0.05, "heartbeats are sent in time"


def test_a_stranger_cannot_keep_the_loop_busy(make: Any) -> None:
    async def scenario() -> None:
        async with make(QUIET) as it:
            client = await it.join("ann")
            await client.send(type="data", work_s=1.0)
            await client.send(type="heartbeat")
            assert await client.receive() == {"type": "pong"}
            assert it.lag_s() < 0.9

    run(scenario())


def test_frames_behind_work_are_taken_in_their_order_a_close_frame_too(make: Any) -> None:
    async def scenario() -> None:
        async with make(QUIET, data_work=True) as it:
            client = await it.join("ann")
            for n in range(5):
                await client.send(type="data", work_s=0.01)
                await client.send(type="watch", user_ids=[f"user-{n}"])
            assert [(await client.receive())["count"] for _ in range(5)] == [1, 2, 3, 4, 5]
            await client.send(type="data", work_s=0.05)
            await client.socket.close(1001)
            decided = await it.verdict(client.session_id)
            assert (decided.cause, decided.detail["code"]) == (Cause.CLOSE_FRAME, 1001)

    run(scenario())


def test_the_gateway_says_something_by_itself(make: Any) -> None:
    async def scenario() -> None:
        async with make(QUIET, push_every_s=(0.1, 0.2), push_bytes=300, push_burst=3) as it:
            clients = [await it.join(f"user-{n}", live=True) for n in range(4)]
            await asyncio.sleep(1.5)
            lag_s = it.lag_s()
            for client in clients:
                assert {told["type"] for told in client.told} == {"data"}
                assert {len(told["pad"]) for told in client.told} == {300}
                bursts, rest = divmod(len(client.told), 3)
                # At least 1.5 / (0.2 + a wheel's grain + lag), at most 1.5 / 0.1 of them.
                assert rest == 0 and 1.5 / (0.21 + lag_s) - 1 <= bursts <= 15 + 10 * lag_s
            await clients[0].socket.close()
            await until(lambda: len(it.gateway.live) == 3, "nobody to send to")
            await asyncio.sleep(0.3)

    run(scenario())


def test_a_newcomer_takes_as_many_turns_of_the_loop_as_the_model_says(make: Any) -> None:
    """A turn is made 20 ms long, so that whatever comes from outside is there by the next one."""
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        time.sleep(0.02)
        asyncio.get_running_loop().call_soon(turn)

    def come(it: Running, token: str) -> int:
        with sync_client.connect(f"ws://127.0.0.1:{it.port}/ws", compression=None) as socket:
            socket.send(orjson.dumps({"type": "auth", "token": token}), text=True)
            assert orjson.loads(socket.recv(timeout=5))["type"] == "ready"
            return turns

    async def scenario() -> None:
        async with make(QUIET) as it:
            asyncio.get_running_loop().call_soon(turn)
            logins, handshakes = [], []
            for n in range(5):
                began = turns
                token = await it.login(f"user-{n}")
                logins.append(turns - began)
                began = turns
                handshakes.append(await asyncio.to_thread(come, it, token) - began)
            assert 0.5 * TURNS < statistics.median(logins) < 2 * TURNS
            assert 0.5 * TURNS < statistics.median(handshakes) < 2 * TURNS

            tokens = [await it.login(f"crowd-{n}") for n in range(20)]
            with ThreadPoolExecutor(len(tokens)) as at_once:
                into = asyncio.get_running_loop().run_in_executor
                ends = await asyncio.gather(*(into(at_once, come, it, token) for token in tokens))
            assert max(ends) - min(ends) > 12, "one is accepted in a turn"

    run(scenario())
