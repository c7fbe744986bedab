"""Session and status records in Redis: who is logged in, and which connection speaks for whom.

From session, user and connection ids to calls of the scripts in `scripts.py`; nothing here waits except
for a login and a logout. Holds no state but the connection to Redis.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from reference_server.liveness import LivenessPolicy
from reference_server.records import RecordRules
from reference_server.scripts import CLEAR, CONNECT, LOGIN, LOGOUT, PRUNE, REFRESH, RELEASE
from reference_server.store import Answer, Call, StoreUnavailable, StoreWriter

__all__ = ["ConnectRefused", "Connected", "Record", "Sessions", "WrongUser", "refresh_after_s"]

_REFUSALS = {
    b"unknown": "session_unknown",
    b"refused": "already_online",
    b"wrong_user": "wrong_user",
}
_OUR_RULES = RecordRules()


@dataclass(frozen=True, slots=True)
class Record:
    """What one connection may change: a session of a user, in this connection's name."""

    session_id: str
    owner: str  # the connection's id
    user_id: str = ""  # unknown until connected


@dataclass(frozen=True, slots=True)
class Connected:
    """The records are the connection's now."""

    user_id: str
    resumed: bool  # the session had a connection before
    displaced: frozenset[str]  # connections that had the records until now, alive or not


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
        prefix: of every key.
        node: this gateway's name, in broadcasts.
        policy: its TTLs and resume window, in real seconds.
        refuse: a user who is online is not let in a second time.
        rules: when records are written and prolonged.
        on_cleared: called with records that `clear` has settled, and whether they are gone: a newer
            connection may have them.
    """

    def __init__(
        self, writer: StoreWriter, prefix: str, node: str, policy: LivenessPolicy, *, refuse: bool,
        rules: RecordRules = _OUR_RULES,
        on_cleared: Callable[[Record, bool], None] = lambda _record, _gone: None,
    ) -> None:  # fmt: skip
        self._writer = writer
        self._prefix = prefix
        self._node = node
        self._refuse = int(refuse)
        self._session_ttl_ms = _milliseconds(policy.session_ttl) if rules.expire else 0
        self._status_ttl_ms = _milliseconds(policy.status_ttl) if rules.expire else 0
        self._status_ttl_s = policy.status_ttl
        self._resume_window_s = policy.resume_window
        self._status_at_login = rules.status_written == "at_login"
        self._on_cleared = on_cleared
        self.refresh_after_s = refresh_after_s(policy, rules)

    async def login(self, user_id: str) -> str | None:
        """Make a session; return its id, or None: the user is online and a second login is refused.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        session_id, call = self._login(user_id)
        granted = await self._writer.ask(call)
        return session_id if granted else None

    def login_unasked(self, user_id: str, done: Callable[[str | None], None]) -> None:
        """Make a session for whoever names a user; ``done`` gets its id, or None: refused, or no answer."""

        def read(answer: Answer) -> None:
            done(session_id if answer == 1 else None)

        session_id, call = self._login(user_id)
        self._writer.submit(Call(call.script, call.keys, call.args, read))

    def _login(self, user_id: str) -> tuple[str, Call]:
        session_id = secrets.token_urlsafe(16)
        keys = (self._session(session_id), self._status(user_id))
        status = f"{session_id}|" if self._status_at_login else ""
        args = (f"{user_id}|", self._session_ttl_ms, self._refuse, status, self._status_ttl_ms)
        return session_id, Call(LOGIN, keys, args)

    async def logout(self, session_id: str, user_id: str = "") -> Record | None:
        """End a session at once; return what it was, or None: unknown.

        Args:
            session_id: lets whoever has it do this.
            user_id: whose it has to be; empty: whoever's it is.

        Raises:
            StoreUnavailable: Redis does not answer.
            WrongUser: the session is another user's; nothing was done.
        """
        args = (self._prefix, session_id, self._node, user_id)
        found: list[bytes] = await self._writer.ask(
            Call(LOGOUT, (self._session(session_id),), args)
        )
        if not found:
            return None
        if len(found) == 1:
            raise WrongUser
        of_user, owner = found
        return Record(session_id, owner.decode(), of_user.decode())

    def forget(self, session_id: str) -> None:
        """Delete a session that was made and never told to anybody."""
        args = (self._prefix, session_id, self._node)
        key = self._session(session_id)
        self._writer.submit(Call(LOGOUT, (key,), args, duty=f"forget {session_id}"))

    def connect(
        self, record: Record, done: Callable[[Connected | ConnectRefused | StoreUnavailable], None]
    ) -> None:
        """Give a session's records to a connection; a record that names a user is for that user's alone.

        With `StoreUnavailable` the records may be the connection's all the same.
        """

        def read(answer: Answer) -> None:
            if isinstance(answer, StoreUnavailable):
                done(answer)
            elif answer[0] == b"ok":
                user_id, before, displaced = (field.decode() for field in answer[1:])
                others = frozenset({before, displaced} - {"", record.owner})
                done(Connected(user_id, bool(before), others))
            else:
                done(ConnectRefused(_REFUSALS[answer[0]]))

        args = (
            *(self._prefix, record.session_id, record.owner),
            *(self._session_ttl_ms, self._status_ttl_ms, self._refuse, self._node),
            record.user_id,
        )
        self._writer.submit(Call(CONNECT, (self._session(record.session_id),), args, read))

    def refresh(self, record: Record, superseded: Callable[[], None]) -> None:
        """Prolong both records, and bring back what vanished; a newer connection's are left alone.

        Args:
            record: with its user.
            superseded: called when a newer connection has the records.
        """

        def read(answer: Answer) -> None:
            if answer == 0:
                superseded()

        keys = (self._session(record.session_id), self._status(record.user_id))
        args = (
            *(self._prefix, record.user_id, record.session_id, record.owner),
            *(self._session_ttl_ms, self._status_ttl_ms),
        )
        self._writer.submit(Call(REFRESH, keys, args, read, duty=record.owner))

    def clear(self, record: Record) -> None:
        """Delete the records as far as they are the connection's, and tell that the user is offline."""
        args = (self._prefix, record.session_id, record.owner, record.user_id, self._node)
        keys = (self._session(record.session_id),)

        def read(answer: Answer) -> None:
            self._on_cleared(record, answer == 1)

        self._writer.submit(Call(CLEAR, keys, args, read, duty=record.owner))

    def release(self, record: Record) -> None:
        """Leave the records to expire with the resume window: this node will not be there to clear them."""
        keys = (self._session(record.session_id), self._status(record.user_id))
        window_ms = int(self._resume_window_s * 1000)  # 0: PEXPIRE deletes
        args = (record.user_id, record.session_id, record.owner, window_ms)
        self._writer.submit(Call(RELEASE, keys, args, duty=record.owner))

    def prune(self) -> None:
        """Take users off the online set whom nobody has refreshed for a whole status TTL."""
        args = (str(self._status_ttl_s),)
        self._writer.submit(Call(PRUNE, (f"{self._prefix}online",), args, duty="prune"))

    def _session(self, session_id: str) -> str:
        return f"{self._prefix}session:{session_id}"

    def _status(self, user_id: str) -> str:
        return f"{self._prefix}status:{user_id}"


def refresh_after_s(policy: LivenessPolicy, rules: RecordRules) -> float:
    """How long after a refresh a frame brings the next one; infinite where frames bring none.

    Half of a TTL may be gone before it is refreshed: a refresh at every beat buys nothing.
    """
    match rules.refreshed:
        case "when_half_gone" if rules.expire:
            return min(policy.session_ttl, policy.status_ttl) / 2
        case "at_each_frame":
            return 0.0
        case _:
            return float("inf")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
