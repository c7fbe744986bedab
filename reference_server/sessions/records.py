"""Session and status records in Redis: who is logged in, and which connection speaks for whom.

From session, user and connection ids to calls of the scripts in `scripts.py`. Only a login and a logout wait for an
answer. Holds no state but the connection to Redis and the node's own name.

A login's answer gives the client a *token*, which lets whoever has it in. Everything else is about the session's id,
which is the token's hash (`session_id_of`): Redis, ledger, logs, events and other clients know the id, and nobody gets
in with it.

`flush_records` forgets every record at a gateway's start: how a system without TTLs gets rid of its ghosts. It throws
out the living as well: their records are gone while they are connected.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

from redis.asyncio import Redis

from reference_server.config import GatewayConfig
from reference_server.record_rules import refresh_after_s
from reference_server.sessions.owner_tokens import Owners
from reference_server.sessions.redis_writer import Answer, Call, StoreUnavailable, StoreWriter
from reference_server.sessions.scripts import Script

__all__ = [
    "ConnectRefused",
    "Connected",
    "OlderThan",
    "Record",
    "Sessions",
    "WrongUser",
    "flush_records",
    "session_id_of",
]

_AT_ONCE = 500
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "*?[]\\^-"})  # of Redis's glob patterns


def session_id_of(token: str) -> str:
    """Return the id of the session that a token lets in to: 128 bits of its SHA-256."""
    # surrogatepass: the path of a handshake may hold any bytes.
    return urlsafe_b64encode(sha256(token.encode(errors="surrogatepass")).digest()[:16]).decode().rstrip("=")


async def flush_records(redis: Redis, prefix: str) -> int:
    """Delete every key that begins with the prefix; return how many there were.

    Raises:
        RedisError: Redis does not answer.
    """
    keys = [key async for key in redis.scan_iter(match=f"{prefix.translate(_SPECIAL)}*", count=_AT_ONCE)]
    parts = [keys[n : n + _AT_ONCE] for n in range(0, len(keys), _AT_ONCE)]
    return sum([await redis.unlink(*part) for part in parts])


_REFUSALS = {b"unknown": "session_unknown", b"refused": "already_online", b"wrong_user": "wrong_user"}


@dataclass(frozen=True, slots=True)
class Record:
    """What one connection may change: a session of a user, in this connection's name."""

    session_id: str
    owner: str  # the connection's id, see `owner_tokens.py`
    user_id: str = ""  # unknown until connected
    device: str = ""  # only with one connection a device

    @property
    def slot(self) -> str:
        """What has one connection at most: the user, or one of the user's devices."""
        return f"{self.user_id}/{self.device}" if self.device else self.user_id


@dataclass(frozen=True, slots=True)
class Connected:
    """The records are the connection's now."""

    user_id: str
    resumed: bool  # the session had a connection before
    displaced: frozenset[str]  # connections that had the records until now, alive or not
    device: str = ""  # only with one connection a device


@dataclass(frozen=True, slots=True)
class OlderThan:
    """Another connection has the records that authenticated later, by its node's clock."""

    owner: str


@dataclass(frozen=True, slots=True)
class ConnectRefused:
    """The session cannot be connected; ``code`` is `session_unknown`, `already_online` or `wrong_user`."""

    code: str


class WrongUser(Exception):
    """The session is another user's than the one named."""


class Sessions:
    """The records of one gateway's sessions.

    Args:
        writer: carries the calls.
        owners: makes this node's owner tokens.
        config: the node's: when records are written, how long they live, what has one connection at most.
        on_cleared: called with records that `clear` has settled, and whether they are gone: a newer
            connection may have them.
    """

    def __init__(
        self,
        writer: StoreWriter,
        owners: Owners,
        config: GatewayConfig,
        on_cleared: Callable[[Record, bool], None] = lambda _record, _gone: None,
    ) -> None:
        policy, rules = config.policy, config.records
        self._writer = writer
        self.owners = owners
        self._node = owners.node
        self._refuse = int(config.second_login == "refuse")
        self._per_device = config.one_connection_per == "device"
        self.head = (writer.prefix, int(self._per_device))  # of most scripts' arguments
        self.life_ms = _milliseconds(policy.session_ttl)
        self._session_ttl_ms = self.life_ms if rules.expire else 0
        self._status_ttl_ms = _milliseconds(policy.status_ttl) if rules.expire else 0
        self._status_ttl_s = policy.status_ttl
        self._resume_window_s = policy.resume_window
        self.survivor_ttl_ms = self._session_ttl_ms if config.session_survives_connection else ""
        self._has_ledger = config.ledger_url is not None
        self._over = f"{writer.prefix}over"
        self._status_at_login = rules.status_written == "at_login"
        self._on_cleared = on_cleared
        self.known = ""  # epoch and start of the Redis that has had all of the node's records
        self.refresh_after_s = refresh_after_s(policy, rules)

    async def login(self, user_id: str, device: str = "web") -> str | None:
        """Make a session; return its token, or None: the user is online and a second login is refused.

        Args:
            user_id: who.
            device: which of the user's devices; matters with one connection a device only.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        token = secrets.token_urlsafe(16)
        call = self._login(session_id_of(token), user_id, device)
        return token if await self._writer.ask(call) else None

    def login_unasked(self, user_id: str, done: Callable[[str | None], None]) -> None:
        """Make a session for whoever names a user; ``done`` gets its id, or None: refused, or no answer.

        It has no token: nobody comes back to it.
        """
        session_id = secrets.token_urlsafe(16)

        def read(answer: Answer) -> None:
            done(session_id if answer == 1 else None)

        call = self._login(session_id, user_id, "web")
        self._writer.submit(Call(call.script, call.keys, call.args, read))

    def _login(self, session_id: str, user_id: str, device: str) -> Call:
        slot = self.slot(user_id, device)
        keys = (self._session(session_id), self._status(slot))
        status = f"{session_id}|" if self._status_at_login else ""
        args = (f"{slot}|", self._session_ttl_ms, self._refuse, status, self._status_ttl_ms)
        return Call(Script.LOGIN, keys, args)

    def restore(self, session_id: str, user_id: str, device: str, had: str, left_s: float) -> None:
        """Bring back a login that Redis has lost, for what is left of its life; one that is there stays.

        Args:
            session_id: whose it was.
            user_id: whose.
            device: of the user.
            had: the owner of its last connection, which the next one has to be newer than; empty: none.
            left_s: seconds.
        """
        key = self._session(session_id)
        ttl_ms = _milliseconds(left_s) if self._session_ttl_ms else 0
        args = ("".join((self.slot(user_id, device), "|", *had.rpartition(":")[1:])), ttl_ms)
        self._writer.submit(Call(Script.RESTORE, (key,), args, durable_key=f"restore {session_id}"))

    async def logout(
        self, session_id: str, user_id: str = "", how: str = "logged_out", *, known: bool = False
    ) -> Record | None:
        """End a session at once; return what it was, or None: unknown.

        Args:
            session_id: which.
            user_id: whose it has to be; empty: whoever's it is.
            how: what the node that holds its connection is told, if it is not this one.
            known: it was a session, though Redis may have lost it: no node is to bring it back.

        Raises:
            StoreUnavailable: Redis does not answer.
            WrongUser: the session is another user's; nothing was done.
        """
        found: list[bytes] = await self._writer.ask(self._logout(session_id, user_id, how, known=known))
        if not found:
            return None
        if len(found) == 1:
            raise WrongUser
        slot, owner = found
        return Record(session_id, owner.decode(), *self._person(slot.decode()))

    async def unwritten(self) -> list[str]:
        """Return the sessions that were ended and whose rows the ledger may not have.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        return [found.decode() for found in await self._writer.ask(Call(Script.UNWRITTEN, (self._over,), ()))]

    def written(self, session_id: str) -> None:
        """Note that the ledger has the end of a session."""
        key = f"written {session_id}"
        self._writer.submit(Call(Script.WRITTEN, (self._over,), (session_id,), durable_key=key))

    def forget(self, session_id: str) -> None:
        """Delete a session that was made and never told to anybody."""
        self._writer.submit(self._logout(session_id, durable_key=f"forget {session_id}"))

    def _logout(
        self,
        session_id: str,
        user_id: str = "",
        how: str = "logged_out",
        durable_key: str | None = None,
        known: bool = False,
    ) -> Call:
        is_to_be_written = int(self._has_ledger and durable_key is None)
        by = (self._node, user_id, self.owners.incarnation)
        args = (*self.head, session_id, *by, how, is_to_be_written, self.life_ms, int(known))
        return Call(Script.LOGOUT, (self._session(session_id),), args, durable_key=durable_key)

    def connect(
        self,
        record: Record,
        done: Callable[[Connected | ConnectRefused | OlderThan | StoreUnavailable], None],
    ) -> None:
        """Give a session's records to a connection; a record that names a user is for that user's alone.

        With `StoreUnavailable` the records may be the connection's all the same.
        """

        def read(answer: Answer) -> None:
            if isinstance(answer, StoreUnavailable):
                done(answer)
            elif answer[0] == b"ok":
                slot, before, displaced = (field.decode() for field in answer[1:])
                others = frozenset({before, displaced} - {"", record.owner})
                user_id, device = self._person(slot)
                done(Connected(user_id, bool(before), others, device))
            elif answer[0] == b"older":
                done(OlderThan(answer[1].decode()))
            else:
                done(ConnectRefused(_REFUSALS[answer[0]]))

        args = (
            *(*self.head, record.session_id, record.owner),
            *(self._session_ttl_ms, self._status_ttl_ms, self._refuse, self._node),
            record.user_id,
        )
        self._writer.submit(Call(Script.CONNECT, (self._session(record.session_id),), args, read))

    def refresh(self, record: Record, taken_over: Callable[[str], None]) -> None:
        """Prolong both records, and bring back what vanished; a newer connection's are left alone.

        Args:
            record: with its user.
            taken_over: called with the owner that has lost the records: this one, when a newer connection
                has them or the session was ended; an older one, whose records these now are.
        """

        def read(answer: Answer) -> None:
            if isinstance(answer, StoreUnavailable):
                return
            for owner in [record.owner] if answer == 0 else [older.decode() for older in answer]:
                taken_over(owner)

        keys = (self._session(record.session_id), self._status(record.slot))
        args = (
            *(*self.head, record.slot, record.session_id, record.owner),
            *(self._session_ttl_ms, self._status_ttl_ms, self._node, self.known),
        )
        self._writer.submit(Call(Script.REFRESH, keys, args, read, durable_key=record.owner))

    def clear(self, record: Record) -> None:
        """Delete the records as far as they are the connection's, and tell that the user is offline.

        A session that survives its connection keeps its own record: its client comes back without a login. So does
        one whose user is not known, for its client was told nothing but that Redis is away.
        """
        ttl_ms = self.survivor_ttl_ms if record.user_id else self._session_ttl_ms
        args = (*self.head, record.session_id, record.owner, record.slot, self._node, ttl_ms)
        keys = (self._session(record.session_id),)

        def read(answer: Answer) -> None:
            self._on_cleared(record, answer == 1)

        self._writer.submit(Call(Script.CLEAR, keys, args, read, durable_key=record.owner))

    def release(self, record: Record) -> None:
        """Leave what `clear` would delete to expire with the resume window: this node will not be there to do it."""
        keys = (self._session(record.session_id), self._status(record.slot))
        window_ms = int(self._resume_window_s * 1000)  # 0: PEXPIRE deletes
        survives = int(self.survivor_ttl_ms != "")
        args = (record.slot, record.session_id, record.owner, window_ms, survives)
        self._writer.submit(Call(Script.RELEASE, keys, args, durable_key=record.owner))

    def prune(self) -> None:
        """Take users off the online set whom nobody has refreshed for a whole status TTL."""
        args = (str(self._status_ttl_s),)
        self._writer.submit(Call(Script.PRUNE, (f"{self._writer.prefix}online",), args, durable_key="prune"))

    def slot(self, user_id: str, device: str) -> str:
        """Return what has one connection at most; a device's name is escaped, it has no ``/``."""
        return f"{user_id}/{quote(device, safe='')}" if self._per_device else user_id

    def _person(self, slot: str) -> tuple[str, str]:
        """Return the user and the device of a slot."""
        if not self._per_device:
            return slot, ""
        user_id, _, device = slot.rpartition("/")
        return user_id, device

    def record_of(self, session_id: str, value: str) -> Record:
        """Read what a session record says."""
        slot, _, owner = value.rpartition("|")
        return Record(session_id, owner, *self._person(slot))

    def _session(self, session_id: str) -> str:
        return f"{self._writer.prefix}session:{session_id}"

    def _status(self, slot: str) -> str:
        return f"{self._writer.prefix}status:{slot}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
