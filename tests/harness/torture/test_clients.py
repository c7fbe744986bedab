"""What torture's clients make of an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.torture.clients import Address, Everybody
from harness.torture.history import History
from harness.torture.schedule import Schedule

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (503, "store_unavailable", "unknown"),
        (503, "ledger_unavailable", "failed"),
        (403, "wrong_user", "failed"),
    ],
)
def test_what_redis_did_not_answer_may_have_been_done(status: int, code: str, outcome: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f'HTTP/1.1 {status} no\r\n\r\n{{"error": {{"code": "{code}"}}}}'.encode())
        writer.close()

    async def ask() -> tuple[str, Any]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            everybody = Everybody(History(), Schedule("1.1", ()), [Address("127.0.0.1", 0, port)], "token")
            return await everybody.post(1, "/operator/kick", {})

    assert asyncio.run(ask()) == (outcome, code)
