"""Two nodes whose Redis stands still or starts anew with nothing: connections live, and all agrees afterwards."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer, redis_server
from reference_server.events import EventKind
from tests.reference_server.gateways import QUIET, Client, Running, run, running, until

pytestmark = pytest.mark.real

TTL_S, RENEW_S, CHECK_S = 0.9, 0.3, 0.2


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may freeze and end."""
    with Children() as children, redis_server(None, children, tmp_path) as server:
        yield server


def mine(client: Client) -> tuple[str, str, bool]:
    owner = client.ready["connection_id"]
    return f"{client.user_id}|{owner}", f"{client.session_id}|{owner}", True


def agree(it: Running, client: Client) -> bool:
    return it.records(client.session_id, client.user_id) == mine(client)


def away(it: Running) -> bool:
    return not it.gateway.store.available


def back(it: Running) -> bool:
    return it.gateway.store.available and it.gateway.cluster.settled.is_set()


def test_nobody_is_told_offline_while_lost_records_come_back(own_redis: RedisServer, tmp_path: Path) -> None:
    """The subscription to announcements stands again before the node knows that its lease is lost."""

    async def scenario() -> None:
        times = {"lease_ttl_s": 3.0, "lease_renew_s": 1.0, "lease_check_s": CHECK_S}
        async with running(own_redis.url, "f:", tmp_path, QUIET, **times) as it:
            stays, watcher = await it.join("stays", live=True), await it.join("watcher")
            await watcher.send(type="watch", user_ids=["stays"])
            await watcher.receive()
            watcher.live()
            await until(lambda: len(watcher.told) == 1, "who is online already")
            await until(
                lambda: it.store.pttl(f"f:lease:{it.gateway.cluster.incarnation}") > 2900, "a renewal"
            )
            listeners = [client for client in it.store.client_list() if client["sub"] != "0"]
            it.store.flushall()
            it.store.client_kill_filter(_id=max(client["id"] for client in listeners))
            await until(lambda: agree(it, stays), "the records are back")
            await asyncio.sleep(3.0 + CHECK_S + 1.5)
            assert [told["type"] for told in watcher.told] == ["online"]

    run(scenario())


def test_who_watches_while_redis_stands_still_is_told_when_it_goes_on(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """No connection and no lease is lost, so nothing else has anybody looked up."""

    async def scenario() -> None:
        async with running(own_redis.url, "f:", tmp_path, QUIET, lease_ttl_s=15.0, lease_renew_s=0.3) as it:
            await it.join("stays", live=True)
            watcher = await it.join("watcher")
            channel_of = it.gateway.presence._channel_of
            channel = channel_of("stays")
            sharing = next(f"u{n}" for n in itertools.count() if channel_of(f"u{n}") == channel)
            await watcher.send(type="watch", user_ids=[sharing])
            await watcher.receive()
            await until(lambda: it.gateway.channels.stands(channel), "the subscription")
            assert own_redis.child is not None
            own_redis.child.send_signal(signal.SIGSTOP)
            try:
                await until(partial(away, it), "the node knows")
                await watcher.send(type="watch", user_ids=["stays"])
                await watcher.receive()
            finally:
                own_redis.child.send_signal(signal.SIGCONT)
            watcher.live()
            await until(lambda: watcher.told, "who is online already")
            assert [(told["type"], told["user_id"]) for told in watcher.told] == [("online", "stays")]

    run(scenario())


def test_without_leases_what_was_not_heard_is_asked_for(own_redis: RedisServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(own_redis.url, "f:", tmp_path, QUIET, lease_ttl_s=None) as it:
            goes, watcher = await it.join("goes", live=True), await it.join("watcher")
            await watcher.send(type="watch", user_ids=["goes"])
            await watcher.receive()
            watcher.live()
            await until(lambda: len(watcher.told) == 1, "who is online already")
            it.store.delete(f"f:session:{goes.session_id}", "f:status:goes")
            it.store.zrem("f:online", "goes")  # and nobody has said so
            it.store.client_kill_filter(_type="pubsub")
            await until(lambda: len(watcher.told) == 2, "told of what was not heard")
            assert [told["type"] for told in watcher.told] == ["online", "offline"]

    run(scenario())


@pytest.mark.parametrize("away_s", [0.05, 1.2])
def test_without_leases_who_went_with_redis_s_records_is_told_offline(
    own_redis: RedisServer, tmp_path: Path, away_s: float
) -> None:
    """The channels may stand again before anything else is known to answer."""

    async def scenario() -> None:
        async with running(own_redis.url, "f:", tmp_path, QUIET, lease_ttl_s=None) as it:
            watcher = await it.join("watcher")
            it.store.set("f:status:ann", "s|of-another-node.1:1")
            it.store.zadd("f:online", {"ann": 1})
            await watcher.send(type="watch", user_ids=["ann"])
            await watcher.receive()
            watcher.live()
            await until(lambda: len(watcher.told) == 1, "who is online already")
            own_redis.stop()
            await asyncio.sleep(away_s)
            own_redis.start(keeps=False)
            await until(lambda: len(watcher.told) == 2, "told of what went", deadline_s=10)
            assert [told["type"] for told in watcher.told] == ["online", "offline"]

    run(scenario())


@pytest.mark.parametrize("how", ["stands still", "starts anew with nothing"])
def test_nobody_is_reaped_or_told_anything_false_after_an_outage(
    own_redis: RedisServer, tmp_path: Path, how: str
) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            nodes: list[Running] = []
            for node in ("a", "b"):
                (tmp_path / node).mkdir()
                options: dict[str, Any] = {
                    "node": node,
                    "lease_ttl_s": TTL_S,
                    "lease_renew_s": RENEW_S,
                    "lease_check_s": CHECK_S,
                }
                gateway = running(own_redis.url, "f:", tmp_path / node, QUIET, **options)
                nodes.append(await stack.enter_async_context(gateway))
            a, b = nodes
            watcher = await b.join("watcher")
            await watcher.send(type="watch", user_ids=["stays", "goes"])
            await watcher.receive()
            watcher.live()
            stays, goes = await a.join("stays", live=True), await a.join("goes", live=True)
            await until(lambda: len(watcher.told) == 2, "both are online")
            await asyncio.sleep(TTL_S)  # both have renewed for a lease's length, and may reap
            assert own_redis.child is not None
            if how == "stands still":
                own_redis.child.send_signal(signal.SIGSTOP)
            else:
                own_redis.stop()
            for it in nodes:
                await until(partial(away, it), "the outage is noticed")
                status, answer = await it.http("POST", "/user/login", {"user_id": "late"})
                assert (status, answer["error"]["code"]) == (503, "store_unavailable")
                assert (await it.http("GET", "/healthz"))[0] == 503
            goes.socket.transport.abort()
            await asyncio.sleep(TTL_S)  # every lease ends
            if how == "stands still":
                own_redis.child.send_signal(signal.SIGCONT)
            else:
                own_redis.start(keeps=False)
                await until(own_redis.answers, "Redis is back")
            await until(lambda: agree(a, stays) and agree(b, watcher), "the records are back")
            for it in nodes:
                await until(partial(back, it), "Redis answers, and the lease is held")
                assert (await it.http("GET", "/healthz"))[0] == 200
            await until(lambda: len(watcher.told) == 3, "told of who went meanwhile")
            assert (watcher.told[2]["type"], watcher.told[2]["user_id"]) == ("offline", "goes")
            await asyncio.sleep(TTL_S + CHECK_S + 2 * RENEW_S)  # peers would have been reaped by now
            assert agree(a, stays) and agree(b, watcher)
            assert a.records(goes.session_id, "goes") == (None, None, False)
            assert (stays.closed, watcher.closed, len(watcher.told)) == (None, None, 3)
            reaped = [it.events(EventKind.SUSPECTED, stays.session_id) for it in nodes]
            assert reaped == [[], []]

    run(scenario())
