"""What the durable ledger costs a login: logins a second and how long one waits, with and without it.

    python -m bench.logins [--logins 3000] [--at-once 64] [--rounds 3] [--ledger URL]

Gateways take turns under the same load: so many clients in another process, each logging in again as soon
as it is answered, on a connection that it keeps. A login is committed before it is answered; what shows is
how many share a commit. Then one client alone, whose login has a commit of its own: beyond one fsync of the same disk
in the same minute it may wait for 0.6 ms. Figures of different machines, or of different disks, do not compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.figures import Figure, add_save, cpu_s, keep
from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server


async def _client(port: int, name: str, logins: int, waits_s: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for n in range(logins):
        body = json.dumps({"user_id": f"{name}-{n}"}).encode()
        began_s = time.monotonic()
        head = f"POST /user/login HTTP/1.1\r\nHost: b\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer.split(b"\r\n", 1)[0], answer
        length = next(x for x in answer.lower().split(b"\r\n") if x.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        waits_s.append(time.monotonic() - began_s)
    writer.close()


async def _all_clients(port: int, logins: int, at_once: int) -> list[float]:
    waits_s: list[float] = []
    each = logins // at_once
    await asyncio.gather(*(_client(port, f"u{n}", each, waits_s) for n in range(at_once)))
    return waits_s


def _load(port: int, logins: int, at_once: int) -> tuple[float, list[float]]:
    began_s = time.monotonic()
    waits_s = uvloop.run(_all_clients(port, logins, at_once))
    return time.monotonic() - began_s, waits_s


def measure(
    ledger: str | None, logins: int, at_once: int, redis_url: str, folder: Path
) -> tuple[float, float, float, float]:
    """Return logins a second, median and 99th percentile of the wait in ms, CPU of the gateway in µs a login."""
    folder.mkdir()
    ready = folder / "ready.json"
    config = {"redis_url": redis_url, "ready_file": str(ready), "ledger_url": ledger}
    (folder / "config.json").write_text(json.dumps(config))
    argv = [sys.executable, "-m", "reference_server", "--config", str(folder / "config.json")]
    with Children() as children:
        gateway = children.start("gateway", argv, log=folder / "gateway.log")
        while not ready.exists():
            children.check()
            time.sleep(0.02)
        port = json.loads(ready.read_text())["http_port"]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(_load, (port, at_once * 2, at_once))  # warm
            before_s = cpu_s(gateway.pid)
            seconds, waits_s = pool.apply(_load, (port, logins, at_once))
            used_s = cpu_s(gateway.pid) - before_s
    waits_ms = sorted(1000 * wait for wait in waits_s)
    return (
        len(waits_ms) / seconds,
        statistics.median(waits_ms),
        waits_ms[int(0.99 * len(waits_ms))],
        1e6 * used_s / len(waits_ms),
    )


def fsync_ms(folder: Path, times: int) -> float:
    """Return how long a page, appended, takes to the disk: median, ms."""
    waits_s = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(times):
            began_s = time.monotonic()
            file.write(bytes(4096))
            os.fdatasync(file)
            waits_s.append(time.monotonic() - began_s)
    return 1000 * statistics.median(waits_s)


def main() -> int:
    parser = argparse.ArgumentParser(description="What the durable ledger costs a login.")
    parser.add_argument("--logins", type=int, default=3000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ledger", help="another one, say postgresql+psycopg://…")
    add_save(parser)
    options = parser.parse_args()
    kinds = ["none", "sqlite"] + (["given"] if options.ledger else [])
    found: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in kinds}
    alone_ms, disk_ms = [], []
    with (
        tempfile.TemporaryDirectory() as name,
        Children() as children,
        redis_server(None, children, Path(name)) as redis,
    ):
        for n in range(options.rounds):
            for kind in kinds:
                folder = Path(name) / f"{kind}-{n}"
                urls = {"sqlite": f"sqlite:///{folder}/ledger.db", "given": options.ledger}
                load = (options.logins, options.at_once)
                found[kind].append(measure(urls.get(kind), *load, redis.url, folder))
            folder = Path(name) / f"alone-{n}"
            few = max(1, options.logins // 10)
            alone_ms.append(measure(f"sqlite:///{folder}/ledger.db", few, 1, redis.url, folder)[1])
            disk_ms.append(fsync_ms(folder, few))
    print(f"{options.logins} logins, {options.at_once} at once, median of {options.rounds} rounds")
    print(f"{'ledger':10}{'logins/s':>10}{'to none':>10}{'p50 ms':>10}{'p99 ms':>10}{'CPU µs':>10}")
    none = statistics.median(row[0] for row in found["none"])
    figures = []
    for kind, rows in found.items():
        rate, p50, p99, cpu = (statistics.median(row[i] for row in rows) for i in range(4))
        print(f"{kind:10}{rate:10.0f}{rate / none:9.2f}×{p50:10.1f}{p99:10.1f}{cpu:10.0f}")
        if kind != "none":
            figures.append(Figure(f"logins a second with {kind}", rate / none, against="no ledger"))
        figures.append(Figure(f"processor of a login, ledger {kind}", cpu, "µs"))
    alone, disk = statistics.median(alone_ms), statistics.median(disk_ms)
    print(f"one alone with sqlite: {alone:.2f} ms, of which one fsync {disk:.2f} ms")
    figures.append(Figure("a login alone, with sqlite, beyond one fsync", alone - disk, "ms", most=0.6))
    within = keep(options.save, "logins", figures)
    return int(not within)


if __name__ == "__main__":
    sys.exit(main())
