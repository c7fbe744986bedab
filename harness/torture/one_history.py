"""One history: start a cluster, let clients and nemesis follow a schedule, heal everything, look, end everything.

    0          length                 + settle            looks, audit, probes
    ├── steps ───┤── no faults any more ──┤────────────────────┤

From a schedule to a history (`history.py`). All waiting is in one event loop of the main thread, in the hub's network
namespace where there are hosts. Judges nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from asyncio import create_task
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from harness.events.log import read_log
from harness.real.network.hosts import Hosts, hosts_network
from harness.real.processes.children import ChildDied, Children
from harness.real.processes.gateways import OPERATOR_TOKEN, Nodes
from harness.real.processes.redis import RedisServer, redis_server
from harness.runs.directory import RunDir
from harness.torture.checker import BOUNDS
from harness.torture.clients import WATCHER, Address, Client, Everybody
from harness.torture.history import History
from harness.torture.nemesis import Nemesis, RedisProxy
from harness.torture.node import move_clock
from harness.torture.schedule import KINDS, Schedule
from harness.user_sessions.audit import AuditTarget, CannotAudit, audit
from reference_server.config import GatewayConfig
from reference_server.events import Cause, EventKind
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["NODE_PROGRAM", "run_history"]

NODE_PROGRAM = (sys.executable, "-m", "harness.torture.node")

_LOOK_S = 0.25
_LAG_LOOK_S = 0.05
_AUDIT_S = 1.5
_START_S = 30.0
_POLICY = LivenessPolicy(
    heartbeat_interval=BOUNDS.interval_s,
    heartbeat_timeout=BOUNDS.timeout_s,
    max_failures=BOUNDS.failures,
    session_timeout=None,
    sweep_interval=1.0,
    session_ttl=300.0,
    status_ttl=BOUNDS.status_ttl_s,
    resume_window=BOUNDS.resume_s,
)


def run_history(
    schedule: Schedule, run: RunDir, abilities: Collection[str], program: Sequence[str]
) -> History:
    """Make one history.

    Args:
        schedule: what happens.
        run: an empty directory for logs, configurations and the ledger.
        abilities: as of `schedule.draw`; with `hosts` each node has a network namespace.
        program: the command line of a node, see `node.py`; another one has a bug seeded.

    Raises:
        CannotRun: a process does not start.
        RedisUnavailable: no Redis.
    """
    history = History()
    with ExitStack() as stack:
        hosts = stack.enter_context(hosts_network(schedule.nodes)) if "hosts" in abilities else None
        children = stack.enter_context(Children())
        store = stack.enter_context(redis_server(None, children, run.logs, append_only=True))
        with asyncio.Runner() as runner:
            try:
                runner.run(_follow(schedule, run, history, children, store, hosts, program))
            except ChildDied as error:  # that too is something that must not be
                history.note("died", name=error.name, says=str(error))
        _note_reapings(history, run)
    return history


async def _follow(
    schedule: Schedule,
    run: RunDir,
    history: History,
    children: Children,
    store: RedisServer,
    hosts: Hosts | None,
    program: Sequence[str],
) -> None:
    proxies = [
        RedisProxy(int(store.url.split(":")[2].split("/")[0]), hosts is not None)
        for _ in range(schedule.nodes)
    ]
    looking = redis.asyncio.Redis.from_url(store.url, socket_timeout=0.3, decode_responses=True)
    lag = _Lag()
    clients: list[Client] = []
    tasks = [create_task(lag.run())]
    try:
        configs = [
            _config(schedule, run, n, await proxy.start(), "127.0.0.1" if hosts is None else hosts.address(n))
            for n, proxy in enumerate(proxies, 1)
        ]
        files = [run.write_gateway_config(config) for config in configs]
        for n, file in enumerate(files, 1):
            move_clock(file, schedule.clock_of(n))
        nodes = Nodes(children, run, configs, hosts=hosts, program=program)
        async with asyncio.timeout(_START_S):
            while sum(node.listens() for node in nodes) < len(
                nodes
            ):  # each is looked at: its ports are known then
                children.check()
                await asyncio.sleep(0.02)
        addresses = [Address(nodes.address(node), node.port, node.http_port) for node in nodes]
        everybody = Everybody(history, schedule, addresses, OPERATOR_TOKEN)
        nemesis = Nemesis(
            history, nodes, store, proxies, hosts, run.path / "ledger.db", files, schedule.clock_of
        )
        clients += [Client(n, everybody, schedule.seed) for n in range(schedule.clients)]
        clients += [Client(WATCHER + n, everybody, schedule.seed) for n in range(schedule.nodes)]
        for watcher in clients[schedule.clients :]:
            watcher.wanted = True
        history.begin()
        lag.most_s = 0.0
        tasks += [create_task(client.run()) for client in clients]
        tasks.append(create_task(_watch_store(looking, store, nemesis, history)))
        for step in schedule.steps:
            await asyncio.sleep(step.at_s - history.now_s)
            if KINDS[step.kind].side == "client":
                clients[step.target].steps.put_nowait(step)
            else:
                nemesis.do(step)
        await asyncio.sleep(max(0.0, schedule.length_s - history.now_s))
        await nemesis.heal()
        history.note("healed")
        await asyncio.sleep(schedule.settle_s)
        history.note("settled", up=[c.number for c in clients if c.wanted])
        children.check()
        await _final(schedule, run, history, nodes, store, everybody, clients, lag)
        for node in nodes:
            nodes.kill(node.number)  # in order would take seconds, and shows nothing more
    finally:
        for client in clients:
            client.end()
        left = set(tasks)
        while left:  # a library may take a cancellation for its own timeout
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=1.0)
        for proxy in proxies:
            proxy.close()
        with suppress(RedisError):
            await looking.aclose()


def _config(schedule: Schedule, run: RunDir, number: int, redis_url: str, host: str) -> GatewayConfig:
    return GatewayConfig(
        node=f"node-{number}",
        host=host,
        redis_url=redis_url,
        ledger_url=run.ledger_url,
        policy=_POLICY,
        session_survives_connection=schedule.survives_connection,
        one_connection_per=schedule.one_connection_per,
        operator_token=OPERATOR_TOKEN,
        lease_ttl_s=BOUNDS.lease_ttl_s,
        lease_renew_s=BOUNDS.lease_renew_s,
        lease_check_s=BOUNDS.lease_check_s,
        event_log=run.log("gateway", f"node-{number}"),
        origin_s=0.0,
        ready_file=run.ready_file(f"node-{number}"),
        drain_timeout_s=1.0,
        auth_timeout_s=3.0,
        close_timeout_s=1.0,
        seed=number,
    )


class _Lag:
    """How late this process's own loop was at the most: a client that answers late is not healthy."""

    def __init__(self) -> None:
        self.most_s = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _LAG_LOOK_S
            await asyncio.sleep(_LAG_LOOK_S)
            self.most_s = max(self.most_s, loop.time() - due_s)


async def _look(client: Any, prefix: str) -> dict[str, Any]:
    """What Redis shows: who is online, and in which session."""
    keys = sorted(await client.keys(f"{prefix}status:*"))
    values = await client.mget(keys) if keys else []
    statuses = {k.removeprefix(f"{prefix}status:"): v for k, v in zip(keys, values, strict=True) if v}
    return {"statuses": statuses, "online": sorted(await client.zrange(f"{prefix}online", 0, -1))}


async def _watch_store(client: Any, store: RedisServer, nemesis: Nemesis, history: History) -> None:
    seen: dict[str, Any] = {}
    while True:
        await asyncio.sleep(_LOOK_S)
        if nemesis.store_answers:
            with suppress(RedisError, OSError):
                found = await _look(client, store.key_prefix)
                if found != seen:
                    history.note("store", **found)
                    seen = found


async def _final(
    schedule: Schedule,
    run: RunDir,
    history: History,
    nodes: Nodes,
    store: RedisServer,
    everybody: Everybody,
    clients: Sequence[Client],
    lag: _Lag,
) -> None:
    """Compare memory, Redis and ledger; read the ledger; try the tokens that must, or must not, let anybody in."""
    target = AuditTarget(
        tuple(nodes.http_urls.split(",")), store.url, store.key_prefix, run.ledger_url, OPERATOR_TOKEN
    )
    try:
        found = await asyncio.to_thread(audit, target, _AUDIT_S)
        told = [asdict(one) for one in found.differences]
    except CannotAudit as error:
        told = [{"kind": "cannot_audit", "subject": "", "sentence": str(error)}]
    rows = await asyncio.to_thread(_rows, run.path / "ledger.db")
    history.note("final", differences=told, rows=rows, lag_s=round(lag.most_s, 3))
    node = 0
    for client in clients:
        client.wanted = False
        for session, token in list(client.tokens.items()):  # a client may still be logging in
            node = node % len(nodes) + 1
            if client.connection is None or not client.connection.open or session != client.session:
                outcome, code = await everybody.probe(token, node)
                history.note("probe", session=session, outcome=outcome, code="" if outcome == "ok" else code)


def _note_reapings(history: History, run: RunDir) -> None:
    """Note which sessions the nodes ended as a dead node's. Their logs tell; a kill loses the last 0.2 s of one."""
    for event in read_log(*sorted(run.logs.glob("gateway-*.jsonl"))).events:
        if event.kind is EventKind.SUSPECTED and event.cause == Cause.NODE_LEASE:
            about = {"session": event.session_id, "owner": event.connection_id, "by": event.node}
            history.insert(event.time_s, "reaped", **about)


def _rows(path: Path) -> dict[str, str | None]:
    with sqlite3.connect(path) as ledger:
        return dict(ledger.execute("SELECT session_id, ended_by FROM user_sessions").fetchall())
