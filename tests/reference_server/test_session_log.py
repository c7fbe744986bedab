"""The log lines about a session: the six of a silent client in their order, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.real.processes.redis import RedisServer
from reference_server.session_log import JsonFormatter, SessionLines
from tests.reference_server.gateways import QUICK, run, running, until

SESSION = logging.getLogger("reference_server.session")
SIX = (
    *("heartbeat_sent", "heartbeat_failed", "heartbeat_limit_reached"),
    *("disconnected", "removed", "released"),
)


@pytest.fixture
def wanted() -> Iterator[None]:
    before = SESSION.level
    SESSION.setLevel(logging.DEBUG)
    yield
    SESSION.setLevel(before)


@pytest.mark.real
def test_a_silent_client_is_written_about_in_six_lines(
    private_redis: RedisServer,
    key_prefix: str,
    tmp_path: Path,
    wanted: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> str:
        async with running(private_redis.url, key_prefix, tmp_path, QUICK) as it:
            client = await it.join("ann", live=True)
            await asyncio.sleep(0.1)
            await client.die()
            told = caplog.records
            await until(lambda: any(getattr(r, "event", "") == "released" for r in told), "the end")
            assert not it.gateway.lines._half_released
            return client.session_id

    session_id = run(scenario())
    lines: list[Any] = [r for r in caplog.records if r.name == SESSION.name]
    assert {line.session_id for line in lines} == {session_id}
    last_beat = max(n for n, line in enumerate(lines) if line.event == "heartbeat_sent")
    after = [line.event for line in lines[last_beat:]]
    assert after == [SIX[0], SIX[1], *SIX[2:]], "the last failure follows the last beat"
    failures = [line for line in lines if line.event == "heartbeat_failed"]
    assert [line.failures for line in failures] == [1, 2, 3]
    texts = [line.getMessage() for line in [*failures, *lines[last_beat + 2 :]]]
    assert texts == [
        *(f"Heartbeat failed for {session_id} ({n}/3): no answer within 0.15 s" for n in (1, 2, 3)),
        f"Max heartbeat failures reached for {session_id}, disconnecting",
        f"WebSocket disconnected: {session_id}",
        f"Removed session {session_id}; user ann, request {lines[-2].request_id}",
        f"Session {session_id} resources released",
    ]
    assert lines[-2].user_id == "ann" and lines[-2].request_id.startswith("node-1.")
    levels = {line.event: line.levelname for line in lines}
    assert levels == dict(zip(SIX, ("INFO", "WARNING", "ERROR", "INFO", "INFO", "INFO"), strict=True))


@pytest.mark.real
def test_ends_that_somebody_wants_are_written_about_and_so_is_who_is_not_let_in(
    private_redis: RedisServer,
    key_prefix: str,
    tmp_path: Path,
    wanted: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lines() -> list[tuple[str, str]]:
        found: list[Any] = [r for r in caplog.records if r.name == SESSION.name]
        return [(line.event, line.session_id) for line in found if line.event != "heartbeat_sent"]

    def all_are_written(expected: list[tuple[str, str]]) -> bool:
        return set(expected) <= set(lines())

    async def scenario() -> None:
        async with running(private_redis.url, key_prefix, tmp_path, QUICK) as it:
            older, kicked, leaves = [await it.join(user, live=True) for user in ("ann", "bob", "cyd")]
            newer = await it.join("ann", live=True)
            assert await it.gateway.logins.kick(user_id="bob") == 1
            await it.http("POST", "/user/logout", {"token": leaves.token})
            for client in (older, kicked, leaves):
                ended = ("disconnected", "removed", "released")
                expected = [(event, client.session_id) for event in ended]
                await until(partial(all_are_written, expected), client.user_id)
                assert [line for line in lines() if line[1] == client.session_id] == expected
            again = await it.join("ann", newer.token, live=True)  # a refresh: the session stays
            await until(lambda: newer.closed, "taken over")
            thief = await it.dial()
            await thief.send(type="auth", token=again.token, user_id="%s\x1b[2J")
            await until(lambda: ("refused", again.session_id) in lines(), "not let in")
            told = next(r for r in caplog.records if getattr(r, "event", "") == "refused")
            assert f"failed for {again.session_id}: wrong_user; user %s" in told.getMessage()
            assert told.__dict__["user_id"] == "%s\x1b[2J" and told.__dict__["request_id"]
            assert ("removed", again.session_id) not in lines()
            await asyncio.sleep(0.05)
            assert not it.gateway.lines._half_released

    run(scenario())


def test_a_line_for_programs_has_the_words_and_the_fields() -> None:
    record = SESSION.makeRecord(
        SESSION.name,
        logging.WARNING,
        "f",
        1,
        "Heartbeat failed for %s",
        ("s1",),
        None,
        extra={"event": "heartbeat_failed", "session_id": "s1", "failures": 2},
    )
    told = json.loads(JsonFormatter().format(record))
    del told["time"]
    assert told == {
        "level": "WARNING",
        "logger": SESSION.name,
        "message": "Heartbeat failed for s1",
        "event": "heartbeat_failed",
        "session_id": "s1",
        "failures": 2,
    }


def test_without_a_level_nothing_is_wanted_and_nothing_is_kept() -> None:
    before = SESSION.level
    SESSION.setLevel(logging.CRITICAL + 1)
    try:
        lines = SessionLines()
        assert not lines.wanted and not lines.sends_wanted
        lines.socket_gone("s", "c")
        assert not lines._half_released
    finally:
        SESSION.setLevel(before)


def test_released_is_what_has_neither_socket_nor_records(
    wanted: None, caplog: pytest.LogCaptureFixture
) -> None:
    def events() -> list[Any]:
        return [getattr(record, "event", "") for record in caplog.records]

    lines = SessionLines()
    lines.removed("s", "c")
    assert events() == ["removed"]
    lines.socket_gone("s", "c")
    assert events() == ["removed", "released"]
    lines.socket_gone("s", "d")
    lines.resumed("d")  # a newer connection has the records
    assert events() == ["removed", "released"] and not lines._half_released
