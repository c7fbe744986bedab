"""What waits to be written to the ledger, and who waits for it.

From logins, logouts and marks to a batch, and from what became of the batch to those who asked. Of several marks
of one session one is kept (`ledger_rows.merge`), so an outage of any length costs one a session. Writes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from reference_server.ledger_rows import Batch, LedgerUnavailable, Login, Mark, merge

__all__ = ["Waiting"]


@dataclass(slots=True)
class Waiting:
    """Logins and logouts with their futures, and duties, each by session."""

    logins: dict[str, tuple[Login, asyncio.Future[None]]] = field(default_factory=dict)
    logouts: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)

    def login(self, login: Login) -> asyncio.Future[None]:
        """Add a login; the future is done when it is committed."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.logins[login.session_id] = (login, written)
        return written

    def logout(self, session_id: str) -> asyncio.Future[None]:
        """Return a future that is done when the session's mark, noted already, is committed."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.logouts.setdefault(session_id, []).append(written)
        return written

    def note(self, mark: Mark) -> None:
        """Add a duty."""
        self.marks[mark.session_id] = merge(self.marks.get(mark.session_id), mark)

    def take(self) -> Waiting:
        """Return all that waits, and wait for nothing."""
        taken = Waiting(self.logins, self.logouts, self.marks)
        self.logins, self.logouts, self.marks = {}, {}, {}
        return taken

    def batch(self) -> Batch:
        """Return what has to be written."""
        logins = [login for login, _ in self.logins.values()]
        return Batch(logins=logins, marks=list(self.marks.values()))

    def put_back(self, taken: Waiting) -> None:
        """Take what could not be written back in, before what has come since."""
        newer, self.marks = self.marks, taken.marks
        for mark in newer.values():
            self.note(mark)
        self.logins = taken.logins | self.logins
        for session_id, futures in taken.logouts.items():
            self.logouts.setdefault(session_id, []).extend(futures)

    def settle(self, refused: dict[str, Exception]) -> None:
        """Tell everybody that it is written, but for the logins that were refused."""
        for session_id, (_, written) in self.logins.items():
            _answer(written, refused.get(session_id))
        for futures in self.logouts.values():
            for written in futures:
                _answer(written, None)

    def fail(self, error: LedgerUnavailable) -> None:
        """Tell everybody that it is not; duties stay."""
        logins, self.logins = self.logins, {}
        logouts, self.logouts = self.logouts, {}
        for _, written in logins.values():
            _answer(written, error)
        for futures in logouts.values():
            for written in futures:
                _answer(written, error)

    def __bool__(self) -> bool:
        return bool(self.logins or self.marks)


def _answer(written: asyncio.Future[None], refusal: Exception | None) -> None:
    if written.done():  # whoever asked has given up
        return
    if refusal is None:
        written.set_result(None)
    else:
        written.set_exception(refusal)
