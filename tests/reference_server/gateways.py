"""A gateway in the test's own loop, with clients that do what a test says, against a real Redis."""

from __future__ import annotations

import asyncio
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import redis
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from harness.events.log import read_log
from reference_server.api.http import HttpServer
from reference_server.config import GatewayConfig
from reference_server.events import Event, EventKind
from reference_server.gateway import Gateway
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.record_rules import RecordRules
from reference_server.sessions.records import session_id_of
from reference_server.websocket.listener import listen

T = TypeVar("T")
PONG = '{"type":"pong"}'
# [0.95, 1.35) s after a silent death
QUICK = LivenessPolicy(
    heartbeat_interval=0.4,
    heartbeat_timeout=0.15,
    max_failures=3,
    resume_window=0.3,
    sweep_interval=0.2,
    session_timeout=None,
)
# Nothing of the gateway's own accord: what happens is what the test does.
QUIET = LivenessPolicy(heartbeat_interval=None, session_timeout=None, resume_window=0.3)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario on the loop that gateways use."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario)


async def until(condition: Callable[[], T], what: str, deadline_s: float = 5.0) -> T:
    """Look every 5 ms until something holds; return it."""
    began_s = time.monotonic()
    while not (value := condition()):
        assert time.monotonic() - began_s < deadline_s, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(0.005)
    return value


def incarnation_of(owner: str) -> str:
    """Return the start of the node that an owner token names."""
    return owner.rpartition(":")[0]


def survivor(ready: dict[str, Any], user_id: str) -> str:
    """Return the record of a session that has survived this connection."""
    return f"{user_id}|:{ready['connection_id'].rpartition(':')[2]}"


class Client:
    """A WebSocket client that answers heartbeats once told to live."""

    def __init__(self, socket: ClientConnection, token: str, user_id: str) -> None:
        self.socket = socket
        self.token = token
        self.session_id = session_id_of(token)
        self.user_id = user_id
        self.ready: dict[str, Any] = {}
        self.told: list[dict[str, Any]] = []  # messages other than heartbeats
        self.heartbeats = 0
        self.closed: int | None = None  # close code
        self._life: asyncio.Task[None] | None = None

    async def receive(self) -> dict[str, Any]:
        """Wait for the next message that is not a heartbeat."""
        while True:
            message: dict[str, Any] = orjson.loads(await asyncio.wait_for(self.socket.recv(), 5))
            if message["type"] != "heartbeat":
                return message

    async def send(self, **message: Any) -> None:
        await self.socket.send(orjson.dumps(message).decode())

    def live(self) -> None:
        """Begin to answer heartbeats and to keep what it is told."""
        self._life = asyncio.create_task(self._live())

    async def die(self) -> None:
        """Do nothing any more; the socket stays as it is, and its kernel goes on acknowledging."""
        assert self._life is not None
        self._life.cancel()
        with suppress(asyncio.CancelledError):
            await self._life
        self.socket.transport.pause_reading()

    async def _live(self) -> None:
        try:
            async for text in self.socket:
                message = orjson.loads(text)
                if message["type"] == "heartbeat":
                    self.heartbeats += 1
                    await self.socket.send(PONG)
                else:
                    self.told.append(message)
        except ConnectionClosed:
            pass
        self.closed = self.socket.close_code


@dataclass
class Running:
    """A gateway under test."""

    gateway: Gateway
    port: int
    http_port: int
    config: GatewayConfig
    store: redis.Redis
    clients: list[Client] = field(default_factory=list)
    tls: ssl.SSLContext | None = None  # of its clients

    async def http(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request; return the status and the JSON answer."""
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        url = f"http{'s' * (self.tls is not None)}://127.0.0.1:{self.http_port}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers=headers or {})

        def ask() -> tuple[int, Any]:
            try:
                with urllib.request.urlopen(request, timeout=5, context=self.tls) as answer:
                    return answer.status, orjson.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, orjson.loads(error.read())

        return await asyncio.to_thread(ask)

    async def _has_room(self) -> None:
        """Wait while a busy machine keeps the loop from its work: the gateway would refuse newcomers, rightly."""
        async with asyncio.timeout(20):
            while self.gateway.telemetry.recent_lag_s() > 0.25:
                await asyncio.sleep(0.05)

    async def login(self, user_id: str) -> str:
        await self._has_room()
        status, answer = await self.http("POST", "/user/login", {"user_id": user_id})
        assert status == 200, answer
        token: str = answer["token"]
        return token

    async def dial(self, path: str = "/ws", token: str = "", user_id: str = "") -> Client:
        """Connect without authenticating by message."""
        await self._has_room()
        url = f"ws{'s' * (self.tls is not None)}://127.0.0.1:{self.port}{path}"
        socket = await connect(url, ping_interval=None, close_timeout=1, compression=None, ssl=self.tls)
        client = Client(socket, token, user_id)
        self.clients.append(client)
        return client

    async def join(self, user_id: str, token: str = "", *, trace: bool = False, live: bool = False) -> Client:
        """Log in unless there is a token, connect, authenticate, be ready, and live if wanted."""
        token = token or await self.login(user_id)
        client = await self.dial("/ws", token, user_id)
        await client.send(type="auth", token=token, trace=trace)
        client.ready = await client.receive()
        assert client.ready["type"] == "ready", client.ready
        if live:
            client.live()
        return client

    def events(self, kind: EventKind | None = None, session_id: str | None = None) -> list[Event]:
        """Return what the gateway has logged by now."""
        assert self.config.event_log is not None
        self.gateway.telemetry.flush()
        return [
            event
            for event in read_log(self.config.event_log).events
            if kind in (None, event.kind) and session_id in (None, event.session_id)
        ]

    async def verdict(self, session_id: str, deadline_s: float = 5.0) -> Event:
        """Wait for the end of a session's connection; return how it was decided."""
        await until(
            lambda: self.events(EventKind.SOCKET_CLOSED, session_id), f"end of {session_id}", deadline_s
        )
        (decided,) = self.events(EventKind.SUSPECTED, session_id)
        return decided

    def now_s(self) -> float:
        return time.monotonic() - self.config.origin_s

    def lag_s(self) -> float:
        """Return the largest lag of the loop so far, which gateway and clients share."""
        self.gateway.telemetry._report_lag()
        return max(float(e.detail["max_lag_s"]) for e in self.events(EventKind.LOOP_LAG))

    def records(self, session_id: str, user_id: str) -> tuple[str | None, str | None, bool]:
        """Return the session record, the status record, and whether the user is in the online set."""
        prefix = self.config.key_prefix
        session: Any = self.store.get(f"{prefix}session:{session_id}")
        status: Any = self.store.get(f"{prefix}status:{user_id}")
        online = self.store.zscore(f"{prefix}online", user_id) is not None
        return session and session.decode(), status and status.decode(), online


@asynccontextmanager
async def running(
    url: str, prefix: str, folder: Path, policy: LivenessPolicy = QUICK, **options: Any
) -> AsyncIterator[Running]:
    """Run a gateway for as long as the context lasts."""
    tls = options.pop("tls", None)  # of its clients
    options.setdefault("records", RecordRules(token_in_path=True))  # a test's shortest way in
    config = GatewayConfig(
        redis_url=url,
        key_prefix=prefix,
        policy=policy,
        event_log=folder / "gateway.jsonl",
        origin_s=time.monotonic(),
        seed=1,
        **options,
    )
    gateway = Gateway(config)
    http, http_sock = HttpServer(gateway), listen(config.host, 0)
    port = await gateway.start()
    await http.begin(http_sock)
    with redis.Redis.from_url(url) as store:
        it = Running(gateway, port, http_sock.getsockname()[1], config, store, tls=tls)
        try:
            yield it
        finally:
            for client in it.clients:
                client.socket.transport.abort()
            await http.end()
            await gateway.drain()
