"""The durable ledger of one gateway: who was logged in, from where, until when; in the event loop, without waiting.

From what the gateway notices to batches of rows that a thread commits (`writer.py`), one batch under way at a time:
whatever comes up meanwhile goes into the next, so a hundred logins cost one commit and not a hundred.

* A login and a logout are committed before they are answered. While the ledger is away they fail at once with
  `LedgerUnavailable`; the first to find out waits `ANSWER_DEADLINE_S` at the most.
* What became of sessions is written within `_GATHER_S`. While the ledger is away it waits: the last state of each
  session, so what waits is bounded by the number of sessions (`pending` says how many rows).
* ``last_active_time`` is written behind: a gateway that is killed loses the signs of life of the last
  ``flush_interval_s`` and of a batch under way, no more.

The ledger is tried once a second until it is back. `dropped` counts rows that never reach it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol, TypeVar

from reference_server.ledger.rows import (
    LOGGED_OUT,
    UNACKNOWLEDGED,
    Connected,
    Ended,
    LedgerSettings,
    LedgerUnavailable,
    Login,
    Over,
    PendingRows,
    Row,
    Seen,
    Unconnected,
    now_ms,
)
from reference_server.sessions.records import Record

if TYPE_CHECKING:
    from reference_server.ledger.writer import LedgerWriter

__all__ = ["ANSWER_DEADLINE_S", "Ledger", "Peer"]

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
        self._logins: list[Login] = []
        self._pending = PendingRows()
        self._written = _outcome()  # of the next batch: the rows that it did not take, and why
        self._wake, self._idle, self._tried = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._wake_is_set = False
        self._seen_until_s = monotonic()
        self._flush_due_s = self._expire_due_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self.available = True  # as of the last attempt to write
        self.dropped = 0  # rows that the ledger will never have

    @property
    def pending(self) -> int:
        """How many rows about ended, begun and logged out sessions wait to be written."""
        return len(self._pending)

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
        self._logins.append(login)
        try:
            refused = await self._commit()
        except LedgerUnavailable:
            self._add(Over(login.session_id, login.user_id, UNACKNOWLEDGED, now_ms()))
            raise
        if login.session_id in refused:
            raise refused[login.session_id]

    def note_login(self, login: Login) -> None:
        """Note a login that nobody waits for; one that the ledger cannot take is not in it."""
        if self.available:
            self._logins.append(login)
            self._stir(_GATHER_S)
        else:
            self.dropped += 1

    async def logout(self, session_id: str, user_id: str = "") -> None:
        """Commit a logout; an unknown session is no error.

        Raises:
            LedgerUnavailable: it is not written yet; it will be when the ledger is back.
        """
        self._add(Over(session_id, user_id, LOGGED_OUT, now_ms()))
        self.check()
        await self._commit()

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

    # -- what is written soon, or when the ledger is back ------------------------------------------

    def connected(self, record: Record) -> None:
        """Note that a connection has its session now."""
        self._add(Connected(record.session_id, record.user_id, record.owner, now_ms()))

    def ended(self, record: Record, cause: str, last_seen_s: float | None) -> None:
        """Note that a connection has ended; a row that a newer connection has by now is left alone.

        Args:
            record: with its user.
            cause: the layer that ended it.
            last_seen_s: its last sign of life, monotonic clock; None: unknown here.
        """
        at_ms = now_ms()
        seen_ms = 0 if last_seen_s is None else at_ms - int(1000 * (monotonic() - last_seen_s))
        self._add(Ended(record.session_id, record.user_id, record.owner, cause, at_ms, seen_ms))

    # -- the thread and its batches ----------------------------------------------------------------

    def _add(self, row: Connected | Ended | Over) -> None:
        self._pending.add(row)
        self._stir(_GATHER_S)

    def _stir(self, after_s: float) -> None:
        """Have the next batch written soon; several causes make one batch."""
        self._idle.clear()
        if after_s == 0.0:
            self._wake.set()
        elif not self._wake_is_set:
            self._wake_is_set = True
            asyncio.get_running_loop().call_later(after_s, self._wake.set)

    async def _commit(self) -> dict[str, Exception]:
        """Wait until the next batch is written; return the rows that it did not take, and why."""
        self._stir(0.0)
        try:
            return await asyncio.wait_for(asyncio.shield(self._written), ANSWER_DEADLINE_S)
        except TimeoutError:
            self.available = False
            raise LedgerUnavailable("the ledger does not answer") from None

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self._open()
                retry_s = _FIRST_RETRY_S
                while True:
                    await self._until_due()
                    await self._write_batch()
            except LedgerUnavailable as error:
                if self.available:
                    _log.warning("the ledger is away: %s", error)
                self._give_up(error)
            except Exception as error:
                self._failure = error
                self._give_up(LedgerUnavailable(str(error)))
                if self._is_open:
                    _log.exception("the ledger's writer has ended")
                return
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _open(self) -> None:
        """Open the ledger, or find out that it can be written again."""
        if self._writer is None:
            self._writer = await self._in_thread(self._make_writer)
        if not self._is_open:
            stale = await self._in_thread(self._writer.open)
            self._is_open = True
            if stale:
                _log.warning("the ledger: closed %d rows of an earlier life of this node", stale)
        else:
            waited = len(self._pending)
            await self._write_batch(probe=True)
            _log.warning("the ledger is back; %d rows were written", waited)
        self.available = True
        self._tried.set()
        self._wake.set()

    async def _until_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._flush_due_s - monotonic())):
                await self._wake.wait()
        self._wake.clear()
        self._wake_is_set = False

    async def _write_batch(self, *, probe: bool = False) -> None:
        logins, self._logins = self._logins, []
        pending = self._pending.rows()
        written, self._written = self._written, _outcome()
        looked_s = monotonic()
        seen: list[Seen] = []
        writer = self._the_writer()
        try:
            if looked_s >= self._flush_due_s:
                self._flush_due_s = looked_s + self._settings.flush_interval_s
                seen = await self._collect()
            rows: list[Row] = [*logins, *pending, *seen]
            refused: dict[str, Exception] = {}
            if rows or probe:
                refused = await self._in_thread(lambda: writer.write(rows, probe=probe))
        except BaseException as error:
            away = error if isinstance(error, LedgerUnavailable) else LedgerUnavailable(str(error))
            written.set_exception(away)
            raise
        self.available = True
        self._pending.written(pending)
        self.dropped += sum(isinstance(why, LedgerUnavailable) for why in refused.values())
        written.set_result(refused)
        if seen:
            self._seen_until_s = looked_s
        if looked_s >= self._expire_due_s:
            wait_s = min(_EXPIRE_EVERY_S, self._settings.session_ttl_s / 2)
            self._expire_due_s = looked_s + wait_s
            await self._in_thread(writer.expire)
        if not self._logins and not self._pending:
            self._idle.set()

    def _give_up(self, error: LedgerUnavailable) -> None:
        """Tell whoever waits that the ledger is away; rows of sessions stay."""
        self.available = False
        self._logins.clear()
        written, self._written = self._written, _outcome()
        written.set_exception(error)
        self._tried.set()

    async def _collect(self) -> list[Seen]:
        """The connections that have given a sign of life since the last time."""
        ago_s, since_s = time() - monotonic(), self._seen_until_s
        seen: list[Seen] = []
        everyone = iter(list(self._live()))
        while chunk := list(islice(everyone, _CHUNK)):
            seen += _seen(chunk, since_s, ago_s)
            await asyncio.sleep(0)
        return seen

    def _make_writer(self) -> LedgerWriter:
        # Here and not above: a gateway without a ledger does without SQLAlchemy, and the loop without the wait.
        from reference_server.ledger.writer import LedgerWriter

        return LedgerWriter(self._settings)

    def _the_writer(self) -> LedgerWriter:
        if self._writer is None:
            raise LedgerUnavailable("the ledger is not open yet")
        return self._writer

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _outcome() -> asyncio.Future[dict[str, Exception]]:
    made: asyncio.Future[dict[str, Exception]] = asyncio.get_running_loop().create_future()
    made.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need ask
    return made


def _seen(peers: Iterable[Peer], since_s: float, ago_s: float) -> list[Seen]:
    return [
        Seen(peer.record.session_id, peer.record.user_id, int(1000 * (peer.last_seen_s + ago_s)))
        for peer in peers
        if peer.last_seen_s >= since_s and peer.record is not None
    ]
