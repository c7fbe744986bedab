"""JSON over HTTP: bodies read with a bound, answers and errors written in one form.

Errors are ``{"error": {"code", "message"}}``: a code for programs and a sentence for people. Knows nothing
of sessions.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

__all__ = [
    "Refused",
    "bad_request",
    "json_answer",
    "json_error",
    "of_http_exception",
    "optional_text",
    "query_number",
    "read_object",
    "required_text",
]

_MOST_BODY_BYTES = 16_384
_MOST_ID_LENGTH = 128
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class Refused(Exception):
    """A request that is answered with an error; fields: status, code, message, retry_after_s."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


def bad_request(message: str) -> Refused:
    """Return the error for a request that makes no sense."""
    return Refused(400, "bad_request", message)


def json_answer(value: Any, status: int = 200) -> Response:
    """Return an answer that nobody keeps."""
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def json_error(error: Refused) -> Response:
    """Return the answer to a request that was refused."""
    body = {"error": {"code": error.code, "message": error.message}}
    answer = json_answer(body, error.status)
    if error.retry_after_s:
        answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer


def of_http_exception(error: HTTPException) -> Refused:
    """Put an error of the framework (no such path, wrong method) in our form."""
    return Refused(error.status_code, _CODES.get(error.status_code, "error"), f"{error.detail}")


async def read_object(request: Request) -> dict[str, Any]:
    """Read a JSON object of a bounded size.

    Raises:
        Refused: it is none, or too large.
    """
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > _MOST_BODY_BYTES:
                raise Refused(413, "too_large", f"at most {_MOST_BODY_BYTES} bytes")
    except ClientDisconnect as error:
        raise bad_request("the body ended early") from error
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the body is not a JSON object")
    return body


def required_text(body: dict[str, Any], key: str) -> str:
    """Return a text of the body.

    Raises:
        Refused: it is missing, empty, too long, or no text.
    """
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_ID_LENGTH or "\0" in value:
        limit = f"1 to {_MOST_ID_LENGTH} characters, none of them NUL"
        raise bad_request(f'"{key}" is a string of {limit}')
    return value


def optional_text(body: dict[str, Any], key: str) -> str:
    """Return a text of the body, or an empty one where it is missing or null.

    Raises:
        Refused: as `required_text`.
    """
    return "" if body.get(key) is None else required_text(body, key)


def query_number(request: Request, key: str, default: int, most: int) -> int:
    """Return a number of the query, from 1 to ``most``.

    Raises:
        Refused: it is none.
    """
    text = request.query_params.get(key, str(default))
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:10]) <= most:
        raise bad_request(f'"{key}" is a number from 1 to {most}')
    return int(text)
