"""The clients of a tortured cluster: they log in, connect, come back, and note what they see; watchers among them.

From steps of a schedule to connections and HTTP requests, and from what comes of them to the history. A client that
wants to be connected tries until it is: with its token, and with a new login once it was told that its session is
unknown. One that was taken over, logged out or kicked stays away until a step says otherwise. Judges nothing.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from asyncio import Task, create_task
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException

from harness.real.network import silence
from harness.torture.history import History
from harness.torture.schedule import Schedule, Step

__all__ = ["WATCHER", "Address", "Client", "Everybody"]

WATCHER = 100
"""Clients from this number on watch all the others; each has one node, to which it always comes back."""

_ANSWER_S = 2.5
_IDLE_S = 4.0  # without a word from the gateway: it or its host has died
_AGAIN_S = 0.15
_LINGER = struct.pack("ii", 1, 0)
_ENDED_BY_OTHERS = (1000, 4409, 4410)  # logged out, taken over, kicked


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node is reached."""

    host: str
    port: int
    http_port: int


class Connection:
    """One WebSocket that has its session, until it ends."""

    def __init__(self, op: int, socket: ClientConnection) -> None:
        self.op = op
        self.socket = socket
        self.heard_s = 0.0
        self.code: int | None = None  # how it ended
        self.silent = False
        self.dead = False  # silent for good
        self.left = False  # noted as ended already, by its own client
        self.task: Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether the client believes in it."""
        return self.code is None and not self.left

    @property
    def fd(self) -> int:
        """Its socket; -1: it is gone."""
        found = self.socket.transport.get_extra_info("socket")
        fd: int = -1 if found is None else found.fileno()
        return fd


class Everybody:
    """What the clients share.

    Args:
        history: what they see goes there.
        schedule: who has which user and device.
        nodes: where they are; kept up to date by whoever starts them.
        operator_token: lets its bearer kick.
    """

    def __init__(
        self, history: History, schedule: Schedule, nodes: Sequence[Address], operator_token: str
    ) -> None:
        self.history = history
        self.schedule = schedule
        self.nodes = nodes
        self.operator_token = operator_token
        self.users = sorted({schedule.user_of(client) for client in range(schedule.clients)})

    async def post(self, node: int, path: str, body: dict[str, Any], bearer: str = "") -> tuple[str, Any]:
        """Ask a node's API; return ok, failed or unknown, and the answer's body or the error's code."""
        to = self.nodes[node - 1]
        payload = orjson.dumps(body)
        head = f"POST {path} HTTP/1.1\r\nHost: {to.host}\r\nConnection: close\r\n"
        head += f"Content-Length: {len(payload)}\r\n"
        head += f"Authorization: Bearer {bearer}\r\n\r\n" if bearer else "\r\n"
        writer = None
        sent = False
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_connection(to.host, to.http_port)
                writer.write(head.encode() + payload)
                sent = True
                answer = await reader.read()
            status, _, rest = answer.partition(b" ")[2].partition(b" ")
            content = orjson.loads(rest.partition(b"\r\n\r\n")[2])
        except (OSError, TimeoutError, ValueError) as error:
            return ("unknown" if sent else "failed"), type(error).__name__
        finally:
            if writer is not None:
                writer.transport.abort()
        return ("ok", content) if status == b"200" else _refused(content["error"]["code"])

    async def probe(self, token: str, node: int) -> tuple[str, str | int]:
        """Try once to connect with a token; leave again if it is let in."""
        try:
            wire = await self.open_socket(node)
        except (OSError, TimeoutError, WebSocketException) as error:
            return "unknown", type(error).__name__
        try:
            return await _authenticate(wire, token)
        finally:
            await wire.close()

    async def open_socket(self, node: int) -> ClientConnection:
        """Shake hands with a node."""
        to = self.nodes[node - 1]
        return await connect(
            f"ws://{to.host}:{to.port}/ws",
            ping_interval=None,
            open_timeout=_ANSWER_S,
            close_timeout=0.5,
            compression=None,
            proxy=None,
        )


class Client:
    """One client, or one watcher. `run` it in a task; `steps` are done one after the other.

    Args:
        number: of it; see `WATCHER`.
        everybody: what it shares with the others.
        seed: of its choice of nodes when it comes back.
    """

    def __init__(self, number: int, everybody: Everybody, seed: str) -> None:
        self.number = number
        self.steps: asyncio.Queue[Step] = asyncio.Queue()
        self.wanted = False
        self.token = ""
        self.session = ""
        self.tokens: dict[str, str] = {}  # of every session that it ever had
        self.connection: Connection | None = None
        self.all: list[Connection] = []
        self._everybody = everybody
        self._history = everybody.history
        self._watches = number >= WATCHER
        self._node = number - WATCHER + 1 if self._watches else 1
        self._not_before_s = 0.0
        self._rng = random.Random(f"{seed}/{number}")
        schedule = everybody.schedule
        self._user = f"watcher-{number}" if self._watches else schedule.user_of(number)
        self._device = "web" if self._watches else schedule.device_of(number)

    async def run(self) -> None:
        """Do what the steps say, and stay connected where that is wanted, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_AGAIN_S):
                    step = await self.steps.get()
            except TimeoutError:
                await self._keep_up()
            else:
                await self._do(step)

    def end(self) -> None:
        """Abort whatever is open; nothing more is noted."""
        for one in self.all:
            if one.task is not None:
                one.task.cancel()
            one.socket.transport.abort()

    # -- what happens to it ------------------------------------------------------------------------

    async def _do(self, step: Step) -> None:
        now = self.connection if self.connection is not None and self.connection.open else None
        if step.kind in ("come", "refresh", "reset", "take_over", "twice"):
            self._node = step.node
        match step.kind:
            case "come":
                self.wanted = True
                await self._keep_up()
            case "log_in" | "in_and_out":
                self.token, self._node = "", step.node
                if await self._log_in() and step.kind == "in_and_out":
                    await self._log_out(step.node)
            case "close" | "refresh" | "reset":
                self.wanted = step.kind != "close" and self.wanted
                self._not_before_s = self._history.now_s + step.lasts_s
                if now is not None:
                    self._leave(now, reset=step.kind == "reset")
            case "die":
                self.wanted = False
                if now is not None:
                    self._fall_silent(now)
                    now.dead = True
                    self.connection = None
            case "cut" | "long_cut":
                if now is not None and not now.silent:
                    self._fall_silent(now)
                    asyncio.get_running_loop().call_later(step.lasts_s, self._heal, now)
            case "logout":
                await self._log_out(step.node)
            case "kick":
                op = self._history.invoke("kick", user=self._user, node=step.node)
                body = {"user_id": self._user}
                outcome, answer = await self._everybody.post(
                    step.node, "/operator/kick", body, self._everybody.operator_token
                )
                self._history.note("kick", op=op, outcome=outcome, code=answer)
            case "take_over" | "twice":
                if step.kind == "take_over":
                    self.token = ""
                self.wanted = True
                self.connection = None  # what it had stands; it sees how that ends
                await self._keep_up()

    def _leave(self, connection: Connection, *, reset: bool) -> None:
        connection.left = True
        self._history.note("ended", op=connection.op, by="self", code=1006 if reset else 1000)
        if reset:
            found = connection.socket.transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            connection.socket.transport.abort()
        else:
            task = create_task(connection.socket.close())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _fall_silent(self, connection: Connection) -> None:
        if connection.silent:
            return
        with suppress(OSError):
            silence.attach(connection.fd)
            connection.silent = True
            self._history.note("silent", op=connection.op)

    def _heal(self, connection: Connection) -> None:
        if connection.silent and not connection.dead:
            with suppress(OSError):
                silence.detach(connection.fd)
            connection.silent = False
            connection.heard_s = self._history.now_s
            self._history.note("heard", op=connection.op)

    async def _log_out(self, node: int) -> None:
        self.wanted = False
        if not self.token:
            return
        op = self._history.invoke("logout", client=self.number, session=self.session, node=node)
        token, self.token = self.token, ""
        outcome, answer = await self._everybody.post(node, "/user/logout", {"token": token})
        self._history.note("logout", op=op, outcome=outcome, code="" if outcome == "ok" else answer)

    # -- how it stays connected --------------------------------------------------------------------

    async def _keep_up(self) -> None:
        now = self.connection
        for one in self.all:
            if one.open and not one.dead and self._history.now_s - one.heard_s > _IDLE_S:
                self._leave(one, reset=False)  # also where its network is gone: it cannot know
        if not self.wanted or (now is not None and now.open) or self._history.now_s < self._not_before_s:
            return
        if now is not None and now.code in _ENDED_BY_OTHERS and not now.left and not self._watches:
            self.wanted = False  # somebody wanted it so
            if now.code != 4409:
                self.token = ""
            return
        if not self.token and not await self._log_in():
            return
        await self._connect()

    async def _log_in(self) -> bool:
        node = self._node
        op = self._history.invoke("login", client=self.number, node=node)
        body = {"user_id": self._user, "device_type": self._device}
        outcome, answer = await self._everybody.post(node, "/user/login", body)
        if outcome == "ok":
            self.token, self.session = answer["token"], answer["session_id"]
            self.tokens[self.session] = self.token
            self._history.note("login", op=op, outcome=outcome, session=self.session)
            return True
        self._history.note("login", op=op, outcome=outcome, code=answer)
        self._go_elsewhere()
        return False

    def _go_elsewhere(self) -> None:
        if not self._watches:
            self._node = self._rng.randint(1, len(self._everybody.nodes))

    async def _connect(self) -> None:
        node, session = self._node, self.session
        op = self._history.invoke("connect", client=self.number, session=session, node=node)
        try:
            wire = await self._everybody.open_socket(node)
        except (OSError, TimeoutError, InvalidHandshake, WebSocketException) as error:
            self._history.note("connect", op=op, outcome="failed", code=type(error).__name__)
            self._go_elsewhere()
            return
        outcome, said = await _authenticate(wire, self.token)
        if outcome != "ok":
            self._history.note("connect", op=op, outcome=outcome, code=said)
            wire.transport.abort()
            if said in ("session_unknown", "wrong_user"):
                self.token = ""
            self._go_elsewhere()
            return
        connection = self.connection = Connection(op, wire)
        self.all.append(connection)
        connection.heard_s = self._history.now_s
        ready = orjson.loads(said)
        self._history.note(
            "connect", op=op, outcome="ok", owner=ready["connection_id"], resumed=ready["resumed"]
        )
        if self._watches:
            with suppress(ConnectionClosed):
                await wire.send(orjson.dumps({"type": "watch", "user_ids": self._everybody.users}).decode())
        connection.task = create_task(self._listen(connection))

    async def _listen(self, connection: Connection) -> None:
        wire = connection.socket
        try:
            async for text in wire:
                connection.heard_s = self._history.now_s
                message = orjson.loads(text)
                if message["type"] == "heartbeat":
                    await wire.send('{"type":"pong"}')
                elif message["type"] in ("online", "offline"):
                    told = {"user": message["user_id"], "session": message["session_id"]}
                    self._history.note("told", op=connection.op, kind=message["type"], **told)
        except ConnectionClosed:
            pass
        connection.code = wire.close_code or 1006
        if not connection.left:
            self._history.note("ended", op=connection.op, by="peer", code=connection.code)


def _refused(code: str) -> tuple[str, str]:
    """Return what an error leaves us with: what Redis did not answer may have been done all the same."""
    return ("unknown" if code == "store_unavailable" else "failed"), code


async def _authenticate(wire: ClientConnection, token: str) -> tuple[str, Any]:
    """Return ok and the ready message; failed and the error's code, where the gateway said no; or unknown."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            await wire.send(orjson.dumps({"type": "auth", "token": token}).decode())
            while True:
                text = await wire.recv()
                message = orjson.loads(text)
                if message["type"] == "ready":
                    return "ok", text
                if message["type"] == "error":
                    return _refused(message["code"])
    except (TimeoutError, ConnectionClosed, OSError) as error:
        return "unknown", type(error).__name__
