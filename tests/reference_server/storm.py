"""``python -m tests.reference_server.storm PORT COUNT [--at-once N] [--stay]``: a crowd of mute sockets.

They connect, ask for a WebSocket and say nothing more; printed is a JSON object with how many got which
status, and with ``--stay``, which waits until the gateway has closed them all, how many were told why. They
are in another process than those who measure: who makes a storm is late himself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter

import uvloop

from reference_server.websocket.listener import raise_descriptor_limit

HELLO = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Storm:
    """Many sockets, and what became of them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.counts: Counter[str] = Counter()

    async def come(self, turn: asyncio.Semaphore) -> None:
        async with turn:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self._open.append((reader, writer))
                writer.write(HELLO)
                line = await asyncio.wait_for(reader.readline(), 60)
                self.counts[line.decode()[9:12] or "closed"] += 1
            except ConnectionResetError:
                self.counts["reset"] += 1

    async def stay(self) -> None:
        for reader, _ in self._open:
            told = await asyncio.wait_for(reader.read(), 60)
            self.counts["told auth_timeout"] += b'"auth_timeout"' in told


async def _storm(port: int, count: int, at_once: int, stay: bool) -> Counter[str]:
    storm = Storm(port)
    turn = asyncio.Semaphore(at_once)
    await asyncio.gather(*(storm.come(turn) for _ in range(count)))
    if stay:
        await storm.stay()
    return storm.counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--at-once", type=int, default=1_000_000)
    parser.add_argument("--stay", action="store_true")
    args = parser.parse_args()
    raise_descriptor_limit()
    print(json.dumps(uvloop.run(_storm(args.port, args.count, args.at_once, args.stay))))
