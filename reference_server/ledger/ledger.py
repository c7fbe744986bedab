"""The durable ledger of one gateway: who was logged in, from where, until when; in the event loop, without waiting.

From what the gateway notices to batches that a thread commits (`ledger_writer.py`), one under way at a time:
whatever comes up meanwhile goes into the next, so a hundred logins cost one commit and not a hundred.

* A login and a logout are committed before they are answered. When the ledger cannot be written they fail
  at once with `LedgerUnavailable`; the first to find out waits `ANSWER_DEADLINE_S` at the most.
* What becomes of connections is a duty: written within `_GATHER_S`, kept until it can be, one mark a session.
* ``last_active_time`` is written behind: a gateway that is killed loses the signs of life of the last
  ``flush_interval_s`` and of a batch under way, no more.

An outage interrupts nothing but logins and logouts; the ledger is tried once a second until it is back.

What waits to be written to the ledger, and who waits for it.

From logins, logouts and marks to a batch, and from what became of the batch to those who asked. Of several marks
of one session one is kept (`ledger_rows.merge`), so an outage of any length costs one a session. Writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol, TypeVar

from reference_server.ledger.rows import (
    LOGGED_OUT,
    UNACKNOWLEDGED,
    Batch,
    LedgerUnavailable,
    Login,
    Mark,
    Seen,
    Unconnected,
    merge,
)
from reference_server.sessions.records import Record

if TYPE_CHECKING:
    from reference_server.ledger.writer import LedgerWriter

__all__ = ["ANSWER_DEADLINE_S", "Ledger", "LedgerSettings", "Peer", "Waiting"]


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


T = TypeVar("T")
_GATHER_S = 0.02
ANSWER_DEADLINE_S = 2.0
_START_DEADLINE_S = 5.0
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0
_EXPIRE_EVERY_S = 60.0  # or twice in a session's life, if that is shorter
_CHUNK = 1000  # connections looked at without a pause: below a millisecond

_log = logging.getLogger(__name__)


class Peer(Protocol):
    """A connection in service."""

    record: Record | None
    last_seen_s: float


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Where the ledger is, and what it has to know of the gateway."""

    url: str
    node: str
    flush_interval_s: float
    session_ttl_s: float
    resume_window_s: float
    most_per_address: int | None = None


class Ledger:
    """Use: ``await start()``, then any of the others, then ``await close()``.

    Args:
        settings: see there.
        live: the connections in service, for their last signs of life.
    """

    def __init__(self, settings: LedgerSettings, live: Callable[[], Collection[Peer]]) -> None:
        self._settings = settings
        self._live = live
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._writer: LedgerWriter | None = None
        self._is_open = False
        self._waiting = Waiting()
        self._wake, self._idle, self._tried = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._wake_is_set = False
        self._seen_until_s = monotonic()
        self._expire_due_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self.available = True  # as of the last attempt to write

    @property
    def duties(self) -> int:
        """How many marks wait to be written."""
        return len(self._waiting.marks)

    async def start(self) -> None:
        """Open the ledger and close this node's stale rows; without a database, begin without it.

        Raises:
            LedgerUnfit: its table is of another make.
            ValueError: its URL is not one.
        """
        self._task = asyncio.create_task(self._run())
        try:
            await asyncio.wait_for(self._tried.wait(), _START_DEADLINE_S)
        except TimeoutError:
            self.available = False
        if self._failure is not None:
            raise self._failure
        if not self.available:
            _log.warning("the ledger does not answer yet: starting without it")

    async def close(self, deadline_s: float) -> bool:
        """Write what waits, within ``deadline_s`` seconds, and let go; False: that was not enough."""
        self._wake.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        done = self._idle.is_set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._writer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await self._in_thread(self._writer.close)
        self._thread.shutdown(wait=False)
        return done

    # -- what somebody waits for -------------------------------------------------------------------

    def check(self) -> None:
        """Return if the ledger could be written the last time.

        Raises:
            LedgerUnavailable: it could not.
        """
        if not self.available:
            raise LedgerUnavailable("the ledger cannot be written now")

    async def login(self, login: Login) -> None:
        """Commit a login.

        Raises:
            LedgerUnavailable: it is not known to be written; should it be, it will be closed.
            AddressFull: its address has too many open sessions; nothing is written.
        """
        self.check()
        written = self._waiting.login(login)
        self._stir(0.0)
        try:
            await self._answer(written)
        except LedgerUnavailable:
            now_s = time()
            self._note(
                Mark(login.session_id, login.user_id, (), False, UNACKNOWLEDGED, now_s, now_s)
            )
            raise

    def note_login(self, login: Login) -> None:
        """Note a login that nobody waits for; one that the ledger cannot take is not in it."""
        if not self.available:
            return
        written = self._waiting.login(login)
        written.add_done_callback(asyncio.Future.exception)  # nobody else will ask for it
        self._stir(_GATHER_S)

    async def logout(self, session_id: str, user_id: str = "") -> None:
        """Commit a logout; an unknown session is no error.

        Raises:
            LedgerUnavailable: it is not written yet; it will be when the ledger is back.
        """
        now_s = time()
        self._note(Mark(session_id, user_id, (), False, LOGGED_OUT, now_s, now_s))
        self.check()
        written = self._waiting.logout(session_id)
        self._stir(0.0)
        await self._answer(written)

    async def unconnected(self) -> list[Unconnected]:
        """Return the logins that are not over and have not connected yet, once what waits is written.

        Raises:
            LedgerUnavailable: no database.
        """
        self.check()
        self._wake.set()
        try:
            await asyncio.wait_for(self._idle.wait(), ANSWER_DEADLINE_S)
        except TimeoutError:
            raise LedgerUnavailable("the ledger does not answer") from None
        return await self._in_thread(self._the_writer().unconnected)

    async def over(self, session_ids: list[str]) -> set[str]:
        """Return which of these sessions are over for good.

        Raises:
            LedgerUnavailable: no database.
        """
        self.check()
        return await self._in_thread(lambda: self._the_writer().over(session_ids))

    # -- duties ------------------------------------------------------------------------------------

    def connected(self, record: Record) -> None:
        """Note that a connection has its session now."""
        now_s = time()
        self._note(Mark(record.session_id, record.user_id, (record.owner,), True, "", now_s, now_s))

    def ended(
        self, record: Record, cause: str, last_seen_s: float | None, *, unannounced: bool = False
    ) -> None:
        """Note that a connection has ended; a row that has another connection by now is left alone.

        Args:
            record: with its user.
            cause: the layer that ended it.
            last_seen_s: its last sign of life, monotonic clock; None: unknown here.
            unannounced: it had the session, but ended before `connected` could say so.
        """
        now_s = time()
        seen_s = 0.0 if last_seen_s is None else now_s - (monotonic() - last_seen_s)
        owners = (record.owner,)
        self._note(
            Mark(record.session_id, record.user_id, owners, unannounced, cause, now_s, seen_s)
        )

    # -- the thread and its batches ----------------------------------------------------------------

    def _note(self, mark: Mark) -> None:
        self._waiting.note(mark)
        self._stir(_GATHER_S)

    def _stir(self, after_s: float) -> None:
        """Have the next batch written soon; several causes make one batch."""
        self._idle.clear()
        if after_s == 0.0:
            self._wake.set()
        elif not self._wake_is_set:
            self._wake_is_set = True
            asyncio.get_running_loop().call_later(after_s, self._wake.set)

    async def _answer(self, written: asyncio.Future[None]) -> None:
        try:
            await asyncio.wait_for(written, ANSWER_DEADLINE_S)
        except TimeoutError:
            self.available = False
            raise LedgerUnavailable("the ledger does not answer") from None

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self._recover()
                retry_s = _FIRST_RETRY_S
                await self._carry()
            except LedgerUnavailable as error:
                if self.available:
                    _log.warning("the ledger is away: %s", error)
                self.available = False
                self._waiting.fail(error)
            except Exception as error:
                self._failure = error
                self.available = False
                self._waiting.fail(LedgerUnavailable(str(error)))
                self._tried.set()
                if self._is_open:
                    _log.exception("the ledger's writer has ended")
                return
            self._tried.set()
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _recover(self) -> None:
        """Open the ledger, or find out that it can be written again."""
        if self._writer is None:
            self._writer = await self._in_thread(self._make_writer)
        if not self._is_open:
            stale = await self._in_thread(self._writer.open)
            self._is_open = True
            if stale:
                _log.warning("the ledger: closed %d rows of an earlier life of this node", stale)
        else:
            await self._in_thread(self._writer.probe)
            # A probe may fit on a disk on which a batch does not.
            taken = self._waiting.take()
            await self._write(taken.batch(), taken)
            _log.warning("the ledger is back; %d duties were written", len(taken.marks))
        self.available = True
        self._tried.set()
        self._wake.set()

    async def _carry(self) -> None:
        flush_s = self._settings.flush_interval_s
        flush_due_s = monotonic() + flush_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, flush_due_s - monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            self._wake_is_set = False
            taken = self._waiting.take()
            batch = taken.batch()
            looked_s = monotonic()
            if looked_s >= flush_due_s:
                flush_due_s = looked_s + flush_s
                batch.seen = await self._collect()
            if batch:
                await self._write(batch, taken)
                if batch.seen:
                    self._seen_until_s = looked_s
            if looked_s >= self._expire_due_s:
                self._expire_due_s = looked_s + min(
                    _EXPIRE_EVERY_S, self._settings.session_ttl_s / 2
                )
                await self._in_thread(self._the_writer().expire)
            if not self._waiting:
                self._idle.set()

    async def _write(self, batch: Batch, taken: Waiting) -> None:
        try:
            refused = await self._in_thread(lambda: self._the_writer().write(batch))
        except BaseException:
            self._waiting.put_back(taken)
            raise
        taken.settle(refused)

    async def _collect(self) -> list[Seen]:
        """The connections that have given a sign of life since the last time."""
        ago_s = time() - monotonic()
        seen: list[Seen] = []
        everyone = iter(list(self._live()))
        while chunk := list(islice(everyone, _CHUNK)):
            since_s = self._seen_until_s
            seen += [
                (peer.record.session_id, peer.record.user_id, peer.last_seen_s + ago_s)
                for peer in chunk
                if peer.last_seen_s >= since_s and peer.record is not None
            ]
            await asyncio.sleep(0)
        return seen

    def _make_writer(self) -> LedgerWriter:
        # Here and not above: a gateway without a ledger does without SQLAlchemy, and the loop without the wait.
        from reference_server.ledger.writer import LedgerWriter

        settings = self._settings
        return LedgerWriter(
            settings.url, settings.node,
            session_ttl_s=settings.session_ttl_s, resume_window_s=settings.resume_window_s,
            most_per_address=settings.most_per_address,
        )  # fmt: skip

    def _the_writer(self) -> LedgerWriter:
        if self._writer is None:
            raise LedgerUnavailable("the ledger is not open yet")
        return self._writer

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
