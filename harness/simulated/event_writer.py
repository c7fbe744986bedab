"""What the model leaves behind: its event log, and a store watch that looks at the store by itself.

The model plays every witness, so each event has source `simulation`; who would have seen it in a real run
is in `reference_server/events.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.events.presence_watch import PresenceWatch
from harness.events.store_convergence import WANTED, Records, StoreConvergence
from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from harness.simulated.store import Store
from reference_server.events import Event, EventKind, Source

__all__ = ["EventLog", "StoreWatch"]

_COMPARE_S = 0.25


class EventLog:
    """Events of one simulation, in the order in which they were logged."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] = lambda _event: None

    def write(
        self,
        kind: EventKind,
        *,
        session_id: str = "",
        connection_id: str = "",
        node: str = "",
        cause: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Log something that happens now."""
        event = Event(
            self._clock.now_s, Source.SIMULATION, kind, session_id, connection_id, node, cause, detail or {}
        )
        self.events.append(event)
        if kind in WANTED:
            self.on_event(event)

    def of_connection(
        self, kind: EventKind, connection: Connection, cause: str = "", detail: dict[str, Any] | None = None
    ) -> None:
        """Log something about a connection."""
        self.write(
            kind,
            session_id=connection.session_id,
            connection_id=connection.connection_id,
            node=connection.gateway.node,
            cause=cause,
            detail=detail,
        )


class StoreWatch:
    """Sees when faulted sessions are shown online no more: the status record is gone, or another session's.

    A session is watched from its fault until it is cleared or its client is back on it. It looks whenever
    a record changes and whenever one may have expired, so it has no polling grain. What an incident leaves
    behind it looks for every quarter of a second, and whether the store shows whoever is connected at every sample.
    """

    def __init__(self, clock: Clock, store: Store, log: EventLog) -> None:
        self._clock = clock
        self._store = store
        self._log = log
        self._users: dict[str, str] = {}  # session id -> user id, of the sessions under watch
        self._convergence = StoreConvergence(Source.SIMULATION)
        self._presence = PresenceWatch(Source.SIMULATION)
        self._compares = False
        store.on_change = self._look
        log.on_event = self._take

    def watch(self, session_id: str, user_id: str) -> None:
        """Watch a session from now on."""
        self._users[session_id] = user_id
        self._look(session_id)

    def forget(self, session_id: str) -> None:
        """Watch a session no longer: its client is alive on it again."""
        self._users.pop(session_id, None)

    def sample_every(self, interval_s: float) -> None:
        """Count sessions, status records and online users now and at every interval; look who is not shown."""
        store, now_s = self._store, self._clock.now_s
        detail = {
            "sessions": store.count_sessions(),
            "shown": store.count_statuses(),
            "online": len(store.online),
        }
        self._log.write(EventKind.STORE_SAMPLE, detail=detail)
        if store.available:
            asked = self._presence.questions(len(self._presence))
            statuses = {one: self._records(one, user_id)[1] for one, user_id in asked.items()}
            for event in self._presence.answer(statuses, now_s, now_s):
                self._log.write(event.kind, session_id=event.session_id, detail=event.detail)
        self._clock.after(interval_s, lambda: self.sample_every(interval_s))

    def _take(self, event: Event) -> None:
        self._presence.take(event)
        self._convergence.take(event)
        if self._convergence.is_open and not self._compares:
            self._compares = True
            self._clock.after(_COMPARE_S, self._compare)

    def _compare(self) -> None:
        now_s = self._clock.now_s
        if self._store.available:
            asked = self._convergence.questions()
            found = {one: self._records(one, user_id) for one, user_id in asked.items()}
            for event in list(self._convergence.answer(found, now_s, now_s)):
                self._log.write(event.kind, node=event.node, detail=event.detail)
        self._compares = self._convergence.is_open
        if self._compares:
            self._clock.after(_COMPARE_S, self._compare)

    def _records(self, session_id: str, user_id: str) -> Records:
        record = self._store.session(session_id)
        status = self._store.status(user_id)
        return (
            None if record is None else record.owner,
            None if status is None else f"{status.value}|{status.owner}",
        )

    def _look(self, session_id: str) -> None:
        user_id = self._users.get(session_id)
        if user_id is None:
            return
        if not self._store.available:
            self._store.when_available(lambda: self._look(session_id))
            return
        gone_s = self._store.gone_s(session_id, user_id)
        if gone_s > self._clock.now_s:
            self._clock.at(gone_s, lambda: self._look(session_id))
            return
        del self._users[session_id]
        self._log.write(EventKind.STORE_CLEARED, session_id=session_id, detail={"user_id": user_id})
