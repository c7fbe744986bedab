"""The pipelined writer against a Redis that stops, restarts, forgets its scripts or refuses: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis
from redis.asyncio.client import PubSub

from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer, redis_server
from reference_server.events import EventKind
from reference_server.sessions.channels import Channels
from reference_server.sessions.records import session_id_of
from reference_server.sessions.redis_writer import Call, StoreUnavailable, StoreWriter, open_redis
from reference_server.sessions.scripts import Script
from tests.reference_server.gateways import QUICK, run, running, until

pytestmark = pytest.mark.real

APPEND = "return redis.call('RPUSH', KEYS[1], ARGV[1])"
BAD = "return redis.call('INCR', KEYS[1])"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may stop and freeze."""
    with Children() as children, redis_server(None, children, tmp_path) as server:
        yield server


def process(server: RedisServer) -> Child:
    assert server.child is not None
    return server.child


@contextlib.asynccontextmanager
async def writing(url: str) -> AsyncIterator[StoreWriter]:
    redis = open_redis(url)
    writer = StoreWriter(redis, (APPEND, BAD))
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await redis.aclose()


def append(key: str, value: str, *, durable_key: str | None = None, done: Any = None) -> Call:
    return Call(APPEND, (key,), (value,), done, durable_key)


def listed(url: str, key: str) -> list[str]:
    with sync_redis.Redis.from_url(url, decode_responses=True) as client:
        found: Any = client.lrange(key, 0, -1)
        return list(found)


def test_calls_of_one_turn_share_pipelines_and_keep_their_order(
    private_redis: RedisServer, key_prefix: str
) -> None:
    async def scenario() -> None:
        async with writing(private_redis.url) as writer:
            pipelines = 0
            send = writer._send

            async def counting(batch: list[Call]) -> Any:
                nonlocal pipelines
                pipelines += 1
                return await send(batch)

            writer._send = counting  # type: ignore[method-assign]
            answers: list[int] = []
            for n in range(1000):
                writer.submit(append(key_prefix, str(n), done=answers.append))
            assert await writer.drain(5)
            assert answers == list(range(1, 1001))
            assert pipelines <= 10

    run(scenario())
    assert listed(private_redis.url, key_prefix) == [str(n) for n in range(1000)]


def test_who_is_alone_waits_for_nobody_and_who_had_company_waits_for_more() -> None:
    async def scenario() -> None:
        async with writing("redis://localhost:1") as writer:

            async def send(batch: list[Call]) -> list[int]:
                return [1] * len(batch)

            writer._send = send  # type: ignore[method-assign]
            answers: list[int] = []

            async def answered_within_turns() -> bool:
                """Whether a call is answered before any timer can have run out."""
                before = len(answers)
                writer.submit(append("key", "value", done=answers.append))
                for _ in range(5):
                    await asyncio.sleep(0)
                return len(answers) > before

            assert await answered_within_turns()
            assert await answered_within_turns()
            writer.submit(append("key", "one of two", done=answers.append))
            assert await answered_within_turns()  # both of them
            assert len(answers) == 4
            assert not await answered_within_turns()
            assert await writer.drain(5)
            assert len(answers) == 5
            await asyncio.sleep(0.2)
            assert await answered_within_turns()

    run(scenario())


def test_only_the_last_durable_call_under_a_key_counts(private_redis: RedisServer, key_prefix: str) -> None:
    async def scenario() -> None:
        async with writing(private_redis.url) as writer:
            for value in ("refresh", "refresh again", "clear"):
                writer.submit(append(key_prefix, value, durable_key="connection-1"))
            writer.submit(append(key_prefix, "other", durable_key="connection-2"))
            assert await writer.drain(5)

    run(scenario())
    assert listed(private_redis.url, key_prefix) == ["clear", "other"]


def test_a_redis_that_forgot_its_scripts_is_given_them_again(
    private_redis: RedisServer, key_prefix: str
) -> None:
    async def scenario() -> None:
        async with writing(private_redis.url) as writer:
            for n in range(3):
                assert await writer.ask(append(key_prefix, str(n))) == n + 1
                await asyncio.to_thread(_forget_scripts, private_redis.url)

    run(scenario())


def _forget_scripts(url: str) -> None:
    with sync_redis.Redis.from_url(url) as client:
        client.script_flush()


def test_a_question_that_is_wrong_for_good_fails_alone(private_redis: RedisServer, key_prefix: str) -> None:
    async def scenario() -> None:
        async with writing(private_redis.url) as writer:
            writer.submit(append(key_prefix, "not a number"))
            writer.submit(Call(BAD, (key_prefix,), (), durable_key="poison"))
            assert await writer.ask(append(key_prefix, "next")) == 2
            with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
                await writer.ask(Call(BAD, (key_prefix,), ()))
            assert writer.available
            assert await writer.drain(5)

    run(scenario())


def test_a_transport_that_was_reset_a_moment_ago_is_an_outage_and_no_end(
    private_redis: RedisServer, key_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop raises RuntimeError when something is written to it before the loop has told of the reset."""

    def once(true: Any) -> Any:
        failed = False

        async def patched(*args: Any) -> Any:
            nonlocal failed
            if failed:
                return await true(*args)
            failed = True
            raise RuntimeError(
                "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
            )

        return patched

    async def scenario() -> None:
        heard, subscribed = asyncio.Event(), asyncio.Event()
        async with writing(private_redis.url) as writer:
            monkeypatch.setattr(writer, "_send", once(writer._send))
            writer.submit(append(key_prefix, "durable", durable_key="a"))
            assert await writer.drain(5)
            monkeypatch.setattr(PubSub, "subscribe", once(PubSub.subscribe))
            channels = Channels(writer._redis)
            channels.hear(key_prefix, lambda _: heard.set(), lambda _: subscribed.set())
            listening = asyncio.create_task(channels.run())
            await asyncio.wait_for(subscribed.wait(), 5)
            await writer._redis.publish(key_prefix, "?")
            await asyncio.wait_for(heard.wait(), 5)
            listening.cancel()

    run(scenario())
    assert listed(private_redis.url, key_prefix) == ["durable"]


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_requests_fail_soon_and_durable_calls_wait_while_redis_is_away(
    own_redis: RedisServer, tmp_path: Path, how: str
) -> None:
    async def scenario() -> None:
        async with writing(own_redis.url) as writer:
            assert await writer.ask(append("log", "before")) == 1
            child = process(own_redis)
            child.send_signal(signal.SIGSTOP if how == "frozen" else signal.SIGTERM)
            if how == "stopped":
                await until(lambda: child.returncode is not None, "redis has ended")
            began_s = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await writer.ask(append("log", "a login"))
            assert time.monotonic() - began_s < 1.5
            for n in range(2000):
                writer.submit(append("log", f"durable {n % 50}", durable_key=str(n % 50)))
            began_s = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await writer.ask(append("log", "another login"))
            assert time.monotonic() - began_s < 0.5, "known to be away: refused at once, not after a second"
            assert not await writer.drain(0.1)
            if how == "frozen":
                child.send_signal(signal.SIGCONT)
                assert await writer.drain(5)
                assert writer.available
                assert await writer.ask(append("log", "after")) >= 52

    run(scenario())
    if how == "frozen":
        log = listed(own_redis.url, "log")
        assert {f"durable {n}" for n in range(50)} <= set(log)
        assert log[-1] == "after"


def test_a_gateway_lives_through_an_outage_and_a_flush_of_its_store(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Connections stay, logins are refused with a clear error, and the records come back by themselves."""
    policy = QUICK.model_copy(update={"status_ttl": 0.8, "session_ttl": 60.0})

    async def scenario() -> None:
        async with running(own_redis.url, "f:", tmp_path, policy) as it:
            stays, goes = await it.join("stays", live=True), await it.join("goes", live=True)
            process(own_redis).send_signal(signal.SIGSTOP)
            status, answer = await it.http("POST", "/user/login", {"user_id": "late"})
            assert (status, answer["error"]["code"]) == (503, "store_unavailable")
            status, answer = await it.http("GET", "/healthz")
            assert (status, answer["store"]) == (503, "down")
            late = await it.dial("/ws/some-session")
            assert (await late.receive())["code"] == "store_unavailable"
            await until(lambda: late.socket.close_code == 1013, "try again later")
            goes.socket.transport.abort()
            await until(lambda: len(it.gateway.live) == 1, "its end is seen without the store")
            await asyncio.sleep(0.5)  # the resume window passes meanwhile
            process(own_redis).send_signal(signal.SIGCONT)
            await until(lambda: it.gateway.store.available, "the store is back")
            it.store.flushall()
            expected = (
                f"stays|{stays.ready['connection_id']}",
                f"{stays.session_id}|{stays.ready['connection_id']}",
                True,
            )
            await until(lambda: it.records(stays.session_id, "stays") == expected, "back again")
            assert it.records(goes.session_id, "goes") == (None, None, False)
            assert (await it.http("GET", "/healthz"))[0] == 200
            assert stays.closed is None
            assert it.events(EventKind.HEARTBEAT_MISSED, stays.session_id) == []

    run(scenario())


def test_a_login_answered_by_nobody_leaves_no_ghost(own_redis: RedisServer, tmp_path: Path) -> None:
    """The store gave the records to a connection, but the answer was lost: the user is gone with the window, and may
    come back with the same token.
    """

    async def scenario() -> None:
        async with running(own_redis.url, "f:", tmp_path) as it:
            token = await it.login("ann")
            session_id = session_id_of(token)
            execute = it.gateway.store._execute

            carried_out = []

            async def lose_the_answer(batch: list[Call]) -> Any:
                answers = await execute(batch)
                if all(call.script != Script.CONNECT for call in batch):  # a renewal of the lease
                    return answers
                carried_out.append(it.records(session_id, "ann")[2])  # later the window may be over
                it.gateway.store._execute = execute  # type: ignore[method-assign]
                raise TimeoutError("lost")

            it.gateway.store._execute = lose_the_answer  # type: ignore[method-assign]
            client = await it.dial(f"/ws/{token}")
            assert (await client.receive())["code"] == "store_unavailable"
            assert carried_out == [True], "carried out all the same"
            await until(lambda: it.records(session_id, "ann")[1:] == (None, False), "cleared")
            assert (await (await it.dial(f"/ws/{token}")).receive())["type"] == "ready"

    run(scenario())
