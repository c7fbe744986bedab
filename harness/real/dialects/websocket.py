"""Plain WebSocket: nothing is said, protocol pings are answered (RFC 6455 section 5.5.2)."""

from __future__ import annotations

from harness.real.dialects.base import Dialect

__all__ = ["WebSocket"]


class WebSocket(Dialect):
    """Answers pings; whatever else comes is read and passed over."""

    __slots__ = ()
    name = "websocket"
    summary = "RFC 6455: pings are answered, nothing is said"
    shown = "run"
