"""The server of the uvicorn target: an echo that prints who has gone. A user's own server is as short."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def echo(socket: WebSocket) -> None:
    """Echo until the client has gone."""
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect as end:
        print(f"gone {socket.query_params['client']} {end.code}")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Say that it is there."""
    print("listening")
    yield


app = Starlette(routes=[WebSocketRoute("/ws", echo)], lifespan=lifespan)
