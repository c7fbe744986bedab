"""Nodes, each a process: one is killed or stands still, and its peer sees to its sessions; two share a port."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from harness.events.log import read_log
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer
from reference_server.events import Cause, EventKind
from reference_server.sessions.records import session_id_of
from tests.reference_server.apart import log_in, start
from tests.reference_server.gateways import QUIET, Running, run, running, survivor, until

pytestmark = pytest.mark.real

TTL_S, RENEW_S, CHECK_S = 0.9, 0.3, 0.2
LEASE = {"lease_ttl_s": TTL_S, "lease_renew_s": RENEW_S, "lease_check_s": CHECK_S}


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


def start_node(
    children: Children, server: RedisServer, prefix: str, folder: Path, **options: Any
) -> tuple[Child, dict[str, int]]:
    policy = {"heartbeat_interval": None, "session_timeout": None, "resume_window": "0.3s"}
    folder.mkdir(exist_ok=True)
    return start(children, server, prefix, folder, **{"policy": policy, **LEASE, **options})


async def join(ports: dict[str, int], user_id: str) -> tuple[ClientConnection, dict[str, Any]]:
    token = await asyncio.to_thread(log_in, ports, user_id)
    url = f"ws://127.0.0.1:{ports['port']}/ws/{token}"
    client = await connect(url, ping_interval=None, close_timeout=1)
    ready = json.loads(await client.recv())
    assert ready["type"] == "ready"
    return client, ready | {"token": token, "session_id": session_id_of(token)}


async def watching(it: Running, *user_ids: str) -> Any:
    watcher = await it.join("watcher")
    await watcher.send(type="watch", user_ids=list(user_ids))
    await watcher.receive()
    watcher.live()
    return watcher


@pytest.mark.parametrize("survives", [False, True])
def test_a_killed_node_s_sessions_are_ended_by_its_peer_within_the_bound(
    children: Children,
    private_redis: RedisServer,
    key_prefix: str,
    tmp_path: Path,
    survives: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "reference_server.session")
    killed, ports = start_node(children, private_redis, key_prefix, tmp_path, node="a")
    (tmp_path / "b").mkdir()

    async def scenario() -> None:
        options: dict[str, Any] = {"node": "b", "session_survives_connection": survives, **LEASE}
        async with running(private_redis.url, key_prefix, tmp_path / "b", QUIET, **options) as it:
            watcher = await watching(it, "ann", "bob")
            ann, ready = await join(ports, "ann")
            _bob, bob_ready = await join(ports, "bob")
            await until(lambda: len(watcher.told) == 2, "both are online")
            await asyncio.sleep(TTL_S)  # b has seen a lease's length without a stall
            began_s = it.now_s()
            killed.send_signal(signal.SIGKILL)
            await ann.wait_closed()
            again = await it.join("ann", ready["token"])  # back in time, on the other node
            assert again.ready["resumed"]
            await until(lambda: len(watcher.told) == 3, "bob's end is told")
            took_s = it.now_s() - began_s
            lag_s = 0.05 + 4 * it.lag_s()
            assert TTL_S - RENEW_S - 0.05 <= took_s <= TTL_S + CHECK_S + lag_s
            assert watcher.told[2] == {
                "type": "offline",
                "user_id": "bob",
                "session_id": bob_ready["session_id"],
            }
            waits = survivor(bob_ready, "bob") if survives else None
            assert it.records(bob_ready["session_id"], "bob") == (waits, None, False)
            (reaped,) = await until(lambda: it.events(EventKind.SUSPECTED), "the end is logged")
            assert (reaped.cause, reaped.node) == (Cause.NODE_LEASE, "b")
            assert reaped.connection_id == bob_ready["connection_id"]
            assert reaped.detail["incarnation"].startswith("a.")
            about = f"{bob_ready['session_id']}; user bob, request {bob_ready['connection_id']}"
            assert f"Removed session {about}" in caplog.messages
            owner = again.ready["connection_id"]
            expected = (f"ann|{owner}", f"{again.session_id}|{owner}", True)
            assert it.records(again.session_id, "ann") == expected
            left = it.store.keys(f"{key_prefix}*a.*")
            assert left == [], "nothing of the dead node is left"

    run(scenario())


@dataclass
class StandsStill:
    """A node with ann and bob on it, stopped and declared dead by the one whose watcher is told."""

    node: Child
    ann: ClientConnection
    of_ann: dict[str, Any]
    bob: ClientConnection
    of_bob: dict[str, Any]
    it: Running
    watcher: Any


@asynccontextmanager
async def a_node_that_stands_still(
    children: Children, server: RedisServer, prefix: str, folder: Path
) -> AsyncIterator[StandsStill]:
    still, ports = start_node(children, server, prefix, folder, node="a")
    (folder / "b").mkdir()
    options: dict[str, Any] = {"node": "b", "operator_token": "operator", **LEASE}
    async with running(server.url, prefix, folder / "b", QUIET, **options) as it:
        watcher = await watching(it, "ann", "bob")
        ann, bob = await join(ports, "ann"), await join(ports, "bob")
        await until(lambda: len(watcher.told) == 2, "both are online")
        still.send_signal(signal.SIGSTOP)
        await until(lambda: len(watcher.told) == 4, "both are declared dead")
        yield StandsStill(still, *ann, *bob, it, watcher)


def test_a_node_that_stood_still_and_was_declared_dead_takes_its_sessions_back(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with a_node_that_stands_still(children, private_redis, key_prefix, tmp_path) as of:
            it, watcher, ready = of.it, of.watcher, of.of_bob
            newer = await it.join("ann")
            await until(lambda: len(watcher.told) == 5, "ann is online, here")
            of.node.send_signal(signal.SIGCONT)
            await asyncio.wait_for(of.ann.wait_closed(), 5)
            assert of.ann.close_code == 4409
            await until(lambda: len(watcher.told) == 6, "bob is online again")
            assert [(told["type"], told["user_id"]) for told in watcher.told[4:]] == [
                ("online", "ann"),
                ("online", "bob"),
            ]
            owner = ready["connection_id"]
            expected = (f"bob|{owner}", f"{ready['session_id']}|{owner}", True)
            assert it.records(ready["session_id"], "bob") == expected
            assert it.records(newer.session_id, "ann")[1] is not None
            await of.bob.close()
            await until(lambda: len(watcher.told) == 7, "bob goes, as ever")

    run(scenario())


def test_a_session_that_ended_while_its_node_was_taken_for_dead_stays_ended(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """Its node would bring the records of all its connections back, and nobody had told it."""

    async def scenario() -> None:
        async with a_node_that_stands_still(children, private_redis, key_prefix, tmp_path) as of:
            it = of.it
            assert (await it.http("POST", "/user/logout", {"token": of.of_ann["token"]}))[0] == 200
            authorization = {"Authorization": "Bearer operator"}
            body = {"session_id": of.of_bob["session_id"]}
            assert (await it.http("POST", "/operator/kick", body, authorization))[0] == 200
            of.node.send_signal(signal.SIGCONT)
            for client, code in ((of.ann, 1000), (of.bob, 4410)):
                await asyncio.wait_for(client.wait_closed(), 5)
                assert client.close_code == code
            for ready, user_id in ((of.of_ann, "ann"), (of.of_bob, "bob")):
                assert it.records(ready["session_id"], user_id) == (None, None, False)
            assert len(of.watcher.told) == 4, "nobody is online again"

    run(scenario())


def test_several_nodes_share_a_port_and_the_kernel_spreads_connections(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    nodes, ports = [], [{"port": 0}]
    for name in ("node-1", "node-2"):
        child, listens = start_node(
            children,
            private_redis,
            key_prefix,
            tmp_path / name,
            node=name,
            port=ports[-1]["port"],
            reuse_port=True,
        )
        nodes.append(child)
        ports.append(listens)
    assert ports[1]["port"] == ports[2]["port"]
    assert ports[1]["http_port"] != ports[2]["http_port"]

    async def scenario() -> None:
        clients = []
        for n in range(20):
            client, one = await join(ports[1], f"user-{n}")
            clients.append((client, one["connection_id"].partition(".")[0]))
        assert {on for _, on in clients} == {"node-1", "node-2"}
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for client, _ in clients:
            await asyncio.wait_for(client.wait_closed(), 5)
            assert client.close_code == 1001

    run(scenario())
    for name, node in zip(("node-1", "node-2"), nodes, strict=True):
        assert node.wait(10) == 0, node.log_tail()
        logged = read_log(tmp_path / name / "events.jsonl").events
        assert {event.node for event in logged} == {name}


def test_a_port_that_somebody_does_not_share_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "config.json").write_text(json.dumps({"port": port, "reuse_port": True}))
        program = [sys.executable, "-m", "reference_server", "--config"]
        argv = [*program, str(tmp_path / "config.json")]
        ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert str(port) in ended.stderr and "Traceback" not in ended.stderr
