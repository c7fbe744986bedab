"""Nodes as processes: one is killed or stands still, and its peer sees to its sessions; one port for several."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect

from harness.events.log import read_log
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer
from reference_server.config import GatewayConfig
from reference_server.events import Cause, EventKind
from reference_server.supervisor import node_config
from tests.reference_server.gateways import QUIET, Running, run, running, until
from tests.support import is_gone, wait_until

pytestmark = pytest.mark.real

TTL_S, RENEW_S, CHECK_S = 0.9, 0.3, 0.2
LEASE = {"lease_ttl_s": TTL_S, "lease_renew_s": RENEW_S, "lease_check_s": CHECK_S}


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


def start(
    children: Children, server: RedisServer, prefix: str, folder: Path, *argv: str, **options: Any
) -> tuple[Child, dict[str, Any]]:
    ready = folder / "ready.json"
    policy = {"heartbeat_interval": None, "session_timeout": None, "resume_window": "0.3s"}
    config = {
        "redis_url": server.url, "key_prefix": prefix, "ready_file": str(ready), "policy": policy,
        "event_log": str(folder / "events.jsonl"), **LEASE, **options,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    program = [sys.executable, "-m", "reference_server", "--config", str(folder / "config.json")]
    child = children.start("gateway", [*program, *argv], log=folder / "log", may_finish=True)
    wait_until(lambda: ready.exists() or child.returncode is not None, "the ready file", 30.0)
    children.check()
    return child, json.loads(ready.read_text())


def log_in(http_port: int, user_id: str) -> str:
    body = json.dumps({"user_id": user_id}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/user/login", body) as answer:
        return str(json.loads(answer.read())["session_id"])


async def join(ports: dict[str, Any], user_id: str) -> tuple[ClientConnection, dict[str, Any]]:
    http_port = ports.get("http_port") or ports["nodes"][0]["http_port"]
    session_id = await asyncio.to_thread(log_in, http_port, user_id)
    url = f"ws://127.0.0.1:{ports['port']}/ws/{session_id}"
    client = await connect(url, ping_interval=None, close_timeout=1)
    ready = json.loads(await client.recv())
    assert ready["type"] == "ready"
    return client, ready | {"session_id": session_id}


async def watching(it: Running, *user_ids: str) -> Any:
    watcher = await it.join("watcher")
    await watcher.send(type="watch", user_ids=list(user_ids))
    await watcher.receive()
    watcher.live()
    return watcher


def test_a_killed_node_s_sessions_are_ended_by_its_peer_within_the_bound(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    killed, ports = start(children, private_redis, key_prefix, tmp_path, node="a")
    (tmp_path / "b").mkdir()

    async def scenario() -> None:
        options: dict[str, Any] = {"node": "b", **LEASE}
        async with running(private_redis.url, key_prefix, tmp_path / "b", QUIET, **options) as it:
            watcher = await watching(it, "ann", "bob")
            ann, ready = await join(ports, "ann")
            _bob, bob_ready = await join(ports, "bob")
            await until(lambda: len(watcher.told) == 2, "both are online")
            await asyncio.sleep(TTL_S)  # b has seen a lease's length without a stall
            began_s = it.now_s()
            killed.send_signal(signal.SIGKILL)
            await ann.wait_closed()
            again = await it.join("ann", ready["session_id"])  # back in time, on the other node
            assert again.ready["resumed"]
            await until(lambda: len(watcher.told) == 3, "bob's end is told")
            took_s = it.now_s() - began_s
            lag_s = 0.05 + 4 * it.lag_s()
            assert TTL_S - RENEW_S - 0.05 <= took_s <= TTL_S + CHECK_S + lag_s
            assert watcher.told[2] == {
                "type": "offline", "user_id": "bob", "session_id": bob_ready["session_id"],
            }  # fmt: skip
            assert it.records(bob_ready["session_id"], "bob") == (None, None, False)
            (reaped,) = it.events(EventKind.SUSPECTED)
            assert (reaped.cause, reaped.node) == (Cause.NODE_LEASE, "b")
            assert reaped.connection_id == bob_ready["connection_id"]
            assert reaped.detail["incarnation"].startswith("a.")
            owner = again.ready["connection_id"]
            expected = (f"ann|{owner}", f"{again.session_id}|{owner}", True)
            assert it.records(again.session_id, "ann") == expected
            left = it.store.keys(f"{key_prefix}*a.*")
            assert left == [], "nothing of the dead node is left"

    run(scenario())


def test_a_node_that_stood_still_and_was_declared_dead_takes_its_sessions_back(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    still, ports = start(children, private_redis, key_prefix, tmp_path, node="a")
    (tmp_path / "b").mkdir()

    async def scenario() -> None:
        options: dict[str, Any] = {"node": "b", **LEASE}
        async with running(private_redis.url, key_prefix, tmp_path / "b", QUIET, **options) as it:
            watcher = await watching(it, "ann", "bob")
            ann, _ = await join(ports, "ann")
            bob, ready = await join(ports, "bob")
            await until(lambda: len(watcher.told) == 2, "both are online")
            still.send_signal(signal.SIGSTOP)
            await until(lambda: len(watcher.told) == 4, "both are declared dead")
            newer = await it.join("ann")
            await until(lambda: len(watcher.told) == 5, "ann is online, here")
            still.send_signal(signal.SIGCONT)
            await asyncio.wait_for(ann.wait_closed(), 5)
            assert ann.close_code == 4409
            await until(lambda: len(watcher.told) == 6, "bob is online again")
            assert [(told["type"], told["user_id"]) for told in watcher.told[4:]] == [
                ("online", "ann"), ("online", "bob"),
            ]  # fmt: skip
            owner = ready["connection_id"]
            expected = (f"bob|{owner}", f"{ready['session_id']}|{owner}", True)
            assert it.records(ready["session_id"], "bob") == expected
            assert it.records(newer.session_id, "ann")[1] is not None
            await bob.close()
            await until(lambda: len(watcher.told) == 7, "bob goes, as ever")

    run(scenario())


def test_several_processes_share_a_port_and_end_together(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    parent, ready = start(
        children, private_redis, key_prefix, tmp_path, "--processes", "2", http_port=0
    )
    nodes = ready["nodes"]
    assert ready["pid"] == parent.pid
    assert [node["node"] for node in nodes] == ["node-1", "node-2"]
    assert {node["port"] for node in nodes} == {ready["port"]}
    assert nodes[0]["http_port"] != nodes[1]["http_port"]
    for node in nodes:
        own = json.loads((tmp_path / f"ready-{node['node']}.json").read_text())
        assert own["pid"] == node["pid"]

    async def scenario() -> None:
        clients = []
        for n in range(20):
            client, one = await join(ready, f"user-{n}")
            clients.append((client, one["connection_id"].partition(".")[0]))
        assert {on for _, on in clients} == {"node-1", "node-2"}, "the kernel spreads them"
        parent.send_signal(signal.SIGTERM)
        for client, _ in clients:
            await asyncio.wait_for(client.wait_closed(), 5)
            assert client.close_code == 1001

    run(scenario())
    assert parent.wait(10) == 0, parent.log_tail()
    assert all(is_gone(node["pid"]) for node in nodes)
    for node in nodes:
        logged = read_log(tmp_path / f"events-{node['node']}.jsonl").events
        assert {event.node for event in logged} == {node["node"]}


@pytest.mark.parametrize("who", ["a node", "the parent"])
def test_when_one_dies_unasked_none_is_left(
    children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path, who: str
) -> None:
    parent, ready = start(children, private_redis, key_prefix, tmp_path, "--processes", "2")
    pids = [node["pid"] for node in ready["nodes"]]
    if who == "a node":
        psutil.Process(pids[1]).kill()
        assert parent.wait(10) == 1
        assert "node-2 ended unasked, exit code -9" in parent.log_tail()
    else:
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: all(is_gone(pid) for pid in pids), "the others end")


def test_a_port_that_somebody_does_not_share_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "config.json").write_text(json.dumps({"port": port}))
        argv = ["--config", str(tmp_path / "config.json"), "--processes", "2"]
        program = [sys.executable, "-m", "reference_server", *argv]
        ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"port {port}" in ended.stderr and "Traceback" not in ended.stderr


def test_what_differs_from_node_to_node(tmp_path: Path) -> None:
    config = GatewayConfig(http_port=8000, seed=5, event_log=tmp_path / "events.jsonl")
    second = node_config(config, 2, 9000, tmp_path / "t")
    assert (second.node, second.port, second.http_port, second.seed, second.reuse_port) == (
        "node-2", 9000, 8001, 7, True,
    )  # fmt: skip
    assert second.event_log == tmp_path / "events-node-2.jsonl"
    assert second.ready_file == tmp_path / "t" / "ready-node-2.json"
    named = node_config(GatewayConfig(node="eu"), 1, 9000, tmp_path)
    assert (named.node, named.http_port, named.event_log) == ("eu-1", 0, None)
