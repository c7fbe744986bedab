"""Log lines about heartbeats and the ends of sessions, in fixed words and with fields: for grep and for programs.

From what the gateway notices to Python's logging. Seven lines: authentication failed, sent, failed n/max with the
reason, limit reached, disconnected, removed, released. A line that nobody wants costs nothing: the gateway asks once,
at its start, which are wanted.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Literal

import orjson

__all__ = [
    "JsonFormatter",
    "LogFormat",
    "LogLevel",
    "SessionLines",
    "TextFormatter",
    "configure_logging",
    "without_controls",
]

_log = logging.getLogger("reference_server.session")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# What moves a terminal's cursor, colours it, or turns its text around.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_MOST_LENGTH = 1000  # of a line's text, in characters
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


LogLevel = Literal["debug", "info", "warning", "error"]
"""Which lines are wanted; info: of each session and heartbeat, warning: of those that fail."""
LogFormat = Literal["text", "json"]


def without_controls(text: str) -> str:
    """Return what of a stranger's text may be printed."""
    return _CONTROL.sub("", text)


class TextFormatter(logging.Formatter):
    """One bounded line, without control characters; below it a traceback of ours, if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return without_controls(super().formatMessage(record))[:_MOST_LENGTH]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and every field that the line has."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        fields: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": without_controls(record.getMessage())[:_MOST_LENGTH],
        }
        fields |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str).decode()


def configure_logging(style: LogFormat, level: LogLevel | None) -> None:
    """Send all log lines to standard error.

    Args:
        style: for people or for programs.
        level: of everything, as ``debug``; None: warnings of the gateway, no lines about single sessions.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(_TEXT))
    logging.basicConfig(handlers=[handler], level=(level or "warning").upper(), force=True)
    _log.setLevel(logging.CRITICAL + 1 if level is None else logging.NOTSET)


class SessionLines:
    """Writes the lines of one gateway."""

    def __init__(self) -> None:
        self.wanted = _log.isEnabledFor(logging.ERROR)
        self.sends_wanted = _log.isEnabledFor(logging.INFO)
        self._half_released: set[str] = set()  # connections of which socket or records are gone

    def refused(self, session_id: str, user_id: str, connection_id: str, code: str) -> None:
        """An authentication failed; what is not known is empty."""
        text = f"Authentication failed for %s: {code}; user %s, request %s"
        fields = {"user_id": user_id, "request_id": connection_id}
        self._say(logging.WARNING, text, "refused", session_id, *fields.values(), code=code, **fields)

    def sent(self, session_id: str) -> None:
        """A heartbeat was written."""
        self._say(logging.INFO, "Heartbeat sent to %s", "heartbeat_sent", session_id)

    def failed(self, session_id: str, failures: int, most: int, reason: str) -> None:
        """A heartbeat failed; at ``most`` the limit is reached."""
        fields = {"failures": failures, "max_failures": most, "reason": reason}
        text = f"Heartbeat failed for %s ({failures}/{most}): {reason}"
        self._say(logging.WARNING, text, "heartbeat_failed", session_id, **fields)
        if failures >= most:
            text = "Max heartbeat failures reached for %s, disconnecting"
            self._say(logging.ERROR, text, "heartbeat_limit_reached", session_id, max_failures=most)

    def disconnected(self, session_id: str, cause: str) -> None:
        """A connection is over, by this layer."""
        self._say(logging.INFO, "WebSocket disconnected: %s", "disconnected", session_id, cause=cause)

    def removed(self, session_id: str, connection_id: str, user_id: str = "") -> None:
        """The session's records are gone from the store."""
        fields = {"user_id": user_id, "request_id": connection_id}
        text = "Removed session %s; user %s, request %s"
        self._say(logging.INFO, text, "removed", session_id, *fields.values(), **fields)
        self.socket_gone(session_id, connection_id)

    def socket_gone(self, session_id: str, connection_id: str, *, has_records: bool = True) -> None:
        """The connection's socket is gone. Released is what has neither a socket nor records of its own any more."""
        if connection_id in self._half_released:
            self._half_released.discard(connection_id)
            self._say(logging.INFO, "Session %s resources released", "released", session_id)
        elif self.wanted and has_records:
            self._half_released.add(connection_id)

    def resumed(self, connection_id: str) -> None:
        """The session goes on with another connection: its records are not removed."""
        self._half_released.discard(connection_id)

    def _say(self, level: int, text: str, event: str, session_id: str, *more: str, **fields: Any) -> None:
        if self.wanted:
            about = [value or "?" for value in (session_id, *more)]
            _log.log(level, text, *about, extra={"event": event, "session_id": session_id, **fields})
