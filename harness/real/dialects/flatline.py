"""The reference gateway's own words: a token of the login first, then JSON heartbeats both ways, and who has gone.

    client  {"type":"auth","token":…}        server  {"type":"ready",…}      or {"type":"error","code":…}
    client  {"type":"watch","user_ids":[…]}  server  {"type":"offline","user_id":…}
    server  {"type":"heartbeat"}             client  {"type":"pong"}

Source: docs/the-gateway.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from harness.real.dialects.base import Answer, Dialect, Item, Message, PeerGone, Ready, Refused

__all__ = ["Flatline"]


class Flatline(Dialect):
    """One connection of a session; the target's login has to take its ``token``."""

    __slots__ = ()
    name = "flatline"
    summary = "the reference gateway: token, JSON heartbeats, presence of watched users"
    shown = "run"
    ready_at_once = False

    def opening(self) -> Iterable[Message]:
        """Show the token."""
        return (orjson.dumps({"type": "auth", "token": self.who.taken.get("token", "")}).decode(),)

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a message by its type."""
        try:
            said = orjson.loads(message)
        except orjson.JSONDecodeError:
            return ()
        match said:
            case {"type": "heartbeat"}:
                return (Answer('{"type":"pong"}'),)
            case {"type": "ready"} if self.who.watched:
                watch = orjson.dumps({"type": "watch", "user_ids": self.who.watched}).decode()
                return (Ready(), Answer(watch, heartbeat=False))
            case {"type": "ready"}:
                return (Ready(),)
            case {"type": "offline", "user_id": str(user)}:
                return (PeerGone(user),)
            case {"type": "error"}:
                return (Refused(str(said.get("code", ""))[:200]),)
        return ()

    def beat(self) -> Message | None:
        """Its own heartbeat."""
        return '{"type":"heartbeat"}'
