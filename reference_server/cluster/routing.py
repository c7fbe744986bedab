"""Messages to users and kicks, wherever the user is connected: by way of the node that holds the user.

From a user's id to the connections that have the user's records, through one channel for each node
(`to:{incarnation}`). What a node is told:

    {"type": "message", "owner", "text"}      write this text to the connection
    {"type": "taken_over", "owner"}           a newer connection has its records
    {"type": "logged_out", "owner"}, {"type": "kicked", "owner"}    its session was ended

A message is delivered once or not at all, never kept: who is not online is not reached. The last three are
published by the scripts in one step with the records, so that a lost one is found out at the next refresh.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from reference_server.frames import text_frame
from reference_server.sessions.records import Sessions
from reference_server.sessions.redis_writer import Answer, Call, StoreUnavailable, StoreWriter
from reference_server.sessions.scripts import Script
from reference_server.websocket.connection import GatewayConnection

__all__ = ["Router", "Switchboard"]

_MOST_WAITING = 16  # messages of one client that Redis has not answered for

_log = logging.getLogger(__name__)


class Switchboard(Protocol):
    """The gateway, as far as what it is told is concerned."""

    live: dict[str, GatewayConnection]

    def take_over(self, owner: str) -> None:
        """End a connection that has lost its records."""

    def end_session(self, owner: str, how: str) -> None:
        """End a connection whose session was ended, in its own words: `logged_out` or `kicked`."""


class Router:
    """Finds users.

    Args:
        writer: carries the calls.
        sessions: of this node.
        here: what is told to this node goes there.
    """

    def __init__(self, writer: StoreWriter, sessions: Sessions, here: Switchboard) -> None:
        self._writer = writer
        self._sessions = sessions
        self._here = here
        self._waiting: dict[str, int] = {}  # messages under way, by the connection that sends them
        self.channel = f"{writer.prefix}to:{sessions.owners.incarnation}"
        self.undelivered = 0  # messages dropped because the client had gone or its buffer was full

    async def send(self, user_id: str, payload: Any, sender: str) -> int:
        """Send a user a message; return how many connections it goes to, 0: not online.

        Args:
            user_id: to whom.
            payload: anything that JSON has.
            sender: a user's id, as the receiver is told.

        Raises:
            StoreUnavailable: Redis does not answer.
            TypeError: the payload is not JSON, or nested too deeply.
        """
        reached: int = await self._writer.ask(self._call(user_id, payload, sender))
        return reached

    async def sessions_of(self, user_id: str) -> list[str]:
        """Return the sessions that a user is online with, one for each device at most.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        args = (*self._sessions.head, user_id)
        return [found.decode() for found in await self._writer.ask(Call(Script.SESSIONS_OF, (), args))]

    def pass_on(self, connection: GatewayConnection, user_id: str, payload: Any) -> None:
        """Send what a client wants sent; the client hears of it only if nobody is reached."""
        record = connection.record
        assert record is not None
        owner = record.owner
        under_way = self._waiting.get(owner, 0)
        if under_way >= _MOST_WAITING:
            connection.send_error("too_many", f"at most {_MOST_WAITING} messages under way")
            return

        def done(answer: Answer) -> None:
            self._waiting[owner] -= 1
            if not self._waiting[owner]:
                del self._waiting[owner]
            if isinstance(answer, StoreUnavailable):
                connection.send_error("store_unavailable", "try again later")
            elif answer == 0:
                connection.send_error("not_online", f"{user_id} is not online")

        try:
            call = self._call(user_id, payload, record.user_id, done)
        except TypeError:
            connection.send_error("malformed", "the payload is nested too deeply")
            return
        self._waiting[owner] = under_way + 1
        self._writer.submit(call)

    def deliver(self, message: bytes) -> None:
        """Take what this node is told."""
        try:
            told = orjson.loads(message)
        except orjson.JSONDecodeError:
            told = None
        match told:
            case {"type": "message", "owner": str(owner), "text": str(text)}:
                connection = self._here.live.get(owner)
                if connection is None or not connection.send_frame(text_frame(text.encode())):
                    self.undelivered += 1
            case {"type": "taken_over", "owner": str(owner)}:
                self._here.take_over(owner)
            case {"type": "logged_out" | "kicked" as how, "owner": str(owner)}:
                self._here.end_session(owner, how)
            case _:
                _log.warning("from another node, not understood: %.200r", message)

    def _call(
        self, user_id: str, payload: Any, sender: str, done: Callable[[Answer], None] | None = None
    ) -> Call:
        text = orjson.dumps({"type": "message", "from": sender, "payload": payload}).decode()
        return Call(Script.SEND, (), (*self._sessions.head, user_id, text), done)
