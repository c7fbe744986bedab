"""What a server leaves in its store when it is killed: a few clients connect, SIGKILL, and their records are counted.

From a target with a store witness to the records before and after, and how long they would stay. Nobody closes anything
in order, as in a crash or an eviction: whoever cleans up on disconnect alone leaves ghosts, until a TTL ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import orjson
import redis
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from harness.real.dialects import Answer, Dialect, Ready, Who, find_dialect
from harness.real.errors import CannotRun
from harness.real.processes.children import Children
from harness.real.processes.redis import quiet_port, redis_server
from harness.real.targets.describe import command_of, environment_of, urls_of, values_of, write_files
from harness.real.targets.store import is_there
from scenarios.clock import SCENARIO_TIME
from scenarios.target import Target, at_json_path, filled, filled_in

__all__ = ["LeftBehind", "kill_with_clients"]

_CLIENTS = 5
_DEADLINE_S = 10.0
_POLL_S = 0.05
_AFTER_S = 1.0  # a peer that cleans up at once has done so


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Records of presence before the server was killed and after; ``ttl_s`` of those left, None: without an end."""

    before: int
    after: int
    ttl_s: float | None


def kill_with_clients(target: Target, logs: Path) -> LeftBehind:
    """Start the server at its own times, connect clients, kill it, and look at the store.

    Args:
        target: it is started here, and has a store witness.
        logs: an existing folder.

    Raises:
        CannotRun: the server is not ready in time, or takes a client not in.
    """
    start, record = target.start, target.witnesses.store_cleared
    assert start is not None and record is not None
    with ExitStack() as stack:
        children = stack.enter_context(Children())
        store = stack.enter_context(redis_server(None, children, logs)) if "redis" in start.services else None
        ports = quiet_port(), quiet_port()
        values = values_of(target, SCENARIO_TIME, ports, logs, store.url if store else "")
        write_files(start, logs, values)
        log = stack.enter_context((logs / "killed.log").open("wb"))
        server = subprocess.Popen(
            command_of(target, values),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment_of(start, values),
            cwd=target.folder or None,
            start_new_session=True,
        )
        stack.callback(_kill, server)
        whos = [_connected(target, n, ports, server, stack) for n in range(_CLIENTS)]
        client = redis.Redis.from_url(filled(record.redis, values), socket_timeout=_DEADLINE_S)
        stack.callback(client.close)
        deadline_s = time.monotonic() + _DEADLINE_S
        while (before := len(_there(client, target, whos))) < _CLIENTS and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        _kill(server)
        time.sleep(_AFTER_S)
        left = _there(client, target, whos)
        ttls = [float(client.pttl(key)) / 1000 for key in left]
        ends = [ttl_s for ttl_s in ttls if ttl_s >= 0]
        return LeftBehind(before, len(left), max(ends) if ends and len(ends) == len(ttls) else None)


def _connected(
    target: Target, index: int, ports: tuple[int, int], server: subprocess.Popen[bytes], stack: ExitStack
) -> Who:
    """Connect one client and follow its dialect until the server has taken it in."""
    url, login_url = urls_of(target, ports)
    deadline_s = time.monotonic() + target.ready.within
    while True:
        try:
            who = Who(f"c{index}x1", f"user-{index}", index, 3600.0, (), _login(target, login_url, index))
            dialect = find_dialect(target.dialect_name, Path(target.folder))(who, **target.dialect_options)
            name = target.connect.subprotocol or dialect.subprotocol
            socket = connect(
                filled(url, who.words),
                subprotocols=None if name is None else [Subprotocol(name)],
                additional_headers={
                    key: filled(value, who.words) for key, value in target.connect.headers.items()
                },
                compression=None,
                proxy=None,
                ping_interval=None,
                close_timeout=0.1,
            )
            break
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise CannotRun(f"{target.target} takes no client: {error}; see killed.log") from error
            time.sleep(_POLL_S)
    stack.callback(_drop, socket)
    for message in dialect.opening():
        socket.send(message)
    if not dialect.ready_at_once:
        _await_ready(socket, dialect, target)
    return who


def _await_ready(socket: ClientConnection, dialect: Dialect, target: Target) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline_s:
        items = dialect.receive(socket.recv(timeout=_DEADLINE_S))
        for item in items:
            if isinstance(item, Answer):
                socket.send(item.message)
        if any(isinstance(item, Ready) for item in items):
            return
    raise CannotRun(f"{target.target} does not take a client in")


def _login(target: Target, url: str, index: int) -> dict[str, str]:
    if target.login is None:
        return {}
    body = orjson.dumps(filled_in(target.login.json_body, {"user": f"user-{index}", "index": index}))
    request = Request(url, body, {"Content-Type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=_DEADLINE_S) as answer:
        said = orjson.loads(answer.read())
    return {name: str(at_json_path(said, path)) for name, path in target.login.take.items()}


def _there(client: Any, target: Target, whos: list[Who]) -> list[str]:
    """The keys of the clients' records that are there."""
    record = target.witnesses.store_cleared
    assert record is not None
    found = []
    for who in whos:
        question = [filled(part, who.words) for part in record.question]
        if is_there(client.execute_command(*question), record.pattern(who.words)):
            found.append(question[1])
    return found


def _kill(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _drop(socket: ClientConnection) -> None:
    with suppress(Exception):  # its peer is dead
        socket.close()
