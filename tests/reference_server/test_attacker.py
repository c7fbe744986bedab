"""An attacker who sees everything but the login's own answer: nothing of it lets anybody in.

Each preset runs as a process of its own, with all its lines; the attacker watches users, asks the HTTP port, and reads
the log, the event log, the ledger, every file beside, what Redis holds and every command that Redis is sent.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
import redis
from websockets.asyncio.client import connect

from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer
from reference_server.ledger.table import ledger_url
from reference_server.presets import load_presets
from reference_server.sessions.records import session_id_of
from tests.reference_server.apart import ask, log_in, start
from tests.reference_server.gateways import Client, run, until

pytestmark = pytest.mark.real

WORD = re.compile(rb"[A-Za-z0-9_-]{16,64}")
OPERATOR = "the-operator-s-own-token"


class Monitor(threading.Thread):
    """Every command that a Redis is sent."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        at = urlsplit(url)
        self._sock = socket.create_connection((at.hostname, at.port or 6379))
        self._sock.sendall(b"MONITOR\r\n")
        self._lines = self._sock.makefile("rb")
        assert next(self._lines) == b"+OK\r\n"
        self.lines: list[bytes] = []

    def run(self) -> None:
        with self._sock, self._lines:
            for line in self._lines:
                self.lines.append(line)
                if b'"enough"' in line:
                    return


async def dial(ports: dict[str, int], user_id: str, token: str, path: str = "/ws") -> Client:
    connection = await connect(f"ws://127.0.0.1:{ports['port']}{path}", ping_interval=None, compression=None)
    client = Client(connection, token, user_id)
    if path == "/ws":
        await client.send(type="auth", token=token)
    client.ready = await client.receive()
    return client


def page(ports: dict[str, int], path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['http_port']}{path}") as answer:
        content: bytes = answer.read()
        return content


def stored(store: redis.Redis) -> bytes:
    """All keys and values of a Redis."""
    found = []
    for key in store.scan_iter(count=1000):
        value = store.dump(key)  # small values stand in it as they are
        found += [key, value if isinstance(value, bytes) else b""]
    return b"\n".join(found)


async def authenticates(ports: dict[str, int], word: str) -> bool:
    client = await dial(ports, "", word)
    client.socket.transport.abort()
    return str(client.ready["type"]) == "ready"


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as found:
        yield found


@pytest.mark.parametrize("preset", load_presets())
def test_nothing_that_anybody_else_can_see_lets_one_in(
    preset: str, children: Children, private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    monitor = Monitor(private_redis.url)
    monitor.start()
    gateway, ports = start(
        children,
        private_redis,
        key_prefix,
        tmp_path,
        preset=preset,
        ledger_url=ledger_url(tmp_path / "ledger.db"),
        log_level="debug",
        operator_token=OPERATOR,
    )

    async def scenario() -> None:
        tokens = {user: await asyncio.to_thread(log_in, ports, user) for user in ("eve", "ann", "bob", "cyd")}
        eve = await dial(ports, "eve", tokens["eve"])
        await eve.send(type="watch", user_ids=["ann", "bob", "named"])
        assert (await eve.receive())["type"] == "watching"
        eve.live()
        ann = await dial(ports, "ann", tokens["ann"])
        bob = await dial(ports, "bob", tokens["bob"], f"/ws/{tokens['bob']}")
        others = [ann, bob]
        assert [client.ready["type"] for client in others] == ["ready", "ready"]
        if preset == "c-as-written":
            others.append(await dial(ports, "named", "", "/ws?userId=named"))
        await until(lambda: len(eve.told) >= len(others), "eve is told who came")
        await ann.send(type="send", user_id="eve", payload="hello")
        await ann.send(type="data", token="in vain")
        seen = [b""]
        for path in ("/api/sessions", "/api/sessions?state=waiting", "/metrics", "/healthz", "/api/config"):
            seen.append(await asyncio.to_thread(page, ports, path))
        await bob.socket.close()
        logout = {"token": tokens["cyd"], "user_id": "ann"}
        seen.append(orjson.dumps(await asyncio.to_thread(ask, ports, "/user/logout", logout)))
        newer = await dial(ports, "ann", tokens["ann"])  # takes over
        assert newer.ready["type"] == "ready"
        seen += [orjson.dumps(client.ready) for client in (*others, newer)]
        # The offline of a preset without a resume window; the others' would come later, in the same words.
        await asyncio.sleep(0.3)
        seen.append(orjson.dumps(eve.told))
        with redis.Redis.from_url(private_redis.url) as store:
            seen.append(stored(store))
            store.echo("enough")
        monitor.join(5)
        assert len(monitor.lines) > len(tokens)
        seen += monitor.lines
        for file in (path for path in tmp_path.rglob("*") if path.is_file()):
            seen += [file.name.encode(), file.read_bytes()]
        everything = b"\n".join(seen)
        for token in tokens.values():
            assert token.encode() not in everything
        words = {word.decode() for word in WORD.findall(everything)}
        assert {session_id_of(token) for token in tokens.values()} <= words, "the attacker sees ids"
        assert [word for word in sorted(words) if await authenticates(ports, word)] == []
        assert await authenticates(ports, tokens["ann"]), "it was live all the time"
        for client in (eve, newer):
            client.socket.transport.abort()

    run(scenario())
    assert gateway.returncode is None
