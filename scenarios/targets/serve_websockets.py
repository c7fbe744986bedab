"""The server of the websockets target: an echo. Arguments: port, ping_interval, ping_timeout."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve


async def echo(socket: ServerConnection) -> None:
    """Echo until the client has gone."""
    async for message in socket:
        await socket.send(message)


async def main(port: int, ping_interval: float, ping_timeout: float) -> None:
    """Serve for ever."""
    async with serve(
        echo, "127.0.0.1", port, ping_interval=ping_interval, ping_timeout=ping_timeout
    ) as server:
        print("listening")
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
