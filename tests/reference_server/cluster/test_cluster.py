"""Two nodes on one Redis: what one does to the other's connections, and what becomes of records that vanish."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import ValidationError

from harness.real.processes.redis import RedisServer
from reference_server.config import GatewayConfig
from reference_server.events import Cause, EventKind
from reference_server.sessions.owner_tokens import Owners
from tests.reference_server.gateways import (
    QUIET,
    Client,
    Running,
    incarnation_of,
    run,
    running,
    survivor,
    until,
)

pytestmark = pytest.mark.real

LEASE = {"lease_ttl_s": 0.9, "lease_renew_s": 0.3, "lease_check_s": 0.2}
NO_RECORDS = (None, None, False)


@pytest.fixture
def two(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def make(policy: Any = QUIET, **options: Any) -> AsyncIterator[list[Running]]:
        async with AsyncExitStack() as stack:
            nodes = []
            for node in ("a", "b"):
                folder = tmp_path / node
                folder.mkdir()
                node_options = {"node": node, **LEASE, **options}
                gateway = running(private_redis.url, key_prefix, folder, policy, **node_options)
                nodes.append(await stack.enter_async_context(gateway))
            yield nodes

    return make


def forget_everything(it: Running) -> None:
    """Flush, as far as this test's keys are concerned."""
    keys: Any = it.store.keys(f"{it.config.key_prefix}*")
    it.store.delete(*keys)


@contextmanager
def channels_down(url: str) -> Iterator[None]:
    """Cut every subscription, and each new one, however slow the machine is meanwhile."""
    over = threading.Event()
    store: Any = redis.Redis.from_url(url)

    def cut() -> None:
        while not over.wait(0.001):
            store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        store.close()


def mine(client: Client) -> tuple[str, str, bool]:
    owner = client.ready["connection_id"]
    return f"{client.user_id}|{owner}", f"{client.session_id}|{owner}", True


async def watching(it: Running, *user_ids: str) -> Client:
    watcher = await it.join("watcher")
    await watcher.send(type="watch", user_ids=list(user_ids))
    await watcher.receive()
    watcher.live()
    return watcher


def kinds(watcher: Client, user_id: str) -> list[str]:
    return [told["type"] for told in watcher.told if told.get("user_id") == user_id]


@pytest.mark.parametrize("by", ["another login", "the same session"])
def test_a_connection_on_one_node_takes_over_from_the_other(two: Any, by: str) -> None:
    async def scenario() -> None:
        async with two() as (a, b):
            watcher = await watching(b, "ann")
            older = await a.join("ann", live=True)
            same = by == "the same session"
            newer = await b.join("ann", older.token if same else "")
            assert newer.ready["resumed"] is same
            await until(lambda: older.closed == 4409, "the older one is closed")
            assert (await a.verdict(older.session_id)).cause == Cause.TAKE_OVER
            await asyncio.sleep(2 * a.config.policy.resume_window)
            assert b.records(newer.session_id, "ann") == mine(newer)
            assert kinds(watcher, "ann") == ["online"]
            held = b.store.hkeys(f"{b.config.key_prefix}node:{b.gateway.owners.incarnation}:sessions")
            assert newer.session_id.encode() in held

    run(scenario())


def test_a_node_whose_clock_is_behind_is_taken_over_to_all_the_same(two: Any) -> None:
    async def scenario() -> None:
        async with two() as (a, b):
            older = await a.join("ann", live=True)
            behind = Owners("b", lambda: 1)
            behind.incarnation = b.gateway.owners.incarnation
            b.gateway.sessions.owners = behind
            newer = await b.join("ann")
            await until(lambda: older.closed == 4409, "the older one is closed")
            assert b.records(newer.session_id, "ann") == mine(newer)
            number, older_number = (c.ready["connection_id"].rpartition(":")[2] for c in (newer, older))
            assert number > older_number

    run(scenario())


def test_an_operator_reaches_a_user_through_any_node(two: Any) -> None:
    async def scenario() -> None:
        async with two(operator_token="s3cret") as (a, b):
            bob = await b.join("bob")
            mine = {"Authorization": "Bearer s3cret"}
            table: list[tuple[str, Any, dict[str, str], int, Any]] = [
                ("send", {"user_id": "bob", "payload": 1}, {}, 401, "not_the_operator"),
                ("kick", {"user_id": "bob"}, {"Authorization": "Bearer x"}, 401, "not_the_operator"),
                ("kick", {}, mine, 400, "bad_request"),
                ("kick", {"user_id": "bob", "session_id": "x"}, mine, 400, "bad_request"),
                ("send", {"user_id": "bob"}, mine, 400, "bad_request"),
                ("send", {"user_id": "bob", "payload": [1]}, mine, 200, {"connections": 1}),
                ("send", {"user_id": "eve", "payload": 1}, mine, 200, {"connections": 0}),
                ("kick", {"user_id": "eve"}, mine, 200, {"sessions": 0}),
                ("kick", {"user_id": "bob"}, mine, 200, {"sessions": 1}),
            ]
            for what, body, headers, status, wanted in table:
                answer = await a.http("POST", f"/operator/{what}", body, headers)
                told = answer[1]["error"]["code"] if status >= 400 else answer[1]
                assert (answer[0], told) == (status, wanted), (what, body)
            assert await bob.receive() == {"type": "message", "from": "operator", "payload": [1]}
            bob.live()
            await until(lambda: bob.closed == 4410, "kicked")

    run(scenario())


def test_nobody_is_an_operator_without_a_token(two: Any) -> None:
    async def scenario() -> None:
        async with two() as (a, _):
            status, _ = await a.http("POST", "/operator/kick", {"user_id": "x"}, {"Authorization": "Bearer "})
            assert status == 404

    run(scenario())


def test_messages_and_kicks_reach_a_user_on_the_other_node(two: Any) -> None:
    async def scenario() -> None:
        async with two() as (a, b):
            ann, bob = await a.join("ann"), await b.join("bob")
            payload = {"text": "ä|b", "n": [1, None]}
            await ann.send(type="send", user_id="bob", payload=payload)
            assert await bob.receive() == {"type": "message", "from": "ann", "payload": payload}
            assert await b.gateway.router.send("ann", "hello", "system") == 1
            assert (await ann.receive())["payload"] == "hello"
            await ann.send(type="send", user_id="nobody", payload=1)
            assert (await ann.receive())["code"] == "not_online"
            await ann.send(type="send", user_id="bob")
            assert (await ann.receive())["code"] == "unknown_message"
            deep = "[" * 300 + "]" * 300
            await ann.socket.send(f'{{"type":"send","user_id":"bob","payload":{deep}}}')
            assert (await ann.receive())["code"] == "malformed"
            bob.live()
            assert await a.gateway.logins.kick(user_id="bob") == 1
            await until(lambda: bob.closed == 4410, "kicked")
            assert a.records(bob.session_id, "bob") == NO_RECORDS
            assert await a.gateway.logins.kick(user_id="bob") == 0
            ann.live()
            assert await b.gateway.logins.kick(session_id=ann.session_id) == 1
            await until(lambda: ann.closed == 4410, "kicked")
            carl = await a.join("carl", live=True)
            answer = await b.http("POST", "/user/logout", {"token": carl.token})
            assert answer[0] == 200
            await until(lambda: carl.closed == 1000, "logged out")

    run(scenario())


def test_one_connection_a_device_and_offline_when_the_last_is_gone(two: Any) -> None:
    async def scenario() -> None:
        async with two(one_connection_per="device") as (a, b):
            watcher = await watching(b, "ann/x")
            sessions = []
            for it, device in ((a, "phone"), (b, "web/1"), (b, "phone")):
                login = {"user_id": "ann/x", "device_id": device}
                _, answer = await it.http("POST", "/user/login", login)
                sessions.append(answer["token"])
            phone = await a.join("ann/x", sessions[0], live=True)
            web = await b.join("ann/x", sessions[1], live=True)
            assert phone.ready["user_id"] == web.ready["user_id"] == "ann/x"
            assert await a.gateway.router.send("ann/x", "both", "system") == 2
            await until(lambda: phone.told and web.told, "both are reached")
            newer = await b.join("ann/x", sessions[2], live=True)
            await until(lambda: phone.closed == 4409, "the phone's older connection is closed")
            assert web.closed is None
            await web.socket.close()
            await newer.send(type="watch", user_ids=["ann/x"])
            status = f"{b.config.key_prefix}status:ann/x/web%2F1"
            await until(lambda: not b.store.exists(status), "the web session is cleared")
            assert kinds(watcher, "ann/x") == ["online"]
            await newer.socket.close()
            await until(lambda: len(kinds(watcher, "ann/x")) == 2, "the last device is gone")
            assert kinds(watcher, "ann/x") == ["online", "offline"]

    run(scenario())


def test_after_a_flush_the_records_are_back_with_the_next_renewal_and_nobody_is_told(two: Any) -> None:
    async def scenario() -> None:
        async with two() as (a, b):
            watcher = await watching(b, "ann", "bob")
            lost: list[str] = []
            a.gateway.on_store_lost = lambda: lost.append("a")
            ann, bob = await a.join("ann", live=True), await b.join("bob", live=True)
            left = await a.join("left")
            await left.socket.close()
            await until(lambda: len(watcher.told) == 2, "both are online")
            forget_everything(a)
            began_s = a.now_s()
            await until(lambda: b.records(bob.session_id, "bob") == mine(bob), "bob's are back")
            await until(lambda: a.records(ann.session_id, "ann") == mine(ann), "ann's are back")
            await until(a.gateway.cluster.settled.is_set, "a holds its lease again")
            assert a.now_s() - began_s <= LEASE["lease_renew_s"] + 0.1 + 4 * a.lag_s()
            assert lost == ["a"]
            await asyncio.sleep(LEASE["lease_ttl_s"] + LEASE["lease_check_s"] + 0.5)
            assert [kinds(watcher, user) for user in ("ann", "bob")] == [["online"], ["online"]]
            assert (ann.closed, bob.closed) == (None, None)
            assert b.records(left.session_id, "left") == NO_RECORDS

    run(scenario())


@pytest.mark.parametrize("survives", [False, True])
def test_a_logout_just_after_a_flush_stays_though_the_other_node_brings_its_records_back(
    two: Any, tmp_path: Path, survives: bool
) -> None:
    options = {"ledger_url": f"sqlite:///{tmp_path}/ledger.db", "session_survives_connection": survives}

    async def scenario() -> None:
        async with two(**options) as (a, b):
            ann, bob = await b.join("ann", live=True), await b.join("bob", live=True)
            forget_everything(a)
            assert (await a.http("POST", "/user/logout", {"token": ann.token}))[0] == 200
            assert a.records(ann.session_id, "ann") == NO_RECORDS, "nobody has brought it back yet"
            await until(lambda: b.records(bob.session_id, "bob") == mine(bob), "bob's are back")
            await until(lambda: ann.closed is not None, "ann's connection is ended")
            await asyncio.sleep(LEASE["lease_renew_s"])
            assert a.records(ann.session_id, "ann") == NO_RECORDS
            stranger = {"token": "nobody's" * 4}
            assert (await a.http("POST", "/user/logout", stranger))[0] == 200
            assert len(a.store.keys(f"{a.config.key_prefix}ended:*")) == 1, "ann's alone"

    run(scenario())


def test_a_logout_that_redis_forgot_before_the_node_heard_of_it_ends_the_connection(
    two: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with two(ledger_url=f"sqlite:///{tmp_path}/ledger.db") as (a, b):
            ann, bob = await b.join("ann", live=True), await b.join("bob", live=True)
            await a.gateway.ledger.logout(ann.session_id, "ann")  # b stood still, say
            forget_everything(a)
            await until(lambda: ann.closed is not None, "the ledger has told b")
            await until(lambda: a.records(ann.session_id, "ann") == NO_RECORDS, "nothing is left of her")
            assert b.records(bob.session_id, "bob") == mine(bob)
            assert bob.closed is None

    run(scenario())


def test_what_happens_while_the_channels_are_down_is_made_up_for(two: Any) -> None:
    """A lost announcement is told later, and a lost kick found out."""

    async def scenario() -> None:
        async with two() as (a, b):
            watcher = await watching(a, "ann", "bob", "carl")
            ann, bob = await a.join("ann", live=True), await a.join("bob", live=True)
            await until(lambda: len(watcher.told) == 2, "both are online")
            with channels_down(a.config.redis_url):
                assert await b.gateway.logins.kick(session_id=ann.session_id) == 1
                newer, carl = await b.join("bob"), await b.join("carl")
                assert (kinds(watcher, "ann"), kinds(watcher, "carl")) == (["online"], []), "unheard"
                assert (ann.closed, bob.closed) == (None, None)
            await until(lambda: (ann.closed, bob.closed) == (4410, 4409), "found out")
            await until(lambda: len(watcher.told) == 4, "told")
            assert kinds(watcher, "ann") == ["online", "offline"]
            assert kinds(watcher, "bob") == ["online"]
            assert watcher.told[-1]["session_id"] in (ann.session_id, carl.session_id)
            assert a.records(ann.session_id, "ann") == NO_RECORDS
            assert a.records(newer.session_id, "bob") == mine(newer)

    run(scenario())


@pytest.mark.parametrize("survives", [False, True])
def test_a_drained_node_s_sessions_end_with_their_window_and_a_peer_tells(
    two: Any, survives: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "reference_server.session")

    async def scenario() -> None:
        async with two(session_survives_connection=survives) as (a, b):
            watcher = await watching(b, "stays", "goes")
            stays, goes = await a.join("stays", live=True), await a.join("goes", live=True)
            await until(lambda: len(watcher.told) == 2, "both are online")
            draining = asyncio.create_task(a.gateway.drain())
            await until(lambda: stays.closed == goes.closed == 1001, "sent away")
            again = await b.join("stays", stays.token)
            assert again.ready["resumed"]
            await draining
            await until(lambda: len(watcher.told) == 3, "a peer has told")
            assert kinds(watcher, "goes") == ["online", "offline"]
            waits = survivor(goes.ready, "goes") if survives else None
            assert b.records(goes.session_id, "goes") == (waits, None, False)
            assert b.records(again.session_id, "stays") == mine(again)
            assert b.events(EventKind.SUSPECTED) == [], "the node that drained has logged it"
            text = f"Removed session {goes.session_id}; user goes, request {goes.ready['connection_id']}"
            await until(lambda: text in caplog.messages, "its clean-up is logged")
            assert not b.gateway.lines._half_released & {goes.ready["connection_id"]}
            nodes: Any = b.store.hkeys(f"{b.config.key_prefix}nodes")
            assert nodes == [b.gateway.owners.incarnation.encode()]

    run(scenario())


@pytest.mark.parametrize("turns", range(4))
def test_a_node_that_is_to_end_ends_though_something_wakes_it_just_then(two: Any, turns: int) -> None:
    async def scenario() -> None:
        async with two(lease_renew_s=0.45) as (a, _):
            lease = asyncio.create_task(a.gateway.cluster._keep_lease())
            await asyncio.sleep(0.1)
            a.gateway.cluster.on_store_back()
            for _ in range(turns):
                await asyncio.sleep(0)
            lease.cancel()
            await asyncio.wait([lease], timeout=2)
            assert lease.cancelled()

    run(scenario())


def test_an_owner_names_its_node_and_of_two_the_later_is_newer() -> None:
    ticks = iter([100, 100, 50, 200])
    owners, other = Owners("node-1.b", lambda: next(ticks)), Owners("x", lambda: 7)
    made = [owners.next() for _ in range(4)]
    assert {incarnation_of(owner) for owner in made} == {owners.incarnation}
    assert made == sorted(set(made))
    other.learn(made[-1])
    assert other.next().rpartition(":")[2] > made[-1].rpartition(":")[2]


def test_a_lease_that_one_late_renewal_would_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="below twice lease_renew_s"):
        GatewayConfig(lease_ttl_s=5, lease_renew_s=3)
