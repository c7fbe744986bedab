"""The server of the python-socketio target: it prints who has gone and why. Times come by the environment."""

import os
from urllib.parse import parse_qs

import socketio

sio = socketio.AsyncServer(
    async_mode="asgi",
    ping_interval=float(os.environ["PING_INTERVAL"]),
    ping_timeout=float(os.environ["PING_TIMEOUT"]),
)
names: dict[str, str] = {}


async def connect(sid: str, environ: dict[str, str]) -> None:
    """Remember which connection it is."""
    names[sid] = parse_qs(environ["QUERY_STRING"])["client"][0]


async def disconnect(sid: str, reason: str) -> None:
    """Say who has gone."""
    print(f"gone {names.pop(sid)} {reason}")


sio.on("connect", handler=connect)
sio.on("disconnect", handler=disconnect)


async def started() -> None:
    """Say that it is there."""
    print("listening")


app = socketio.ASGIApp(sio, on_startup=started)
