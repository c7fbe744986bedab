"""What a handshake with authentication costs the gateway, against bare `websockets` that reads one message.

    python -m bench.handshakes [--clients 2000] [--at-once 64] [--rounds 3]

Servers take turns under the same load: raw sockets in another process, so many at a time, each with a handshake, a text
message and its answer; all stay until the last one is in. The gateway's have logged in before, which does not count;
it claims the session in Redis, writes the status, and counts on its heartbeats from then on. CPU is the server
process's, user and system; figures of different runs or machines do not compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from websockets.asyncio.server import ServerConnection, serve

from bench.figures import Figure, add_save, cpu_s, keep
from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server
from reference_server.websocket.listener import BACKLOG, raise_descriptor_limit

KINDS = ("bare", "gateway")
MOST_TO_BARE = 1.3
_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def _bare(ready: Path) -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.send(await connection.recv())
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=BACKLOG) as server:
        draft = ready.with_suffix(".draft")
        draft.write_text(json.dumps({"port": server.sockets[0].getsockname()[1]}))
        draft.replace(ready)
        await server.serve_forever()


async def _log_in(port: int, clients: int) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tokens = []
    for n in range(clients):
        body = json.dumps({"user_id": f"user-{n}"}).encode()
        head = f"POST /user/login HTTP/1.1\r\nHost: b\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(x for x in answer.lower().split(b"\r\n") if x.startswith(b"content-length"))
        tokens.append(json.loads(await reader.readexactly(int(length.split(b":")[1])))["token"])
    writer.close()
    return tokens


async def _connect_all(port: int, tokens: list[str], at_once: int, pid: int) -> float:
    """Return the server's seconds of CPU from the first handshake to the last answer."""
    gate, held = asyncio.Semaphore(at_once), []

    async def connect(token: str) -> None:
        message = json.dumps({"type": "auth", "token": token}).encode()
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            held.append(writer)
            writer.write(_HANDSHAKE)
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            # Masked by zeros: the same work for the server.
            writer.write(bytes((0x81, 0x80 | len(message), 0, 0, 0, 0)) + message)
            assert (await reader.readexactly(2))[0] == 0x81

    before_s = cpu_s(pid)
    await asyncio.gather(*map(connect, tokens))
    used_s = cpu_s(pid) - before_s
    for writer in held:
        writer.transport.abort()
    return used_s


def _load(port: int, http_port: int | None, pid: int, clients: int, at_once: int) -> float:
    raise_descriptor_limit()
    tokens = ["x" * 43] * clients if http_port is None else uvloop.run(_log_in(http_port, clients))
    return uvloop.run(_connect_all(port, tokens, at_once, pid))


def measure(kind: str, options: argparse.Namespace, redis_url: str, folder: Path) -> float:
    """Return the microseconds of the server's processor that one newcomer takes."""
    folder.mkdir()
    ready = folder / "ready.json"
    config = {"redis_url": redis_url, "ready_file": str(ready), "ledger_url": None}
    (folder / "config.json").write_text(json.dumps(config))
    argv = [sys.executable, "-m", "reference_server", "--config", str(folder / "config.json")]
    if kind == "bare":
        argv = [sys.executable, "-m", "bench.handshakes", "--bare", str(ready)]
    with Children() as children:
        server = children.start(kind, argv, log=folder / "server.log")
        while not ready.exists():
            children.check()
            time.sleep(0.02)
        ports = json.loads(ready.read_text())
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            where = (ports["port"], ports.get("http_port"), server.pid)
            pool.apply(_load, (*where, options.at_once, options.at_once))  # warm
            return 1e6 * pool.apply(_load, (*where, options.clients, options.at_once)) / options.clients


def main() -> int:
    parser = argparse.ArgumentParser(description="What a handshake costs.")
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    add_save(parser)
    options = parser.parse_args()
    if options.bare is not None:
        raise_descriptor_limit()
        uvloop.run(_bare(options.bare))
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with (
        tempfile.TemporaryDirectory() as name,
        Children() as children,
        redis_server(None, children, Path(name)) as redis,
    ):
        for n in range(options.rounds):
            for kind in KINDS:
                found[kind].append(measure(kind, options, redis.url, Path(name) / f"{kind}-{n}"))
    bare, gateway = (statistics.median(found[kind]) for kind in KINDS)
    ratios = sorted(b / a for a, b in zip(*found.values(), strict=True))
    ratio = statistics.median(ratios)
    print(f"{options.clients} newcomers, {options.at_once} at once, median of {options.rounds} rounds")
    print(f"bare {bare:.0f} µs, gateway {gateway:.0f} µs: {ratio:.2f}× ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    figures = [
        Figure(
            "processor of a handshake with authentication", ratio, "×", "bare websockets", most=MOST_TO_BARE
        ),
        Figure("processor of a handshake with authentication", gateway, "µs"),
    ]
    return 0 if keep(options.save, "handshakes", figures) else 1


if __name__ == "__main__":
    sys.exit(main())
