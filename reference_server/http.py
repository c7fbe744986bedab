"""The gateway's HTTP API, on its own port in the gateway's event loop: login, logout, sessions, health.

From HTTP requests to calls of `Gateway`. `websockets` answers GET handshakes only, hence Starlette on
uvicorn beside it. Errors are JSON: ``{"error": {"code", "message"}}``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from time import monotonic
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reference_server.gateway import Gateway
from reference_server.listen import BACKLOG
from reference_server.store import StoreUnavailable

__all__ = ["HttpServer", "create_app"]

_MOST_BODY_BYTES = 16_384
_MOST_ID_LENGTH = 128
_MOST_PER_PAGE = 1000


def create_app(gateway: Gateway) -> Starlette:
    """Return the API of a gateway."""

    async def login(request: Request) -> Response:
        body = await _body(request)
        user_id = _text(body, "user_id")
        if not isinstance(body.get("device_type", "web"), str):
            raise _bad_request('"device_type" is a string')
        session_id = await gateway.sessions.login(user_id)
        if session_id is None:
            return _error(409, "already_online", f"{user_id} is online; log out there first")
        return _json({"session_id": session_id, "user_id": user_id})

    async def logout(request: Request) -> Response:
        await gateway.logout(_text(await _body(request), "session_id"))
        return _json({})

    async def sessions(request: Request) -> Response:
        page = _count(request, "page", 1, 1_000_000)
        per_page = _count(request, "per_page", 100, _MOST_PER_PAGE)
        now_s = monotonic()
        rows = [
            {
                "session_id": connection.record.session_id,
                "user_id": connection.record.user_id,
                "connection_id": connection.record.owner,
                "connected_for_s": round(now_s - connection.connected_s, 3),
                "idle_s": round(now_s - connection.last_seen_s, 3),
            }
            for connection in islice(gateway.live.values(), (page - 1) * per_page, page * per_page)
            if connection.record is not None
        ]
        total = len(gateway.live)
        return _json({"sessions": rows, "page": page, "per_page": per_page, "total": total})

    async def health(_request: Request) -> Response:
        up = gateway.store.available
        state = {"status": "ok" if up else "degraded", "store": "up" if up else "down"}
        return _json(state, 200 if up else 503)

    routes = [
        Route("/user/login", login, methods=["POST"]),
        Route("/user/logout", logout, methods=["POST"]),
        Route("/api/sessions", sessions),
        Route("/healthz", health),
    ]
    handlers: Any = {StoreUnavailable: _on_unavailable, HTTPException: _on_http_exception}
    return Starlette(routes=routes, exception_handlers=handlers)


class HttpServer(uvicorn.Server):
    """uvicorn as a guest in the gateway's loop: signals and the end of the process are not its business."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(gateway),
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                backlog=BACKLOG,
                timeout_graceful_shutdown=1,
                server_header=False,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone: uvicorn's own would keep SIGTERM from the gateway."""
        yield

    async def begin(self, sock: socket.socket) -> None:
        """Serve on a listening socket; returns when it does."""
        self._task = asyncio.create_task(self.serve(sockets=[sock]))
        while not self.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        """Stop serving; requests under way have a second."""
        self.should_exit = True
        if self._task is not None:
            await self._task


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _error(status: int, code: str, message: str) -> Response:
    return _json({"error": {"code": code, "message": message}}, status)


def _bad_request(message: str) -> HTTPException:
    return HTTPException(400, message)


def _on_unavailable(_request: Request, error: Exception) -> Response:
    return _error(503, "store_unavailable", f"the session store does not answer: {error}")


_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def _on_http_exception(_request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, _CODES.get(error.status_code, "error"), error.detail)


async def _body(request: Request) -> dict[str, Any]:
    """Read a JSON object of a bounded size."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_BODY_BYTES:
            raise HTTPException(413, f"at most {_MOST_BODY_BYTES} bytes")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise _bad_request("the body is not a JSON object")
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_ID_LENGTH:
        raise _bad_request(f'"{key}" is a string of 1 to {_MOST_ID_LENGTH} characters')
    return value


def _count(request: Request, key: str, default: int, most: int) -> int:
    text = request.query_params.get(key, str(default))
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:10]) <= most:
        raise _bad_request(f'"{key}" is a number from 1 to {most}')
    return int(text)
