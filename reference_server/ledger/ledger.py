"""The durable ledger of one gateway: who was logged in, from where, until when; in the event loop, without waiting.

From what the gateway notices to batches of rows that a thread commits (`table.py`), one batch under way at a time:
whatever comes up meanwhile goes into the next, so a hundred logins cost one commit and not a hundred.

* A login and a logout are committed before they are answered. While the ledger is away they fail at once with
  `LedgerUnavailable`; the first to find out waits `ANSWER_DEADLINE_S` at the most.
* What became of sessions is written within `_GATHER_S`. While the ledger is away it waits: the last state of each
  session, so what waits is bounded by the number of sessions (`pending` says how many rows).
* ``last_active_time`` is written behind: a gateway that is killed loses the signs of life of the last
  ``ledger_flush_interval_s`` and of a batch under way, no more.

The ledger is tried once a second until it is back. `dropped` counts rows that never reach it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol, TypeVar

from reference_server.config import GatewayConfig
from reference_server.ledger.rows import (
    LOGGED_OUT,
    UNACKNOWLEDGED,
    Connected,
    Ended,
    LedgerUnavailable,
    Login,
    Over,
    PendingRows,
    Row,
    Seen,
    now_ms,
)
from reference_server.sessions.records import Record

if TYPE_CHECKING:  # a gateway without a ledger does without SQLAlchemy
    from reference_server.ledger.table import LedgerDatabase

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
        config: of the gateway, with the ledger's URL.
        live: the connections in service, for their last signs of life.
    """

    def __init__(self, config: GatewayConfig, live: Callable[[], Collection[Peer]]) -> None:
        self._config = config
        self._live = live
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._table: LedgerDatabase | None = None  # the thread's own
        # What the next batch takes, and who waits for it: told which rows it did not take, and why.
        self._logins: list[Login] = []
        self._pending = PendingRows()
        self._waiters: list[asyncio.Future[dict[str, Exception]]] = []
        self._wake, self._gathering = asyncio.Event(), False
        self._seen_until_s = monotonic()
        self._flush_due_s = self._expire_due_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self.available = False  # as of the last attempt to write
        self.dropped = 0  # rows that the ledger will never have

    @property
    def pending(self) -> int:
        """How many rows about ended, begun and logged out sessions wait to be written."""
        return len(self._pending)

    async def start(self) -> None:
        """Open the ledger and close this node's stale rows; without a database, begin without it.

        Raises:
            LedgerUnfit: its URL is not one, its table is of another make, or its file cannot be read or written.
        """
        try:
            stale = await asyncio.wait_for(self._in_thread(self._open), _START_DEADLINE_S)
        except (LedgerUnavailable, TimeoutError) as error:
            _log.warning("the ledger does not answer yet, starting without it: %s", error)
        else:
            self.available = True
            if stale:
                _log.warning("the ledger: closed %d rows of an earlier life of this node", stale)
        self._task = asyncio.create_task(self._run())

    async def close(self, deadline_s: float) -> bool:
        """Write what waits, within ``deadline_s`` seconds, and let go; False: that was not possible."""
        with suppress(LedgerUnavailable):
            await self._commit(deadline_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._table is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._in_thread(self._table.close), deadline_s)
        self._thread.shutdown(wait=False)
        return not self._pending and not self._logins

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
            self._gather()
        else:
            self.dropped += 1

    async def logout(self, session_id: str, user_id: str = "") -> bool:
        """Commit a logout; return whether there was such a session.

        Raises:
            LedgerUnavailable: it is not written yet; it will be when the ledger is back.
        """
        self._add(Over(session_id, user_id, LOGGED_OUT, now_ms()))
        self.check()
        return session_id not in await self._commit()

    async def ask(self, question: Callable[[LedgerDatabase], T]) -> T:
        """Ask the database something, once what waits is written.

        Raises:
            LedgerUnavailable: no database.
        """
        self.check()
        await self._commit()
        table = self._table
        assert table is not None  # something has been written
        return await self._in_thread(lambda: question(table))

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

    def _add(self, row: Connected | Ended | Over) -> None:
        self._pending.add(row)
        self._gather()

    def _gather(self) -> None:
        """Have the next batch written soon; several causes make one batch."""
        if not self._gathering:
            self._gathering = True
            asyncio.get_running_loop().call_later(_GATHER_S, self._wake.set)

    # -- the thread and its batches ----------------------------------------------------------------

    async def _commit(self, deadline_s: float = ANSWER_DEADLINE_S) -> dict[str, Exception]:
        """Wait until what waits now is written; return the rows that were not taken, and why."""
        waiter: asyncio.Future[dict[str, Exception]] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        try:
            return await asyncio.wait_for(waiter, deadline_s)
        except TimeoutError:
            self._note_away("no answer")
            raise LedgerUnavailable("the ledger does not answer") from None

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if not self.available:
                    await self._in_thread(self._open)
                await self._write_batch()
            except LedgerUnavailable as error:
                self._give_up(error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
            except Exception as error:
                self._give_up(LedgerUnavailable(str(error)))
                _log.exception("the ledger's writer has ended")
                return
            else:
                retry_s = _FIRST_RETRY_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._flush_due_s - monotonic())):
                        await self._wake.wait()
                self._wake.clear()
                self._gathering = False

    def _open(self) -> int:
        """Open the ledger, or find out that it can be written again; in the thread, SQLAlchemy's import too."""
        if self._table is None:
            from reference_server.ledger.table import LedgerDatabase

            self._table = LedgerDatabase(self._config)
        return self._table.open()

    async def _write_batch(self) -> None:
        table = self._table
        assert table is not None
        logins, pending, waiters = list(self._logins), dict(self._pending), list(self._waiters)
        seen: list[Seen] = []
        looked_s = monotonic()
        if looked_s >= self._flush_due_s:
            self._flush_due_s = looked_s + self._config.ledger_flush_interval_s
            seen = await self._collect()
        rows: list[Row] = [*logins, *pending.values(), *seen]
        refused = await self._in_thread(lambda: table.write(rows)) if rows else {}
        if not self.available:
            self.available = True
            _log.warning("the ledger is back; %d rows were written", len(pending))
        if seen:
            self._seen_until_s = looked_s
        self.dropped += sum(isinstance(why, LedgerUnavailable) for why in refused.values())
        del self._logins[: len(logins)], self._waiters[: len(waiters)]
        for key, row in pending.items():
            if self._pending[key] is row:  # and not what has replaced it meanwhile
                del self._pending[key]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(refused)
        if looked_s >= self._expire_due_s:
            self._expire_due_s = looked_s + min(_EXPIRE_EVERY_S, self._config.session_life_s / 2)
            await self._in_thread(table.expire)

    def _give_up(self, error: LedgerUnavailable) -> None:
        """Tell whoever waits that the ledger is away; rows of sessions stay."""
        self._note_away(error)
        self._logins.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()

    def _note_away(self, why: object) -> None:
        if self.available:
            _log.warning("the ledger is away: %s", why)
        self.available = False

    async def _collect(self) -> list[Seen]:
        """The connections that have given a sign of life since the last time."""
        ago_s, since_s = time() - monotonic(), self._seen_until_s
        seen: list[Seen] = []
        everyone = iter(list(self._live()))
        while chunk := list(islice(everyone, _CHUNK)):
            seen += [
                Seen(
                    *(peer.record.session_id, peer.record.user_id, peer.record.owner),
                    int(1000 * (peer.last_seen_s + ago_s)),
                )
                for peer in chunk
                if peer.last_seen_s >= since_s and peer.record is not None
            ]
            await asyncio.sleep(0)
        return seen

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
