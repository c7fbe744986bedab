"""``python -m tests.reference_server.witness PORT TOKEN INTERVAL_S``: a healthy client that keeps a diary.

It answers heartbeats until SIGTERM; then it prints a JSON object: how many there were, by how much the
longest wait for one exceeded the interval, how late its own loop was at most, and how it was closed if it was.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any

import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SAMPLE_S = 0.01


async def _witness(port: int, token: str, interval_s: float) -> dict[str, Any]:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    diary: dict[str, Any] = {"beats": 0, "late_s": 0.0, "lag_s": 0.0, "closed": None}
    url = f"ws://127.0.0.1:{port}/ws/{token}"
    client = await connect(url, ping_interval=None, compression=None)

    async def live() -> None:
        last_s = 0.0
        try:
            async for text in client:
                now_s = time.monotonic()
                if text == '{"type":"heartbeat"}':
                    await client.send('{"type":"pong"}')
                    if last_s:
                        diary["late_s"] = max(diary["late_s"], now_s - last_s - interval_s)
                    last_s = now_s
                    diary["beats"] += 1
        except ConnectionClosed:
            pass
        diary["closed"] = client.close_code

    async def sample() -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(SAMPLE_S)
            diary["lag_s"] = max(diary["lag_s"], time.monotonic() - began_s - SAMPLE_S)

    tasks = [asyncio.create_task(live()), asyncio.create_task(sample())]
    print("ready", flush=True)
    await over.wait()
    for task in tasks:
        task.cancel()
    client.transport.abort()
    return diary


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_witness(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))))
