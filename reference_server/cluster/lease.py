"""One node among others: its lease, and what its peers do when the lease ends.

From this node's connections and Redis to a lease that is renewed, records that are asserted again when Redis
has lost them, and the sessions of dead nodes ended. Decides by Redis's clock alone; asks nobody but Redis.

* A node that dies has renewed its lease at most ``renew`` ago. Its peers look every ``check``, so its sessions
  are ended, and their watchers told, between ttl − renew and ttl + check after its death, plus the time of the
  reaping itself (0.1 ms a session).
* After a stall or an outage of Redis every lease may have ended at once. So a node reaps only when it has renewed
  its own in time for a whole ttl; the bound then begins when Redis is back.
* A node that finds its lease gone (Redis was flushed or restarted, or the node stood still and was reaped) asserts
  the records of all its connections, in chunks. Those that a newer connection has are taken over; where Redis has
  lost nothing, whoever has them is newer, however fast the node's own clock is. Redis must have
  been away for the node to notice at once; else it notices at the next renewal: the records are back within
  ``renew`` plus the time of asserting, 0.1 to 0.3 ms a connection.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from time import monotonic, time
from typing import Protocol

from reference_server.config import GatewayConfig
from reference_server.sessions.owner_tokens import made_at_s
from reference_server.sessions.records import Record, Sessions
from reference_server.sessions.redis_writer import Answer, Call, StoreUnavailable, StoreWriter
from reference_server.sessions.scripts import Script

__all__ = ["Cluster", "Node"]

_CHUNK = 100  # Redis serves nobody else for 10 ms
_YOUNG_S = 10.0  # a connection is put into service within this, or never

_log = logging.getLogger(__name__)


class Node(Protocol):
    """The gateway, as far as its peers are concerned."""

    def held(self) -> Iterable[Record]:
        """Return the records that this node answers for, connected or waiting to be resumed."""

    def take_over(self, owner: str) -> None:
        """End a connection that has lost its records."""

    def on_reaped(self, record: Record, dead: str, drained: bool) -> None:
        """Take note that this node has ended a session of a node that ended."""

    def on_store_lost(self) -> None:
        """Take note that Redis has lost records, or may have; connections' own come back by themselves."""

    def reconcile(self) -> None:
        """Tell watchers what has changed while announcements may have been lost."""


class Cluster:
    """The node's place among its peers. Use: `run` in a task, at last `retire`.

    Args:
        writer: carries the calls.
        sessions: the node's records.
        times: its ``lease_ttl_s``, ``lease_renew_s`` and ``lease_check_s``.
        node: called with what becomes of the node's and its peers' sessions.
        first_check_s: seconds until the first look for dead nodes.
    """

    def __init__(
        self, writer: StoreWriter, sessions: Sessions, times: GatewayConfig, node: Node, first_check_s: float
    ) -> None:
        self._writer = writer
        self._nodes = f"{writer.prefix}nodes"
        self._sessions = sessions
        self._node = node
        self._enabled = times.lease_ttl_s is not None
        self._ttl_s, self._renew_s = times.lease_ttl_s or 0.0, times.lease_renew_s
        self._check_s, self._first_check_s = times.lease_check_s, first_check_s
        self._ttl_ms = max(1, round(1000 * self._ttl_s))
        self.incarnation = sessions.owners.incarnation
        self._lease = f"{writer.prefix}lease:{self.incarnation}"
        self._nonce = ""
        self._retired = False
        self._store_is: tuple[bytes, bytes] | None = None  # epoch and start of the Redis that we know
        self._in_time_since_s: float | None = None  # since when every renewal was answered in time
        self._wake = asyncio.Event()
        self._verify = False
        self._due_s: list[float] = []  # when to look after what an outage may have left behind
        self.settled = asyncio.Event()  # the lease is held: every record is as it should be

    # -- what others notice ------------------------------------------------------------------------

    def on_store_back(self) -> None:
        """Redis answers again: look at the lease at once."""
        if not self._enabled:  # what was asked when the channels stood again may have come too early
            self._node.reconcile()
        self._in_time_since_s = None
        self._wake.set()

    def on_subscribed(self) -> None:
        """The channels are heard again; what was said meanwhile is lost."""
        if not self._enabled:  # no lease tells when records are back
            self._node.reconcile()
        self._verify = True
        self._wake.set()

    # -- the lease ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew and look until cancelled; nothing at all without leases."""
        if not self._enabled:
            self.settled.set()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_lease())
            group.create_task(self._keep_watch())

    async def retire(self, window_s: float, deadline_s: float) -> None:
        """Leave in order: peers end what is not resumed when the window is over, and log nothing."""
        if not self._enabled:
            return
        self._retired = True
        keys = (self._nodes, self._lease)
        args = (self.incarnation, int(1000 * window_s))
        try:
            async with asyncio.timeout(deadline_s):
                await self._writer.ask(Call(Script.RETIRE, keys, args))
        except (StoreUnavailable, TimeoutError):
            _log.warning("Redis does not answer: the lease is left to end by itself")

    async def _keep_lease(self) -> None:
        while True:
            self._wake.clear()
            wait_s = self._renew_s
            try:
                await self._renew()
                await self._look_after_outage()
                # An early renewal does no harm, and what is due after an outage is not late.
                wait_s = min((wait_s, *(max(0.0, due_s - monotonic()) for due_s in self._due_s)))
            except StoreUnavailable:
                self._in_time_since_s = None  # the wake-up comes when Redis is back
                self.settled.clear()
            with suppress(TimeoutError):  # not `wait_for`, which Python 3.11 lets swallow a cancel
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _renew(self) -> None:
        if self._retired:
            return  # a renewal would make the lease outlive the node
        asked_s, nonce = monotonic(), secrets.token_hex(4)
        keys = (self._nodes, self._lease, f"{self._writer.prefix}epoch")
        call = Call(Script.RENEW, keys, (self.incarnation, self._ttl_ms, self._nonce, nonce))
        state, epoch, run_id = await self._writer.ask(call)
        now_s = monotonic()
        # A stall of Redis that ends leases makes one of our own renewals wait at least ttl - 2 renew.
        if self._in_time_since_s is None or 2 * (now_s - asked_s) > self._ttl_s - 2 * self._renew_s:
            self._in_time_since_s = now_s
        lost = state == b"lost"
        before, self._store_is = self._store_is, (epoch, run_id)
        if before != self._store_is and (before is not None or epoch.decode() == nonce):
            self._node.on_store_lost()
        if lost:
            self._nonce = nonce
        if state != b"held":
            if before is not None:
                _log.warning("lease lost: asserting the records of all connections")
            self.settled.clear()
            await self._assert_all()
            hold = Call(Script.HOLD, (self._lease,), (self._ttl_ms, self._nonce))
            if not await self._writer.ask(hold):
                self._wake.set()
                return
            self._due_s = [monotonic() + self._ttl_s + self._check_s] if before else []
        elif self._verify:
            await self._assert_all()  # a kick may have been lost
            now_s = monotonic()
            self._due_s = [now_s, now_s + self._ttl_s + self._check_s]
        self._sessions.known = (epoch + run_id).decode()
        self._verify = False
        self.settled.set()

    async def _assert_all(self) -> None:
        waiting = iter(list(self._node.held()))
        while chunk := list(islice(waiting, _CHUNK)):
            for record in chunk:
                self._sessions.refresh(record, self._node.take_over)
            await asyncio.sleep(0)

    async def _look_after_outage(self) -> None:
        due = [due_s for due_s in self._due_s if due_s <= monotonic()]
        if due:
            self._due_s = [due_s for due_s in self._due_s if due_s not in due]
            self._node.reconcile()
            if not self._due_s:
                await self._clear_strays()

    async def _clear_strays(self) -> None:
        """Clear records in this node's name that it does not know: Redis carried out a call too late."""
        known = {record.owner for record in self._node.held()}
        cursor = b"0"
        while True:
            call = Call(Script.HELD, (self._list(self.incarnation),), (cursor.decode(), _CHUNK))
            cursor, *found = await self._writer.ask(call)
            for session_id, value in zip(found[::2], found[1::2], strict=True):
                record = self._sessions.record_of(session_id.decode(), value.decode())
                # Wall clock, as the token's: a connection that is being let in is not known yet.
                if record.owner not in known and time() - made_at_s(record.owner) > _YOUNG_S:
                    self._sessions.clear(record)
            if cursor == b"0":
                return

    # -- the peers' --------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        due_s = monotonic() + self._first_check_s
        while True:
            await asyncio.sleep(max(0.0, due_s - monotonic()))
            due_s = max(due_s + self._check_s, monotonic())
            since_s = self._in_time_since_s
            if since_s is None or monotonic() - since_s < self._ttl_s:
                continue
            try:
                for dead in await self._writer.ask(Call(Script.DEAD, (self._nodes,), (self._writer.prefix,))):
                    await self._reap(dead.decode())
            except StoreUnavailable:
                self._in_time_since_s = None

    async def _reap(self, dead: str) -> None:
        if dead == self.incarnation:
            self._wake.set()
            return
        keys = (self._nodes, self._list(dead))
        sessions = self._sessions
        ttls_ms = (sessions.survivor_ttl_ms, sessions.life_ms)
        args = (*sessions.head, dead, _CHUNK, sessions.owners.node, *ttls_ms)
        count, left = 0, 1
        while left:
            answer: Answer = await self._writer.ask(Call(Script.REAP, keys, args))
            state, left, *ended = answer
            for session, slot, owner in zip(ended[::3], ended[1::3], ended[2::3], strict=True):
                value = f"{slot.decode()}|{owner.decode()}"
                record = self._sessions.record_of(session.decode(), value)
                self._node.on_reaped(record, dead, state == b"drained")
                count += 1
        if state != b"drained":
            _log.warning("%s is dead: ended %d of its sessions", dead, count)

    def _list(self, incarnation: str) -> str:
        return f"{self._writer.prefix}node:{incarnation}:sessions"
