"""The audit of a real gateway with a real Redis and a real ledger: clean, and then not, by our own hand."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.real.processes.redis import RedisServer
from harness.user_sessions.audit import Audit, AuditTarget, CannotAudit, audit
from reference_server.errors import Exit
from reference_server.ledger.table import ledger_url
from tests.reference_server.gateways import QUIET, Running, run, running, until

pytestmark = pytest.mark.real
GHOST = (
    "INSERT INTO user_sessions (user_id, session_id, device_type, ip_address, user_agent, login_time,"
    " last_active_time, status, created_at, updated_at, device_id, connection_id, node)"
    " VALUES ('ghost', 's-ghost', '', '', '', :now, :now, 1, :now, :now, '', 'x', 'node-9')"
)


def found(result: Audit) -> set[tuple[str, str]]:
    return {(one.kind, one.subject) for one in result.differences}


def test_each_difference_made_by_hand_is_found(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"

    async def scenario() -> None:
        options = {"ledger_url": ledger_url(path), "lease_ttl_s": 60.0}
        async with running(private_redis.url, key_prefix, tmp_path, QUIET, **options) as it:
            target = AuditTarget(
                (f"http://127.0.0.1:{it.http_port}",), private_redis.url, key_prefix, ledger_url(path)
            )
            ann, bob = await it.join("ann", live=True), await it.join("bob", live=True)
            over = await it.login("over")
            await it.http("POST", "/user/logout", {"token": over})
            await it.login("cyd")
            clean = await asyncio.to_thread(audit, target, 5.0)
            assert found(clean) == set()
            assert clean.sessions == 4

            gone = await it.join("gone", live=True)
            await gone.socket.close()  # an end under way is none either
            passing = await asyncio.to_thread(audit, target, 5.0)
            assert found(passing) == set()

            it.store.delete(f"{key_prefix}session:{ann.session_id}")
            it.store.set(f"{key_prefix}status:nobody", f"s-nobody|{ann.ready['connection_id']}")
            it.store.zadd(f"{key_prefix}online", {"nobody": time.time()})
            with closing(sqlite3.connect(path, timeout=5)) as database, database:
                database.execute(GHOST, {"now": "2026-01-01 00:00:00.000000"})
            expected = {
                ("live_without_record", ann.session_id),
                ("list_of_nobody", ann.session_id),
                ("status_of_nobody", "ann"),
                ("status_of_nobody", "nobody"),
                ("ledger_online_nobody", "s-ghost"),
                ("user_not_online", "ghost"),
            }
            wrong = await asyncio.to_thread(audit, target, 0.3)
            assert found(wrong) == expected
            assert wrong.looks > 1

            code, text = await asyncio.to_thread(command, it, path, private_redis, key_prefix)
            assert code == Exit.INCONSISTENT
            told = orjson.loads(text)["differences"]
            assert {(one["kind"], one["subject"]) for one in told} == expected
            assert bob.closed is None

    run(scenario())


def command(it: Running, path: Path, server: RedisServer, prefix: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app,
        [
            "audit",
            "--http",
            f"http://127.0.0.1:{it.http_port}",
            "--redis",
            server.url,
            "--prefix",
            prefix,
            "--ledger",
            str(path),
            "--grace",
            "0.3",
            "--json",
        ],
    )
    return result.exit_code, result.stdout


def test_after_an_outage_of_the_ledger_nothing_differs(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    """While it is locked the audit finds the connection that has come; afterwards nothing."""
    path = tmp_path / "ledger.db"

    async def scenario() -> None:
        options = {"ledger_url": ledger_url(path)}
        async with running(private_redis.url, key_prefix, tmp_path, QUIET, **options) as it:
            target = AuditTarget(
                (f"http://127.0.0.1:{it.http_port}",), private_redis.url, key_prefix, ledger_url(path)
            )
            session = await it.login("ann")
            with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")  # who reads may go on
                client = await it.join("ann", session, live=True)
                ledger = it.gateway.ledger
                assert ledger is not None
                await until(lambda: not ledger.available, "the outage is noticed")
                assert ledger.pending == 1
                database.execute("ROLLBACK")
            await until(lambda: ledger.available, "it is back")
            assert found(await asyncio.to_thread(audit, target, 5.0)) == set()
            assert client.closed is None

    run(scenario())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for target in (
        AuditTarget(("http://127.0.0.1:9",)),
        AuditTarget(redis_url="redis://127.0.0.1:9/0"),
        AuditTarget(ledger_url="mysql://h/db"),
    ):
        with pytest.raises(CannotAudit):
            audit(target, 0.1)
    result = CliRunner().invoke(app, ["audit", "--http", "http://127.0.0.1:9"])
    assert result.exit_code == Exit.MACHINE_CANNOT
    assert "a node's API (http://127.0.0.1:9): [Errno 111] Connection refused; an audit asks" in result.output
    (tmp_path / "empty" / "logs").mkdir(parents=True)
    result = CliRunner().invoke(app, ["audit", str(tmp_path / "empty")])
    assert result.exit_code == Exit.MACHINE_CANNOT
