"""What the ledger is told: a login, a mark on a session, a last sign of life; and how marks merge while they wait.

Plain records and one pure function. Times are Unix seconds. Knows no SQL and no event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reference_server.errors import FlatlineError, MachineError

__all__ = [
    "FINAL",
    "LOGGED_OUT",
    "UNACKNOWLEDGED",
    "AddressFull",
    "Batch",
    "LedgerUnavailable",
    "LedgerUnfit",
    "Login",
    "Mark",
    "Seen",
    "Unconnected",
    "merge",
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
    at_s: float


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a session's connection, or of the session.

    * ``claims``: connection ``owners[0]`` has the session now, and has ended by now unless ``ended_by`` is "".
    * not ``claims``: the connection has ended; a row that names none of ``owners`` is left alone.
    * no ``owners``: the session is over for good, whoever had it.
    """

    session_id: str
    user_id: str  # "": unknown
    owners: tuple[str, ...]
    claims: bool
    ended_by: str
    at_s: float  # when it began or ended
    seen_s: float  # last sign of life


@dataclass(frozen=True, slots=True)
class Unconnected:
    """A login that is not over and has not had a connection yet."""

    session_id: str
    user_id: str
    device: str
    seen_s: float


Seen = tuple[str, str, float]
"""Session, user, last sign of life."""


@dataclass(slots=True)
class Batch:
    """What is written in one transaction."""

    logins: list[Login] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.logins or self.marks or self.seen)

    def split(self) -> list[Batch]:
        """Return a batch for each row, in the same order."""
        return [
            *(Batch(logins=[login]) for login in self.logins),
            *(Batch(marks=[mark]) for mark in self.marks),
            *(Batch(seen=[seen]) for seen in self.seen),
        ]


def merge(waiting: Mark | None, new: Mark) -> Mark:
    """Return the one mark of a session that says as much as two of them, written in this order."""
    if waiting is None:
        return new
    if not waiting.owners:
        return waiting
    if not new.owners:  # over for good, since the connection's end if that was before
        return replace(new, at_s=waiting.at_s) if waiting.ended_by else new
    if new.claims:
        older = waiting.claims and _age(new.owners[0]) < _age(waiting.owners[0])
        return waiting if older else new
    if waiting.claims:
        if new.owners[0] != waiting.owners[0]:
            return waiting  # the late end of an older connection
        return replace(waiting, ended_by=new.ended_by, at_s=new.at_s, seen_s=new.seen_s)
    return replace(new, owners=tuple(dict.fromkeys(waiting.owners + new.owners)))


def _age(owner: str) -> str:
    return owner[-14:]  # see `owners.py`
