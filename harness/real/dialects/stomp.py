"""STOMP 1.2 over WebSocket: CONNECT, then a newline as heartbeat in both directions.

Source: STOMP 1.2, Connecting and Heart-beating.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.real.dialects.base import Dialect, Item, Message, Ready, Refused, Who

__all__ = ["Stomp"]


class Stomp(Dialect):
    """One STOMP session that says it beats as often as the target's clients do.

    Args:
        who: whose connection.
        login, passcode: of the broker; "": none.
        host: its virtual host.
    """

    __slots__ = ("_headers",)
    name = "stomp"
    summary = "STOMP 1.2: newlines as heartbeats, as often as was agreed"
    subprotocol = "v12.stomp"
    ready_at_once = False

    def __init__(self, who: Who, login: str = "", passcode: str = "", host: str = "/") -> None:
        super().__init__(who)
        beat_ms = 0 if math.isinf(who.beat_s) else round(who.beat_s * 1000)
        headers = {"accept-version": "1.2", "host": host, "heart-beat": f"{beat_ms},{beat_ms}"}
        headers |= {"login": login, "passcode": passcode} if login else {}
        self._headers = headers

    def opening(self) -> Iterable[Message]:
        """CONNECT."""
        return (
            "".join(["CONNECT\n", *(f"{key}:{value}\n" for key, value in self._headers.items()), "\n\0"]),
        )

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a frame by its command."""
        text = message if isinstance(message, str) else message.decode(errors="replace")
        match text.lstrip("\r\n").partition("\n")[0].strip():
            case "CONNECTED":
                return (Ready(),)
            case "ERROR":
                return (Refused(text[:200]),)
        return ()

    def beat(self) -> Message | None:
        """A newline."""
        return "\n"
