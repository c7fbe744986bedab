"""The gateway's HTTP API, on its own port in the gateway's event loop; the browser client is served here too.

From HTTP requests to calls of `Gateway`. `websockets` answers GET handshakes only, hence Starlette on
uvicorn beside it. Bodies are JSON of a bounded size. Errors are ``{"error": {"code", "message"}}``: a code for
programs and a sentence for people.

| | |
|---|---|
| ``POST /user/code`` | ``user_id`` → ``code``, ``expires_in_s``: a verification code, in the answer for want of mail |
| ``POST /user/login`` | ``user_id``, ``code`` (needed with ``require_code``) → ``token``, ``session_id``, ``user_id`` |
| ``POST /user/logout`` | ``token``, ``user_id`` (if given, the session's) → ``{}`` |
| ``GET /api/sessions`` | ``page``, ``per_page`` → this node's live sessions, oldest connection first; ``total`` |
| ``GET /api/config`` | what a client has to know: the WebSocket's port, whether a code is needed |
| ``GET /healthz`` | 200, or 503 where a login would fail: store or ledger down, refusing, draining |
| ``GET /metrics`` | Prometheus |
| ``GET /`` | the browser client |
| ``POST /operator/kick`` | ``user_id`` or ``session_id`` → ``sessions``: how many ended (close code 4410) |
| ``POST /operator/send`` | ``user_id``, ``payload`` (any JSON) → ``connections``: how many it goes to |

The operator's routes act on a user wherever the user is connected. They need ``operator_token`` in the
configuration, and that token in the request; so do ``/api/sessions`` and ``/metrics`` where the gateway does not
listen on loopback. A session's ``token`` lets whoever has it in; it is in the login's
answer and nowhere else. Its ``session_id`` lets nobody in.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from secrets import compare_digest
from time import monotonic
from typing import Annotated, Any, TypeVar

import orjson
import uvicorn
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from reference_server.api.exposition import scraped
from reference_server.api.metrics import Metrics
from reference_server.config import GatewayConfig
from reference_server.gateway import Gateway
from reference_server.ledger.rows import AddressFull, LedgerUnavailable
from reference_server.sessions.codes import CodeVerdict
from reference_server.sessions.origin import LoginRate, Origin, address_of, is_in, network_of
from reference_server.sessions.records import Record, WrongUser, session_id_of
from reference_server.sessions.redis_writer import StoreUnavailable
from reference_server.websocket.listener import BACKLOG
from reference_server.websocket.overload import RETRY_AFTER_S, SENTENCES
from reference_server.websocket.tls import TlsProtocol

__all__ = ["HttpServer", "create_app"]

_LOGIN, _HEALTH = "/user/login", "/healthz"
_SENDER = "operator"
_MOST_BODY_BYTES = 16_384
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_AWAY: dict[type[Exception], tuple[str, str]] = {
    StoreUnavailable: ("store_unavailable", "the session store does not answer"),
    LedgerUnavailable: ("ledger_unavailable", "the session ledger cannot be written"),
}
_ANSWERED: tuple[type[Exception], ...] = (HTTPException, *_AWAY)

Id = Annotated[str, Field(strict=True, min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
"""Text of a body. PostgreSQL keeps no NUL."""
M = TypeVar("M", bound=BaseModel)


class Refused(HTTPException):
    """A request that is answered with an error: its status, its code, a sentence, when to try again."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(status, message, {"Retry-After": str(retry_after_s)} if retry_after_s else None)
        self.code = code


class _User(BaseModel):
    user_id: Id


class _Login(_User):
    code: Id | None = None
    device_type: Id | None = None
    device_id: Id | None = None


class _Logout(BaseModel):
    token: Id
    user_id: Id | None = None


class _Kick(BaseModel):
    user_id: Id | None = None
    session_id: Id | None = None


class _Send(_User):
    payload: Any


class _Page(BaseModel):
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    per_page: Annotated[int, Field(ge=1, le=1000)] = 100
    state: str = "live"


def _check_operator(request: Request, config: GatewayConfig) -> None:
    token, given = config.operator_token, request.headers.get("authorization", "")
    if not token or not compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise Refused(401, "not_the_operator", "send Authorization: Bearer and the operator_token")


def _operator_routes(gateway: Gateway) -> list[Route]:
    """Return the operator's routes; none where there is no operator."""
    config = gateway.config
    if not config.operator_token:
        return []

    async def kick(request: Request) -> Response:
        _check_operator(request, config)
        body = await _read_body(request, _Kick)
        if bool(body.user_id) == bool(body.session_id):
            raise _bad_request('either "user_id" or "session_id"')
        ended = await gateway.logins.kick(user_id=body.user_id or "", session_id=body.session_id or "")
        return _json_answer({"sessions": ended})

    async def send(request: Request) -> Response:
        _check_operator(request, config)
        body = await _read_body(request, _Send)
        try:
            reached = await gateway.router.send(body.user_id, body.payload, _SENDER)
        except TypeError as error:
            raise _bad_request("the payload is nested too deeply") from error
        return _json_answer({"connections": reached})

    return [Route("/operator/kick", kick, methods=["POST"]), Route("/operator/send", send, methods=["POST"])]


_REQUEST_S = 5.0
_MOST_HEAD_BYTES = 65_536
_STATIC = Path(__file__).parents[1] / "static"
_PAGE_HEADERS = {
    # The WebSocket has a port of its own, which 'self' does not cover.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(gateway: Gateway) -> ASGIApp:
    """Return the API of a gateway."""
    config = gateway.config
    metrics = Metrics(gateway)
    of_address = LoginRate(config.max_logins_per_minute_per_ip)
    of_user = LoginRate(config.max_logins_per_minute_per_user)

    async def code(request: Request) -> Response:
        _refuse_while_closed(gateway)
        body = await _read_body(request, _User)
        issued = await gateway.codes.issue(body.user_id)
        return _json_answer({"code": issued, "expires_in_s": config.policy.code_ttl})

    async def login(request: Request) -> Response:
        _refuse_while_closed(gateway)
        body = await _read_body(request, _Login)
        user_id, origin = body.user_id, _origin(request, body.device_type or "web", config)
        if is_in(origin.ip_address, config.denied_ips):
            raise Refused(403, "ip_denied", f"{origin.ip_address} may not log in here")
        # The address first: who is above its rate does not use up another user's.
        for rate, key in ((of_address, network_of(origin.ip_address)), (of_user, user_id)):
            if (wait_s := rate.wait_s(key, monotonic())) > 0:
                raise Refused(429, "too_many_logins", f"too many logins of {key}", math.ceil(wait_s))
        await _check_code(gateway, user_id, body.code or "")
        try:
            token = await gateway.logins.login(user_id, origin, body.device_id or "")
        except AddressFull as error:
            raise Refused(429, "too_many_sessions_from_ip", str(error)) from error
        if token is None:
            raise Refused(409, "already_online", f"{user_id} is online; log out there first")
        gateway.counters.logins.labels("ok").inc()
        return _json_answer({"token": token, "session_id": session_id_of(token), "user_id": user_id})

    async def logout(request: Request) -> Response:
        body = await _read_body(request, _Logout)
        try:
            await gateway.logins.logout(session_id_of(body.token), body.user_id or "")
        except WrongUser:
            raise Refused(403, "wrong_user", "the session is another user's") from None
        return _json_answer({})

    async def sessions(request: Request) -> Response:
        if not config.is_local:
            _check_operator(request, config)
        query = _validated(_Page, dict(request.query_params))
        first, last = (query.page - 1) * query.per_page, query.page * query.per_page
        rows: list[dict[str, Any]]
        if query.state == "waiting":
            # Ended, and not cleared: they may still be resumed.
            held = list(gateway.windows.waiting())
            rows, total = [_row(record, config) for record in held[first:last]], len(held)
        else:
            now_s, total = monotonic(), len(gateway.live)
            # In the order in which they connected: dicts keep it. What ends moves later pages up.
            rows = [
                {
                    **_row(connection.record, config),
                    "connected_for_s": round(now_s - connection.connected_s, 3),
                    "idle_s": round(now_s - connection.last_seen_s, 3),
                }
                for connection in islice(gateway.live.values(), first, last)
                if connection.record is not None
            ]
        return _json_answer(
            {"sessions": rows, "page": query.page, "per_page": query.per_page, "total": total}
        )

    async def health(_request: Request) -> Response:
        state = gateway.health()
        return _json_answer(state, 200 if state["status"] == "ok" else 503)

    async def scrape(request: Request) -> Response:
        if not config.is_local:
            _check_operator(request, config)
        text, content_type = scraped(metrics.registry, request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    async def client_config(_request: Request) -> Response:
        return _json_answer(
            {
                "websocket_port": gateway.port,
                "node": config.node,
                "require_code": config.require_code,
                "resume_window_s": config.policy.resume_window,
            }
        )

    async def page(_request: Request) -> Response:
        return FileResponse(_STATIC / "index.html", headers=_PAGE_HEADERS)

    routes = [
        Route("/", page),
        Route("/user/code", code, methods=["POST"]),
        Route(_LOGIN, login, methods=["POST"]),
        Route("/user/logout", logout, methods=["POST"]),
        Route("/api/sessions", sessions),
        Route("/api/config", client_config),
        Route(_HEALTH, health),
        Route("/metrics", scrape),
        *_operator_routes(gateway),
        Mount("/static", _Static(directory=_STATIC)),
    ]

    router = Router(routes)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = router  # it raises what is none of its paths, then, and does not answer by itself
        try:
            await router(scope, receive, send)
        except _ANSWERED as error:
            refused = _refused(error)
            if scope["path"] == _LOGIN and scope["method"] == "POST":
                gateway.counters.logins.labels(refused.code).inc()
            body = {"error": {"code": refused.code, "message": refused.detail}}
            answer = _json_answer(body, refused.status_code)
            answer.headers.update(refused.headers or {})
            await answer(scope, receive, send)

    return app


class HttpServer(uvicorn.Server):
    """uvicorn as a guest in the gateway's loop: signals and the end of the process are not its business."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(gateway),
                http=_behind_tls(gateway),  # type: ignore[arg-type]  # what uvicorn does is to call it
                log_level="error",  # what strangers send is not worth a line
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                backlog=BACKLOG,
                timeout_graceful_shutdown=1,
                server_header=False,
                proxy_headers=False,  # `trusted_proxies` says whom to believe, not uvicorn's default
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


def _behind_tls(gateway: Gateway) -> Callable[..., asyncio.Protocol]:
    """Return what makes the protocol of a socket: `_bounded`, behind TLS where there is a certificate."""
    bounded, limiter = _bounded(gateway), gateway.limiter

    def make(**of_uvicorn: Any) -> asyncio.Protocol:
        protocol = partial(bounded, **of_uvicorn)
        if gateway.tls is None:
            return protocol()
        return TlsProtocol(gateway.tls, protocol, limiter.enter_http, limiter.leave_http, _REQUEST_S)

    return make


def _bounded(gateway: Gateway) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with what it lacks: deadlines, budgets, and an answer to any bytes without a log line.

    A request, from its first byte (the first one: from the connection) until its answer has been taken, has
    `_REQUEST_S`, which a byte now and then does not prolong, and `_MOST_HEAD_BYTES` beside its body. Above the budget
    of connections for this port only health is told.
    """
    limiter = gateway.limiter

    class Bounded(HttpToolsProtocol):
        _within = True  # a request: bytes that no answer has followed yet
        _unfinished = False  # of its bytes some are still to come
        _bytes = 0  # of it so far, its body aside
        _answering: RequestResponseCycle | None = None  # the first of pipelined requests; `cycle` is the last

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if not limiter.enter_http(self):
                self.app = _only_health(self.app)
            self._began_s = self.loop.time()
            self._deadline: asyncio.Handle | None = self.loop.call_later(_REQUEST_S, self._on_deadline)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            limiter.leave_http(self)
            self._nobody_waits()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._is_idle():
                self._began_s, self._within = self.loop.time(), True
                if self._deadline is None:
                    self._deadline = self.loop.call_later(_REQUEST_S, self._on_deadline)
            super().data_received(data)
            self._bytes += len(data)
            if self._unfinished and self._bytes > _MOST_HEAD_BYTES:
                self._give_up()

        def on_message_begin(self) -> None:
            self._unfinished, self._bytes = True, 0
            super().on_message_begin()

        def on_body(self, body: bytes) -> None:
            self._bytes -= len(body)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._unfinished = False
            if self.cycle.response_complete:  # an answer that did not wait for the body
                self._within = False
            else:
                limiter.heard_http(self)
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self._within = self._unfinished or bool(self.pipeline)
            limiter.answered_http(self)
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            if self.cycle is None or self.cycle.response_complete:
                super().send_400_response(msg)
            else:
                self._give_up()

        def timeout_keep_alive_handler(self) -> None:
            self._give_up()  # close would wait for a client that takes nothing

        def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
            self._answering = cycle
            super()._start_asgi_task(cycle, app)

        def _give_up(self) -> None:
            self._nobody_waits()
            self.transport.abort()

        def _nobody_waits(self) -> None:
            for cycle in (self._answering, self.cycle):
                if cycle is not None:
                    cycle.disconnected = True  # it would write to what is closed
                    cycle.message_event.set()

        def _is_idle(self) -> bool:
            return not self._within and self.transport.get_write_buffer_size() == 0

        def _on_deadline(self) -> None:
            self._deadline = None
            left_s = self._began_s + _REQUEST_S - self.loop.time()
            if left_s > 0:
                self._deadline = self.loop.call_later(left_s, self._on_deadline)
            elif not self._is_idle():
                self._give_up()

    return Bounded


def _only_health(app: ASGIApp) -> ASGIApp:
    """Return an app that answers whether the gateway is well, and turns all else away."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        code = "too_many_connections"
        body = {"error": {"code": code, "message": SENTENCES[code]}}
        turned_away = _json_answer(body, 503)
        turned_away.headers.update({"Retry-After": str(RETRY_AFTER_S), "Connection": "close"})
        await (app if scope["path"] == _HEALTH else turned_away)(scope, receive, send)

    return answer


class _Static(StaticFiles):
    """The files of the page, with the headers of the page."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        return response


def _row(record: Record, config: GatewayConfig) -> dict[str, Any]:
    return {
        "session_id": record.session_id,
        "user_id": record.user_id,
        "connection_id": record.owner,
        "node": config.node,
    }


def _refuse_while_closed(gateway: Gateway) -> None:
    code = "draining" if gateway.draining else gateway.limiter.closed_because(strangers=False)
    if code is not None:
        gateway.count_refused(code)
        raise Refused(503, code, SENTENCES[code], RETRY_AFTER_S)


async def _check_code(gateway: Gateway, user_id: str, code: str) -> None:
    if not code:
        if gateway.config.require_code:
            raise Refused(401, "code_required", "ask for a code first: POST /user/code")
        return
    match await gateway.codes.use(user_id, code):
        case CodeVerdict.WRONG:
            raise Refused(401, "code_wrong", "this is not the code")
        case CodeVerdict.NONE:
            raise Refused(401, "code_expired", "there is no code, or it was used; ask for another")


def _bad_request(message: str) -> Refused:
    return Refused(400, "bad_request", message)


def _json_answer(value: Any, status: int = 200) -> Response:
    """Return an answer that nobody keeps."""
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _refused(error: Exception) -> Refused:
    """Put any error of a request in our form, the framework's (no such path, wrong method) too."""
    match error:
        case Refused():
            return error
        case HTTPException(status_code=status):
            return Refused(status, _CODES.get(status, "error"), error.detail)
        case _:
            code, sentence = _AWAY[type(error)]
            return Refused(503, code, f"{sentence}: {error}", 1)


async def _read_body(request: Request, model: type[M]) -> M:
    """Read a JSON object of a bounded size.

    Raises:
        Refused: it is none, or too large, or not what the model says.
    """
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > _MOST_BODY_BYTES:
                raise Refused(413, "too_large", f"at most {_MOST_BODY_BYTES} bytes")
    except ClientDisconnect as error:
        raise _bad_request("the body ended early") from error
    try:
        return _validated(model, orjson.loads(data))
    except orjson.JSONDecodeError as error:
        raise _bad_request(f"the body is not JSON: {error}") from error


def _validated(model: type[M], values: Any) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = f'"{first["loc"][0]}"' if first["loc"] else "the body"
        raise _bad_request(f"{where}: {first['msg']}") from error


def _origin(request: Request, device_type: str, config: GatewayConfig) -> Origin:
    peer = request.client.host if request.client is not None else ""
    trusted = config.trusted_proxies
    address = address_of(peer, request.headers.getlist("x-forwarded-for") if trusted else (), trusted)
    return Origin.of(device_type, address, request.headers.get("user-agent", ""))
