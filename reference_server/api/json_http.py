"""JSON over HTTP: bodies read with a bound, answers and errors written in one form.

Errors are ``{"error": {"code", "message"}}``: a code for programs and a sentence for people. Knows nothing
of sessions.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

__all__ = [
    "Id",
    "Refused",
    "bad_request",
    "json_answer",
    "json_error",
    "of_http_exception",
    "read_body",
    "read_query",
]

_MOST_BODY_BYTES = 16_384
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}

Id = Annotated[str, Field(strict=True, min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
"""Text of a body. PostgreSQL keeps no NUL."""
M = TypeVar("M", bound=BaseModel)


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


async def read_body(request: Request, model: type[M]) -> M:
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
        raise bad_request("the body ended early") from error
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the body is not a JSON object")
    return _validated(model, body)


def read_query(request: Request, model: type[M]) -> M:
    """Read the query's parameters.

    Raises:
        Refused: they are not what the model says.
    """
    return _validated(model, dict(request.query_params))


def _validated(model: type[M], values: dict[str, Any]) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise bad_request(f'"{first["loc"][0]}": {first["msg"]}') from error
