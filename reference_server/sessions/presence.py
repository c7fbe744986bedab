"""Who is told when a user goes offline or comes online: from announcements to the clients that watch.

The scripts write the set of online users and the announcements, in one step with the records (`scripts.py`). These
have 4,096 channels, a user's by a hash, of which a gateway hears those of the users whom somebody here watches.
`Presence` is the receiving end. What is announced while the gateway's subscription is down is lost, so `Presence`
remembers what the watchers of each user believe, and `reconcile` compares that with the set.

`PlainOnlineSet` is how some other systems do it: a SET without expiry per member, written apart from the records,
by SADD and SREM as connections begin and end. A node that dies between the two leaves its users online for ever;
it is here to show that.
"""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections.abc import Iterable
from functools import partial
from hashlib import sha1
from itertools import chain, islice
from typing import Protocol

import orjson

from reference_server.frames import text_frame
from reference_server.sessions.channels import Channels
from reference_server.sessions.redis_writer import Answer, Call, StoreUnavailable, StoreWriter
from reference_server.sessions.scripts import Script

__all__ = ["PlainOnlineSet", "Presence", "Watcher"]

_CHUNK = 500

_log = logging.getLogger(__name__)


class PlainOnlineSet:
    """Who is online, as one gateway after the other says; key ``online_users`` below the prefix."""

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer

    def add(self, user_id: str) -> None:
        """A connection of the user has begun."""
        self._write(Script.PLAIN_ADD, user_id)

    def remove(self, user_id: str) -> None:
        """A connection of the user has ended, whatever other connections the user has."""
        self._write(Script.PLAIN_REMOVE, user_id)

    def _write(self, script: Script, user_id: str) -> None:
        keys = (f"{self._writer.prefix}online_users",)
        self._writer.submit(Call(script, keys, (user_id,), durable_key=f"online:{user_id}"))


class Watcher(Protocol):
    """A client that wants to know."""

    def send_frame(self, frame: bytes) -> bool:
        """Write a frame without waiting; False: not now."""


class _Watched:
    """A user whom somebody watches."""

    __slots__ = ("channel", "heard", "online", "told", "watchers")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.watchers: set[Watcher] = set()
        self.online: bool | None = None  # what they believe; None: nothing yet
        self.told = ("", "")  # the last announcement: kind and session
        self.heard = 0  # announcements


class Presence:
    """Which client watches whom."""

    def __init__(self, writer: StoreWriter, channels: Channels) -> None:
        self._writer, self._channels = writer, channels
        self._users: dict[str, _Watched] = {}
        self._sharing: dict[str, set[str]] = {}  # users by their channel
        self._watched: dict[Watcher, set[str]] = {}
        self._begun: list[str] = []  # channels whose users are to be asked for
        self.undelivered = 0  # announcements dropped because a client's buffer was full

    def watch(self, watcher: Watcher, user_ids: Iterable[str], most: int) -> bool:
        """Watch these users too; False: they would be above ``most``.

        The watcher is told how many it watches now, and then who of the new ones is online already.
        """
        before = self._watched.get(watcher, set())
        watched = before | set(user_ids)
        if len(watched) > most:
            return False
        self._watched[watcher] = watched
        watcher.send_frame(text_frame(orjson.dumps({"type": "watching", "count": len(watched)})))
        new = []
        for user_id in watched - before:
            user = self._users.get(user_id)
            if user is None:
                user = self._users[user_id] = _Watched(self._channel_of(user_id))
                new.append(user_id)
                if user.channel not in self._sharing:
                    self._sharing[user.channel] = set()
                    self._channels.hear(user.channel, self.deliver, self._begin)
                self._sharing[user.channel].add(user_id)
            elif user.online:
                self._send([watcher], user_id, *user.told)
            user.watchers.add(watcher)
        self._ask(new)
        return True

    def forget(self, watcher: Watcher) -> None:
        """Take a client that has ended out of the index."""
        for user_id in self._watched.pop(watcher, ()):
            user = self._users[user_id]
            user.watchers.discard(watcher)
            if not user.watchers:
                del self._users[user_id]
                self._sharing[user.channel].discard(user_id)
                if not self._sharing[user.channel]:
                    del self._sharing[user.channel]
                    self._channels.leave(user.channel)

    def _channel_of(self, user_id: str) -> str:
        """As `records.lua` has it."""
        return (
            f"{self._writer.prefix}presence:{sha1(user_id.encode(), usedforsecurity=False).hexdigest()[:3]}"
        )

    def _begin(self, channel: str) -> None:
        """A channel's announcements are heard from now on: tell who is online already, of all that begin together."""
        if not self._begun:
            get_running_loop().call_soon(self._ask_begun)
        self._begun.append(channel)

    def _ask_begun(self) -> None:
        # Not of those of whom something is known: after an outage the records may be missing that nodes are about to
        # bring back, and `reconcile` comes then.
        begun, self._begun = self._begun, []
        sharing = chain.from_iterable(self._sharing.get(channel, ()) for channel in begun)
        self._ask(user_id for user_id in sharing if self._users[user_id].online is None)

    def on_store_back(self) -> None:
        """Ask again for those of whom nothing is known yet: while Redis was away, nobody answered."""
        self._ask(user_id for user_id, user in self._users.items() if user.online is None)

    def reconcile(self) -> None:
        """Ask who is online, and tell those who believe otherwise."""
        self._ask(self._users)

    def deliver(self, announcement: bytes) -> None:
        """Pass one announcement on to those who watch its user."""
        try:
            told = orjson.loads(announcement)
        except orjson.JSONDecodeError:
            told = None
        match told:
            case {
                "type": "online" | "offline" as kind,
                "user_id": str(user_id),
                "session_id": str(session_id),
            }:
                user = self._users.get(user_id)
            case _:
                _log.warning("presence: not an announcement: %.200r", announcement)
                return
        if user is None:
            return
        user.heard += 1
        # A record that came back says "again": nobody may have noticed that it was gone.
        if not (told.get("again") and user.online) and user.told != (kind, session_id):
            self._tell(user, kind, user_id, session_id)

    def _tell(self, user: _Watched, kind: str, user_id: str, session_id: str) -> None:
        user.online = kind == "online"
        user.told = (kind, session_id)
        self._send(user.watchers, user_id, kind, session_id)

    def _send(self, watchers: Iterable[Watcher], user_id: str, kind: str, session_id: str) -> None:
        frame = text_frame(orjson.dumps({"type": kind, "user_id": user_id, "session_id": session_id}))
        self.undelivered += sum(not watcher.send_frame(frame) for watcher in watchers)

    def _ask(self, user_ids: Iterable[str]) -> None:
        """Ask whether these are online, but for those whose announcements after the answer would not be heard yet."""
        prefix = self._writer.prefix
        waiting = iter(
            [user_id for user_id in user_ids if self._channels.stands(self._users[user_id].channel)]
        )
        while chunk := list(islice(waiting, _CHUNK)):
            asked = [(user_id, self._users[user_id], self._users[user_id].heard) for user_id in chunk]
            done = partial(self._on_answer, asked)
            self._writer.submit(Call(Script.ONLINE, (f"{prefix}online",), (prefix, *chunk), done))

    def _on_answer(self, asked: list[tuple[str, _Watched, int]], answer: Answer) -> None:
        if isinstance(answer, StoreUnavailable):
            return  # what was unknown stays so until Redis is back
        for (user_id, user, heard), session in zip(asked, answer, strict=True):
            if self._users.get(user_id) is not user or user.heard != heard:
                continue  # an announcement, by the other connection to Redis, has overtaken the answer
            if session is not None and not user.online:
                self._tell(user, "online", user_id, session.decode())
            elif session is None and user.online:
                self._tell(user, "offline", user_id, user.told[1])
            user.online = session is not None
