"""After Redis has lost its records: logins that have not connected yet are brought back from the ledger.

From the ledger's open sessions to `Sessions.restore`. Connections, and sessions that wait to be resumed, are
not looked at here: their node asserts its own records (`cluster/lease.py`). Every node does this for all logins, which
changes nothing where another was first.

A logout that another node carries out meanwhile is committed within its answer's deadline, so what is over is
looked up once more after that, and deleted again.
"""

from __future__ import annotations

import asyncio
import logging
from time import time

from reference_server.ledger.ledger import ANSWER_DEADLINE_S, Ledger
from reference_server.ledger.rows import LedgerUnavailable
from reference_server.sessions.records import Sessions

__all__ = ["rebuild"]

_CHUNK = 200
_AGAIN_S = 1.0

_log = logging.getLogger(__name__)


async def rebuild(ledger: Ledger, sessions: Sessions, session_ttl_s: float) -> int:
    """Bring back the logins that are in the ledger and not in Redis; return how many there were to look at.

    Waits for a ledger that is away.
    """
    while True:
        try:
            waiting = await ledger.unconnected()
            for n, login in enumerate(waiting, 1):
                left_s = session_ttl_s - (time() - login.seen_ms / 1000)
                if left_s > 0:
                    sessions.restore(login.session_id, login.user_id, login.device, left_s)
                if n % _CHUNK == 0:
                    await asyncio.sleep(0)
            if waiting:
                _log.warning("Redis lost its records: restored %d logins", len(waiting))
                await asyncio.sleep(ANSWER_DEADLINE_S)
                for session_id in await ledger.over([login.session_id for login in waiting]):
                    sessions.forget(session_id)
        except LedgerUnavailable:
            await asyncio.sleep(_AGAIN_S)
        else:
            return len(waiting)
