"""Who watches whom, and telling them that a user went offline or came online.

Shared by all gateway nodes: a broadcast reaches the watchers wherever they are connected.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from harness.simulated.connection import Connection
from harness.simulated.network import Network
from harness.simulated.witness import EventLog
from reference_server.events import EventKind

__all__ = ["Presence"]


class Presence:
    """Watching connections by the user that they watch."""

    def __init__(self, network: Network, log: EventLog) -> None:
        self._network = network
        self._log = log
        self._watchers: dict[str, dict[Connection, None]] = {}  # a set that keeps its order

    def watch(self, connection: Connection, user_ids: Iterable[str]) -> None:
        """Tell this connection's client about these users from now on."""
        if connection.open:
            connection.watching = tuple(user_ids)
            for user_id in connection.watching:
                self._watchers.setdefault(user_id, {})[connection] = None

    def forget(self, connection: Connection) -> None:
        """The watching connection is gone."""
        for user_id in connection.watching:
            self._watchers[user_id].pop(connection, None)
        connection.watching = ()

    def tell(self, kind: EventKind, user_id: str, session_id: str) -> None:
        """Tell the watchers: `PEER_NOTIFIED` (offline) or `PEER_ONLINE`, logged where it arrives."""
        for connection in self._watchers.get(user_id, ()):
            detail = {"user_id": user_id, "watcher": connection.client.index}
            told = partial(self._log.write, kind, session_id=session_id, detail=detail)
            self._network.send(connection, told)
