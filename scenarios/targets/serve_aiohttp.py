"""The server of the aiohttp target: an echo that prints who has gone. Arguments: port, heartbeat (0: none)."""

import sys

from aiohttp import web

PORT, HEARTBEAT = int(sys.argv[1]), float(sys.argv[2]) or None


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Echo until the client has gone."""
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT)
    await socket.prepare(request)
    async for message in socket:
        if message.type is web.WSMsgType.TEXT:
            await socket.send_str(message.data)
    print(f"gone {request.query['client']} {socket.exception() or socket.close_code}")
    return socket


app = web.Application()
app.add_routes([web.get("/", echo)])
web.run_app(app, host="127.0.0.1", port=PORT, print=lambda _: print("listening"), access_log=None)
