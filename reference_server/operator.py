"""What an operator may ask of any node: end a user's sessions, send a user a message; wherever the user is.

From HTTP requests with the operator's token to `Logins.kick` and `Router.send`. There are no such routes
without ``operator_token`` in the configuration.

| | |
|---|---|
| ``POST /operator/kick`` | ``user_id`` or ``session_id`` → ``sessions``: how many ended (close code 4410) |
| ``POST /operator/send`` | ``user_id``, ``payload`` (any JSON) → ``connections``: how many it goes to |
"""

from __future__ import annotations

from secrets import compare_digest

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reference_server.gateway import Gateway
from reference_server.json_http import (
    Refused,
    bad_request,
    json_answer,
    optional_text,
    read_object,
    required_text,
)

__all__ = ["operator_routes"]

_SENDER = "operator"


def operator_routes(gateway: Gateway) -> list[Route]:
    """Return the operator's routes; none where there is no operator."""
    token = gateway.config.operator_token
    if not token:
        return []

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Refused(401, "not_the_operator", "send Authorization: Bearer and the token")

    async def kick(request: Request) -> Response:
        check(request)
        body = await read_object(request)
        user_id, session_id = optional_text(body, "user_id"), optional_text(body, "session_id")
        if bool(user_id) == bool(session_id):
            raise bad_request('either "user_id" or "session_id"')
        ended = await gateway.logins.kick(user_id=user_id, session_id=session_id)
        return json_answer({"sessions": ended})

    async def send(request: Request) -> Response:
        check(request)
        body = await read_object(request)
        user_id = required_text(body, "user_id")
        if "payload" not in body:
            raise bad_request('"payload" is missing: any JSON')
        try:
            reached = await gateway.router.send(user_id, body["payload"], _SENDER)
        except TypeError as error:
            raise bad_request("the payload is nested too deeply") from error
        return json_answer({"connections": reached})

    return [
        Route("/operator/kick", kick, methods=["POST"]),
        Route("/operator/send", send, methods=["POST"]),
    ]
