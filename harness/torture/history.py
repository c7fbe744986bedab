"""What was done and what clients saw: one list of entries with one time origin, in JSON lines.

From what clients, nemesis and final looks note to a file, and from the file to the entries again. Knows nothing of what
is right. Times are seconds since the schedule's time zero, of one monotonic clock.

| what | fields |
|---|---|
| ``login`` | ``op``, ``client``, ``node``; answered: ``outcome`` (ok, failed, unknown), ``session``, ``code`` |
| ``logout`` | ``op``, ``client``, ``session``, ``node``; answered: ``outcome``, ``code`` |
| ``kick`` | ``op``, ``user``, ``node``; answered: ``outcome``, ``code`` |
| ``connect`` | ``op`` (its number is the connection's), ``client``, ``session``, ``node``; answered: ``outcome``, \
``owner``, ``resumed``, ``code`` |
| ``ended`` | ``op`` of the connection, ``by`` (self, peer), ``code`` (1006: no close frame came) |
| ``silent``, ``heard`` | ``op`` of the connection: its network is gone, is back |
| ``told`` | ``op`` of the watcher's connection, ``kind`` (online, offline), ``user``, ``session`` |
| ``fault``, ``over`` | ``step``, ``kind``, ``node``: took effect, its cause is gone |
| ``store`` | ``statuses`` (slot to "session|owner"), ``online``: what Redis shows; only when it differs |
| ``reaped`` | ``session``, ``owner``, ``by``: a node ended a session as one of a dead node, says its log |
| ``healed`` | nothing more will happen |
| ``final`` | ``differences`` of the audit, ``rows`` of the ledger (session to ended_by or null), ``lag_s`` |
| ``died`` | ``name``, ``says``: a process ended by itself, and the history with it |
| ``probe`` | ``session``, ``outcome``, ``code``: a last try to connect with a token |

An entry with an ``op`` and no ``outcome`` is an invocation; the one with the same ``op`` and one is its answer.
"""

from __future__ import annotations

import time
from bisect import insort
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

__all__ = ["Entry", "History", "read_history"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a history."""

    at_s: float
    what: str
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def get(self, name: str) -> Any:
        """Return a field, or None."""
        return self.fields.get(name)


class History:
    """Takes notes, in the order in which they come."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._origin_s = time.monotonic()
        self._ops = 0

    def begin(self) -> None:
        """Time zero is now."""
        self._origin_s = time.monotonic()

    @property
    def now_s(self) -> float:
        """Seconds since time zero."""
        return time.monotonic() - self._origin_s

    def note(self, what: str, **fields: Any) -> None:
        """Note something that has just happened."""
        self.entries.append(Entry(round(self.now_s, 4), what, fields))

    def insert(self, clock_s: float, what: str, **fields: Any) -> None:
        """Note what happened at a time of the monotonic clock, in its place."""
        entry = Entry(round(clock_s - self._origin_s, 4), what, fields)
        insort(self.entries, entry, key=lambda one: one.at_s)

    def invoke(self, what: str, **fields: Any) -> int:
        """Note that something is asked; return the number of the operation, for its answer."""
        self._ops += 1
        self.note(what, op=self._ops, **fields)
        return self._ops

    def write(self, path: Path) -> None:
        """Write it as JSON lines."""
        lines = (orjson.dumps({"at_s": e.at_s, "what": e.what, **e.fields}) for e in self.entries)
        path.write_bytes(b"".join(line + b"\n" for line in lines))


def read_history(path: Path) -> list[Entry]:
    """Read what `History.write` wrote."""
    found = []
    for line in path.read_bytes().splitlines():
        fields = orjson.loads(line)
        found.append(Entry(fields.pop("at_s"), fields.pop("what"), fields))
    return found
