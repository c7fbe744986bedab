"""The store: session and status records with a TTL and an owner token, as the gateway keeps them in Redis.

From writes to what a reader finds at a moment. A record is gone when its TTL is over, to the instant: who
polls Redis sees no more of it either, whenever Redis itself gets round to deleting it: only the count of
records and the news of an expiry are that late.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from harness.simulated.clock import Clock

__all__ = ["Record", "Store", "StoreDown"]


_NOBODY = ":0"  # owns a session that has survived its connection


class StoreDown(Exception):
    """The store does not answer."""


@dataclass(slots=True)
class Record:
    """A session record (of a user) or a status record (of a session)."""

    value: str  # session record: user id; status record: session id
    owner: str  # the connection that answers for it; "" before the first one
    expires_s: float


class Store:
    """Records by key.

    `on_change` is told the session id of every record that goes or changes hands, `on_status` every status
    record that is written, or that somebody deletes (None). While it is not ``available`` nobody may ask;
    `on_back` is told when it is again.

    Args:
        clock: simulated time.
        session_ttl_s: TTL of session records; infinite: none.
        status_ttl_s: TTL of status records; infinite: none.
        deletion_lag_s: draws how late after its TTL a record is deleted.
    """

    def __init__(
        self,
        clock: Clock,
        session_ttl_s: float,
        status_ttl_s: float,
        deletion_lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._clock = clock
        self._lag_s = deletion_lag_s
        self._waiting: list[Callable[[], None]] = []
        self.available = True
        self.epoch = 0  # another one: everything was lost
        self.on_back: Callable[[], None] = lambda: None
        self._session_ttl_s = session_ttl_s
        self._status_ttl_s = status_ttl_s
        self._sessions: dict[str, Record] = {}
        self._statuses: dict[str, Record] = {}
        self._status_expiries: list[tuple[float, str]] = []  # some of them out of date
        self._expiries: list[tuple[float, str]] = []  # of session records, some of them out of date
        self.online: set[str] = set()
        self.refresh_writes = 0  # of records, by refreshes alone
        self.on_change: Callable[[str], None] = lambda _session_id: None
        self.on_status: Callable[[str, Record | None], None] = lambda _user_id, _record: None

    def session(self, session_id: str) -> Record | None:
        """The session's record, if it is there."""
        return _alive(self._sessions, session_id, self._clock.now_s)

    def status(self, user_id: str) -> Record | None:
        """The user's status record, if it is there."""
        return _alive(self._statuses, user_id, self._clock.now_s)

    def write_login(self, session_id: str, user_id: str) -> None:
        """Write the session record of a login; nobody owns it yet."""
        self._write_session(session_id, user_id, "")

    def write_status(self, session_id: str, user_id: str) -> None:
        """Write the status record of a login, where a login alone makes a user online."""
        self._write_status(session_id, user_id, "")

    def own(self, session_id: str, user_id: str, owner: str) -> None:
        """Write both records for the connection that answers for them from now on."""
        self._write_session(session_id, user_id, owner)
        before = self.status(user_id)
        self._write_status(session_id, user_id, owner)
        self.online.add(user_id)
        if before is None or before.value != session_id:
            self.on_change(session_id)
        if before is not None and before.value != session_id:
            self.on_change(before.value)

    def refresh(self, session_id: str, user_id: str, owner: str) -> None:
        """Give both records their whole TTL again, and bring back what is gone; leave another owner's alone."""
        records = (self.session(session_id), self.status(user_id))
        if all(record is None or record.owner == owner for record in records):
            self.own(session_id, user_id, owner)
            self.refresh_writes += len(records)

    def clean_up(
        self, session_id: str, user_id: str, owner: str | None, *, keeps_session: bool = False
    ) -> bool:
        """Delete both records if they are ``owner``'s (None: whoever's); return whether the user is offline now.

        ``keeps_session``: delete the status record alone; the session's waits for its client with its whole TTL.
        """
        session, status = self.session(session_id), self.status(user_id)
        if session is not None:
            if owner is not None and session.owner != owner:
                return False
            if keeps_session:
                self._write_session(session_id, user_id, _NOBODY)
            else:
                del self._sessions[session_id]
        if status is not None and status.value == session_id:
            del self._statuses[user_id]
            self.on_status(user_id, None)
            status = None
        if status is None:
            self.online.discard(user_id)
        self.on_change(session_id)
        return status is None

    def release(
        self, session_id: str, user_id: str, owner: str, expires_s: float, *, keeps_session: bool = False
    ) -> None:
        """Leave both records to expire then, as far as they are ``owner``'s: its node will not clear them."""
        session, status = self._sessions.get(session_id), self._statuses.get(user_id)
        if session is not None and session.owner == owner and not keeps_session:
            session.expires_s = min(session.expires_s, expires_s)
            heapq.heappush(self._expiries, (session.expires_s + self._lag_s(), session_id))
        if status is not None and status.owner == owner:
            status.expires_s = min(status.expires_s, expires_s)
            heapq.heappush(self._status_expiries, (status.expires_s, user_id))
        self.on_change(session_id)

    def flush(self) -> None:
        """Lose every record; announce nothing."""
        self.epoch += 1
        gone = list(self._sessions)
        self._sessions.clear()
        self._statuses.clear()
        self.online.clear()
        for session_id in gone:
            self.on_change(session_id)

    def stop(self, *, keeps: bool) -> None:
        """Answer nobody any more."""
        self.available = False
        if not keeps:
            self.flush()

    def start(self) -> None:
        """Answer again; what was put off is done now, in order."""
        self.available = True
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act()
        self.on_back()

    def when_available(self, act: Callable[[], None]) -> None:
        """Do something now, or as soon as the store answers again."""
        if self.available:
            act()
        else:
            self._waiting.append(act)

    def gone_s(self, session_id: str, user_id: str) -> float:
        """When nobody is shown online for the session if nobody writes: its status gone, or another's."""
        status, now_s = self.status(user_id), self._clock.now_s
        return status.expires_s if status is not None and status.value == session_id else now_s

    def count_sessions(self) -> int:
        """How many session records are there."""
        now_s = self._clock.now_s
        while self._expiries and self._expiries[0][0] <= now_s:
            _, session_id = heapq.heappop(self._expiries)
            record = self._sessions.get(session_id)
            if record is not None and record.expires_s <= now_s:
                del self._sessions[session_id]
        return len(self._sessions)

    def count_statuses(self) -> int:
        """How many users a status record shows."""
        now_s = self._clock.now_s
        while self._status_expiries and self._status_expiries[0][0] <= now_s:
            self.status(heapq.heappop(self._status_expiries)[1])  # drops it, unless it was written again
        return len(self._statuses)

    def _write_session(self, session_id: str, user_id: str, owner: str) -> None:
        expires_s = self._clock.now_s + self._session_ttl_s
        self._sessions[session_id] = Record(user_id, owner, expires_s)
        heapq.heappush(self._expiries, (expires_s + self._lag_s(), session_id))

    def _write_status(self, session_id: str, user_id: str, owner: str) -> None:
        status = Record(session_id, owner, self._clock.now_s + self._status_ttl_s)
        self._statuses[user_id] = status
        heapq.heappush(self._status_expiries, (status.expires_s, user_id))
        self.on_status(user_id, status)


def _alive(records: dict[str, Record], key: str, now_s: float) -> Record | None:
    record = records.get(key)
    if record is not None and record.expires_s <= now_s:
        del records[key]
        return None
    return record
