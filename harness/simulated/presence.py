"""Who watches whom, and telling them that a user went offline or came online.

Shared by all gateway nodes: a broadcast reaches the watchers wherever they are connected.

Redis's own news of expired status records: late, as it deletes them, and only if the gateway listens to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from harness.simulated.event_writer import EventLog
from harness.simulated.network import Network, RoundTrips
from harness.simulated.store import Record, Store
from reference_server.events import EventKind

__all__ = ["ExpiryNews", "Presence"]


class Presence:
    """Watching connections by the user that they watch."""

    def __init__(self, network: Network, log: EventLog) -> None:
        self._network = network
        self._log = log
        self._watchers: dict[str, dict[Connection, None]] = {}  # a set that keeps its order

    def watch(self, connection: Connection, user_ids: Iterable[str]) -> tuple[str, ...]:
        """Tell this connection's client about these users from now on; return whom it watches."""
        if connection.open:
            connection.watching = tuple(user_ids)
            for user_id in connection.watching:
                self._watchers.setdefault(user_id, {})[connection] = None
        return connection.watching

    def forget(self, connection: Connection) -> None:
        """The watching connection is gone."""
        for user_id in connection.watching:
            self._watchers[user_id].pop(connection, None)
        connection.watching = ()

    def tell(self, kind: EventKind, user_id: str, session_id: str) -> None:
        """Tell the watchers: `PEER_NOTIFIED` (offline) or `PEER_ONLINE`, logged where it arrives."""
        for connection in self._watchers.get(user_id, ()):
            self.tell_one(connection, kind, user_id, session_id)

    def tell_one(self, connection: Connection, kind: EventKind, user_id: str, session_id: str) -> None:
        """Tell one watcher."""
        detail = {"user_id": user_id, "watcher": connection.client.index}
        told = partial(self._log.write, kind, session_id=session_id, detail=detail)
        self._network.send(connection, told)


class ExpiryNews:
    """Tells a user's watchers when the deletion of the expired status record is announced.

    Args:
        clock: simulated time.
        store: whose status records are followed.
        presence: tells the watchers.
        lags: draws of the time from the end of the TTL to the deletion.
    """

    def __init__(self, clock: Clock, store: Store, presence: Presence, lags: RoundTrips) -> None:
        self._clock = clock
        self._presence = presence
        self._lags = lags
        self._followed: dict[str, Record | None] = {}  # None: deleted by somebody, who told
        store.on_status = self._on_status

    def _on_status(self, user_id: str, record: Record | None) -> None:
        waiting = user_id in self._followed
        self._followed[user_id] = record
        if record is not None and not waiting:
            self._wait(user_id, record)
        elif record is None and not waiting:
            del self._followed[user_id]

    def _wait(self, user_id: str, record: Record) -> None:
        deleted_s = record.expires_s + self._lags.next_s()
        self._clock.at(deleted_s, lambda: self._deleted(user_id))

    def _deleted(self, user_id: str) -> None:
        record = self._followed[user_id]
        if record is not None and record.expires_s > self._clock.now_s:
            self._wait(user_id, record)  # refreshed since
            return
        del self._followed[user_id]
        if record is not None:
            self._presence.tell(EventKind.PEER_NOTIFIED, user_id, record.value)
