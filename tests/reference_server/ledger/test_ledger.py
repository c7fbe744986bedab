"""The ledger behind a real gateway: what is acknowledged is written, and what an outage of it does."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from harness.events.log import read_log
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer
from reference_server.events import EventKind as K
from reference_server.ledger.rows import LedgerUnfit
from reference_server.ledger.table import ledger_url
from reference_server.sessions.owner_tokens import Owners
from reference_server.sessions.records import session_id_of
from tests.reference_server.gateways import QUICK, QUIET, Client, Running, run, running, survivor, until
from tests.support import require_root, wait_until

pytestmark = pytest.mark.real
FLUSH_S = 0.2


def rows(path: Path) -> dict[str, Any]:
    """The table, by session, as any other program sees it."""
    with closing(sqlite3.connect(path, timeout=5)) as database:
        database.row_factory = sqlite3.Row
        return {r["session_id"]: r for r in database.execute("SELECT * FROM user_sessions")}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the file for as long as the context lasts."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5);"
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.stdin.close()


async def health(it: Running) -> tuple[int, str]:
    status, answer = await it.http("GET", "/healthz")
    return status, answer["ledger"]


def test_a_session_from_login_to_logout(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> None:
    """Each step is in the table: at once if it was answered, soon if nobody waits for it."""
    path = tmp_path / "ledger.db"

    async def scenario() -> None:
        async with running(
            private_redis.url,
            key_prefix,
            tmp_path,
            QUICK,
            ledger_url=ledger_url(path),
            ledger_flush_interval_s=FLUSH_S,
        ) as it:
            body = {"user_id": "ann", "device_type": "mobile"}
            _, answer = await it.http("POST", "/user/login", body)
            token, session = answer["token"], answer["session_id"]
            row = rows(path)[session]
            assert (row["user_id"], row["status"], row["device_type"]) == ("ann", 0, "mobile")
            assert row["ip_address"] == "127.0.0.1" and "urllib" in row["user_agent"]
            assert abs(row["login_time"] / 1000 - time.time()) < 5

            client = await it.join("ann", token, live=True)
            await until(lambda: rows(path)[session]["status"] == 1, "online")
            assert rows(path)[session]["connection_id"] == client.ready["connection_id"]
            before = rows(path)[session]["last_active_time"]
            await until(lambda: rows(path)[session]["last_active_time"] > before, "a sign of life")

            await client.socket.close()
            await until(lambda: rows(path)[session]["status"] == 0, "offline")
            assert rows(path)[session]["ended_by"] == "close_frame"
            await it.join("ann", token)
            await until(lambda: rows(path)[session]["status"] == 1, "resumed")
            assert rows(path)[session]["logout_time"] is None

            assert (await it.http("POST", "/user/logout", {"token": token}))[0] == 200
            row = rows(path)[session]
            assert (row["status"], row["ended_by"]) == (0, "logout")
            assert await health(it) == (200, "up")

    run(scenario())


def test_drain_leaves_no_row_online(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def scenario() -> str:
        options = {"ledger_url": ledger_url(path)}
        async with running(private_redis.url, key_prefix, tmp_path, QUIET, **options) as it:
            client = await it.join("ann", live=True)
            await it.http("GET", "/healthz")
            it.clients.clear()  # it is the gateway that ends it
            session = client.session_id
        client.socket.transport.abort()
        return session

    session = run(scenario())
    row = rows(path)[session]
    assert (row["status"], row["ended_by"]) == (0, "drain")


# What a login is answered: configuration, X-Forwarded-For, status and code.
LOGINS: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "denied": ({"denied_ips": ["127.0.0.0/8"]}, "", 403, "ip_denied"),
    "another network is denied": ({"denied_ips": ["10.0.0.0/8"]}, "", 200, ""),
    "denied behind a proxy": (
        {"denied_ips": ["10.1.1.1"], "trusted_proxies": ["127.0.0.1"]},
        "10.1.1.1",
        403,
        "ip_denied",
    ),
    "a header that nobody vouches for": ({"denied_ips": ["10.1.1.1"]}, "10.1.1.1", 200, ""),
    "an address too often": ({"max_logins_per_minute_per_ip": 1}, "", 429, "too_many_logins"),
    "another address": (
        {"max_logins_per_minute_per_ip": 1, "trusted_proxies": ["127.0.0.1"]},
        "2001:db8::1",
        200,
        "",
    ),
    "another user": ({"max_logins_per_minute_per_user": 1}, "", 200, ""),
    "one too many": ({"max_sessions_per_ip": 1}, "", 429, "too_many_sessions_from_ip"),
}


def test_who_may_log_in(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        for n, (name, (options, forwarded, status, code)) in enumerate(LOGINS.items()):
            url = ledger_url(tmp_path / f"{n}.db")
            async with running(
                private_redis.url, key_prefix, tmp_path, QUIET, ledger_url=url, **options
            ) as it:
                if next(iter(options)).startswith("max_"):
                    await it.login("first")
                before = _sessions(it)
                headers = {"X-Forwarded-For": forwarded} if forwarded else {}
                got, answer = await it.http("POST", "/user/login", {"user_id": "ann"}, headers)
                assert got == status, (name, answer)
                if code:
                    assert answer["error"]["code"] == code, name
                    await until(partial(_same_sessions, it, before), f"{name}: no record is left")
            if name == "one too many":
                await asyncio.sleep(0)
                assert len(rows(tmp_path / f"{n}.db")) == 1

    run(scenario())


def test_who_is_let_in_by_name_alone_has_a_row_too(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    rules = {"user_id_handshake": True}

    async def scenario() -> None:
        options = {"ledger_url": ledger_url(path), "records": rules}
        async with running(private_redis.url, key_prefix, tmp_path, QUIET, **options) as it:
            url = f"ws://127.0.0.1:{it.port}/ws?userId=eve&deviceType=mobile"
            socket = await connect(url, user_agent_header="A phone\x9b", ping_interval=None)
            client = Client(socket, "", "eve")
            assert (await client.receive())["user_id"] == "eve"
            (row,) = await until(lambda: list(rows(path).values()), "a row")
            await until(lambda: next(iter(rows(path).values()))["status"] == 1, "online")
            said = (row["user_id"], row["device_type"], row["ip_address"], row["user_agent"])
            assert said == ("eve", "mobile", "127.0.0.1", "A phone")
            await socket.close()

    run(scenario())


def _sessions(it: Running) -> set[bytes]:
    keys: Any = it.store.keys(f"{it.config.key_prefix}session:*")
    return set(keys)


def _same_sessions(it: Running, before: set[bytes]) -> bool:
    return _sessions(it) == before


def test_a_locked_ledger_refuses_logins_and_nothing_else(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """Red at once, connections stay, and what became of them meanwhile is written afterwards."""
    path = tmp_path / "ledger.db"
    asyncio.run(_outage(private_redis, key_prefix, tmp_path, path, lambda: locked(path)))


@pytest.mark.root
def test_a_full_disk_refuses_logins_and_nothing_else(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """The same on a disk of 1 MiB that really is full."""
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)

    @contextmanager
    def full() -> Iterator[None]:
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        try:
            yield
        finally:
            ballast.unlink()

    try:
        asyncio.run(_outage(private_redis, key_prefix, tmp_path, disk / "ledger.db", full))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


async def _outage(server: RedisServer, prefix: str, folder: Path, path: Path, outage: Any) -> None:
    async with running(
        server.url, prefix, folder, QUICK, ledger_url=ledger_url(path), ledger_flush_interval_s=FLUSH_S
    ) as it:
        stays = await it.join("stays", live=True)
        goes = await it.join("goes", live=True)
        leaves = await it.join("leaves", live=True)
        returns = await it.join("returns", live=True)
        acknowledged = {c.session_id for c in (stays, goes, leaves, returns)}
        await until(lambda: sum(r["status"] for r in rows(path).values()) == 4, "all online")
        with outage():
            refusals = []
            for n in range(300):  # the write-ahead log has room for some of them on a full disk
                status, answer = await it.http("POST", "/user/login", {"user_id": f"new-{n}"})
                if status != 200:
                    refusals.append(answer["error"]["code"])
                    break
                acknowledged.add(answer["session_id"])
            assert refusals == ["ledger_unavailable"]
            began_s = time.monotonic()
            status, answer = await it.http("POST", "/user/login", {"user_id": "late"})
            assert (status, answer["error"]["code"]) == (503, "ledger_unavailable")
            assert await health(it) == (503, "down")
            status, answer = await it.http("POST", "/user/logout", {"token": leaves.token})
            assert (status, answer["error"]["code"]) == (503, "ledger_unavailable")
            assert time.monotonic() - began_s < 0.8  # none of the three waited for the database
            await goes.socket.close()
            await returns.socket.close()
            back = await it.join("returns", returns.token, live=True)
            await asyncio.sleep(3 * 0.4)  # heartbeats of those who stay
            assert stays.closed is None and back.closed is None
            ledger = it.gateway.ledger
            # One a session, two of the one that left; and the login that found it out if that was not a flush.
            assert ledger is not None and 4 <= ledger.pending <= 5
            _, answer = await it.http("GET", "/healthz")
            assert (answer["ledger_waiting"], answer["ledger_dropped"]) == (ledger.pending, 0)
        await until(lambda: it.gateway.ledger and it.gateway.ledger.available, "recovery")
        await it.login("after")
        table = rows(path)
        assert acknowledged <= table.keys()
        assert (table[stays.session_id]["status"], table[back.session_id]["status"]) == (1, 1)
        assert table[back.session_id]["connection_id"] == back.ready["connection_id"]
        assert table[goes.session_id]["ended_by"] == "close_frame"
        assert table[leaves.session_id]["ended_by"] == "logout"
        open_ones = {s for s, r in table.items() if r["logout_time"] is None}
        refused = {s for s in table if s not in acknowledged and table[s]["user_id"] != "after"}
        assert not refused & open_ones  # a login that failed has not left a session behind
        assert await health(it) == (200, "up")


def test_a_logout_that_only_redis_had_is_written_at_the_next_start(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """The ledger is away, and the node ends before it is back: no flush brings that login back afterwards."""
    path = tmp_path / "ledger.db"

    async def scenario() -> None:
        url = ledger_url(path)
        async with running(private_redis.url, key_prefix, tmp_path, ledger_url=url) as it:
            token = await it.login("ann")
            over = f"{key_prefix}over"
            with locked(path):
                status, answer = await it.http("POST", "/user/logout", {"token": token})
                assert (status, answer["error"]["code"]) == (503, "ledger_unavailable")
                assert it.store.hgetall(over) == {session_id_of(token).encode(): b"ann"}
                ledger = it.gateway.ledger
                assert ledger is not None
                ledger._pending.clear()  # as SIGKILL would
            assert rows(path)[session_id_of(token)]["ended_by"] is None
        async with running(private_redis.url, key_prefix, tmp_path, ledger_url=url) as it:
            await until(lambda: rows(path)[session_id_of(token)]["ended_by"] == "logout", "repaired")
            await until(lambda: not it.store.exists(over), "forgotten")

    asyncio.run(scenario())


def test_a_flushed_redis_gets_its_logins_back(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """Those that never connected and those that have survived their connection, from the ledger; none that are over."""
    url = ledger_url(tmp_path / "ledger.db")

    async def scenario() -> None:
        options: dict[str, Any] = {"ledger_url": url, "lease_ttl_s": 1.0, "lease_renew_s": 0.1}
        options["session_survives_connection"] = True
        policy = QUIET.model_copy(update={"resume_window": 0.0})
        async with running(private_redis.url, key_prefix, tmp_path, policy, **options) as it:
            left = await it.join("left")
            await left.socket.close()
            survived = survivor(left.ready, "left")
            await until(lambda: it.records(left.session_id, "left")[0] == survived, "it has survived")
            waits, over = await it.login("waits"), await it.login("over")
            client = await it.join("stays", live=True)
            assert (await it.http("POST", "/user/logout", {"token": over}))[0] == 200
            keys = it.store.keys(f"{key_prefix}*")
            assert isinstance(keys, list)
            it.store.delete(*keys)
            await until(lambda: it.records(session_id_of(waits), "waits")[0], "the login")
            await until(lambda: it.records(client.session_id, "stays")[0], "the connection")
            await until(lambda: it.records(left.session_id, "left")[0] == survived, "as it was")
            left_ms = it.store.pttl(f"{key_prefix}session:{session_id_of(waits)}")
            assert 0 < left_ms <= 1000 * it.config.policy.session_ttl
            assert it.records(session_id_of(over), "over")[0] is None
            await it.join("waits", waits)
            await it.join("left", left.token)
            assert client.closed is None

    run(scenario())


@pytest.mark.parametrize("flushed", [False, True])
def test_a_session_that_has_survived_is_online_again_at_a_node_with_a_slow_clock(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path, flushed: bool
) -> None:
    """In the ledger, too, which takes the connection with the larger number for the newer one."""
    path = tmp_path / "ledger.db"
    options: dict[str, Any] = {"ledger_url": ledger_url(path), "lease_ttl_s": 1.0, "lease_renew_s": 0.1}
    policy = QUIET.model_copy(update={"resume_window": 0.0})

    async def scenario() -> None:
        options["session_survives_connection"] = True
        async with running(private_redis.url, key_prefix, tmp_path, policy, **options) as it:
            ann = await it.join("ann")
            await ann.socket.close()
            await until(lambda: rows(path)[ann.session_id]["logout_time"], "offline in the ledger")
            if flushed:
                keys: Any = it.store.keys(f"{key_prefix}*")
                it.store.delete(*keys)
                await until(lambda: it.records(ann.session_id, "ann")[0], "it is back")
            slow = Owners("a", lambda: 1)
            slow.incarnation = it.gateway.owners.incarnation
            it.gateway.sessions.owners = slow
            again = await it.join("ann", ann.token)
            assert again.ready["resumed"]
            await until(lambda: rows(path)[ann.session_id]["status"] == 1, "online in the ledger")

    run(scenario())


def start(
    children: Children, server: RedisServer, prefix: str, folder: Path, name: str, **options: Any
) -> tuple[Child, dict[str, int]]:
    ready = folder / f"{name}.json"
    config = {
        "redis_url": server.url,
        "key_prefix": prefix,
        "ready_file": str(ready),
        "ledger_url": ledger_url(folder / "ledger.db"),
        "ledger_flush_interval_s": FLUSH_S,
        "records": {"token_in_path": True},
    } | options
    path = folder / f"{name}-config.json"
    path.write_text(json.dumps(config))
    argv = [sys.executable, "-m", "reference_server", "--config", str(path)]
    gateway = children.start(name, argv, log=folder / f"{name}.log", may_finish=True)
    wait_until(lambda: ready.exists() or gateway.returncode is not None, "the ready file")
    children.check()
    ports: dict[str, int] = json.loads(ready.read_text())
    return gateway, ports


def log_in(ports: dict[str, int], user_id: str) -> str:
    body = json.dumps({"user_id": user_id}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['http_port']}/user/login", body) as answer:
        token: str = json.loads(answer.read())["token"]
        return token


def test_a_killed_gateway_has_lost_nothing_but_the_last_signs_of_life(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """Every login that was answered is there; last_active_time is behind by a flush and two batches at most.

    The batch under way and the flush's own: a login is a batch, and the slowest of five says how long one takes
    here. A sign of life is noted when the loop reads it.
    """
    path, events = tmp_path / "ledger.db", tmp_path / "events.jsonl"
    origin_s = time.monotonic()
    took_s: list[float] = []

    def lags_s() -> list[float]:
        found = read_log(events).events if events.exists() else []
        return [float(e.detail["max_lag_s"]) for e in found if e.kind is K.LOOP_LAG]

    def timed_login(ports: dict[str, int], user_id: str) -> str:
        began_s = time.monotonic()
        token = log_in(ports, user_id)
        took_s.append(time.monotonic() - began_s)
        return token

    async def scenario(ports: dict[str, int], gateway: Child) -> tuple[dict[str, float], list[str]]:
        tokens = [timed_login(ports, f"u{n}") for n in range(4)]
        url = f"ws://127.0.0.1:{ports['port']}/ws"
        said: dict[str, float] = {}

        async def talk(token: str) -> None:
            async with connect(f"{url}/{token}", ping_interval=None) as client:
                await client.recv()
                while True:
                    await client.send('{"type":"pong"}')
                    said[session_id_of(token)] = time.time()
                    await asyncio.sleep(0.01)

        talks = [asyncio.create_task(talk(token)) for token in tokens]
        await asyncio.sleep(2 * FLUSH_S)
        await until(lags_s, "the loop's lag is told")
        tokens.append(await asyncio.to_thread(timed_login, ports, "last"))  # answered, and then:
        gateway.send_signal(signal.SIGKILL)
        await asyncio.gather(*talks, return_exceptions=True)
        return said, [session_id_of(token) for token in tokens]

    with Children() as children:
        options: dict[str, Any] = {"event_log": str(events), "origin_s": origin_s}
        gateway, ports = start(children, private_redis, key_prefix, tmp_path, "first", **options)
        said, sessions = run(scenario(ports, gateway))
        killed_s = time.time()
        children.stop(gateway)
        table = rows(path)
        assert table.keys() == set(sessions)
        lost_s = {s: last - table[s]["last_active_time"] / 1000 for s, last in said.items()}
        assert len(lost_s) == 4
        assert max(lost_s.values()) <= FLUSH_S + 2 * max(took_s) + max(lags_s()), (lost_s, took_s)
        assert killed_s - max(said.values()) < 1.0
        online = {s for s, row in table.items() if row["status"]}
        assert online == said.keys()

        _, ports = start(children, private_redis, key_prefix, tmp_path, "second")
        table = rows(path)
        for session in online:
            row = table[session]
            assert (row["status"], row["ended_by"]) == (0, "node_restart")
            assert row["logout_time"] == row["last_active_time"]
        assert table[sessions[-1]]["logout_time"] is None  # logged in, never connected: still good


def test_a_gateway_starts_without_its_ledger_and_takes_it_up_later(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"

    async def scenario() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as locking:
            locking.execute("PRAGMA locking_mode=EXCLUSIVE")
            locking.execute("BEGIN EXCLUSIVE")
            url = ledger_url(path)
            async with running(private_redis.url, key_prefix, tmp_path, QUIET, ledger_url=url) as it:
                assert await health(it) == (503, "down")
                assert (await it.http("POST", "/user/login", {"user_id": "ann"}))[0] == 503
                locking.execute("ROLLBACK")
                locking.close()
                await until(lambda: it.gateway.ledger and it.gateway.ledger.available, "nobody locks it")
                assert session_id_of(await it.login("ann")) in rows(path)

    run(scenario())


def _damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
    data = bytearray(path.read_bytes())
    data[8192:16384] = b"\xff" * 8192
    path.write_bytes(data)


UNFIT: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"not a database, but long enough to be one" * 100),
    "damaged in its middle": _damaged,
    "a folder": lambda path: path.mkdir(),
    "in no folder": lambda path: path.parent.rmdir(),
}


@pytest.mark.parametrize("how", UNFIT)
def test_a_ledger_that_waiting_does_not_mend_ends_the_start(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "there" / "ledger.db"
    path.parent.mkdir()
    UNFIT[how](path)

    async def scenario() -> None:
        options = {"ledger_url": ledger_url(path)}
        with pytest.raises(LedgerUnfit, match="ledger"):
            async with running(private_redis.url, key_prefix, tmp_path, QUIET, **options):
                pass

    run(scenario())
