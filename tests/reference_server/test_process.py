"""The gateway as a process: how it says that it listens, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from websockets.asyncio.client import connect

from harness.events.log import read_log
from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer
from reference_server.events import Cause, EventKind
from reference_server.sessions.records import session_id_of
from reference_server.websocket.listener import raise_descriptor_limit
from tests.reference_server.apart import ask, events, log_in, start
from tests.reference_server.gateways import run, until

pytestmark = pytest.mark.real


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


@pytest.mark.usefixtures("not_forked")
def test_sigterm_closes_everybody_in_order_and_leaves_the_records_to_the_window(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    policy = {"resume_window": "5s"}
    gateway, ports = start(children, private_redis, key_prefix, tmp_path, policy=policy)
    assert ports["pid"] == gateway.pid
    polite, left = log_in(ports, "polite"), log_in(ports, "left")

    async def scenario() -> float:
        url = f"ws://127.0.0.1:{ports['port']}/ws"
        async with connect(f"{url}/{left}", ping_interval=None) as gone:
            await gone.recv()
            await gone.close(1001)
        async with (
            connect(f"{url}/{polite}", ping_interval=None) as client,
            connect(url, ping_interval=None) as anonymous,
        ):
            await client.recv()
            began_s = time.monotonic()
            gateway.send_signal(signal.SIGTERM)
            for one in (client, anonymous):
                await asyncio.wait_for(one.wait_closed(), 5)
                assert one.close_code == 1001
        return began_s

    began_s = run(scenario())
    assert gateway.wait(10) == 0
    assert time.monotonic() - began_s < 2.0
    with redis.Redis.from_url(private_redis.url) as store:
        for token, user_id in ((polite, "polite"), (left, "left")):
            for key in (f"session:{session_id_of(token)}", f"status:{user_id}"):
                assert 0 < store.pttl(f"{key_prefix}{key}") <= 5000, key
    decided = {
        e.session_id: e.cause
        for e in read_log(tmp_path / "events.jsonl").events
        if e.kind is EventKind.SUSPECTED
    }
    assert decided == {session_id_of(polite): Cause.DRAIN, session_id_of(left): Cause.CLOSE_FRAME}
    assert gateway.log_tail() == ""


def test_a_silent_client_does_not_hold_up_the_end(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    gateway, ports = start(children, private_redis, key_prefix, tmp_path, drain_timeout_s=0.5)
    token = log_in(ports, "ann")

    async def scenario() -> None:
        url = f"ws://127.0.0.1:{ports['port']}/ws/{token}"
        client = await connect(url, ping_interval=None)
        await client.recv()
        client.transport.pause_reading()
        began_s = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(gateway.wait, 10)
        assert code == 0
        assert 0.5 <= time.monotonic() - began_s < 2.5
        client.transport.abort()

    run(scenario())


def test_nothing_is_imported_once_it_listens(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """A module compiled at its first use holds up everybody's heartbeats by as long."""
    policy = {
        "heartbeat_interval": "0.2s",
        "heartbeat_timeout": "0.1s",
        "max_failures": 1,
        "resume_window": "0.2s",
    }
    python = (sys.executable, "-X", "importtime")
    gateway, ports = start(
        children, private_redis, key_prefix, tmp_path, python=python, policy=policy, operator_token="secret"
    )
    log = tmp_path / "gateway.log"
    at_start = log.read_text().splitlines()
    assert len(at_start) > 100
    silent, lively = log_in(ports, "ann"), log_in(ports, "bob")
    for path in (
        "/",
        "/static/client.js",
        "/static/none",
        "/api/config",
        "/api/sessions",
        "/healthz",
        "/metrics",
    ):
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{ports['http_port']}{path}", timeout=5).read()
    assert ask(ports, "/user/code", {"user_id": "ann"})[0] == 200
    assert ask(ports, "/user/code", {})[0] == 400

    async def scenario() -> None:
        url = f"ws://127.0.0.1:{ports['port']}/ws"
        async with connect(url, ping_interval=None) as watcher:
            await watcher.send(json.dumps({"type": "auth", "token": lively}))
            gone = await connect(f"{url}/{silent}", ping_interval=None)
            gone.transport.pause_reading()
            record = f"{key_prefix}session:{session_id_of(silent)}"
            await until(lambda: events(tmp_path, EventKind.SOCKET_CLOSED), "the verdict on who fell silent")
            await until(lambda: not store.exists(record), "the clean-up")
            gone.transport.abort()
            assert ask(ports, "/user/logout", {"token": lively})[0] == 200

    with redis.Redis.from_url(private_redis.url) as store:
        run(scenario())
    assert log.read_text().splitlines()[len(at_start) :] == []
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(10) == 0


def test_a_gateway_starts_without_redis_and_says_so(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    options = {"redis_url": "redis://127.0.0.1:1/0"}
    gateway, ports = start(children, private_redis, key_prefix, tmp_path, **options)
    with pytest.raises(urllib.error.HTTPError) as refused:
        log_in(ports, "ann")
    with refused.value as answer:
        assert answer.code == 503
        assert json.loads(answer.read())["error"]["code"] == "store_unavailable"
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(10) == 0
    assert "Redis is away" in gateway.log_tail()


@pytest.mark.parametrize("text", ["not json", '{"polcy": {}}', '{"policy": {"heartbeat_timeout": "0s"}}'])
def test_a_bad_configuration_is_refused_with_the_reason(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(text)
    argv = [sys.executable, "-m", "reference_server", "--config", str(config)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "config.json" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_descriptor_limit_is_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pid = os.fork()
    if pid == 0:  # in a process of its own: the limit would stay
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, soft), hard))
        raised = raise_descriptor_limit()
        os._exit(0 if raised == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
