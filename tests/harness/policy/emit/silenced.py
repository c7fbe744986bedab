"""Run an emitted server as a child, connect real clients, silence each at a chosen phase of its heartbeat.

The clients live in the test's process; the server is another process that runs the emitted text as it is,
beside a task that says how late its event loop is. Both print CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from harness.real.network.silence import attach
from harness.real.processes.children import Child, Children
from tests.support import wait_until

__all__ = ["Silenced", "silence_clients"]

_LINE = re.compile(r"^(\d+\.\d+) (listening|connected|disconnected|lag) ([\d.]+)$", re.MULTILINE)
_GRAIN_S = 0.005
_SERVER_TIMERS = 3  # ping, deadline, close: each may be late by the loop's lag
_CLIENT_STAMPS = 2  # of the last ping and of the silence
_RUNNER = f"""
import asyncio, runpy, sys, time

async def watch():
    worst_s, said_s = 0.0, time.monotonic()
    while True:
        began_s = time.monotonic()
        await asyncio.sleep({_GRAIN_S})
        now_s = time.monotonic()
        worst_s = max(worst_s, now_s - began_s - {_GRAIN_S})
        if now_s - said_s > 0.1:
            print(f"{{now_s:.6f}} lag {{worst_s:.6f}}", flush=True)
            worst_s, said_s = 0.0, now_s

run = asyncio.Runner.run  # asyncio.run and uvicorn both come through here

def watched_run(self, main, **options):
    async def both():
        watching = asyncio.create_task(watch())
        return await main
    return run(self, both(), **options)

asyncio.Runner.run = watched_run
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Silenced:
    """What became of one client. Seconds."""

    phase: float  # share of the heartbeat interval that had passed since the last ping
    fault_to_next_ping_s: float  # U
    detection_s: float  # from the silence to the server's disconnect handler
    slack_s: float  # by how much the measured lateness of server and clients can have shifted it


@dataclass(slots=True)
class _Lag:
    worst_s: float = 0.0

    async def watch(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_GRAIN_S)
            self.worst_s = max(self.worst_s, time.monotonic() - began_s - _GRAIN_S)


@dataclass(slots=True)
class _Client:
    """A client that answers pings and knows when the last one came."""

    phase: float
    port: int = 0
    silenced_s: float = 0.0
    pinged_s: float = 0.0
    pinged: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def on_ping(self) -> None:
        self.pinged_s = time.monotonic()
        self.pinged.set()


def _connection_class(client: _Client) -> type[ClientConnection]:
    class Watched(ClientConnection):
        """Notes protocol pings, which do not come through recv()."""

        def process_event(self, event: Any) -> None:
            if isinstance(event, Frame) and event.opcode is Opcode.PING:
                client.on_ping()
            super().process_event(event)

    return Watched


async def _engineio(connection: ClientConnection, client: _Client) -> None:
    """Engine.IO 4 in a WebSocket: 0 open, 40 connect to the namespace, 2 ping, 3 pong."""
    async for message in connection:
        if message == "2":
            client.on_ping()
            await connection.send("3")
        elif str(message).startswith("0"):
            await connection.send("40")


async def _be_silenced(
    uri: str, client: _Client, interval_s: float, warm_up: int, gone: asyncio.Event
) -> None:
    """Answer some pings, fall silent at the phase, and keep the socket until the server has noticed."""
    connection = await connect(
        uri, ping_interval=None, compression=None, create_connection=_connection_class(client)
    )
    sock = connection.transport.get_extra_info("socket")
    client.port = sock.getsockname()[1]
    reader = asyncio.create_task(
        _engineio(connection, client) if "/socket.io/" in uri else connection.wait_closed()
    )
    client.ready.set()
    for _ in range(warm_up):
        client.pinged.clear()
        await client.pinged.wait()
    await asyncio.sleep(client.pinged_s + client.phase * interval_s - time.monotonic())
    attach(sock.fileno())
    client.silenced_s = time.monotonic()
    await gone.wait()
    reader.cancel()
    connection.transport.abort()


def _said(child: Child) -> list[tuple[float, str, float]]:
    return [(float(at), what, float(number)) for at, what, number in _LINE.findall(child.log.read_text())]


def silence_clients(
    text: str,
    folder: Path,
    interval_s: float,
    phases: list[float],
    *,
    deadline_s: float,
    path: str = "/",
    warm_up: int = 2,
) -> list[Silenced]:
    """Run the emitted `text`, silence one client per phase, return when the server noticed each.

    Args:
        text: the program.
        folder: where it and its log go.
        interval_s: the heartbeat that it was emitted for.
        phases: shares of the interval after a ping at which to fall silent, each in (0, 1).
        deadline_s: give up waiting after this.
        path: of the WebSocket.
        warm_up: pings that a client answers first.
    """
    program, runner = folder / "emitted.py", folder / "runner.py"
    program.write_text(text)
    runner.write_text(_RUNNER)
    with Children() as children:
        child = children.start(
            "emitted server",
            [sys.executable, "-u", str(runner), str(program), "0"],
            log=folder / "emitted.log",
        )

        def listening() -> list[float]:
            children.check()
            return [number for _, what, number in _said(child) if what == "listening"]

        wait_until(listening, "the emitted server listens", 30.0)
        uri = f"ws://127.0.0.1:{int(listening()[0])}{path}"
        return asyncio.run(_all_silenced(uri, child, children, interval_s, phases, deadline_s, warm_up))


async def _all_silenced(
    uri: str,
    child: Child,
    children: Children,
    interval_s: float,
    phases: list[float],
    deadline_s: float,
    warm_up: int,
) -> list[Silenced]:
    lag = _Lag()
    watching = asyncio.create_task(lag.watch())
    clients = [_Client(phase) for phase in phases]
    gone = asyncio.Event()
    tasks = [asyncio.create_task(_be_silenced(uri, client, interval_s, warm_up, gone)) for client in clients]
    noticed: dict[int, float] = {}
    async with asyncio.timeout(deadline_s):
        while len(noticed) < len(clients):
            await asyncio.sleep(0.02)
            children.check()
            for task in tasks:
                if task.done():
                    task.result()
            noticed = {int(n): at for at, what, n in _said(child) if what == "disconnected"}
        # The server says its lag ten times a second: what made the last notice late is told after it.
        while not any(what == "lag" and at > max(noticed.values()) for at, what, _ in _said(child)):
            await asyncio.sleep(0.02)
    gone.set()
    await asyncio.gather(*tasks)
    watching.cancel()
    began_s = min(client.silenced_s for client in clients) - interval_s
    server_lag_s = max((n for at, what, n in _said(child) if what == "lag" and at > began_s), default=0.0)
    return [
        Silenced(
            client.phase,
            client.pinged_s + interval_s - client.silenced_s,
            noticed[client.port] - client.silenced_s,
            _SERVER_TIMERS * server_lag_s + _CLIENT_STAMPS * lag.worst_s + _GRAIN_S,
        )
        for client in clients
    ]
