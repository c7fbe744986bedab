"""What TLS costs the gateway: a heartbeat's bytes and CPU, a handshake's (full, resumed), a connection's memory.

    python -m bench.tls [--clients 500] [--handshakes 600] [--seconds 5] [--rounds 3]

Two gateways take turns, one plain and one with TLS 1.3 (a P-256 certificate made here), under the same load of one
client process with blocking sockets. CPU is the gateway process's, user and system; bytes are what the kernel counted
on the clients' sockets (TCP_INFO), without headers of TCP and IP. A handshake is TCP's, TLS's and WebSocket's, and the
close; all at once are 32 at a time. Ratios are to plain, all of one run: figures of
different runs or machines do not compare.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import selectors
import socket
import ssl
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figures import Figure, add_save, cpu_s, keep
from harness.real.processes.certificate import own_certificate
from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server
from harness.real.tls import client_context
from reference_server.frames import HEARTBEAT
from reference_server.websocket.listener import raise_descriptor_limit

MOST_BEAT_BYTES = 44  # more than plain: a record each way
MOST_MEMORY = 65_536  # bytes more than plain, a connection
_ADDRESS = "127.0.0.1"
_ANSWER = b"\x81\x8f\0\0\0\0" + b'{"type":"pong"}'
_COUNTED = struct.Struct("=QQ")  # bytes acknowledged, received
_AT = 120  # in struct tcp_info (linux/tcp.h, since 4.6)


@dataclass(frozen=True)
class Gateway:
    """A gateway process, and how its clients come to it."""

    process: psutil.Process
    port: int
    http_port: int
    context: ssl.SSLContext | None

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def connect(self, session: ssl.SSLSession | None = None, token: str = "") -> socket.socket:
        """Connect, shake hands, and authenticate where there is a token."""
        sock = socket.create_connection((_ADDRESS, self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is not None:
            sock = self.context.wrap_socket(sock, server_hostname=_ADDRESS, session=session)
        request = (
            f"GET /ws{'/' * bool(token)}{token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        sock.sendall(request.encode())
        assert b" 101 " in sock.recv(4096)
        return sock


@dataclass(frozen=True)
class Cost:
    """Of one gateway; handshakes by their kind: plain, or full and resumed."""

    beat_bytes: float
    beat_cpu_us: float
    memory: float
    handshake_cpu_us: dict[str, float]
    handshake_bytes: dict[str, float]
    storm_s: dict[str, float]


def wire_bytes(sock: socket.socket) -> int:
    """What a connection has sent and received by now."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return sum(_COUNTED.unpack_from(raw, _AT))


@contextmanager
def gateway(kind: str, redis_url: str, folder: Path, interval_s: float) -> Iterator[Gateway]:
    """Run a gateway for as long as the context lasts."""
    folder.mkdir()
    ready = folder / "ready.json"
    config = {
        "redis_url": redis_url,
        "policy": {
            "heartbeat_interval": interval_s,
            "heartbeat_timeout": interval_s / 3,
            "max_failures": 1000,
        },
        "ready_file": str(ready),
        "records": {"token_in_path": True},
    }
    with own_certificate(_ADDRESS) as own, Children() as children:
        context = None
        if kind == "tls":
            config |= {"tls_certificate": str(own.certificate), "tls_key": str(own.key)}
            context = client_context(str(own.ca))
        (folder / "config.json").write_text(json.dumps(config))
        argv = [sys.executable, "-m", "reference_server", "--config", str(folder / "config.json")]
        child = children.start(kind, argv, log=folder / "server.log")
        while not ready.exists():
            children.check()
            time.sleep(0.02)
        ports = json.loads(ready.read_text())
        yield Gateway(psutil.Process(child.pid), ports["port"], ports["http_port"], context)


def measure(it: Gateway, options: argparse.Namespace) -> Cost:
    tokens = _log_in(it, options.clients)
    before = it.process.memory_info().rss  # of a process that has kept nothing for others yet
    socks = [it.connect(token=token) for token in tokens]
    time.sleep(options.interval_s)
    memory = (it.process.memory_info().rss - before) / options.clients
    _beats(it, socks, 4 * options.interval_s)  # what has waited
    beat_bytes, beat_us = _beats(it, socks, options.seconds)
    for sock in socks:
        sock.close()
    kinds = ("plain",) if it.context is None else ("full", "resumed")
    cpu, sizes, storms = {}, {}, {}
    with it.connect() as first:
        session = getattr(first, "session", None)
    for kind in kinds:
        told = session if kind == "resumed" else None
        with it.connect(told) as one:
            time.sleep(0.05)  # for the last acknowledgement
            assert it.context is None or one.session_reused is (kind == "resumed")  # type: ignore[attr-defined]
            sizes[kind] = float(wire_bytes(one))

        def come_and_go(_: int, session: ssl.SSLSession | None = told) -> None:
            it.connect(session).close()

        before_s, began_s = it.cpu_s(), time.monotonic()
        with ThreadPoolExecutor(32) as many:
            list(many.map(come_and_go, range(options.handshakes)))
        storms[kind] = time.monotonic() - began_s
        time.sleep(0.3)
        cpu[kind] = 1e6 * (it.cpu_s() - before_s) / options.handshakes
    return Cost(beat_bytes, beat_us, memory, cpu, sizes, storms)


def _beats(it: Gateway, socks: list[socket.socket], seconds: float) -> tuple[float, float]:
    """Answer heartbeats; return bytes and microseconds of CPU a beat."""
    selector = selectors.DefaultSelector()
    for sock in socks:
        sock.settimeout(5)
        selector.register(sock, selectors.EVENT_READ)
    first_bytes, first_cpu_s, beats = sum(map(wire_bytes, socks)), it.cpu_s(), 0
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for key, _ in selector.select(0.1):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = sock.recv(4096)
            while isinstance(sock, ssl.SSLSocket) and sock.pending():
                data += sock.recv(4096)
            for _ in range(data.count(HEARTBEAT)):
                sock.sendall(_ANSWER)
                beats += 1
    selector.close()
    used_s, used = it.cpu_s() - first_cpu_s, sum(map(wire_bytes, socks)) - first_bytes
    return used / beats, 1e6 * used_s / beats


def _log_in(it: Gateway, users: int) -> list[str]:
    """Log users in, all by one connection: a gateway that has freed many has room for what is measured."""
    if it.context is None:
        api = http.client.HTTPConnection(_ADDRESS, it.http_port)
    else:
        api = http.client.HTTPSConnection(_ADDRESS, it.http_port, context=it.context)
    tokens = []
    with closing(api):
        for n in range(users):
            api.request("POST", "/user/login", json.dumps({"user_id": f"user-{n}"}))
            tokens.append(str(json.loads(api.getresponse().read())["token"]))
    return tokens


def main() -> int:
    parser = argparse.ArgumentParser(description="What TLS costs the gateway.")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--handshakes", type=int, default=600)
    parser.add_argument("--interval-s", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    add_save(parser)
    options = parser.parse_args()
    raise_descriptor_limit()
    costs: dict[str, list[Cost]] = {"plain": [], "tls": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        Children() as children,
        redis_server(None, children, Path(folder)) as redis,
    ):
        for n in range(options.rounds):
            for kind, found in costs.items():  # in turns: what else the machine does meets all alike
                with gateway(kind, redis.url, Path(folder) / f"{kind}-{n}", options.interval_s) as it:
                    found.append(measure(it, options))
    return report(costs, options)


def report(costs: dict[str, list[Cost]], options: argparse.Namespace) -> int:
    """Print medians over the rounds; return 1 when a limit is missed."""

    def middle(kind: str, name: str, of: str = "") -> float:
        values = [getattr(cost, name) for cost in costs[kind]]
        return statistics.median(value[of] if of else value for value in values)

    print(f"{options.clients} clients, {options.handshakes} handshakes, median of {options.rounds} rounds")
    print(f"{'':28}{'plain':>12}{'TLS':>12}{'ratio':>8}")
    rows = [
        ("bytes a heartbeat", "beat_bytes", "", ""),
        ("µs of CPU a heartbeat", "beat_cpu_us", "", ""),
        ("bytes a connection", "memory", "", ""),
        ("bytes, full handshake", "handshake_bytes", "plain", "full"),
        ("bytes, resumed", "handshake_bytes", "plain", "resumed"),
        ("µs of CPU, full handshake", "handshake_cpu_us", "plain", "full"),
        ("µs of CPU, resumed", "handshake_cpu_us", "plain", "resumed"),
        ("s for all at once, full", "storm_s", "plain", "full"),
        ("s for all at once, resumed", "storm_s", "plain", "resumed"),
    ]
    for title, name, of_plain, of_tls in rows:
        a, b = middle("plain", name, of_plain), middle("tls", name, of_tls)
        print(
            f"{title:28}{a:12.2f}{b:12.2f}{b / a if a else math.nan:7.2f}×"
        )  # few connections may take no page
    more = middle("tls", "beat_bytes") - middle("plain", "beat_bytes")
    held = middle("tls", "memory") - middle("plain", "memory")
    good = abs(more - MOST_BEAT_BYTES) < 2 and held < MOST_MEMORY
    good = good and middle("tls", "handshake_bytes", "resumed") < middle("tls", "handshake_bytes", "full")
    print(f"limits: {MOST_BEAT_BYTES} bytes a beat, {MOST_MEMORY // 1024} KiB: {'met' if good else 'MISSED'}")
    names = {
        "processor, a heartbeat": rows[1],
        "processor, a full handshake": rows[5],
        "processor, resumed": rows[6],
    }
    ratios = [
        Figure(what, middle("tls", name, of_tls) / middle("plain", name, of_plain), against="without TLS")
        for what, (_, name, of_plain, of_tls) in names.items()
    ]
    held_kib = Figure(
        "memory of a connection, more", held / 1024, "KiB", "without TLS", most=MOST_MEMORY / 1024
    )
    keep(options.save, "tls", [*ratios, held_kib])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
