"""What the ledger is told about sessions, one record a statement, and what of it waits to be written.

Plain records and one table of them. Times are epoch milliseconds, UTC. Knows no SQL and no event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import time

from reference_server.errors import FlatlineError, MachineError

__all__ = [
    "FINAL",
    "LOGGED_OUT",
    "UNACKNOWLEDGED",
    "AddressFull",
    "Connected",
    "Ended",
    "LedgerUnavailable",
    "LedgerUnfit",
    "Login",
    "Over",
    "PendingRows",
    "Row",
    "Seen",
    "Unconnected",
    "UnknownSession",
    "now_ms",
]

LOGGED_OUT = "logout"
UNACKNOWLEDGED = "unacknowledged"
"""A login that was answered with an error and may have been written all the same."""
FINAL = (LOGGED_OUT, UNACKNOWLEDGED)
"""A session that ended by one of these is never connected again; after any other end it may be resumed."""


class LedgerUnavailable(MachineError):
    """The ledger cannot be written now; whether the row was is unknown until it is back."""


class LedgerUnfit(FlatlineError):
    """The ledger's URL, driver or table is not one that this version can use; trying again will not help."""


class UnknownSession(Exception):
    """The ledger has no such session of that user."""


class AddressFull(Exception):
    """An address has as many open sessions as it may."""


@dataclass(frozen=True, slots=True)
class Login:
    """A session begins. Strings are cut to what the table holds by whoever makes this."""

    session_id: str
    user_id: str
    device_type: str
    ip_address: str  # "": unknown
    user_agent: str
    device_id: str  # which of the user's devices of this type; "": the only one
    at_ms: int


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection has the session now."""

    session_id: str
    user_id: str
    connection_id: str  # its owner token: the end of it is larger for a newer one
    at_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A connection that had the session has ended; the session may be resumed by a newer one."""

    session_id: str
    user_id: str
    connection_id: str
    ended_by: str
    at_ms: int
    seen_ms: int  # its last sign of life; 0: unknown


@dataclass(frozen=True, slots=True)
class Over:
    """The session is over for good, whichever connection had it; ``ended_by`` is one of `FINAL`."""

    session_id: str
    user_id: str  # "": unknown
    ended_by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A connection has given a sign of life. A row that others ended, taking its node for dead, is open again."""

    session_id: str
    user_id: str
    connection_id: str
    seen_ms: int


Row = Login | Connected | Ended | Over | Seen


@dataclass(frozen=True, slots=True)
class Unconnected:
    """A login that is not over and has no connection."""

    session_id: str
    user_id: str
    device: str
    had: str  # the owner token of its last connection; "": none yet
    seen_ms: int


class PendingRows(dict[tuple[str, bool], Connected | Ended | Over]):
    """What became of sessions and is not written yet: one row about its connection and one `Over` each, at most."""

    def add(self, row: Connected | Ended | Over) -> None:
        """Add a row, unless one that waits already says the last word."""
        if (row.session_id, True) in self:
            return
        waiting = self.get((row.session_id, False))
        if isinstance(row, Over):
            self[row.session_id, True] = row
        elif not isinstance(waiting, Connected | Ended) or _rank(waiting) < _rank(row):
            self[row.session_id, False] = row


def _rank(row: Connected | Ended) -> tuple[str, bool]:
    """The newer connection counts, and of one connection its first end."""
    return row.connection_id[-14:], isinstance(row, Ended)


def now_ms() -> int:
    """Return the time by the wall clock."""
    return int(time() * 1000)
