"""Phoenix channels, serializer V2: the client beats on the topic `phoenix`, and may join one.

    [join_ref, ref, topic, event, payload]

Source: Phoenix, V2 JSON serializer, and phoenix.js (heartbeat every 30 s).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from harness.real.dialects.base import Dialect, Item, Message, PeerGone, Ready, Refused, Who

__all__ = ["Phoenix"]

_FIELDS = 5


class Phoenix(Dialect):
    """One socket that joins a topic, if one is given.

    Args:
        who: whose connection.
        topic: to join; "": none, ready at once.
    """

    __slots__ = ("_topic", "ready_at_once")
    name = "phoenix"
    summary = "Phoenix channels: the client beats, presence tells of others"

    def __init__(self, who: Who, topic: str = "") -> None:
        super().__init__(who)
        self._topic = topic
        self.ready_at_once = not topic

    def opening(self) -> Iterable[Message]:
        """Join the topic."""
        return (orjson.dumps(["1", "1", self._topic, "phx_join", {}]).decode(),) if self._topic else ()

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a message by its event."""
        try:
            said = orjson.loads(message)
        except orjson.JSONDecodeError:
            return ()
        if not isinstance(said, list) or len(said) != _FIELDS or not isinstance(said[4], dict):
            return ()
        _, ref, topic, event, payload = said
        if event == "phx_reply" and ref == "1" and self._topic:
            joined = payload.get("status") == "ok"
            return (Ready(),) if joined else (Refused(str(payload)[:200]),)
        leaves = payload.get("leaves")
        if event == "presence_diff" and topic == self._topic and isinstance(leaves, dict):
            return tuple(PeerGone(str(who)) for who in leaves)
        return ()

    def beat(self) -> Message | None:
        """Its heartbeat."""
        return '[null,"2","phoenix","heartbeat",{}]'
