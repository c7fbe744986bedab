"""NATS over WebSocket: INFO, CONNECT, and PING and PONG in both directions, line by line in binary messages.

Source: NATS client protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.real.dialects.base import Answer, Dialect, Item, Message, Ready, Refused, Who

__all__ = ["Nats"]

_CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"lang":"flatline","version":"1","protocol":1}\r\nPING\r\n'
)
_MOST_BYTES = 1 << 20


class Nats(Dialect):
    """One NATS connection without subscriptions: lines are all that comes."""

    __slots__ = ("_line",)
    name = "nats"
    summary = "NATS: PING and PONG both ways"
    ready_at_once = False

    def __init__(self, who: Who) -> None:
        super().__init__(who)
        self._line = b""

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a part of the stream of lines."""
        self._line += message.encode() if isinstance(message, str) else message
        *lines, self._line = self._line.split(b"\r\n")
        self._line = self._line[:_MOST_BYTES]
        found: list[Item] = []
        for line in lines:
            word = line.split(b" ", 1)[0].upper()
            if word == b"INFO":
                found.append(Answer(_CONNECT, heartbeat=False))
            elif word == b"PING":
                found.append(Answer(b"PONG\r\n"))
            elif word == b"PONG":
                found.append(Ready())
            elif word == b"-ERR":
                found.append(Refused(line.decode(errors="replace")[:200]))
        return found

    def beat(self) -> Message | None:
        """Its own PING."""
        return b"PING\r\n"
