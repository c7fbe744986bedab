"""When is a faulted session cleared from the store? Pure: from client events and answers to events.

Says what to ask Redis and judges the answers; reads no clock, no file and no socket (`process.py` does).

A session is cleared when its user's status record is gone or names another session; a session record may outlive
it. The moment lies between the last question that still found it and the answer that did not.

Counted are the records of every session that a client was given, until it has another and the old one's record has
been gone for a while: a run of many logins must not make each sample dearer than the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reference_server.events import Event, EventKind, Source

__all__ = ["MGet", "StoreClearing", "WatchedSession"]

_CHUNK = 500  # sessions in one MGET: Redis serves nobody else for a fraction of a millisecond
_LOOKS_IN_VAIN = (
    60  # for a session left: a node that still holds it may write its record again after an outage
)


@dataclass(slots=True)
class WatchedSession:
    """A faulted session that the store may still show online; times in seconds since the origin."""

    session_id: str
    user_id: str
    status_key: bytes
    # When the last question was asked that still found it, or the fault came: the moment lies after it.
    previous_poll_s: float

    def is_shown(self, status: bytes | None) -> bool:
        """Whether a status record names this session."""
        return status is not None and status.startswith(f"{self.session_id}|".encode())


@dataclass(frozen=True, slots=True)
class MGet:
    """One MGET of the sessions' status records."""

    sessions: list[WatchedSession]
    keys: list[bytes]


class StoreClearing:
    """The sessions under watch, each from its fault until it is cleared or its client is back."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._faulted: set[str] = set()
        self.watched: dict[str, WatchedSession] = {}
        self._latest: dict[str, str] = {}  # user -> session
        self.session_keys: dict[bytes, None] = {}  # of each user's latest session
        self._left: dict[str, int] = {}  # older sessions: looks in vain one after the other

    def on_client_event(self, event: Event) -> None:
        """Take note of a log-in, a fault, or a recovery from one; other events do not matter."""
        session_id = event.session_id
        if event.kind is EventKind.LOGGED_IN:
            user_id = event.detail["user_id"]
            if (before := self._latest.get(user_id)) is not None and before != session_id:
                del self.session_keys[self._session_key(before)]
                self._left[before] = 0
            self._latest[user_id] = session_id
            self.session_keys[self._session_key(session_id)] = None
        elif event.kind is EventKind.FAULT_INJECTED and session_id not in self._faulted:
            self._faulted.add(session_id)
            user_id = event.detail["user_id"]
            # A record that no question finds went after the fault.
            watched = WatchedSession(session_id, user_id, self._status_key(user_id), event.time_s)
            self.watched[session_id] = watched
        elif event.kind is EventKind.FAULT_RECOVERED:
            self.watched.pop(session_id, None)

    @property
    def left_keys(self) -> list[bytes]:
        """Keys of the sessions that are nobody's latest, and may be there all the same."""
        return [self._session_key(one) for one in self._left]

    def on_left(self, values: Sequence[bytes | None]) -> int:
        """Take the answers for `left_keys`, all of them; return how many are there. Forget whoever is gone for good."""
        for one, value in zip(list(self._left), values, strict=True):
            self._left[one] = self._left[one] + 1 if value is None else 0
            if self._left[one] >= _LOOKS_IN_VAIN:
                del self._left[one]
                self._faulted.discard(one)
        return sum(value is not None for value in values)

    def _session_key(self, session_id: str) -> bytes:
        return f"{self._prefix}session:{session_id}".encode()

    def _status_key(self, user_id: str) -> bytes:
        return f"{self._prefix}status:{user_id}".encode()

    def queries(self) -> list[MGet]:
        """Return the MGETs to send now."""
        sessions = list(self.watched.values())
        chunks = [sessions[n : n + _CHUNK] for n in range(0, len(sessions), _CHUNK)]
        return [MGet(chunk, [w.status_key for w in chunk]) for chunk in chunks]

    def on_answer(
        self, query: MGet, values: Sequence[bytes | None], asked_s: float, answered_s: float
    ) -> list[Event]:
        """Judge an answer; return `store_cleared` for the sessions that are cleared now.

        Args:
            query: what was asked.
            values: of its keys, None where there is none.
            asked_s: when the question left, seconds since the origin.
            answered_s: when its answer was there.
        """
        cleared = []
        for w, status in zip(query.sessions, values, strict=True):
            if w.is_shown(status):
                w.previous_poll_s = asked_s
            elif self.watched.pop(w.session_id, None) is not None:
                detail = {"user_id": w.user_id, "previous_poll_s": w.previous_poll_s}
                cleared.append(
                    Event(answered_s, Source.STORE, EventKind.STORE_CLEARED, w.session_id, detail=detail)
                )
        return cleared
