"""What the model leaves behind: its event log, and a store watch that looks at the store by itself.

The model plays every witness, so each event has source `simulation`; who would have seen it in a real run
is in `reference_server/events.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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
    a record changes and whenever one may have expired, so it has no polling grain; in the same way it sees whether
    the store shows whoever is connected. What an incident leaves behind it looks for every quarter of a second.
    """

    def __init__(self, clock: Clock, store: Store, log: EventLog) -> None:
        self._clock = clock
        self._store = store
        self._log = log
        self._users: dict[str, str] = {}  # session id -> user id, of the sessions under watch
        self._convergence = StoreConvergence(Source.SIMULATION)
        self._connected: dict[str, str] = {}  # session id -> user id, of whoever believes itself connected
        self._not_shown: set[str] = set()  # of these
        self._looks_again: set[str] = set()  # a look at the end of its TTL stands on the clock
        self._compares = False
        store.on_change = self._changed
        log.on_event = self._take

    def watch(self, session_id: str, user_id: str) -> None:
        """Watch a session from now on."""
        self._users[session_id] = user_id
        self._look(session_id)

    def forget(self, session_id: str) -> None:
        """Watch a session no longer: its client is alive on it again."""
        self._users.pop(session_id, None)

    def sample_every(self, interval_s: float) -> None:
        """Count sessions, status records and online users now and at every interval."""
        store = self._store
        detail = {
            "sessions": store.count_sessions(),
            "shown": store.count_statuses(),
            "online": len(store.online),
            "commands": {"set": store.refresh_writes},
        }
        self._log.write(EventKind.STORE_SAMPLE, detail=detail)
        self._clock.after(interval_s, lambda: self.sample_every(interval_s))

    def _take(self, event: Event) -> None:
        if event.kind is EventKind.CONNECTED:
            self._connected[event.session_id] = str(event.detail["user_id"])
            self._look_whether_shown(event.session_id)
        elif event.kind in (EventKind.DISCONNECTED, EventKind.SESSION_UNKNOWN):
            self._connected.pop(event.session_id, None)
            self._not_shown.discard(event.session_id)
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

    def _changed(self, session_id: str) -> None:
        self._look(session_id)
        self._look_whether_shown(session_id)

    def _look_whether_shown(self, session_id: str) -> None:
        """Note when the status of a connected client's session is gone or another's, and when it is back."""
        user_id = self._connected.get(session_id)
        if user_id is None:
            return
        if not self._store.available:
            self._store.when_available(partial(self._look_whether_shown, session_id))
            return
        now_s = self._clock.now_s
        gone_s = self._store.gone_s(session_id, user_id)
        if (gone_s <= now_s) != (session_id in self._not_shown):
            self._not_shown ^= {session_id}
            kind = EventKind.STATUS_GONE if gone_s <= now_s else EventKind.STATUS_SHOWN
            detail = {"user_id": user_id, "previous_poll_s": now_s}
            self._log.write(kind, session_id=session_id, detail=detail)
        if gone_s > now_s and session_id not in self._looks_again:
            self._looks_again.add(session_id)
            self._clock.at(gone_s, partial(self._look_again, session_id))

    def _look_again(self, session_id: str) -> None:
        self._looks_again.discard(session_id)
        self._look_whether_shown(session_id)

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
