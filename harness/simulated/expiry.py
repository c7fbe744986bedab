"""Redis's own news of expired status records: late, as it deletes them, and only if the gateway listens to it."""

from __future__ import annotations

from harness.simulated.clock import Clock
from harness.simulated.network import RoundTrips
from harness.simulated.presence import Presence
from harness.simulated.store import Record, Store
from reference_server.events import EventKind

__all__ = ["ExpiryNews"]


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
