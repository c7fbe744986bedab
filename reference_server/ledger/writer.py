"""Everything that the gateway says to the ledger's database, synchronously, from one thread.

From batches to transactions: a batch is one transaction, whole or not at all. Whatever the database
answers that is not the fault of a row is `LedgerUnavailable`, and the connection is made anew.

The statements that write batches into the ledger: login, connection, end, end for good, sign of life.

From JSON arrays of rows (bind parameter ``batch``) and the time (``now_s``) to one statement for each kind. Which
row is changed by what is decided here, in the database, so that it does not matter who comes first.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import time
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    Connection,
    Engine,
    Float,
    Insert,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    inspect,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from reference_server.ledger.rows import (
    FINAL,
    AddressFull,
    Batch,
    LedgerUnavailable,
    LedgerUnfit,
    Login,
    Mark,
    Unconnected,
)
from reference_server.ledger.table import (
    LedgerTables,
    age_of,
    batch_of,
    instant,
    ledger_tables,
    open_engine,
    unix_seconds,
)

__all__ = ["LedgerWriter", "Statements"]

_MARK = (
    ("session_id", str), ("user_id", str), ("owner", str), ("ended_by", str), ("at_s", float), ("seen_s", float),
)  # fmt: skip
_LOGIN = (
    ("session_id", str), ("user_id", str), ("device_type", str), ("ip_address", str),
    ("user_agent", str), ("device_id", str), ("at_s", float),
)  # fmt: skip
_SEEN = (("session_id", str), ("user_id", str), ("seen_s", float))


class Statements:
    """The statements of one node.

    Attributes:
        insert: rows as `Login`; a session begins.
        claim: rows as `Mark`; a connection has the session, unless it is over for good or a newer one has it.
        end: the same; the connection has ended, unless another has the session.
        finish: the same; the session is over for good.
        touch: session, user, Unix seconds; a sign of life that is newer than the last.
    """

    def __init__(self, tables: LedgerTables, dialect: str, node: str) -> None:
        s = tables.sessions
        new = batch_of(dialect, _LOGIN).c
        at, now = instant(new.at_s), instant(bindparam("now_s", type_=Float))
        texts = [
            new.session_id,
            new.user_id,
            new.device_type,
            new.ip_address,
            new.user_agent,
            new.device_id,
        ]
        values = {column.name: column for column in texts} | {
            "login_time": at, "last_active_time": at, "created_at": now, "updated_at": now,
            "status": literal(0), "connection_id": literal(""), "node": literal(node),
        }  # fmt: skip
        columns: list[Any] = list(values.values())
        self.insert = insert(s).from_select(list(values), select(*columns))
        mark = batch_of(dialect, _MARK).c
        moment, is_over = instant(mark.at_s), mark.ended_by != ""
        seen = instant(mark.seen_s)
        common = {
            "last_active_time": case((s.c.last_active_time < seen, seen), else_=s.c.last_active_time),
            "updated_at": now,
        }  # fmt: skip
        same = and_(s.c.session_id == mark.session_id, s.c.user_id == mark.user_id)
        not_final = or_(s.c.ended_by.is_(None), s.c.ended_by.not_in(FINAL))
        self.claim = (
            update(s)
            .where(same, not_final, age_of(mark.owner) >= age_of(s.c.connection_id))
            .values(
                status=case((is_over, 0), else_=1), connection_id=mark.owner, node=node,
                logout_time=case((is_over, moment), else_=null()),
                ended_by=func.nullif(mark.ended_by, ""), **common,
            )
        )  # fmt: skip
        self.end = (
            update(s)
            .where(same, s.c.connection_id == mark.owner, s.c.logout_time.is_(None))
            .values(status=0, logout_time=moment, ended_by=mark.ended_by, **common)
        )
        self.finish = (
            update(s)
            .where(
                s.c.session_id == mark.session_id, not_final,
                or_(mark.user_id == "", s.c.user_id == mark.user_id),
            )
            .values(
                status=0, logout_time=func.coalesce(s.c.logout_time, moment),
                ended_by=mark.ended_by, **common,
            )
        )  # fmt: skip
        row = batch_of(dialect, _SEEN).c
        seen = instant(row.seen_s)
        self.touch = (
            update(s)
            .where(
                s.c.session_id == row.session_id, s.c.user_id == row.user_id,
                s.c.logout_time.is_(None), s.c.last_active_time < seen,
            )
            .values(last_active_time=seen, updated_at=now)
        )  # fmt: skip


T = TypeVar("T")
RESTARTED = "node_restart"
EXPIRED = "ttl"
_CREATE_LOCK = 0x666C6174  # PostgreSQL's advisory locks are numbers
_ADDRESS_LOCK = 0x69705F63
_log = logging.getLogger(__name__)


class LedgerWriter:
    """The ledger's database, for one node.

    Args:
        url: of an SQLite file or a PostgreSQL.
        node: this gateway's name; rows of the same name that are online when it opens are stale.
        session_ttl_s: a session without a sign of life for this long is over.
        resume_window_s: noted for whoever audits.
        most_per_address: open sessions; None: any number.

    Raises:
        ValueError: another kind of URL.
    """

    def __init__(
        self,
        url: str,
        node: str,
        *,
        session_ttl_s: float,
        resume_window_s: float = 0.0,
        most_per_address: int | None = None,
    ) -> None:
        self._engine: Engine = open_engine(url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._tables = ledger_tables(self._engine)
        self._node = node
        self._session_ttl_s = session_ttl_s
        self._resume_window_s = resume_window_s
        self._most_per_address = most_per_address
        self._inode: tuple[int, int] | None = None  # of the SQLite file that is open
        self._statements = Statements(self._tables, self._engine.dialect.name, node)

    # -- what may be asked -------------------------------------------------------------------------

    def open(self) -> int:
        """Make the tables where there are none; close the rows that an earlier life of this node left online.

        They ended when they were last seen. Returns how many they were.

        Raises:
            LedgerUnavailable: no database.
            LedgerUnfit: a table of another make.
        """
        return self._carry_out(self._open)

    def write(self, batch: Batch) -> dict[str, Exception]:
        """Write a batch; return why which logins of it were not taken.

        `AddressFull`: their address has too many sessions. A row that the database cannot take, whatever a
        client sent, must not keep the others out: then each is written by itself, and that one is dropped.

        Raises:
            LedgerUnavailable: nothing of it is written, as far as can be known.
        """
        try:
            return self._carry_out(lambda connection: self._write(connection, batch))
        except (DataError, IntegrityError) as error:
            singly = batch.split()
            if len(singly) > 1:
                return {k: why for one in singly for k, why in self.write(one).items()}
            _log.error("the ledger refuses %s: %s", batch, error.orig)
            refusal = LedgerUnavailable("the ledger refuses the row")
            return {login.session_id: refusal for login in batch.logins}

    def probe(self) -> None:
        """Find out whether a write reaches the disk.

        Raises:
            LedgerUnavailable: it does not.
        """
        self._carry_out(lambda connection: self._note_node(connection, started=False))

    def expire(self) -> int:
        """Close sessions that nobody has heard of for a session's whole life; return how many.

        Raises:
            LedgerUnavailable: no database.
        """
        return self._carry_out(self._expire)

    def unconnected(self) -> list[Unconnected]:
        """Return the logins that are not over and have not had a connection yet.

        Raises:
            LedgerUnavailable: no database.
        """
        c = self._tables.sessions.c
        query = select(
            c.session_id, c.user_id, case((c.device_id != "", c.device_id), else_=c.device_type),
            unix_seconds(c.last_active_time),
        ).where(
            c.logout_time.is_(None), c.connection_id == "",
            c.last_active_time > instant(literal(time() - self._session_ttl_s)),
        )  # fmt: skip
        return self._carry_out(
            lambda connection: [Unconnected(*r) for r in connection.execute(query)]
        )

    def over(self, session_ids: Sequence[str]) -> set[str]:
        """Return which of these sessions are over for good.

        Raises:
            LedgerUnavailable: no database.
        """
        c = self._tables.sessions.c
        query = select(c.session_id).where(c.session_id.in_(session_ids), c.ended_by.in_(FINAL))
        return set(self._carry_out(lambda connection: connection.scalars(query).all()))

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # -- how ---------------------------------------------------------------------------------------

    def _carry_out(self, work: Callable[[Connection], T]) -> T:
        try:
            self._check_file()
            with self._engine.begin() as connection:
                done = work(connection)
            self._inode = self._file()
            return done
        except (DataError, IntegrityError):
            raise
        except (SQLAlchemyError, OSError) as error:
            # Whatever state the connection is in, the next one has none of it.
            self._engine.dispose()
            cause = getattr(error, "orig", None) or error
            raise LedgerUnavailable(f"{type(cause).__name__}: {cause}") from error

    def _file(self) -> tuple[int, int] | None:
        if not self._is_sqlite:
            return None
        found = Path(self._engine.url.database or "").stat()
        return found.st_dev, found.st_ino

    def _check_file(self) -> None:
        """SQLite goes on writing into a file that has been deleted; nobody would ever read it."""
        if self._inode is not None and self._file() != self._inode:
            self._inode = None
            raise FileNotFoundError(f"{self._engine.url.database} was replaced")

    def _open(self, connection: Connection) -> int:
        if not self._is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(_CREATE_LOCK)))
        tables = self._tables
        inspector = inspect(connection)
        for table in tables.metadata.sorted_tables:
            if not inspector.has_table(table.name):
                table.create(connection)
                continue
            lacking = set(table.c.keys()) - {c["name"] for c in inspector.get_columns(table.name)}
            if lacking:
                raise LedgerUnfit(
                    f"ledger {self._engine.url.render_as_string()}: table {table.name} lacks "
                    f"{', '.join(sorted(lacking))}; use another database or add them"
                )
        s = tables.sessions
        stale = update(s).where(s.c.status == 1, s.c.node == self._node)
        found = connection.execute(
            stale.values(
                status=0, logout_time=s.c.last_active_time, ended_by=RESTARTED, updated_at=_now()
            )
        )
        self._note_node(connection, started=True)
        return found.rowcount

    def _note_node(self, connection: Connection, *, started: bool) -> None:
        nodes = self._tables.nodes
        values: dict[str, Any] = {
            "seen_at": _now(),
            "session_ttl_s": self._session_ttl_s,
            "resume_window_s": self._resume_window_s,
        }
        if started:
            values["started_at"] = _now()
        mine = update(nodes).where(nodes.c.node == self._node).values(values)
        if not connection.execute(mine).rowcount:
            new = {"node": self._node, "started_at": _now()} | values
            connection.execute(insert(nodes).values(new))

    def _expire(self, connection: Connection) -> int:
        s = self._tables.sessions
        long_ago = instant(literal(time() - self._session_ttl_s))
        quiet = update(s).where(s.c.logout_time.is_(None), s.c.last_active_time < long_ago)
        found = connection.execute(
            quiet.values(
                status=0, logout_time=s.c.last_active_time, ended_by=EXPIRED, updated_at=_now()
            )
        )
        return found.rowcount

    def _write(self, connection: Connection, batch: Batch) -> dict[str, Exception]:
        crowded = self._crowded(connection, batch.logins) if batch.logins else {}
        taken = [_login_row(login) for login in batch.logins if login.session_id not in crowded]
        self._run(connection, self._statements.insert, taken)
        over = [mark for mark in batch.marks if not mark.owners]
        begun = [mark for mark in batch.marks if mark.claims]
        ended = [mark for mark in batch.marks if mark.owners and not mark.claims]
        self._run(connection, self._statements.finish, map(_mark_row, over))
        self._run(connection, self._statements.claim, map(_mark_row, begun))
        self._run(
            connection, self._statements.end, (_mark_row(m, o) for m in ended for o in m.owners)
        )
        self._run(connection, self._statements.touch, batch.seen)
        return crowded

    def _run(
        self, connection: Connection, statement: Insert | Update, rows: Iterable[Sequence[Any]]
    ) -> None:
        listed = list(rows)
        if listed:
            connection.execute(statement, {"batch": orjson.dumps(listed).decode(), "now_s": time()})

    def _crowded(self, connection: Connection, logins: Sequence[Login]) -> dict[str, Exception]:
        """Those of the logins, in their order, for which their address has no room."""
        if self._most_per_address is None:
            return {}
        addresses = sorted({login.ip_address for login in logins} - {""})
        if not self._is_sqlite:  # where a transaction does not keep others out of its own accord
            for address in addresses:
                lock = func.pg_advisory_xact_lock(_ADDRESS_LOCK, func.hashtext(address))
                connection.execute(select(lock))
        c = self._tables.sessions.c
        query = (
            select(c.ip_address, func.count())
            .where(c.ip_address.in_(addresses), c.logout_time.is_(None))
            .group_by(c.ip_address)
        )
        held: Counter[str] = Counter({row[0]: row[1] for row in connection.execute(query)})
        crowded: dict[str, Exception] = {}
        for login in logins:
            if login.ip_address and held[login.ip_address] >= self._most_per_address:
                crowded[login.session_id] = AddressFull(
                    f"{login.ip_address} has {held[login.ip_address]} open sessions"
                )
            else:
                held[login.ip_address] += 1
        return crowded


def _now() -> Any:
    return instant(literal(time()))


def _login_row(login: Login) -> tuple[Any, ...]:
    return (
        login.session_id, login.user_id, login.device_type, login.ip_address, login.user_agent,
        login.device_id, login.at_s,
    )  # fmt: skip


def _mark_row(mark: Mark, owner: str = "") -> tuple[Any, ...]:
    owner = owner or (mark.owners[0] if mark.owners else "")
    return mark.session_id, mark.user_id, owner, mark.ended_by, mark.at_s, mark.seen_s
