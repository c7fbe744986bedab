"""Protocols that send JSON objects with a fixed word for their heartbeat.

graphql-ws    connection_init, connection_ack, ping, pong            graphql-transport-ws, its PROTOCOL.md
actioncable   welcome, ping every 3 s (nothing to answer)            actioncable-v1-json
pusher        pusher:connection_established, pusher:ping, pusher:pong   Pusher Channels protocol 7
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from harness.real.dialects.base import Answer, Dialect, Item, Message, PeerGone, Ready, Refused, Who

__all__ = ["ActionCable", "GraphqlWs", "Pusher"]


def _object(message: Message | Any) -> Mapping[str, Any]:
    """Return the JSON object that a message holds; empty: it holds none."""
    if isinstance(message, Mapping):
        return message
    if not isinstance(message, str | bytes):
        return {}
    try:
        said = orjson.loads(message)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


class GraphqlWs(Dialect):
    """GraphQL over WebSocket, the protocol of the library graphql-ws."""

    __slots__ = ()
    name = "graphql-ws"
    summary = "graphql-transport-ws: connection_init, ping and pong both ways"
    shown = "run"
    subprotocol = "graphql-transport-ws"
    ready_at_once = False

    def opening(self) -> Iterable[Message]:
        """Ask for the connection."""
        return ('{"type":"connection_init"}',)

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a message by its type."""
        match _object(message).get("type"):
            case "connection_ack":
                return (Ready(),)
            case "ping":
                return (Answer('{"type":"pong"}'),)
        return ()

    def beat(self) -> Message | None:
        """Its own ping."""
        return '{"type":"ping"}'


class ActionCable(Dialect):
    """Rails' Action Cable.

    Args:
        who: whose connection.
        pong: answer pings: servers that look for it are newer than 8.1.
    """

    __slots__ = ("_pong",)
    name = "actioncable"
    summary = "Action Cable: the server pings, nobody answers unless `pong: true`"
    subprotocol = "actioncable-v1-json"
    ready_at_once = False

    def __init__(self, who: Who, pong: bool = False) -> None:
        super().__init__(who)
        self._pong = pong

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a message by its type."""
        match _object(message).get("type"):
            case "welcome":
                return (Ready(),)
            case "ping" if self._pong:
                return (Answer('{"type":"pong"}'),)
            case "disconnect":
                return (Refused(str(_object(message).get("reason", ""))),)
        return ()


class Pusher(Dialect):
    """Pusher Channels and servers that speak like it (Soketi, Laravel Reverb)."""

    __slots__ = ()
    name = "pusher"
    summary = "Pusher 7: pusher:ping and pusher:pong both ways, member_removed"
    ready_at_once = False

    def receive(self, message: Message) -> Sequence[Item]:
        """Take an event by its name."""
        said = _object(message)
        match said.get("event"):
            case "pusher:connection_established":
                return (Ready(),)
            case "pusher:ping":
                return (Answer('{"event":"pusher:pong","data":{}}'),)
            case "pusher:error":
                return (Refused(str(said.get("data", ""))[:200]),)
            case "pusher_internal:member_removed":
                return (PeerGone(str(_object(said.get("data")).get("user_id", ""))),)
        return ()

    def beat(self) -> Message | None:
        """Its own ping."""
        return '{"event":"pusher:ping","data":{}}'
