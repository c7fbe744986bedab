"""Everything that the gateway says to the ledger's database, synchronously, from one thread.

From rows to transactions: a batch is one transaction, whole or not at all. Which row of the table is changed by
what is decided in the database, so that it does not matter who comes first, and a batch may be written twice.
Whatever the database answers that is not the fault of a row is `LedgerUnavailable`, and the connection is made anew.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Connection, Engine, Integer, case, func, insert, inspect, select, text, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from reference_server.ledger.rows import (
    FINAL,
    AddressFull,
    Connected,
    Ended,
    LedgerSettings,
    LedgerUnavailable,
    LedgerUnfit,
    Login,
    Over,
    Row,
    Seen,
    Unconnected,
    now_ms,
)
from reference_server.ledger.table import ledger_tables, open_engine

__all__ = ["LedgerWriter"]

RESTARTED: Final = "node_restart"
EXPIRED: Final = "ttl"
_CREATE_LOCK: Final = 0x666C6174  # PostgreSQL's advisory locks are numbers
_ADDRESS_LOCK: Final = 0x69705F63

_SAME = "s.session_id = b.session_id AND s.user_id = b.user_id"
_NOT_OVER = f"(s.ended_by IS NULL OR s.ended_by NOT IN {FINAL})"
_AGE = "substr(s.connection_id, length(s.connection_id) - 13)"  # larger for a newer connection
_NEW_AGE = "substr(b.connection_id, length(b.connection_id) - 13)"
_SEEN = """updated_at = :now_ms, last_active_time =
    CASE WHEN s.last_active_time < {0} THEN {0} ELSE s.last_active_time END"""
_STATEMENTS: Final[dict[type[Row], str]] = {
    Login: """
    INSERT INTO user_sessions (
        session_id, user_id, device_type, ip_address, user_agent, device_id, login_time,
        last_active_time, status, created_at, updated_at, connection_id, node)
    SELECT b.session_id, b.user_id, b.device_type, b.ip_address, b.user_agent, b.device_id, b.at_ms,
        b.at_ms, 0, :now_ms, :now_ms, '', :node
    FROM {batch}""",
    Connected: f"""
    UPDATE user_sessions AS s SET status = 1, connection_id = b.connection_id, node = :node,
        logout_time = NULL, ended_by = NULL, {_SEEN.format("b.at_ms")}
    FROM {{batch}} WHERE {_SAME} AND {_NOT_OVER} AND {_AGE} <= {_NEW_AGE}""",
    Ended: f"""
    UPDATE user_sessions AS s SET status = 0, logout_time = b.at_ms, ended_by = b.ended_by,
        node = CASE WHEN s.connection_id = b.connection_id THEN s.node ELSE :node END,
        connection_id = b.connection_id, {_SEEN.format("b.seen_ms")}
    FROM {{batch}} WHERE {_SAME} AND {_NOT_OVER}
        AND ({_AGE} < {_NEW_AGE} OR s.connection_id = b.connection_id AND s.logout_time IS NULL)""",
    Over: f"""
    UPDATE user_sessions AS s SET status = 0, logout_time = COALESCE(s.logout_time, b.at_ms),
        ended_by = b.ended_by, {_SEEN.format("b.at_ms")}
    FROM {{batch}} WHERE s.session_id = b.session_id
        AND (b.user_id = '' OR s.user_id = b.user_id) AND {_NOT_OVER}""",
    Seen: f"""
    UPDATE user_sessions AS s SET {_SEEN.format("b.seen_ms")}
    FROM {{batch}} WHERE {_SAME} AND s.logout_time IS NULL AND s.last_active_time < b.seen_ms""",
}

_log = logging.getLogger(__name__)
T = TypeVar("T")


class LedgerWriter:
    """The ledger's database, for one node.

    Raises:
        ValueError: another kind of URL.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        self._engine: Engine = open_engine(settings.url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._tables = ledger_tables(self._engine)
        self._settings = settings
        self._node = settings.node
        self._statements = {
            kind: text(statement.format(batch=_batch(kind, self._is_sqlite)))
            for kind, statement in _STATEMENTS.items()
        }
        self._inode: tuple[int, int] | None = None  # of the SQLite file that is open

    # -- what may be asked -------------------------------------------------------------------------

    def open(self) -> int:
        """Make the tables where there are none; close the rows that an earlier life of this node left online.

        They ended when they were last seen. Returns how many they were.

        Raises:
            LedgerUnavailable: no database.
            LedgerUnfit: a table of another make.
        """
        return self._carry_out(self._open)

    def write(self, rows: Sequence[Row], *, probe: bool = False) -> dict[str, Exception]:
        """Write rows in one transaction; return which sessions' rows were not taken, and why.

        `AddressFull`: their address has too many sessions. A row that the database cannot take, whatever a
        client sent, must not keep the others out: then each is written by itself, and that one is dropped.

        Args:
            rows: at most one of a kind for each session.
            probe: also write this node's own row, to find out whether a write reaches the disk.

        Raises:
            LedgerUnavailable: nothing of it is written, as far as can be known.
        """
        try:
            return self._carry_out(lambda connection: self._write(connection, rows, probe))
        except (DataError, IntegrityError) as error:
            if len(rows) > 1:
                return {k: why for row in rows for k, why in self.write([row]).items()}
            _log.error("the ledger refuses %s: %s", rows, error.orig)
            return {row.session_id: LedgerUnavailable("the ledger refuses the row") for row in rows}

    def expire(self) -> int:
        """Close sessions that nobody has heard of for a session's whole life; return how many.

        Raises:
            LedgerUnavailable: no database.
        """
        s = self._tables.sessions
        quiet = update(s).where(s.c.logout_time.is_(None), s.c.last_active_time < self._oldest_ms())
        return self._carry_out(lambda connection: self._close(connection, quiet, EXPIRED))

    def unconnected(self) -> list[Unconnected]:
        """Return the logins that are not over and have not had a connection yet.

        Raises:
            LedgerUnavailable: no database.
        """
        c = self._tables.sessions.c
        device = case((c.device_id != "", c.device_id), else_=c.device_type)
        query = select(c.session_id, c.user_id, device, c.last_active_time).where(
            c.logout_time.is_(None), c.connection_id == "", c.last_active_time > self._oldest_ms()
        )
        return self._carry_out(lambda connection: [Unconnected(*row) for row in connection.execute(query)])

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
        inspector = inspect(connection)
        for table in self._tables.metadata.sorted_tables:
            if not inspector.has_table(table.name):
                table.create(connection)
                continue
            fit = {
                column["name"]
                for column in inspector.get_columns(table.name)
                if column["name"] in table.c
                and isinstance(column["type"], Integer) is isinstance(table.c[column["name"]].type, Integer)
            }
            if lacking := set(table.c.keys()) - fit:
                raise LedgerUnfit(
                    f"ledger {self._engine.url.render_as_string()}: table {table.name} lacks "
                    f"{', '.join(sorted(lacking))}, or has them of another type; use another database"
                )
        s = self._tables.sessions
        stale = update(s).where(s.c.status == 1, s.c.node == self._node)
        self._note_node(connection)
        return self._close(connection, stale, RESTARTED)

    def _close(self, connection: Connection, rows: Any, ended_by: str) -> int:
        """Close rows at their last sign of life."""
        seen = self._tables.sessions.c.last_active_time
        closed = rows.values(status=0, logout_time=seen, ended_by=ended_by, updated_at=now_ms())
        return connection.execute(closed).rowcount

    def _note_node(self, connection: Connection) -> None:
        nodes = self._tables.nodes
        values = {"seen_at": now_ms(), "session_ttl_s": self._settings.session_ttl_s}
        mine = update(nodes).where(nodes.c.node == self._node).values(values)
        if not connection.execute(mine).rowcount:
            connection.execute(insert(nodes).values(node=self._node, **values))

    def _oldest_ms(self) -> int:
        return now_ms() - int(1000 * self._settings.session_ttl_s)

    def _write(
        self, connection: Connection, rows: Sequence[Row], probe: bool = False
    ) -> dict[str, Exception]:
        if probe:
            self._note_node(connection)
        logins = [row for row in rows if isinstance(row, Login)]
        crowded = self._crowded(connection, logins) if logins else {}
        common = {"now_ms": now_ms(), "node": self._node}
        for kind, statement in self._statements.items():
            batch = [row for row in rows if type(row) is kind]
            if kind is Login:
                batch = [row for row in batch if row.session_id not in crowded]
            if batch:
                connection.execute(statement, common | {"batch": orjson.dumps(batch).decode()})
        return crowded

    def _crowded(self, connection: Connection, logins: Sequence[Login]) -> dict[str, Exception]:
        """Those of the logins, in their order, for which their address has no room."""
        most = self._settings.most_per_address
        if most is None:
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
            if login.ip_address and held[login.ip_address] >= most:
                says = f"{login.ip_address} has {held[login.ip_address]} open sessions"
                crowded[login.session_id] = AddressFull(says)
            else:
                held[login.ip_address] += 1
        return crowded


def _batch(kind: type[Row], is_sqlite: bool) -> str:
    """Return the table ``b`` made of the bind parameter ``batch``: a JSON array of objects, one a row.

    One statement a batch and not one a row (`executemany`): a driver lets go of the interpreter's lock for each row,
    and beside a busy event loop it waits to get it back: a login's share of the ledger then costs twice the CPU.
    """
    names = {field.name: field.type for field in fields(kind)}
    if is_sqlite:
        columns = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in names)
        return f"(SELECT {columns} FROM json_each(:batch)) AS b"
    columns = ", ".join(f"{n} {'bigint' if t == 'int' else 'text'}" for n, t in names.items())
    return f"json_to_recordset(CAST(:batch AS json)) AS b({columns})"
