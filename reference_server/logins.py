"""Sessions begin with a login and end with a logout or a kick: in Redis, and committed in the ledger.

From what the HTTP API asks to the session records (`sessions/records.py`) and the rows of the ledger. Connections
are the gateway's: this tells it which of them a session's end concerns.
"""

from __future__ import annotations

import logging
from asyncio import Task, create_task, sleep
from collections.abc import Callable, Iterable
from itertools import islice
from operator import methodcaller
from time import time

from reference_server.cluster.routing import Router
from reference_server.config import GatewayConfig
from reference_server.ledger.ledger import ANSWER_DEADLINE_S, Ledger
from reference_server.ledger.rows import AddressFull, LedgerUnavailable, Login, now_ms
from reference_server.sessions.origin import Origin
from reference_server.sessions.records import Record, Sessions, session_id_of
from reference_server.sessions.redis_writer import StoreUnavailable

__all__ = ["Logins"]

_CHUNK = 200
_AGAIN_S = 1.0

_log = logging.getLogger(__name__)


class Logins:
    """Makes and ends sessions.

    Args:
        config: of the gateway.
        sessions: their records.
        ledger: None: nothing outlives Redis.
        router: knows on which node a user's sessions are.
        end_session: called with the owner and how, when a session was ended.
        held: the records of this node's connections.
    """

    def __init__(
        self,
        config: GatewayConfig,
        sessions: Sessions,
        ledger: Ledger | None,
        router: Router,
        end_session: Callable[[str, str], None],
        held: Callable[[], Iterable[Record]],
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._ledger = ledger
        self._router = router
        self._end_session = end_session
        self._held = held
        self._restoring: Task[None] | None = None

    async def login(self, user_id: str, origin: Origin, device_id: str = "") -> str | None:
        """Make a session; return its token, or None: the user is online and a second login is refused.

        With a ledger it is committed there first. ``device_id`` tells devices of one type apart.

        Raises:
            StoreUnavailable: Redis does not answer.
            LedgerUnavailable: the ledger cannot be written.
            AddressFull: the origin has too many open sessions.
        """
        if self._ledger is not None:
            self._ledger.check()
        token = await self._sessions.login(user_id, device_id or origin.device_type)
        if token is None or self._ledger is None:
            return token
        session_id = session_id_of(token)
        row = Login(
            session_id, user_id, origin.device_type, origin.ip_address, origin.user_agent, device_id, now_ms()
        )
        try:
            await self._ledger.login(row)
        except (LedgerUnavailable, AddressFull):
            self._sessions.forget(session_id)
            raise
        return token

    def note_stranger(self, session_id: str, user_id: str, origin: Origin) -> None:
        """Note a login that nobody asked for; it is committed soon, not first."""
        if self._ledger is not None:
            said = (origin.device_type, origin.ip_address, origin.user_agent)
            self._ledger.note_login(Login(session_id, user_id, *said, "", now_ms()))

    async def logout(self, session_id: str, user_id: str = "") -> None:
        """End a session at once, its connection with it; an unknown one is no error.

        Args:
            session_id: which.
            user_id: whose it has to be; empty: whoever's it is.

        Raises:
            StoreUnavailable: Redis does not answer.
            WrongUser: the session is another user's.
            LedgerUnavailable: it has ended, but that is not committed yet.
        """
        await self._end(session_id, user_id, "logged_out")

    async def kick(self, *, user_id: str = "", session_id: str = "") -> int:
        """End a session, or those that a user is online with, on whichever node; return how many.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        sessions = [session_id] if session_id else await self._router.sessions_of(user_id)
        return sum([await self._end(session, user_id, "kicked") for session in sessions])

    async def _end(self, session_id: str, user_id: str, how: str) -> bool:
        record = await self._sessions.logout(session_id, user_id, how)
        if record is not None:
            self._end_session(record.owner, how)
        if self._ledger is not None:
            was_one = await self._ledger.logout(session_id, user_id)
            # Redis may have lost it with all others, and its node be about to bring it back.
            if record is None and was_one:
                record = await self._sessions.logout(session_id, user_id, how, known=True)
                if record is not None:
                    self._end_session(record.owner, how)
            if record is not None:
                self._sessions.written(session_id)
        return record is not None

    async def repair(self) -> None:
        """Write the rows of logouts that Redis has acknowledged and whose node ended before the ledger had them."""
        while self._ledger is not None:
            try:
                for session_id in await self._sessions.unwritten():
                    await self._ledger.logout(session_id)
                    self._sessions.written(session_id)
                return
            except (LedgerUnavailable, StoreUnavailable):
                await sleep(_AGAIN_S)

    def bring_back(self) -> None:
        """Begin to write the logins again that Redis has lost; what of this is under way is restarted."""
        if self._ledger is not None:
            self.stop()
            self._restoring = create_task(self._restore(self._ledger))

    def stop(self) -> None:
        """End what `bring_back` began."""
        if self._restoring is not None:
            self._restoring.cancel()
            self._restoring = None

    async def _restore(self, ledger: Ledger) -> None:
        """Bring logins that have not connected yet back from the ledger, once it answers; one that is there stays.

        Connections, and sessions that wait to be resumed, are not brought back: their node asserts its own records
        (`cluster/lease.py`). Every node does this for all logins, which changes nothing where another was first.
        A logout that another node carries out meanwhile is committed within its answer's deadline, and Redis may
        have lost what it knew of older ones; so what is over is looked up after that, and ended again.
        """
        while True:
            try:
                waiting = await ledger.ask(lambda table: table.unconnected())
                for n, login in enumerate(waiting, 1):
                    left_s = self._config.session_life_s - (time() - login.seen_ms / 1000)
                    if left_s > 0:
                        self._sessions.restore(
                            login.session_id, login.user_id, login.device, login.had, left_s
                        )
                    if n % _CHUNK == 0:
                        await sleep(0)
                if waiting:
                    _log.warning("Redis lost its records: restored %d logins", len(waiting))
                await sleep(ANSWER_DEADLINE_S)
                owners = dict.fromkeys((login.session_id for login in waiting), "")
                owners |= {record.session_id: record.owner for record in self._held()}
                sessions = iter(owners)
                while some := list(islice(sessions, _CHUNK)):
                    for session_id in await ledger.ask(methodcaller("over", some)):
                        self._sessions.forget(session_id)
                        self._end_session(owners[session_id], "logged_out")
                return
            except LedgerUnavailable:
                await sleep(_AGAIN_S)
