"""A gateway as a process of its own, for what a test's own loop must have no part in."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.events.log import read_log
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer
from reference_server.events import Event, EventKind
from tests.support import wait_until

__all__ = ["ask", "events", "lag_s", "log_in", "start"]


def start(
    children: Children,
    redis_server: RedisServer,
    prefix: str,
    folder: Path,
    *,
    preset: str | None = None,
    python: Sequence[str] = (sys.executable,),
    **options: Any,
) -> tuple[Child, dict[str, int]]:
    """Start one and wait until it listens; return it and its ports. Its log is `events.jsonl`."""
    ready = folder / "ready.json"
    config = {
        "redis_url": redis_server.url,
        "key_prefix": prefix,
        "ready_file": str(ready),
        "event_log": str(folder / "events.jsonl"),
        "records": {"token_in_path": True},  # a test's shortest way in
        **options,
    }
    (folder / "config.json").write_text(json.dumps(config))
    argv = [*python, "-m", "reference_server", "--config", str(folder / "config.json")]
    argv += ["--preset", preset] if preset else []
    gateway = children.start("gateway", argv, log=folder / "gateway.log", may_finish=True)
    wait_until(lambda: ready.exists() or gateway.returncode is not None, "the ready file", 30.0)
    children.check()
    ports: dict[str, int] = json.loads(ready.read_text())
    return gateway, ports


def ask(ports: dict[str, int], path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Send a request; return the status and the JSON answer, an error's too."""
    url = f"http://127.0.0.1:{ports['http_port']}{path}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def log_in(ports: dict[str, int], user_id: str) -> str:
    """Log a user in; return the token."""
    body = json.dumps({"user_id": user_id}).encode()
    url = f"http://127.0.0.1:{ports['http_port']}/user/login"
    with urllib.request.urlopen(url, body) as answer:
        token: str = json.loads(answer.read())["token"]
        return token


def events(folder: Path, kind: EventKind, session_id: str | None = None) -> list[Event]:
    """Return what the gateway has written by now."""
    return [
        event
        for event in read_log(folder / "events.jsonl").events
        if event.kind is kind and session_id in (None, event.session_id)
    ]


def lag_s(folder: Path) -> float:
    """Return the largest lag of the gateway's loop so far."""
    return max(float(event.detail["max_lag_s"]) for event in events(folder, EventKind.LOOP_LAG))
