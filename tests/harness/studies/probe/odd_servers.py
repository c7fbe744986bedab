"""Four small servers of odd kinds, each in a process of its own: python odd_servers.py KIND PORT

json         text heartbeats with fields of its own, acknowledged by number, a close code of its own
two_misses   protocol pings, two in a row may be missed, looked at when the next is due; no close frame
never        no ping, no limit
beats        the client has to beat; looked at now and then; a close code of its own
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def json_heartbeat(socket: ServerConnection) -> None:
    """`{"op": "beat", "seq": 7}` every 0.6 s, `{"op": "ack", "seq": 7}` within 0.4 s, else 4008."""
    hello = json.loads(await socket.recv())
    await socket.send(json.dumps({"op": "welcome", "you": hello["who"]}))
    number = 0
    acknowledged = asyncio.Event()

    async def read() -> None:
        async for text in socket:
            said = json.loads(text)
            if said.get("op") == "ack" and said.get("seq") == number:
                acknowledged.set()

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        while not reading.done():
            await asyncio.sleep(0.6)
            number += 1
            acknowledged.clear()
            await socket.send(json.dumps({"op": "beat", "seq": number}))
            group.create_task(judge(socket, acknowledged))


async def judge(socket: ServerConnection, acknowledged: asyncio.Event) -> None:
    """Close after 0.4 s without an acknowledgement."""
    try:
        await asyncio.wait_for(acknowledged.wait(), 0.4)
    except TimeoutError:
        await socket.close(4008, "heartbeat lost")


async def two_misses(socket: ServerConnection) -> None:
    """A ping every 0.5 s; when two in a row were not answered by the next, it drops the connection."""
    misses = 0
    while True:
        answer = asyncio.ensure_future(await socket.ping())
        await asyncio.sleep(0.5)
        misses = 0 if answer.done() else misses + 1
        if misses == 2:
            socket.transport.abort()
            return


async def never(socket: ServerConnection) -> None:
    """Read for ever."""
    await socket.wait_closed()


async def beats(socket: ServerConnection) -> None:
    """`{"t": "hb"}` at least every second, looked at every 0.3 s, else 4000."""
    last_s = time.monotonic()

    async def look() -> None:
        while time.monotonic() - last_s <= 1.0:
            await asyncio.sleep(0.3)
        await socket.close(4000, "no heartbeat")

    looking = asyncio.create_task(look())
    async for text in socket:
        if json.loads(text).get("t") == "hb":
            last_s = time.monotonic()
    looking.cancel()


KINDS = {"json": json_heartbeat, "two_misses": two_misses, "never": never, "beats": beats}


async def main(kind: str, port: int) -> None:
    """Serve for ever."""

    async def handle(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed, ExceptionGroup):
            await KINDS[kind](socket)

    async with serve(handle, "127.0.0.1", port, ping_interval=None, close_timeout=1) as server:
        print("listening", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
