"""Strangers on the HTTP port: slow ones, many of them, and those who would write on a terminal."""

from __future__ import annotations

import asyncio
import http.client
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from harness.cli.terminal import show_table
from harness.real.processes.redis import RedisServer
from harness.user_sessions.audit import AuditTarget, CannotAudit, snapshot
from reference_server.config import GatewayConfig
from reference_server.session_log import TextFormatter, without_controls
from reference_server.sessions.origin import Origin
from reference_server.websocket.overload import ConnectionLimiter
from tests.reference_server.gateways import QUIET, Running, run, running, until

REQUEST_S = 0.4
POST = b"POST /user/login HTTP/1.1\r\nHost: x\r\n"
SLOW = {  # what is said at once, and then a byte now and then
    "nothing": (b"", b""),
    "the head": (b"GET /healthz HTTP/1.1\r\nX: ", b"x"),
    "a body of a length": (POST + b"Content-Length: 9999\r\n\r\n", b" "),
    "a body in chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a second request": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nX: ", b"x"),
    "empty lines": (b"\r\n", b"\r\n"),
    "answers that are not taken": (b"GET /static/client.js HTTP/1.1\r\nHost: x\r\n\r\n" * 3000, b""),
}

ENDLESS = {
    "a header": (b"GET / HTTP/1.1\r\nX: ", b"x" * 1024),
    "headers": (b"GET / HTTP/1.1\r\n", b"X: x\r\n" * 200),
    "a path": (b"GET /", b"x" * 1024),
    "an extension of a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 1024),
    "trailers": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n" * 200),
}


@pytest.fixture
def start(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setattr("reference_server.api.http._REQUEST_S", REQUEST_S)

    def make(**options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, QUIET, **options)

    return make


@pytest.mark.real
@pytest.mark.parametrize("what", SLOW)
def test_a_byte_now_and_then_keeps_no_socket(start: Any, what: str) -> None:
    begin, more = SLOW[what]

    async def scenario() -> None:
        async with start() as it:
            sockets = it.gateway.limiter.http_sockets
            _, writer = await asyncio.open_connection("127.0.0.1", it.http_port, limit=1)
            await until(lambda: sockets, "it is in")
            with suppress(ConnectionError):
                writer.write(begin)
                async with asyncio.timeout(20 * REQUEST_S):
                    while sockets:
                        writer.write(more)
                        await asyncio.sleep(REQUEST_S / 10)
            assert not sockets
            writer.transport.abort()

    run(scenario())


@pytest.mark.real
@pytest.mark.parametrize("what", ENDLESS)
def test_what_is_kept_of_a_request_is_bounded(start: Any, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The parser itself keeps all that it is sent."""
    monkeypatch.setattr("reference_server.api.http._REQUEST_S", 60.0)
    begin, more = ENDLESS[what]

    async def scenario() -> None:
        async with start() as it:
            _, writer = await asyncio.open_connection("127.0.0.1", it.http_port, limit=1)
            writer.write(begin)
            sent = 0
            with pytest.raises(ConnectionError):
                while sent < 4 * 2**20:  # the sockets' buffers hold some
                    writer.write(more)
                    sent += len(more)
                    await writer.drain()
                    await asyncio.sleep(0)
            await until(lambda: not it.gateway.limiter.http_sockets, "it is out")
            writer.transport.abort()

    run(scenario())


@pytest.mark.real
def test_who_asks_again_and_again_is_not_cut(start: Any) -> None:
    def ask(port: int) -> int:
        connection, n = http.client.HTTPConnection("127.0.0.1", port, timeout=5), 0
        until_s = time.monotonic() + 3 * REQUEST_S
        connection.connect()
        sock = connection.sock
        while time.monotonic() < until_s:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            assert connection.sock is sock, "one connection for all"
            n += 1
        time.sleep(2 * REQUEST_S)  # idle between two requests is not slow
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200 and connection.sock is sock
        connection.close()
        return n

    async def scenario() -> None:
        async with start() as it:
            assert await asyncio.to_thread(ask, it.http_port) > 1

    run(scenario())


@pytest.mark.real
def test_many_on_the_http_port_shut_out_neither_clients_nor_health_checks(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_server.websocket.overload.most_sockets", lambda: 40)
    monkeypatch.setattr("reference_server.websocket.overload._FOR_HEALTH", 3)
    monkeypatch.setattr("reference_server.websocket.overload._HTTP_PATIENCE_S", 60.0)
    monkeypatch.setattr("reference_server.api.http._REQUEST_S", 60.0)

    async def login(it: Running) -> tuple[int, str]:
        status, answer = await it.http("POST", "/user/login", {"user_id": "bob"})
        return status, answer["error"]["code"] if "error" in answer else ""

    async def scenario() -> None:
        async with start() as it:
            token = await it.login("ann")
            sockets = it.gateway.limiter.http_sockets
            await until(lambda: not sockets, "the login's is gone")
            crowd = [await asyncio.open_connection("127.0.0.1", it.http_port) for _ in range(10)]
            await until(lambda: len(sockets) == 10, "a quarter of all")
            assert await login(it) == (503, "too_many_connections")
            assert (await it.http("GET", "/healthz"))[0] == 200
            crowd += [await asyncio.open_connection("127.0.0.1", it.http_port) for _ in range(20)]
            await until(lambda: len(sockets) == 13, "the oldest above the reserve are cut")
            assert (await it.http("GET", "/healthz"))[0] == 200
            assert await login(it) == (503, "too_many_connections")
            ann = await it.join("ann", token, live=True)
            others = [await it.dial() for _ in range(25)]
            assert len(it.gateway.limiter.sockets) == 26 == 1 + len(others), "clients are let in"
            for _, writer in crowd:
                writer.transport.abort()
            await until(lambda: not sockets, "the crowd has gone")
            assert await login(it) == (200, "")
            assert ann.closed is None

    run(scenario())


@pytest.mark.real
def test_more_slow_strangers_than_places_keep_no_user_out(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ports are full of them, and they come back when they are cut: who asks at once is in within a few tries."""
    monkeypatch.setattr("reference_server.websocket.overload.most_sockets", lambda: 100)
    monkeypatch.setattr("reference_server.websocket.overload._PATIENCE_S", 0.2)
    monkeypatch.setattr("reference_server.api.http._REQUEST_S", 60.0)

    async def slow(port: int, begin: bytes) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(begin)
                await reader.read()
                writer.transport.abort()
            await asyncio.sleep(0.5)

    async def scenario() -> None:
        async with start(auth_timeout_s=60.0) as it:
            there = await it.join("ann", live=True)
            limiter = it.gateway.limiter
            crowd = [
                asyncio.create_task(slow(port, begin))
                for port, begin in ((it.http_port, POST + b"X: "), (it.port, b"GET /ws HTTP/1.1\r\nX: "))
                for _ in range(100)
            ]
            await until(lambda: len(limiter.sockets) + len(limiter.http_sockets) >= 98, "no place is left")

            async def comes(user_id: str) -> bool:
                status, answer = await it.http("POST", "/user/login", {"user_id": user_id})
                with suppress(InvalidStatus):  # 503, as the login's
                    return status == 200 and bool((await it.join(user_id, answer["token"])).ready)
                return False

            tries = 0
            for n in range(4):
                while not await comes(f"user-{n}"):
                    tries += 1
                    assert tries < 12, "users are refused again and again"
                    await asyncio.sleep(0.2)
            assert there.closed is None
            assert it.gateway.counters.value("refusals_total", code="waited_too_long") > 0
            for task in crowd:
                task.cancel()

    run(scenario())


@pytest.mark.real
def test_strangers_of_one_address_are_bounded_and_who_is_known_does_not_count(start: Any) -> None:
    async def scenario() -> None:
        async with start(max_strangers_per_ip=3) as it:
            inside = [await it.join(f"user-{n}") for n in range(5)]
            crowd = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(3)]
            await until(lambda: len(it.gateway.limiter.opening) == 3, "three of them")
            for port in (it.port, it.http_port):
                reader, _ = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == b""
            assert it.gateway.counters.value("refusals_total", code="too_many_from_address") == 2
            for _, writer in crowd:
                writer.transport.abort()
            await until(lambda: not it.gateway.limiter.opening, "they are gone")
            assert (await it.join("late")).ready and inside[0].closed is None

    run(scenario())


@pytest.mark.parametrize(
    ("address", "told", "most"),
    [
        ("93.184.216.34", {}, 256),
        ("2a00:1450::/64", {}, 256),
        ("127.0.0.1", {}, float("inf")),
        ("10.1.2.3", {}, float("inf")),
        ("fd00::/64", {}, float("inf")),
        ("10.1.2.3", {"max_strangers_per_ip": 9}, 9),
        ("93.184.216.34", {"trusted_proxies": ("93.184.216.0/24",)}, float("inf")),
    ],
)
def test_how_many_strangers_an_address_may_have(address: str, told: dict[str, Any], most: float) -> None:
    limiter = ConnectionLimiter(GatewayConfig(**told), lambda: 0.0, print)
    assert limiter._most_of(address) == most


@pytest.mark.real
def test_who_is_there_is_told_on_loopback_and_to_the_operator(start: Any) -> None:
    async def scenario() -> None:
        mine = {"Authorization": "Bearer secret"}
        for options, headers, allowed in (
            ({}, {}, True),
            ({"host": "0.0.0.0"}, {}, False),
            ({"host": "0.0.0.0"}, mine, False),
            ({"host": "0.0.0.0", "operator_token": "secret"}, {}, False),
            ({"host": "0.0.0.0", "operator_token": "secret"}, {"Authorization": "Bearer "}, False),
            ({"host": "0.0.0.0", "operator_token": "secret"}, mine, True),
        ):
            async with start(**options) as it:
                for path in ("/api/sessions", "/api/sessions?state=waiting", "/metrics"):
                    status, _ = await asyncio.to_thread(get, it.http_port, path, headers)
                    assert status == (200 if allowed else 401), (options, path)
                assert (await it.http("GET", "/healthz"))[0] == 200
                found = await asyncio.to_thread(memory_of, it, headers)
                assert found == (["live"] if allowed else "refused")

    def get(port: int, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def memory_of(it: Running, headers: dict[str, str]) -> object:
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            seen = snapshot(AuditTarget((f"http://127.0.0.1:{it.http_port}",), operator_token=token))
        except CannotAudit:
            return "refused"
        assert seen.memory is not None and not seen.memory.live
        return ["live"]

    run(scenario())


def test_what_a_stranger_says_of_itself_is_kept_without_control_characters() -> None:
    told = Origin.of("web\x1b]0;owned\x07", "::1", "Mozilla\x9b31m/5.0\r\nroot\0" + "x" * 1000)
    assert told.device_type == "web]0;owned"
    assert told.user_agent.startswith("Mozilla31m/5.0root") and len(told.user_agent) == 512


def test_a_line_of_the_log_is_bounded_and_moves_no_cursor() -> None:
    record = logging.makeLogRecord({"msg": "not understood: %s", "args": ("\x1b[2J\n" + "x" * 10_000,)})
    line = TextFormatter("%(levelname)s %(message)s").format(record)
    assert line.startswith("Level None not understood: [2Jxxx") and len(line) == 1000
    assert without_controls(line) == line


def test_what_a_stranger_has_put_into_a_cell_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["difference", "user"], [["status_of_nobody", "ann\x1b[2J\x9b31m\u202e\r"]])
    assert "ann[2J31m" in (shown := capsys.readouterr().out)
    assert not set(shown) & set("\x1b\x9b\u202e\r")
