"""SockJS in its WebSocket transport: `o` opens, `h` is the server's heartbeat, `a[…]` messages, `c[…]` the end.

Nothing answers `h`: a SockJS server alone notices a silent client by TCP only. Source: SockJS protocol 0.3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.real.dialects.base import Dialect, Item, Message, Ready, Refused

__all__ = ["SockJs"]


class SockJs(Dialect):
    """Reads SockJS frames; its own beat is an empty list of messages."""

    __slots__ = ()
    name = "sockjs"
    summary = "SockJS: the server sends h, nothing is answered"
    ready_at_once = False

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a frame by its first character."""
        match message[:1]:
            case "o":
                return (Ready(),)
            case "c":
                return (Refused(str(message)[:200]),)
        return ()

    def beat(self) -> Message | None:
        """A message that says nothing."""
        return "[]"
