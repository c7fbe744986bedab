"""When is a faulted session cleared from the store? Pure: from client events and answers to events.

Says what to ask Redis and judges the answers; reads no clock, no file and no socket (`process.py` does).

A session is cleared when its session key is gone and its user's status key is gone or names another
session. The moment lies between the last question that still found it and the answer that did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reference_server.events import Event, EventKind, Source

__all__ = ["MGet", "StoreClearing", "WatchedSession"]

_CHUNK = 500  # sessions in one MGET: Redis serves nobody else for a fraction of a millisecond


@dataclass(slots=True)
class WatchedSession:
    """A faulted session whose records may still be in the store; times in seconds since the origin."""

    session_id: str
    user_id: str
    session_key: bytes
    status_key: bytes
    alive_status: bytes  # what the status key's value begins with while it names this session
    # When the last question was asked that still found it, or the fault came: the moment lies after it.
    previous_poll_s: float | None = None
    session_gone_s: float | None = None  # first seen; None: it is there
    status_gone_s: float | None = None  # first seen gone or naming another session


@dataclass(frozen=True, slots=True)
class MGet:
    """One MGET: the sessions' session keys, then their users' status keys in the same order."""

    sessions: list[WatchedSession]
    keys: list[bytes]


class StoreClearing:
    """The sessions under watch, each from its fault until it is cleared or its client is back."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._faulted: set[str] = set()
        self.watched: dict[str, WatchedSession] = {}
        self.session_keys: list[bytes] = []  # of every session that a client was ever given
        self.status_keys: dict[bytes, None] = {}  # of their users

    def on_client_event(self, event: Event) -> None:
        """Take note of a log-in, a fault, or a recovery from one; other events do not matter."""
        if event.kind is EventKind.LOGGED_IN:
            self.session_keys.append(f"{self._prefix}session:{event.session_id}".encode())
            if user_id := event.detail.get("user_id"):
                self.status_keys[f"{self._prefix}status:{user_id}".encode()] = None
        elif event.kind is EventKind.FAULT_INJECTED and event.session_id not in self._faulted:
            self._faulted.add(event.session_id)
            user_id = event.detail["user_id"]
            self.watched[event.session_id] = WatchedSession(
                event.session_id,
                user_id,
                session_key=f"{self._prefix}session:{event.session_id}".encode(),
                status_key=f"{self._prefix}status:{user_id}".encode(),
                alive_status=f"{event.session_id}|".encode(),
                previous_poll_s=event.time_s,  # records that no question finds went after the fault
            )
        elif event.kind is EventKind.FAULT_RECOVERED:
            self.watched.pop(event.session_id, None)

    def queries(self) -> list[MGet]:
        """Return the MGETs to send now."""
        sessions = list(self.watched.values())
        chunks = [sessions[n : n + _CHUNK] for n in range(0, len(sessions), _CHUNK)]
        return [
            MGet(chunk, [w.session_key for w in chunk] + [w.status_key for w in chunk]) for chunk in chunks
        ]

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
        half = len(query.sessions)
        cleared = []
        for w, session, status in zip(query.sessions, values[:half], values[half:], strict=True):
            # Gone may be followed by there again: a client that came back has its records rewritten.
            w.session_gone_s = _since(w.session_gone_s, session is None, answered_s)
            other = status is None or not status.startswith(w.alive_status)
            w.status_gone_s = _since(w.status_gone_s, other, answered_s)
            if w.session_gone_s is None or w.status_gone_s is None:
                w.previous_poll_s = asked_s
                continue
            del self.watched[w.session_id]
            detail = {
                "user_id": w.user_id,
                "session_gone_s": w.session_gone_s,
                "status_gone_s": w.status_gone_s,
                "previous_poll_s": w.previous_poll_s,
            }
            cleared.append(
                Event(answered_s, Source.STORE, EventKind.STORE_CLEARED, w.session_id, detail=detail)
            )
        return cleared


def _since(before_s: float | None, holds: bool, now_s: float) -> float | None:
    """Since when a condition holds without a break, as far as was seen."""
    if not holds:
        return None
    return now_s if before_s is None else before_s
