"""Sessions over real sockets and a real Redis: connecting, resuming, taking over, watching, misbehaving."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness.real.processes.redis import RedisServer
from reference_server.events import Cause, EventKind
from reference_server.liveness.kinds import Ping
from reference_server.sessions.records import session_id_of
from reference_server.sessions.redis_writer import Call
from reference_server.sessions.scripts import Script
from tests.reference_server.gateways import PONG, QUICK, QUIET, Client, run, running, survivor, until
from tests.reference_server.storm import HELLO

pytestmark = pytest.mark.real


@pytest.fixture
def start(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    def make(policy: Any = QUIET, **options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, policy, **options)

    return make


async def _closed(client: Any) -> int:
    with pytest.raises(ConnectionClosed):
        while True:
            await asyncio.wait_for(client.socket.recv(), 5)
    code: int = client.socket.close_code
    return code


@pytest.mark.parametrize("dialect", ["first message", "path"])
def test_connecting_writes_the_records_and_says_ready(start: Any, dialect: str) -> None:
    async def scenario() -> None:
        async with start() as it:
            token = await it.login("ann")
            session_id = session_id_of(token)
            assert it.records(session_id, "ann") == ("ann|", None, False)
            if dialect == "path":
                client = await it.dial(f"/ws/{token}?trace=1")
                ready = await client.receive()
            else:
                client = await it.join("ann", token, trace=True)
                ready = client.ready
            owner = ready["connection_id"]
            assert ready == {"type": "ready", "user_id": "ann", "connection_id": owner, "resumed": False}
            expected = (f"ann|{owner}", f"{session_id}|{owner}", True)
            assert it.records(session_id, "ann") == expected
            (connected,) = it.events(EventKind.CONNECTED)
            assert connected.session_id == session_id
            assert connected.connection_id == owner
            assert connected.detail == {"user_id": "ann", "resumed": False}
            assert it.gateway.live[owner].trace

    run(scenario())


@pytest.mark.parametrize("how", ["silence", "close", "idle"])
def test_a_session_that_survives_its_connection_is_offline_and_needs_no_login(start: Any, how: str) -> None:
    """Status and presence go at once on a suspicion, after the window on a close; the session record stays."""
    policy = QUICK.model_copy(update={"resume_window": 30.0 if how != "close" else 0.4})
    if how == "idle":
        policy = policy.model_copy(update={"heartbeat_interval": None, "session_timeout": 0.6})

    async def scenario() -> None:
        async with start(policy, session_survives_connection=True) as it:
            ann = await it.join("ann", live=True)
            shown = it.records(ann.session_id, "ann")
            if how == "close":
                await ann.socket.close(1001)
                await it.verdict(ann.session_id)
                assert it.records(ann.session_id, "ann") == shown, "a refresh is not seen by anybody"
                closed_s = it.now_s()
            else:
                await ann.die()
                decided = await it.verdict(ann.session_id)
                assert decided.cause == ("heartbeat" if how == "silence" else "session_timeout")
            waits = (survivor(ann.ready, "ann"), None, False)
            await until(lambda: it.records(ann.session_id, "ann") == waits, "offline, and not forgotten")
            if how == "close":
                assert it.now_s() - closed_s <= 0.4 + 0.2 + 2 * it.lag_s()
            life_s: Any = it.store.ttl(f"{it.config.key_prefix}session:{ann.session_id}")
            assert policy.session_ttl - 60 <= life_s <= policy.session_ttl
            again = await it.join("ann", ann.token)
            assert again.ready["resumed"]
            owner = again.ready["connection_id"]
            assert it.records(ann.session_id, "ann") == (f"ann|{owner}", f"{ann.session_id}|{owner}", True)

    run(scenario())


def test_a_session_that_has_survived_ends_with_a_logout_and_another_login_may_come_between(
    start: Any,
) -> None:
    async def scenario() -> None:
        async with start(
            QUIET.model_copy(update={"resume_window": 0.0}), session_survives_connection=True
        ) as it:
            first, bob = await it.join("ann"), await it.join("bob")
            for client in (first, bob):
                await client.socket.close()
                await it.verdict(client.session_id)
            second = await it.join("ann", live=True)
            again = await it.join("ann", first.token, live=True)
            await until(lambda: second.closed == 4409, "the newest connection has the user")
            assert again.closed is None
            await it.http("POST", "/user/logout", {"token": bob.token})
            assert it.records(bob.session_id, "bob") == (None, None, False)

    run(scenario())


@pytest.mark.parametrize("path", ["/ws", "/ws/no-such-session"])
def test_an_unknown_session_is_told_so_and_closed_with_4401(start: Any, path: str) -> None:
    async def scenario() -> None:
        async with start() as it:
            client = await it.dial(path)
            if path == "/ws":
                await client.send(type="auth", token="no-such-session")
            answer = await client.receive()
            assert (answer["type"], answer["code"]) == ("error", "session_unknown")
            assert await _closed(client) == 4401
            assert it.events(EventKind.SUSPECTED) == []

    run(scenario())


def test_a_refresh_resumes_and_nobody_is_told(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            watcher = await it.join("watcher")
            await watcher.send(type="watch", user_ids=["ann", "bob"])
            assert await watcher.receive() == {"type": "watching", "count": 2}
            watcher.live()
            first = await it.join("ann")
            await until(lambda: watcher.told, "online is announced")
            await first.socket.close(1001)
            again = await it.join("ann", first.token)
            assert again.ready["resumed"]
            owner = again.ready["connection_id"]
            assert owner != first.ready["connection_id"]
            await asyncio.sleep(2 * it.config.policy.resume_window)  # the first one's window is over
            expected = (f"ann|{owner}", f"{first.session_id}|{owner}", True)
            assert it.records(first.session_id, "ann") == expected
            told = {"type": "online", "user_id": "ann", "session_id": first.session_id}
            assert watcher.told == [told]

    run(scenario())


def test_when_the_window_is_over_the_records_go_and_watchers_are_told(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            watcher = await it.join("watcher")
            await watcher.send(type="watch", user_ids=["ann"])
            await watcher.receive()
            watcher.live()
            client = await it.join("ann")
            await client.socket.close(1000)
            ended = await it.verdict(client.session_id)
            assert it.records(client.session_id, "ann")[2], "kept for the resume window"
            await until(lambda: it.records(client.session_id, "ann") == (None, None, False), "cleared")
            kept_s = it.now_s() - ended.time_s
            window_s = it.config.policy.resume_window
            assert window_s <= kept_s <= window_s + 0.1 + 2 * it.lag_s()
            await until(lambda: len(watcher.told) == 2, "offline is announced")
            assert watcher.told[1] == {"type": "offline", "user_id": "ann", "session_id": client.session_id}
            late = await it.dial(f"/ws/{client.token}")
            assert (await late.receive())["code"] == "session_unknown"

    run(scenario())


def test_who_begins_to_watch_is_told_who_is_online_already(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            ann = await it.join("ann")
            for name in ("first", "second"):  # the second's answer is known without Redis
                watcher = await it.join(name)
                await watcher.send(type="watch", user_ids=["ann", "bob"])
                assert await watcher.receive() == {"type": "watching", "count": 2}
                watcher.live()
                online = {"type": "online", "user_id": "ann", "session_id": ann.session_id}
                await until(lambda: watcher.told, "ann is announced")  # noqa: B023
                assert watcher.told == [online]
                await watcher.send(type="watch", user_ids=["ann"])
                await until(lambda: len(watcher.told) == 2, "the answer")  # noqa: B023
                assert watcher.told[1] == {"type": "watching", "count": 2}, "and ann not again"

    run(scenario())


@pytest.mark.parametrize("by", ["another login", "the same session"])
def test_a_newer_connection_takes_over_and_the_older_clears_nothing(start: Any, by: str) -> None:
    async def scenario() -> None:
        async with start() as it:
            watcher = await it.join("watcher")
            await watcher.send(type="watch", user_ids=["ann"])
            await watcher.receive()
            watcher.live()
            older = await it.join("ann")
            same = by == "the same session"
            newer = await it.join("ann", older.token if same else "")
            assert newer.ready["resumed"] is same
            assert await _closed(older) == 4409
            (decided,) = it.events(EventKind.SUSPECTED)
            assert (decided.cause, decided.connection_id) == (Cause.TAKE_OVER, older.ready["connection_id"])
            await asyncio.sleep(2 * it.config.policy.resume_window)
            owner = newer.ready["connection_id"]
            expected = (f"ann|{owner}", f"{newer.session_id}|{owner}", True)
            assert it.records(newer.session_id, "ann") == expected
            if not same:
                assert it.records(older.session_id, "ann")[0] is None
            assert [message["type"] for message in watcher.told] == ["online"]

    run(scenario())


def test_a_login_that_never_connects_takes_nothing_over(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            client = await it.join("ann")
            client.live()
            before = it.records(client.session_id, "ann")
            await it.login("ann")
            assert it.records(client.session_id, "ann") == before
            assert client.closed is None

    run(scenario())


def test_refused_second_login_while_online_and_not_after(start: Any) -> None:
    async def scenario() -> None:
        async with start(second_login="refuse") as it:
            early = await it.login("ann")  # before the first is online
            client = await it.join("ann")
            status, answer = await it.http("POST", "/user/login", {"user_id": "ann"})
            assert (status, answer["error"]["code"]) == (409, "already_online")
            second = await it.dial(f"/ws/{early}")
            assert (await second.receive())["code"] == "already_online"
            assert await _closed(second) == 4409
            assert it.records(client.session_id, "ann")[2]
            await client.socket.close()
            await until(lambda: not it.records(client.session_id, "ann")[1], "cleared")
            await it.login("ann")

    run(scenario())


def test_logout_ends_session_and_connection_at_once(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            client = await it.join("ann")
            assert await it.http("POST", "/user/logout", {"token": client.token}) == (200, {})
            assert it.records(client.session_id, "ann") == (None, None, False)
            assert await _closed(client) == 1000
            assert (await it.verdict(client.session_id)).cause == Cause.LOGOUT
            assert await it.http("POST", "/user/logout", {"token": "unknown"}) == (200, {})

    run(scenario())


def test_heartbeats_are_answered_and_traced(start: Any) -> None:
    async def scenario() -> None:
        async with start(QUICK) as it:
            traced = await it.join("ann", trace=True, live=True)
            other = await it.join("bob", live=True)
            await until(lambda: min(traced.heartbeats, other.heartbeats) >= 4, "heartbeats")
            assert it.events(EventKind.HEARTBEAT_MISSED) == []
            sent = it.events(EventKind.HEARTBEAT_SENT)
            assert {event.session_id for event in sent} == {traced.session_id}
            gaps = [b.time_s - a.time_s for a, b in itertools.pairwise(sent)]
            assert all(abs(gap - 0.4) <= 0.005 + it.lag_s() for gap in gaps)

    run(scenario())


def test_protocol_pings_are_answered_by_the_client_s_library(start: Any) -> None:
    async def scenario() -> None:
        async with start(QUICK, detector=Ping(frame="ping")) as it:
            client = await it.join("ann", live=True)
            await asyncio.sleep(it.config.policy.detection_range_s[1] + 0.3)
            assert client.heartbeats == 0
            assert client.closed is None
            assert it.events(EventKind.HEARTBEAT_MISSED) == []

    run(scenario())


def test_any_frame_is_a_sign_of_life_however_it_is_cut(start: Any) -> None:
    """Whole answers pass the parser by; those in pieces, fragments, other frames must count as well."""

    async def scenario() -> None:
        async with start(QUICK.model_copy(update={"heartbeat_timeout": 0.35})) as it:
            raw: dict[str, Client] = {}
            mask = b"\x11\x22\x33\x44"
            text = bytes(a ^ mask[n % 4] for n, a in enumerate(PONG.encode()))
            whole = b"\x81\x8f" + mask + text

            async def speak(name: str) -> None:
                write = raw[name].socket.transport.write
                while True:
                    await asyncio.sleep(0.05)
                    match name:
                        case "whole":
                            write(whole)
                        case "bytes":
                            for n in range(len(whole)):
                                write(whole[n : n + 1])
                                await asyncio.sleep(0.002)
                        case "pair":
                            write(whole + whole[:2])
                            await asyncio.sleep(0.01)
                            write(whole[2:])
                        case "fragment":
                            write(b"\x01\x81" + mask + text[:1])
                            cut = PONG.encode()[1:]
                            rest = bytes(a ^ mask[n % 4] for n, a in enumerate(cut))
                            write(b"\x80\x8e" + mask + rest)
                        case "ping":
                            write(b"\x89\x80" + mask)

            talk = []
            for name in ("whole", "bytes", "pair", "fragment", "ping"):
                raw[name] = await it.join(name)
                talk.append(asyncio.create_task(speak(name)))
            await asyncio.sleep(2.0)
            assert it.events(EventKind.HEARTBEAT_MISSED) == []
            assert it.events(EventKind.SUSPECTED) == []
            for task in talk:
                task.cancel()
            owner = raw["whole"].ready["connection_id"]
            assert it.gateway.live[owner]._unparsed == 0

    run(scenario())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("nonsense", "malformed"),
        ("[]", "malformed"),
        ("{}", "malformed"),
        ('{"type":7}', "malformed"),
        (b'{"type":"pong"}', "binary_unsupported"),
        ('{"type":"dance"}', "unknown_message"),
        ('{"type":"watch","user_ids":"ann"}', "unknown_message"),
        ('{"type":"watch","user_ids":[7]}', "unknown_message"),
        ('{"type":"auth","token":"x"}', "already_authenticated"),
        (json.dumps({"type": "watch", "user_ids": [str(n) for n in range(1001)]}), "too_many"),
    ],
)
def test_a_bad_message_is_answered_with_a_code_and_the_connection_goes_on(
    start: Any, sent: str | bytes, code: str
) -> None:
    async def scenario() -> None:
        async with start() as it:
            client = await it.join("ann")
            await client.socket.send(sent)
            assert (await client.receive())["code"] == code
            await client.send(type="watch", user_ids=["bob"])
            assert await client.receive() == {"type": "watching", "count": 1}

    run(scenario())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\xfe\xff\xff" + bytes(4) + b"a" * 65_535, 1009),
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x83\x80" + bytes(4), 1002),  # no such opcode
        (b"\x01\x81" + bytes(4) + b"a" + b"\x81\x8f" + bytes(4) + PONG.encode(), 1002),
    ],
    ids=["too large", "not masked", "reserved opcode", "message within a message"],
)
def test_who_breaks_the_protocol_is_closed_with_the_code_for_it(start: Any, frame: bytes, code: int) -> None:
    async def scenario() -> None:
        async with start() as it:
            client = await it.join("ann")
            client.socket.transport.write(frame)
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(client.socket.recv(), 5)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code
            assert (await it.verdict(client.session_id)).cause == Cause.PROTOCOL_ERROR

    run(scenario())


def test_who_does_not_authenticate_in_time_is_closed_and_no_session_suffers(start: Any) -> None:
    async def scenario() -> None:
        async with start(auth_timeout_s=0.3) as it:
            silent = await it.dial()
            talker = await it.dial()
            await talker.send(type="watch", user_ids=["ann"])
            assert (await talker.receive())["code"] == "not_authenticated"
            mute = socket.create_connection(("127.0.0.1", it.port))  # not even a handshake
            mute.setblocking(False)
            assert (await silent.receive())["code"] == "auth_timeout"
            assert await _closed(silent) == 4401
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(mute, 100), 5) == b""
            mute.close()
            assert it.events(EventKind.SUSPECTED) == []
            assert it.gateway.live == {}

    run(scenario())


@pytest.mark.parametrize("path", ["/", "/other", "/ws/", "/ws/a/b", "/wsx"])
def test_other_paths_are_404(start: Any, path: str) -> None:
    async def scenario() -> None:
        async with start() as it:
            with pytest.raises(InvalidStatus) as refused:
                await it.dial(path)
            assert refused.value.response.status_code == 404

    run(scenario())


def test_a_client_that_reads_nothing_gets_no_more_than_its_buffer_and_delays_nobody(start: Any) -> None:
    async def scenario() -> None:
        async with start(QUICK, max_buffer_bytes=10_000, max_messages_per_s=None) as it:
            healthy = await it.join("ann", live=True)
            deaf = await it.join("deaf")
            deaf.socket.transport.pause_reading()
            held = it.gateway.live[deaf.ready["connection_id"]].transport
            # Each bad message asks for an answer of 80 bytes; 100 kB/s of them fill every kernel buffer.
            bad = b"\x81\x81" + bytes(4) + b"x"

            async def shout() -> None:
                while not deaf.socket.transport.is_closing():
                    deaf.socket.transport.write(bad * 2000)
                    await asyncio.sleep(0.01)

            shouting = asyncio.create_task(shout())
            await until(lambda: held.get_write_buffer_size() > 10_000, "a full buffer", 20)
            for _ in range(20):
                await asyncio.sleep(0.01)
                assert held.get_write_buffer_size() < 10_000 + 200
            shouting.cancel()
            began = healthy.heartbeats
            ended = await it.verdict(deaf.session_id, 10)
            assert ended.cause == Cause.HEARTBEAT
            assert healthy.heartbeats > began
            assert it.events(EventKind.HEARTBEAT_MISSED, healthy.session_id) == []

    run(scenario())


def test_sessions_are_listed_page_by_page(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            clients = [await it.join(f"user-{n}") for n in range(5)]
            pages = [await it.http("GET", f"/api/sessions?page={n}&per_page=2") for n in (1, 2, 3, 4)]
            assert [len(page["sessions"]) for _, page in pages] == [2, 2, 1, 0]
            assert all(page["total"] == 5 for _, page in pages)
            listed = {row["session_id"]: row for _, page in pages for row in page["sessions"]}
            assert set(listed) == {client.session_id for client in clients}
            row = listed[clients[0].session_id]
            assert (row["user_id"], row["connection_id"]) == ("user-0", clients[0].ready["connection_id"])

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/user/login", b"not json", 400, "bad_request"),
        ("POST", "/user/login", b"[]", 400, "bad_request"),
        ("POST", "/user/login", {}, 400, "bad_request"),
        ("POST", "/user/login", {"user_id": ""}, 400, "bad_request"),
        ("POST", "/user/login", {"user_id": "x" * 129}, 400, "bad_request"),
        ("POST", "/user/login", {"user_id": "a", "device_type": 1}, 400, "bad_request"),
        ("POST", "/user/login", b" " * 20_000, 413, "too_large"),
        ("POST", "/user/logout", {}, 400, "bad_request"),
        ("GET", "/api/sessions?page=0", None, 400, "bad_request"),
        ("GET", "/api/sessions?per_page=x", None, 400, "bad_request"),
        ("GET", "/user/login", None, 405, "method_not_allowed"),
        ("GET", "/nowhere", None, 404, "not_found"),
    ],
)
def test_http_errors_are_json_with_a_code_and_a_sentence(
    start: Any, method: str, path: str, body: Any, status: int, code: str
) -> None:
    async def scenario() -> None:
        async with start() as it:
            got, answer = await it.http(method, path, body)
            assert (got, answer["error"]["code"]) == (status, code)
            assert answer["error"]["message"]

    run(scenario())


def test_a_user_id_may_hold_any_text(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            for user_id in ("a|b", "用户", 'quote"', "a b\n"):
                client = await it.join(user_id)
                assert client.ready["user_id"] == user_id
                assert it.records(client.session_id, user_id)[2]

    run(scenario())


@pytest.mark.parametrize("how", ["close", "abort", "silence", "nonsense"])
def test_an_ended_connection_is_taken_apart_without_the_garbage_collector(start: Any, how: str) -> None:
    """Full collections are rare in a gateway (they stall its loop), so cycles would be leaks."""

    async def scenario() -> None:
        async with start(QUICK) as it:
            client = await it.join("ann", live=True)
            connection = it.gateway.live[client.ready["connection_id"]]
            held = [weakref.ref(connection), weakref.ref(connection._parser)]
            del connection
            gc.collect()
            gc.disable()
            try:
                match how:
                    case "close":
                        await client.socket.close()
                    case "abort":
                        client.socket.transport.abort()
                    case "silence":
                        await client.die()
                    case "nonsense":
                        client.socket.transport.write(b"\xff\xff\xff")
                await it.verdict(client.session_id)
                await until(lambda: not any(one() for one in held), "let go")
            finally:
                gc.enable()

    run(scenario())


def test_a_drain_ends_every_task_though_one_swallows_a_cancel(start: Any) -> None:
    """So does Python 3.11's `wait_for`, below redis-py, when what it waits for is done at that moment."""

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def scenario() -> None:
        async with start() as it:
            tasks = it.gateway._tasks
            tasks.append(asyncio.create_task(stubborn()))
            await asyncio.sleep(0)
            await it.gateway.drain()
            assert all(task.done() for task in tasks)

    run(scenario())


def test_a_handshake_leaves_no_headers_in_memory(start: Any) -> None:
    """The library's parser is a generator that keeps its request; for each client they would be 2.4 KiB."""

    async def scenario() -> None:
        async with start() as it:
            client = await it.join("ann", live=True)
            frame = it.gateway.live[client.ready["connection_id"]]._parser.parser.gi_frame
            assert not frame.f_locals["request"].headers

    run(scenario())


@pytest.mark.parametrize(("how", "code"), [("taken_over", 4409), ("logged_out", 1000), ("kicked", 4410)])
def test_a_kick_that_is_faster_than_the_answer_to_the_connect_is_not_lost(
    start: Any, how: str, code: int
) -> None:
    """Another node ends the session when Redis has carried out the connect and its answer is still on the way."""

    async def scenario() -> None:
        async with start() as it:
            gateway = it.gateway
            send = gateway.store._send

            async def slow(batch: list[Call]) -> Any:
                answers = await send(batch)
                for call in batch:
                    if call.script is Script.CONNECT:
                        (owner,) = gateway._admission.asking
                        gateway.router.deliver(json.dumps({"type": how, "owner": owner}).encode())
                return answers

            gateway.store._send = slow
            client = await it.join("ann")
            assert await _closed(client) == code
            assert not gateway.live

    run(scenario())


def test_a_handshake_in_pieces_is_answered_as_one_in_one_piece(start: Any) -> None:
    """And what follows is the same."""

    async def answers(it: Any, cut: int) -> tuple[list[bytes], Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(HELLO[:cut])
        await asyncio.sleep(0.02)
        writer.write(HELLO[cut:])
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        auth = b'{"type":"auth","token":"%b"}' % (await it.login("ann")).encode()
        for text in (auth, b"{}"):
            writer.write(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
        frames = []
        for _ in range(2):
            size = (await reader.readexactly(2))[1]
            size = int.from_bytes(await reader.readexactly(2)) if size == 126 else size
            frames.append(json.loads(await reader.readexactly(size)))
        writer.close()
        told = [frame.get("user_id", frame.get("code")) for frame in frames]
        return sorted(line for line in lines if not line.startswith(b"Date:")), sorted(told)

    async def scenario() -> None:
        async with start() as it:
            whole, pieces = await answers(it, len(HELLO)), await answers(it, 5)
            assert whole == pieces and whole[1] == ["ann", "malformed"]

    run(scenario())
