"""Strangers' bytes by the hundred thousand: frames and HTTP requests, seeded, at a gateway that must not say a word.

    python bench/fuzz.py [--cases 20000] [--seed 1] [--shards 2] [--tls]

Each shard is a process with a seed of its own, so a finding is repeated by its seed and number. A case is a connection
of nearly three frames or requests: a WebSocket that authenticates or not and then sends right, bent or random frames,
or an HTTP request of that kind, whole, cut short or pipelined, ended by a close, a FIN or a RST. Afterwards: no line in
the gateway's log, as many descriptors as before, no session or record left, a login and a connection as ever. Exit 1
where that does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from harness.real.processes.certificate import own_certificate
from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server
from harness.real.tls import client_context

_ADDRESS = "127.0.0.1"
_LINGER = struct.pack("ii", 1, 0)  # close sends RST
_HELLO = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_PATHS = (
    "/",
    "/user/login",
    "/user/logout",
    "/user/code",
    "/api/sessions",
    "/healthz",
    "/metrics",
    "/static/client.js",
)
_WORDS = ("auth", "watch", "send", "data", "pong", "heartbeat", "close", "", "\u0000", "\x1b[2J")
_ENDS = ("fin", "rst", "close")
_USERS = 16


def message(rng: random.Random, token: str) -> bytes:
    """A JSON message, right or nearly so."""
    kind = rng.choice(_WORDS)
    value: Any = rng.choice([token, "x" * rng.randrange(300), None, 7, [], {}, ["a", 3], "\ud800", 1e308])
    told = {"type": kind, rng.choice(["token", "user_id", "user_ids", "payload", "work_s"]): value}
    return json.dumps(told if rng.random() < 0.9 else [told]).encode()


def frame(rng: random.Random, token: str) -> bytes:
    """A frame: mostly right, else with a wrong head, length, mask or text."""
    payload = message(rng, token) if rng.random() < 0.6 else rng.randbytes(rng.randrange(200))
    first = (
        rng.choice([0x81, 0x82, 0x88, 0x89, 0x8A, 0x01, 0x80]) if rng.random() < 0.8 else rng.randrange(256)
    )
    bit = 0x80 if rng.random() < 0.9 else 0
    length = len(payload) if rng.random() < 0.9 else rng.randrange(1 << 63)
    if length < 126:
        head = bytes((first, bit | length))
    elif length < 65_536:
        head = bytes((first, bit | 126)) + length.to_bytes(2)
    else:
        head = bytes((first, bit | 127)) + length.to_bytes(8)
    return head + (bytes(4) if bit else b"") + payload


def bent(rng: random.Random, data: bytes) -> bytes:
    """The same bytes, or a few of them changed, lost or doubled."""
    kept = bytearray(data)
    for _ in range(rng.randrange(4) if rng.random() < 0.4 else 0):
        at = rng.randrange(len(kept) + 1)
        kept[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
    return bytes(kept[: rng.randrange(len(kept) + 1)] if rng.random() < 0.1 else kept)


def requests(rng: random.Random, token: str) -> list[bytes]:
    """An HTTP request, or several that do not wait for each other."""
    body = message(rng, token) if rng.random() < 0.7 else rng.randbytes(rng.randrange(300))
    method = rng.choice(["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "\x01"])
    path = rng.choice(_PATHS) + rng.choice(
        ["", "", "?page=-1", "?state=waiting", "/../..", "%00", "?" + "q" * 900]
    )
    size = len(body) if rng.random() < 0.8 else rng.randrange(100_000)
    framing = f"Content-Length: {size}" if rng.random() < 0.8 else "Transfer-Encoding: chunked"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\nAuthorization: Bearer {rng.random()}\r\n\r\n"
    return [head.encode("latin-1") + body, *(requests(rng, token) if rng.random() < 0.2 else [])]


def shard(ports: dict[str, int], seed: int, cases: int, ca: str) -> Counter[str]:
    """Do some cases; return how many frames and requests were sent, and how many connections could not be made."""
    rng, done = random.Random(seed), Counter[str]()
    context = client_context(ca) if ca else None
    tokens = [_log_in(ports, f"fuzz-{seed}-{n}", context) for n in range(_USERS)]
    for _ in range(cases):
        is_http, token, end = rng.random() < 0.4, rng.choice(tokens), rng.choice(_ENDS)
        if is_http:
            asked = requests(rng, token)
            said: bytes | tuple[bytes, bytes] = bent(rng, b"".join(asked))
            done["requests"] += len(asked)
        else:
            named = (
                frame_of(json.dumps({"type": "auth", "token": token}).encode()) if rng.random() < 0.7 else b""
            )
            frames = [frame(rng, token) for _ in range(rng.randrange(1, 6))]
            said = (_HELLO if rng.random() < 0.9 else bent(rng, _HELLO)), named + bent(rng, b"".join(frames))
            done["frames"] += len(frames) + bool(named)
        with suppress(OSError):
            done["refused"] += not _case(ports["http_port" if is_http else "port"], said, end, context)
    return done


def frame_of(text: bytes) -> bytes:
    """A right text frame."""
    head = bytes((0x81, 0x80 | len(text))) if len(text) < 126 else b"\x81\xfe" + len(text).to_bytes(2)
    return head + bytes(4) + text


def _case(port: int, said: bytes | tuple[bytes, bytes], end: str, context: ssl.SSLContext | None) -> bool:
    try:
        plain = sock = socket.create_connection((_ADDRESS, port), timeout=5)
    except OSError:
        return False
    with closing(plain):
        if context is not None:
            sock = context.wrap_socket(plain, server_hostname=_ADDRESS)
        sock.settimeout(0.02)
        with closing(sock), suppress(TimeoutError):
            for part in (said,) if isinstance(said, bytes) else said:
                sock.sendall(part)
                sock.recv(4096)
            if end == "rst":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            elif end == "fin":
                sock.shutdown(socket.SHUT_WR)
                sock.recv(4096)
    return True


def _log_in(ports: dict[str, int], user_id: str, context: ssl.SSLContext | None) -> str:
    api = (
        http.client.HTTPConnection(_ADDRESS, ports["http_port"], timeout=10)
        if context is None
        else http.client.HTTPSConnection(_ADDRESS, ports["http_port"], timeout=10, context=context)
    )
    with closing(api):
        api.request("POST", "/user/login", json.dumps({"user_id": user_id}))
        return str(json.loads(api.getresponse().read())["token"])


def fuzz(cases: int, seed: int, shards: int, *, tls: bool, folder: Path) -> list[str]:
    """Do all of it; return what is wrong afterwards."""
    wrong = []
    with (
        Children() as children,
        own_certificate(_ADDRESS) as own,
        redis_server(None, children, folder) as store,
    ):
        ready, log = folder / "ready.json", folder / "gateway.log"
        config: dict[str, Any] = {
            "redis_url": store.url,
            "ready_file": str(ready),
            "ledger_url": f"sqlite:///{folder.absolute()}/ledger.db",
            "policy": {"heartbeat_interval": "1s", "heartbeat_timeout": "0.5s", "resume_window": "0.2s"},
            "auth_timeout_s": 1.0,
        }
        ca = str(own.ca) if tls else ""
        config |= {"tls_certificate": str(own.certificate), "tls_key": str(own.key)} if tls else {}
        (folder / "config.json").write_text(json.dumps(config))
        argv = [sys.executable, "-m", "reference_server", "--config", str(folder / "config.json")]
        child = children.start("gateway", argv, log=log)
        while not ready.exists():
            children.check()
            time.sleep(0.02)
        ports = json.loads(ready.read_text())
        gateway = psutil.Process(child.pid)
        time.sleep(0.5)
        before = gateway.num_fds()
        argv = [sys.executable, __file__, "--role", "shard", "--ports", json.dumps(ports), "--ca", ca]
        workers = [
            subprocess.Popen(
                [*argv, "--seed", str(seed * 1000 + n), "--cases", str(cases // shards)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(shards)
        ]
        done = Counter[str]()
        for worker in workers:
            said, _ = worker.communicate()
            done += Counter(json.loads(said or "{}"))
        failed = sum(worker.returncode != 0 for worker in workers)
        if failed or done["refused"] > cases // 100:
            wrong.append(f"{failed} shards died, {done['refused']} connections could not be made")
        children.check()
        deadline_s = time.monotonic() + 15
        while gateway.num_fds() > before and time.monotonic() < deadline_s:
            time.sleep(0.1)
        if (now := gateway.num_fds()) > before:
            wrong.append(f"{now} descriptors, before {before}")
        with redis.Redis.from_url(store.url) as client:
            while (online := client.zcard("flatline:online")) and time.monotonic() < deadline_s:
                time.sleep(0.1)  # the last one's resume window goes on when its socket is gone
            if online:
                wrong.append(f"{online} users are online")
        context = client_context(ca) if tls else None
        _log_in(ports, "afterwards", context)
        if said := log.read_text():
            errors = {line[:200] for line in said.splitlines() if line and not line[0].isspace()}
            wrong.append(f"the log: {len(said.splitlines())} lines: {sorted(errors)[:20]}")
        rss = gateway.memory_info().rss / (1 << 20)
        print(
            f"{cases} connections of seed {seed}{', TLS' * tls}, {done['frames']} frames, {done['requests']} requests: "
            f"{now} descriptors (before {before}), {rss:.0f} MiB",
            flush=True,
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Throw strangers' bytes at a gateway.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--role", choices=("shard",), help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--ca", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "shard":
        print(json.dumps(shard(options.ports, options.seed, options.cases, options.ca)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        wrong = fuzz(options.cases, options.seed, options.shards, tls=options.tls, folder=Path(folder))
    for one in wrong:
        print(one)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
