"""Does the store show whom it should? Pure: from clients' events and answers of the store to events.

Says which sessions to ask for, those whose client believes itself connected, and notes when the status record of one
is gone or names another session, and when it is there again. Reads no clock and no socket: both store watches do, the
real one (`harness/real/store_watch/process.py`) and the model's. Whether the client lived at the time is for
`harness/measure/presence.py` to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reference_server.events import Event, EventKind, Source

__all__ = ["PresenceWatch"]


class PresenceWatch:
    """Follows the status records of connected clients' sessions.

    Args:
        source: whose the events are that it returns.
    """

    def __init__(self, source: Source = Source.STORE) -> None:
        self._source = source
        self._connected: dict[str, str] = {}  # session -> user, in the order in which they are asked for
        self._gone: set[str] = set()
        self._asked_s: dict[str, float] = {}  # when the last question about a session was asked
        self._session_of: dict[str, str] = {}  # users with a connected client: its session
        self._unshown: set[str] = set()  # of these, those without any status record, by the last answer
        self.absent: dict[str, None] = {}  # users who were logged in and have no connected client

    def __len__(self) -> int:
        """How many sessions are connected."""
        return len(self._connected)

    @property
    def shown(self) -> int:
        """How many of the users with a connected client have a status record, by the last answers."""
        return len(self._session_of) - len(self._unshown)

    def take(self, event: Event) -> None:
        """Take note of a client's event."""
        one = event.session_id
        match event.kind:
            case EventKind.LOGGED_IN:
                if (user := str(event.detail["user_id"])) not in self._session_of:
                    self.absent[user] = None
            case EventKind.CONNECTED:
                user = self._connected[one] = str(event.detail["user_id"])
                self._session_of[user] = one
                self.absent.pop(user, None)
            case EventKind.DISCONNECTED | EventKind.SESSION_UNKNOWN:
                user = self._connected.pop(one, "")
                if self._session_of.get(user) == one:
                    del self._session_of[user]
                    self._unshown.discard(user)
                    self.absent[user] = None
                self._gone.discard(one)
                self._asked_s.pop(one, None)

    def questions(self, most: int) -> dict[str, str]:
        """Return the sessions to ask the store for now, with their users: those first that have waited longest."""
        asked = list(self._connected)[:most]
        for one in asked:
            self._connected[one] = self._connected.pop(one)
        return {one: self._connected[one] for one in asked}

    def answer(
        self, statuses: Mapping[str, str | None], asked_s: float, answered_s: float
    ) -> Iterator[Event]:
        """Judge what the store shows; yield what has changed.

        Args:
            statuses: of each session asked for, ``session|owner`` of its user's status; None: no such record.
            asked_s: when the questions left, seconds since the origin.
            answered_s: when the answers were there.
        """
        for one, status in statuses.items():
            if one not in self._connected:
                continue
            user = self._connected[one]
            if self._session_of.get(user) == one:
                (self._unshown.add if status is None else self._unshown.discard)(user)
            gone = status is None or status.partition("|")[0] != one
            if gone != (one in self._gone):
                (self._gone.add if gone else self._gone.discard)(one)
                kind = EventKind.STATUS_GONE if gone else EventKind.STATUS_SHOWN
                detail = {"user_id": user, "previous_poll_s": self._asked_s.get(one)}
                yield Event(answered_s, self._source, kind, one, detail=detail)
            self._asked_s[one] = asked_s
