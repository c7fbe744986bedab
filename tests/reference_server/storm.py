"""``python -m tests.reference_server.storm PORT COUNT``: a crowd of sockets, in a process of its own.

All connect at once, ask for a WebSocket and say nothing more; printed is a JSON object with how many got
which status. They are in another process than those who measure: who makes a storm is late himself.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import uvloop

from reference_server.listen import raise_descriptor_limit

HELLO = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def _come(port: int, open_ones: list[asyncio.StreamWriter]) -> str:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        open_ones.append(writer)
        writer.write(HELLO)
        return (await asyncio.wait_for(reader.readline(), 60)).decode()[9:12] or "closed"
    except ConnectionResetError:
        return "reset"


async def _storm(port: int, count: int) -> Counter[str]:
    open_ones: list[asyncio.StreamWriter] = []
    return Counter(await asyncio.gather(*(_come(port, open_ones) for _ in range(count))))


if __name__ == "__main__":
    raise_descriptor_limit()
    print(json.dumps(uvloop.run(_storm(int(sys.argv[1]), int(sys.argv[2])))))
