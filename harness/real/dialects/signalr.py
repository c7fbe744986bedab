r"""SignalR, JSON hub protocol: a handshake, then pings of type 6 in both directions; records end with \x1e.

Source: ASP.NET Core, HubProtocol.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from harness.real.dialects.base import Dialect, Item, Message, Ready, Refused

__all__ = ["SignalR"]

_END = "\x1e"
_CLOSE = 7


class SignalR(Dialect):
    """One hub connection without a negotiation (skipNegotiation)."""

    __slots__ = ()
    name = "signalr"
    summary = "SignalR JSON: pings of type 6 both ways, on each side's own clock"
    ready_at_once = False

    def opening(self) -> Iterable[Message]:
        """The handshake."""
        return ('{"protocol":"json","version":1}' + _END,)

    def receive(self, message: Message) -> Sequence[Item]:
        """Take the records of a message."""
        text = message if isinstance(message, str) else message.decode(errors="replace")
        found: list[Item] = []
        for record in filter(None, text.split(_END)):
            try:
                said = orjson.loads(record)
            except orjson.JSONDecodeError:
                continue
            if not isinstance(said, dict):
                continue
            if said.get("error") or said.get("type") == _CLOSE:
                found.append(Refused(str(said)[:200]))
            elif not said:  # the handshake's answer: {} or an error
                found.append(Ready())
        return found

    def beat(self) -> Message | None:
        """Its own ping."""
        return '{"type":6}' + _END
