"""Overload and drain: new sockets are turned away, those inside do not suffer, everybody goes in order."""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer
from reference_server.config import GatewayConfig
from reference_server.events import EventKind
from reference_server.sessions.records import session_id_of
from reference_server.websocket.overload import ConnectionLimiter
from tests.reference_server.apart import ask, events, lag_s, log_in, start
from tests.reference_server.gateways import PONG, QUICK, QUIET, run, running, until
from tests.reference_server.storm import HELLO


class Socket:
    """Something that can stand in the set of handshakes; its own transport."""

    def __init__(self, address: str = "") -> None:
        self.transport: Any = self
        self.address = address
        self.aborted = False

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return self.address, 1

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(
    ("sockets", "opening", "lag_s", "shut", "code"),
    [
        (0, 0, 0.0, False, None),
        (9, 0, 0.0, False, None),
        (10, 0, 0.0, False, "too_many_connections"),
        (5, 4, 0.0, False, "too_many_handshakes"),
        (5, 3, 0.5, False, None),
        (5, 3, 0.51, False, "overloaded"),
        (0, 0, 0.0, True, "draining"),
    ],
)
def test_sockets_are_refused_for_a_reason(
    sockets: int, opening: int, lag_s: float, shut: bool, code: str | None
) -> None:
    config = GatewayConfig(max_connections=10, max_handshakes=4, refuse_above_lag_s=0.5)
    limiter = ConnectionLimiter(config, lambda: lag_s, print)
    inside = [Socket() for _ in range(sockets)]
    limiter.sockets.update(inside)
    limiter.opening.update(inside[:opening])
    limiter.shut = shut
    assert limiter.closed_because() == code


def test_who_holds_many_places_yields_to_other_addresses_and_to_its_own_only_late() -> None:
    """A crowd keeps what nobody else wants: down to equal shares it yields at once, and never the other way."""
    limiter = ConnectionLimiter(GatewayConfig(max_connections=8), lambda: 0.0, print)

    def comes(address: str) -> bool:
        sock: Any = Socket(address)
        if limiter.closed_because() is not None and not limiter.make_room(sock):
            return False
        limiter.enter(sock)
        return True

    crowd = [Socket("127.0.0.2") for _ in range(8)]
    for sock in crowd:
        limiter.enter(sock)
    assert not comes("127.0.0.2")
    assert [comes("127.0.0.1") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [sock.aborted for sock in crowd] == [True] * 4 + [False] * 4, "the oldest first"
    assert comes("127.0.0.3") and not comes("127.0.0.2")


def test_limits_that_are_not_set_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    limiter = ConnectionLimiter(GatewayConfig(refuse_above_lag_s=None), lambda: 1e9, print)
    limiter.sockets.update(Socket() for _ in range(100_000))
    assert limiter.closed_because() is None


@pytest.fixture
def make(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    def begin(policy: Any = QUIET, **options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, policy, **options)

    return begin


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


async def raw(port: int, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    return reader, writer


async def refused(port: int) -> tuple[str, int]:
    """Connect; return the code of the refusal, and after how many seconds one may come again."""
    with pytest.raises(InvalidStatus) as told:
        await connect(f"ws://127.0.0.1:{port}/ws", ping_interval=None)
    answer = told.value.response
    assert answer.status_code == 503
    code: str = orjson.loads(answer.body or b"")["error"]["code"]
    return code, int(answer.headers["Retry-After"])


@pytest.mark.real
def test_unauthenticated_sockets_count_and_who_leaves_makes_room(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_server.websocket.overload._PATIENCE_S", 60.0)

    async def scenario() -> None:
        async with make(max_connections=3) as it:
            await it.join("ann")
            await it.dial()
            mute, writer = await raw(it.port)
            await until(lambda: len(it.gateway.limiter.sockets) == 3, "three sockets")
            assert await refused(it.port) == ("too_many_connections", 2)
            token = await it.login("bob")  # strangers hold the places, and make room in time
            writer.close()
            await until(lambda: len(it.gateway.limiter.sockets) == 2, "room")
            await it.join("bob", token)
            assert mute.at_eof() or await mute.read() == b""
            assert it.gateway.counters.value("refusals_total", code="too_many_connections") == 1
            await until(lambda: it.gateway.limiter.lingering == 0, "let go")

    run(scenario())


@pytest.mark.real
def test_handshakes_under_way_are_bounded_and_end_in_time(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_server.websocket.overload._PATIENCE_S", 60.0)

    async def scenario() -> None:
        async with make(max_handshakes=2, auth_timeout_s=0.5) as it:
            ann = await it.join("ann")
            half = [await raw(it.port, HELLO[:n]) for n in (0, 20)]
            await until(lambda: len(it.gateway.limiter.opening) == 2, "two handshakes")
            assert await refused(it.port) == ("too_many_handshakes", 2)
            for reader, _ in half:
                assert await asyncio.wait_for(reader.read(), 5) in (b"", b"HTTP/1.1 400")
            assert not it.gateway.limiter.opening
            await (await it.join("ann", ann.token)).socket.close()
            for _, writer in half:
                writer.close()

    run(scenario())


@pytest.mark.real
def test_those_turned_away_are_few_and_gone_soon_even_when_they_say_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_server.websocket.overload._MOST_LINGERING", 10)
    monkeypatch.setattr("reference_server.websocket.overload._LINGER_S", 0.3)

    async def scenario() -> None:
        async with make(max_connections=1) as it:
            await it.join("ann")
            mute = [await raw(it.port) for _ in range(50)]
            await until(
                lambda: it.gateway.counters.value("refusals_total", code="too_many_connections") == 50,
                "all are refused",
            )
            assert it.gateway.limiter.lingering <= 10
            for reader, writer in mute:
                assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 503")
                writer.close()
            assert it.gateway.limiter.lingering == 0
            assert len(it.gateway.limiter.sockets) == 1

    run(scenario())


async def answer_heartbeats(client: ClientConnection) -> list[float]:
    """Answer until the end; return when each heartbeat came."""
    came_s = []
    with suppress(ConnectionClosed):
        async for text in client:
            if orjson.loads(text)["type"] == "heartbeat":
                came_s.append(time.monotonic())
                await client.send(PONG)
    return came_s


@pytest.mark.real
def test_a_loop_that_was_late_lets_nobody_in_for_a_second_and_throws_nobody_out(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    policy = {"heartbeat_interval": "0.3s", "heartbeat_timeout": "0.2s", "max_failures": 1}
    gateway, ports = start(
        children, private_redis, key_prefix, tmp_path, policy=policy, refuse_above_lag_s=0.3
    )
    token = log_in(ports, "ann")

    async def scenario() -> None:
        witness = await connect(f"ws://127.0.0.1:{ports['port']}/ws/{token}")
        beats = asyncio.create_task(answer_heartbeats(witness))
        await asyncio.sleep(0.4)
        gateway.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.6)
        gateway.send_signal(signal.SIGCONT)
        assert await refused(ports["port"]) == ("overloaded", 2)
        status, told = await asyncio.to_thread(ask, ports, "/user/login", {"user_id": "bob"})
        assert (status, told["error"]["code"]) == (503, "overloaded")
        status, health = await asyncio.to_thread(ask, ports, "/healthz")
        assert (status, health["refusing"]) == (503, "overloaded")
        began_s = time.monotonic()
        while True:
            with suppress(InvalidStatus):
                await (await connect(f"ws://127.0.0.1:{ports['port']}/ws")).close()
                break
            await asyncio.sleep(0.02)
        assert time.monotonic() - began_s < 1.0 + 0.3
        await witness.close()
        assert len(await beats) >= 3

    run(scenario())
    assert events(tmp_path, EventKind.HEARTBEAT_MISSED) == []


@pytest.mark.real
@pytest.mark.alone
def test_a_storm_is_refused_before_those_inside_suffer(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """Heartbeats of those inside are as late as the loop at most, and none goes unanswered."""
    storm, policy = 4000, {"heartbeat_interval": "0.2s", "heartbeat_timeout": "0.2s"}
    _, ports = start(
        children,
        private_redis,
        key_prefix,
        tmp_path,
        policy=policy,
        refuse_above_lag_s=0.05,
        max_handshakes=256,
    )
    inside = [log_in(ports, f"user-{n}") for n in range(20)]
    argv = [sys.executable, "-m", "tests.reference_server.storm", str(ports["port"]), str(storm)]

    async def scenario() -> tuple[list[list[float]], dict[str, int]]:
        clients = [
            await connect(f"ws://127.0.0.1:{ports['port']}/ws/{one}", ping_interval=None) for one in inside
        ]
        beats = [asyncio.create_task(answer_heartbeats(client)) for client in clients]
        await asyncio.sleep(0.5)
        come = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
        printed, _ = await asyncio.wait_for(come.communicate(), 60)
        await asyncio.sleep(0.5)
        for client in clients:
            await client.close()
        answers: dict[str, int] = orjson.loads(printed)
        return await asyncio.gather(*beats), answers

    beats, answers = run(scenario())
    assert sum(answers.values()) == storm
    assert answers["503"] > 0
    assert set(answers) <= {"101", "503", "reset"}
    assert events(tmp_path, EventKind.HEARTBEAT_MISSED) == []
    late_s = max(float(event.detail["max_s"]) for event in events(tmp_path, EventKind.HEARTBEAT_LATENESS))
    print(f"\n{answers}; lag {lag_s(tmp_path):.3f} s; heartbeats late by {late_s:.3f} s at most")
    # The lag is looked at every 20 ms, so up to that much of a stall is not seen; the wheel's grain is 2 ms.
    assert late_s <= lag_s(tmp_path) + 0.025
    assert all(len(came_s) >= 4 for came_s in beats)


@pytest.mark.real
def test_a_drain_may_be_spread_over_a_window(make: Any) -> None:
    """Each of ten clients is sent away a tenth of the window after the one before; heartbeats go on meanwhile."""

    async def scenario() -> None:
        async with make(QUICK, drain_spread_s=1.0) as it:
            clients = [await it.join(f"user-{n}", live=True) for n in range(10)]
            began_s = it.now_s()
            draining = asyncio.create_task(it.gateway.drain())
            await asyncio.sleep(0.45)
            assert sum(client.closed is None for client in clients) == 5
            await draining
            closed = sorted(e.time_s - began_s for e in it.events(EventKind.SUSPECTED))
            lag_s = it.lag_s()
            assert all(n / 10 - 0.005 <= at_s <= n / 10 + 0.02 + lag_s for n, at_s in enumerate(closed))
            assert [client.closed for client in clients] == [1001] * 10
            assert min(client.heartbeats for client in clients if client.heartbeats) >= 1

    run(scenario())


@pytest.mark.real
def test_a_full_gateway_may_refuse_newcomers(make: Any) -> None:
    policy = QUIET.model_copy(update={"max_sessions": 2, "when_full": "refuse"})

    async def scenario() -> None:
        async with make(policy) as it:
            ann, _bob = await it.join("ann", live=True), await it.join("bob", live=True)
            sessions = [await it.login(f"user-{n}") for n in range(3)]
            for token in sessions:
                client = await it.dial(f"/ws/{token}")
                assert (await client.receive())["code"] == "too_many_sessions"
                with pytest.raises(ConnectionClosed):
                    await client.receive()
                assert client.socket.close_code == 1013
            assert it.gateway.counters.value("refusals_total", code="too_many_sessions") == 3
            assert ann.closed is None and len(it.gateway.live) == 2
            await ann.socket.close()
            await it.verdict(ann.session_id)
            assert (await it.join("user-0", sessions[0])).ready["type"] == "ready"

    run(scenario())


@pytest.mark.real
def test_a_full_gateway_lets_no_crowd_in_at_once(make: Any) -> None:
    policy = QUIET.model_copy(update={"max_sessions": 3, "when_full": "refuse"})

    async def scenario() -> None:
        async with make(policy) as it:
            sessions = [await it.login(f"user-{n}") for n in range(12)]
            crowd = await asyncio.gather(*(it.dial(f"/ws/{session_id}") for session_id in sessions))
            told = [(await client.receive())["type"] for client in crowd]
            assert sorted(told) == ["error"] * 9 + ["ready"] * 3
            assert not it.gateway._admission.asking

    run(scenario())


@pytest.mark.real
def test_health_is_red_first_then_everybody_is_told_then_nobody_is_left(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    notice_s, drain_s = 1.5, 0.6
    gateway, ports = start(
        children,
        private_redis,
        key_prefix,
        tmp_path,
        drain_notice_s=notice_s,
        drain_timeout_s=drain_s,
        policy={"heartbeat_interval": None},
    )
    polite, silent = log_in(ports, "polite"), log_in(ports, "silent")
    url = f"ws://127.0.0.1:{ports['port']}/ws"

    async def scenario() -> None:
        client = await connect(f"{url}/{polite}", ping_interval=None)
        deaf = await connect(f"{url}/{silent}", ping_interval=None)
        deaf.transport.pause_reading()
        anonymous = await connect(url, ping_interval=None)
        half, half_writer = await raw(ports["port"], HELLO[:30])
        began_s = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        await asyncio.sleep(notice_s / 2)
        status, health = await asyncio.to_thread(ask, ports, "/healthz")
        assert (status, health["status"]) == (503, "draining")
        status, told = await asyncio.to_thread(ask, ports, "/user/login", {"user_id": "late"})
        assert (status, told["error"]["code"]) == (503, "draining")
        await (await connect(url)).close()  # the balancer may not have seen it yet
        assert client.state.name == "OPEN"
        assert time.monotonic() - began_s < notice_s
        for one in (client, anonymous):
            await asyncio.wait_for(one.wait_closed(), 5)
            assert one.close_code == 1001
        assert time.monotonic() - began_s >= notice_s
        with pytest.raises(ConnectionRefusedError):
            await raw(ports["port"])
        status, health = await asyncio.to_thread(ask, ports, "/healthz")
        assert (status, health["status"]) == (503, "draining")
        assert await asyncio.wait_for(half.read(), 5) == b""
        half_gone_s = time.monotonic() - began_s
        assert notice_s + drain_s <= half_gone_s
        deaf.transport.resume_reading()
        await asyncio.wait_for(deaf.wait_closed(), 5)
        await asyncio.to_thread(gateway.wait, 10)
        lag = lag_s(tmp_path)
        assert half_gone_s <= notice_s + drain_s + 0.05 + 2 * lag
        closed = events(tmp_path, EventKind.SOCKET_CLOSED, session_id_of(silent))
        decided = events(tmp_path, EventKind.SUSPECTED, session_id_of(silent))
        # The deadline is counted from before the first close frame: this one's may come a lag later.
        took_s = closed[0].time_s - decided[0].time_s
        assert drain_s - 0.02 - lag <= took_s <= drain_s + 0.05 + 2 * lag
        half_writer.close()

    run(scenario())
    assert gateway.returncode == 0


@pytest.mark.real
@pytest.mark.parametrize("what", ["messages", "pings", "empty fragments"])
def test_who_floods_is_closed_with_1008_and_delays_nobody(make: Any, what: str) -> None:
    frame = {
        "messages": b"\x81\x81" + bytes(4) + b"x",
        "pings": b"\x89\x80" + bytes(4),
        "empty fragments": b"\x00\x80" + bytes(4),
    }[what]

    async def scenario() -> None:
        async with make(QUICK, max_messages_per_s=50) as it:
            healthy = await it.join("healthy", live=True)
            flood = await it.join("flood")
            if what == "empty fragments":
                flood.socket.transport.write(b"\x01\x80" + bytes(4))
            flood.socket.transport.write(frame * 100_000)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await asyncio.wait_for(flood.socket.recv(), 5)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            flood.socket.transport.abort()
            await it.verdict(flood.session_id)
            await until(lambda: healthy.heartbeats >= 2, "beats")
            assert it.events(EventKind.HEARTBEAT_MISSED) == []

    run(scenario())


@pytest.mark.real
def test_as_many_messages_as_are_allowed_are_answered_each_second(make: Any) -> None:
    async def scenario() -> None:
        async with make(QUICK, max_messages_per_s=20) as it:
            busy = await it.join("busy", live=True)
            for second in (1, 2):
                for _ in range(18):
                    await busy.send(type="watch", user_ids=["ann"])
                answers = 18 * second
                await until(lambda n=answers: len(busy.told) == n, "answers")  # type: ignore[misc]
                await asyncio.sleep(1.0)
            assert busy.closed is None
            assert busy.heartbeats >= 4, "answers to heartbeats are not counted"

    run(scenario())


@pytest.mark.real
def test_pongs_for_one_who_reads_nothing_do_not_pile_up(make: Any) -> None:
    async def scenario() -> None:
        async with make(max_buffer_bytes=10_000, max_messages_per_s=None) as it:
            deaf = await it.join("deaf")
            deaf.socket.transport.pause_reading()
            held = it.gateway.live[deaf.ready["connection_id"]].transport
            ping = b"\x89\xfd" + bytes(4) + b"p" * 125

            async def shout() -> None:
                while not deaf.socket.transport.is_closing():
                    deaf.socket.transport.write(ping * 1000)
                    await asyncio.sleep(0.005)

            shouting = asyncio.create_task(shout())
            await until(lambda: held.get_write_buffer_size() > 10_000, "a full buffer", 20)
            for _ in range(20):
                await asyncio.sleep(0.01)
                assert held.get_write_buffer_size() < 10_000 + 4096 + 127
            shouting.cancel()

    run(scenario())
