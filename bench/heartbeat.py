"""What a heartbeat costs: this gateway against bare `websockets`, and against a task a connection.

    python -m bench.heartbeat [--clients 2000] [--interval-s 1] [--seconds 6] [--rounds 3]

The servers take turns under the same load, each in a process of its own, with clients on raw sockets in
another one. CPU is the server process's, user and system, from the kernel; a beat is a heartbeat and its
answer. Printed per beat and per connection, and as ratios to bare `websockets`, all of one run: figures of
different runs or machines do not compare.

* bare: `websockets.broadcast` to slices of the connections, answers through `async for`; no store;
* gateway: this project's, records kept alive in Redis, deadlines watched, every answer noted;
* ledger: the same with the durable ledger: ``last_active_time`` of whoever beat, in a batch each second;
* each-beat: the gateway as presets have it that prolong the records at every beat;
* lines: the gateway with a log line for every heartbeat;
* tasks: a task a connection that sleeps, sends, and awaits two EXPIRE, as such gateways are often written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.figures import Figure, add_save, cpu_s, keep
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import redis_server
from reference_server.frames import HEARTBEAT
from reference_server.websocket.listener import BACKLOG, raise_descriptor_limit

KINDS = ("bare", "gateway", "ledger", "each-beat", "lines", "tasks")
GATEWAYS = {"gateway", "ledger", "each-beat", "lines"}
MOST_CPU_RATIO, MOST_BYTES = 1.5, 16_384
_TEXT = '{"type":"heartbeat"}'
_ANSWER = b"\x81\x8f\0\0\0\0" + b'{"type":"pong"}'  # masked by zeros: the same work for the server
_SLICE_S = 0.01


@dataclass(frozen=True)
class Cost:
    cpu_us: float  # a beat
    bytes: float  # a connection
    beats_per_s: float


# -- the servers compared with -------------------------------------------------------------------


async def _bare(ready: Path, interval_s: float) -> None:
    connections: list[ServerConnection] = []

    async def handle(connection: ServerConnection) -> None:
        connections.append(connection)
        async for _ in connection:
            pass

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=BACKLOG) as server:
        _say(ready, server.sockets[0].getsockname()[1])
        slices = max(1, round(interval_s / _SLICE_S))
        due_s, n = time.monotonic(), 0
        while True:
            due_s += _SLICE_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            broadcast(connections[n::slices], _TEXT)
            n = (n + 1) % slices


async def _tasks(ready: Path, interval_s: float, redis_url: str) -> None:
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=50, timeout=None)
    redis = Redis(connection_pool=pool)
    numbers = iter(range(1_000_000_000))

    async def beat(connection: ServerConnection, n: int) -> None:
        await asyncio.sleep(interval_s * (n % 1000) / 1000)
        while True:
            await connection.send(_TEXT)
            await redis.expire(f"session:{n}", 86400)
            await redis.expire(f"status:{n}", 7200)
            await asyncio.sleep(interval_s)

    async def handle(connection: ServerConnection) -> None:
        n = next(numbers)
        await redis.set(f"session:{n}", "user", ex=86400)
        await redis.set(f"status:{n}", "session", ex=7200)
        task = asyncio.create_task(beat(connection, n))
        async for _ in connection:
            pass
        task.cancel()

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=BACKLOG) as server:
        _say(ready, server.sockets[0].getsockname()[1])
        await server.serve_forever()


def _say(ready: Path, port: int) -> None:
    draft = ready.with_suffix(".draft")
    draft.write_text(json.dumps({"port": port}))
    draft.replace(ready)


# -- the clients ---------------------------------------------------------------------------------


def _load(port: int, paths: list[str], out: Path, connected: Path) -> None:
    """Connect, answer heartbeats for ever, write the count of answers ten times a second."""
    raise_descriptor_limit()
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}
    for path in paths:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        sock.sendall(request.encode())
        assert b" 101 " in sock.recv(4096)
        sock.setblocking(False)
        poll.register(sock, select.EPOLLIN)
        socks[sock.fileno()] = sock
    connected.touch()
    answers, write_s = 0, 0.0
    while True:
        for fd, _ in poll.poll(0.1):
            for _ in range(socks[fd].recv(4096).count(HEARTBEAT)):
                socks[fd].sendall(_ANSWER)
                answers += 1
        if time.monotonic() > write_s:
            out.write_text(f"{answers} ")
            write_s = time.monotonic() + 0.1


# -- the measurement -----------------------------------------------------------------------------


def measure(kind: str, options: argparse.Namespace, redis_url: str, folder: Path) -> Cost:
    """Run one server under load and return what it cost."""
    folder.mkdir()
    ready, out, connected = folder / "ready.json", folder / "answers", folder / "connected"
    with Children() as children:
        server = _start_server(kind, options, redis_url, children, folder, ready)
        _wait_for(ready, children)
        ports = json.loads(ready.read_text())
        process = psutil.Process(server.pid)
        paths = ["/"] * options.clients
        if kind in GATEWAYS:
            paths = [f"/ws/{_log_in(ports['http_port'], n)}" for n in range(options.clients)]
        (folder / "paths.json").write_text(json.dumps(paths))
        before = process.memory_info().rss
        load = [sys.executable, "-m", "bench.heartbeat", "--role", "load", "--port", str(ports["port"])]
        children.start("load", [*load, "--folder", str(folder)], log=folder / "load.log")
        _wait_for(connected, children)
        time.sleep(options.interval_s + 0.5)
        held = process.memory_info().rss - before
        began_s, first, cpu = time.monotonic(), _answers(out, children), cpu_s(process.pid)
        time.sleep(options.seconds)
        children.check()
        last, used_s, seconds = _answers(out, children), cpu_s(process.pid) - cpu, time.monotonic() - began_s
    beats = last - first
    return Cost(1e6 * used_s / beats, held / options.clients, beats / seconds)


def _start_server(
    kind: str, options: argparse.Namespace, redis_url: str, children: Children, folder: Path, ready: Path
) -> Child:
    if kind not in GATEWAYS:
        argv = ["-m", "bench.heartbeat", "--role", kind, "--folder", str(folder), "--redis", redis_url]
        argv += ["--interval-s", str(options.interval_s)]
    else:
        policy = {
            "heartbeat_interval": f"{options.interval_s}s",
            "heartbeat_timeout": f"{options.interval_s / 3:.3f}s",
            "max_failures": 1000,  # clients that wait for all to connect do not answer yet
            "session_timeout": None,
        }
        config = folder / "config.json"
        text = {
            "redis_url": redis_url,
            "policy": policy,
            "ready_file": str(ready),
            "event_log": str(folder / "events.jsonl"),
        }
        if kind == "ledger":
            text["ledger_url"] = f"sqlite:///{folder.absolute()}/ledger.db"
        if kind == "each-beat":
            text["records"] = {"refreshed": "at_each_frame"}
        if kind == "lines":
            text["log_level"] = "debug"
        text["records"] = {"token_in_path": True}
        config.write_text(json.dumps(text))
        argv = ["-m", "reference_server", "--config", str(config)]
    return children.start(kind, [sys.executable, *argv], log=folder / "server.log")


def _wait_for(path: Path, children: Children) -> None:
    while not path.exists():
        children.check()
        time.sleep(0.02)


def _log_in(http_port: int, n: int) -> str:
    body = json.dumps({"user_id": f"user-{n}"}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/user/login", body) as answer:
        return str(json.loads(answer.read())["token"])


def _answers(out: Path, children: Children) -> int:
    while not out.exists() or not (text := out.read_text()).endswith(" "):
        children.check()
        time.sleep(0.001)  # not begun, or in the middle of being written
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description="What a heartbeat costs.")
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--interval-s", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--role", choices=("bare", "tasks", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--redis", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    add_save(parser)
    options = parser.parse_args()
    if options.role == "load":
        paths = json.loads((options.folder / "paths.json").read_text())
        _load(options.port, paths, options.folder / "answers", options.folder / "connected")
    if options.role in ("bare", "tasks"):
        raise_descriptor_limit()
        ready = options.folder / "ready.json"
        if options.role == "bare":
            uvloop.run(_bare(ready, options.interval_s))
        uvloop.run(_tasks(ready, options.interval_s, options.redis))
    costs: dict[str, list[Cost]] = {kind: [] for kind in KINDS}
    with (
        tempfile.TemporaryDirectory() as folder,
        Children() as children,
        redis_server(None, children, Path(folder)) as redis,
    ):
        for n in range(options.rounds):
            for kind in KINDS:  # in turns: what else the machine does meets all alike
                costs[kind].append(measure(kind, options, redis.url, Path(folder) / f"{kind}-{n}"))
    return report(costs, options)


def report(costs: dict[str, list[Cost]], options: argparse.Namespace) -> int:
    """Print medians over the rounds; return 1 when a limit is missed."""
    middle = {
        kind: Cost(*(statistics.median(getattr(c, f) for c in rows) for f in Cost.__annotations__))
        for kind, rows in costs.items()
    }
    print(
        f"{options.clients} clients, a beat every {options.interval_s:g} s, median of {options.rounds} rounds"
    )
    print(f"{'':10}{'µs a beat':>12}{'to bare':>10}{'KiB a connection':>20}{'beats a second':>18}")
    bare = middle["bare"]
    for kind, cost in middle.items():
        ratio = cost.cpu_us / bare.cpu_us
        print(f"{kind:10}{cost.cpu_us:12.1f}{ratio:9.2f}×{cost.bytes / 1024:20.1f}{cost.beats_per_s:18.0f}")
    ours = middle["gateway"]
    good = ours.cpu_us <= MOST_CPU_RATIO * bare.cpu_us and ours.cpu_us <= middle["tasks"].cpu_us / 2
    good = good and ours.bytes <= MOST_BYTES
    print(
        f"limits: {MOST_CPU_RATIO}× bare, half of tasks, {MOST_BYTES // 1024} KiB: {'met' if good else 'MISSED'}"
    )
    keep(
        options.save,
        "heartbeat",
        [
            Figure(
                "processor, a heartbeat",
                ours.cpu_us / bare.cpu_us,
                against="bare websockets",
                most=MOST_CPU_RATIO,
            ),
            Figure(
                "processor, a heartbeat",
                ours.cpu_us / middle["tasks"].cpu_us,
                against="a task a client",
                most=0.5,
            ),
            Figure("memory of a connection", ours.bytes / 1024, "KiB", most=MOST_BYTES / 1024),
        ],
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
