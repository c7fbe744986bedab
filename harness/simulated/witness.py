"""What the model leaves behind: its event log, and a store watch that looks at the store by itself.

The model plays every witness, so each event has source `simulation`; who would have seen it in a real run
is in `reference_server/events.py`.
"""

from __future__ import annotations

from typing import Any

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from harness.simulated.store import Store
from reference_server.events import Event, EventKind, Source

__all__ = ["EventLog", "StoreWatch"]


class EventLog:
    """Events of one simulation, in the order in which they were logged."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.events: list[Event] = []

    def write(
        self, kind: EventKind, *, session_id: str = "", connection_id: str = "", node: str = "",
        cause: str = "", detail: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Log something that happens now."""
        self.events.append(
            Event(
                self._clock.now_s, Source.SIMULATION, kind, session_id, connection_id, node, cause,
                detail or {},
            )
        )  # fmt: skip

    def of_connection(
        self,
        kind: EventKind,
        connection: Connection,
        cause: str = "",
        detail: dict[str, Any] | None = None,
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
    """Sees when the records of faulted sessions go: session gone, and status gone or another session's.

    A session is watched from its fault until it is cleared or its client is back on it. It looks whenever
    a record changes and whenever one may have expired, so it has no polling grain.
    """

    def __init__(self, clock: Clock, store: Store, log: EventLog) -> None:
        self._clock = clock
        self._store = store
        self._log = log
        self._users: dict[str, str] = {}  # session id -> user id, of the sessions under watch
        store.on_change = self._look

    def watch(self, session_id: str, user_id: str) -> None:
        """Watch a session from now on."""
        self._users[session_id] = user_id
        self._look(session_id)

    def forget(self, session_id: str) -> None:
        """Watch a session no longer: its client is alive on it again."""
        self._users.pop(session_id, None)

    def sample_every(self, interval_s: float) -> None:
        """Count sessions and online users now and at every interval."""
        now_s = self._clock.now_s
        detail = {
            "sessions": self._store.count_sessions(now_s),
            "online": len(self._store.online),
        }
        self._log.write(EventKind.STORE_SAMPLE, detail=detail)
        self._clock.after(interval_s, lambda: self.sample_every(interval_s))

    def _look(self, session_id: str) -> None:
        user_id = self._users.get(session_id)
        if user_id is None:
            return
        if not self._store.available:
            self._store.when_available(lambda: self._look(session_id))
            return
        now_s = self._clock.now_s
        gone_s = self._store.gone_s(session_id, user_id, now_s)
        if gone_s > now_s:
            self._clock.at(gone_s, lambda: self._look(session_id))
            return
        del self._users[session_id]
        self._log.write(EventKind.STORE_CLEARED, session_id=session_id, detail={"user_id": user_id})
