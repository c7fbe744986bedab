"""The tables `user_sessions` and `users` in SQLite or PostgreSQL: columns, connection, and everything said to them.

From rows to transactions, synchronously, from one thread: a batch is one transaction, whole or not at all. Which row
of the table is changed by what is decided in the database, so that it does not matter who comes first, and a batch
may be written twice. Whatever the database answers that is not the fault of a row is `LedgerUnavailable`, and the
connection is made anew.

SQLite: WAL, ``synchronous=FULL`` (a commit is on the disk), transactions begin IMMEDIATE, so that two
processes never deadlock over one file. PostgreSQL: hash-partitioned by ``user_id``, which its primary key
therefore includes. All times are epoch milliseconds, UTC.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    and_,
    case,
    create_engine,
    event,
    func,
    insert,
    inspect,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError

from reference_server.config import GatewayConfig
from reference_server.events import Cause
from reference_server.ledger.rows import (
    FINAL,
    AddressFull,
    Connected,
    Ended,
    LedgerUnavailable,
    LedgerUnfit,
    Login,
    Over,
    Row,
    Seen,
    Unconnected,
    UnknownSession,
    now_ms,
)

__all__ = ["LedgerDatabase", "LedgerTables", "ledger_url", "open_engine", "shown_url"]

# What waiting does not mend.
_UNFIT: Final = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)
# How long a transaction waits for another process's before it counts as an outage.
_BUSY_TIMEOUT_S: Final = 1.0
_PARTITIONS: Final = 8
_RESTARTED: Final = "node_restart"
_EXPIRED: Final = "ttl"
# What others believe of a connection: its own next sign of life says otherwise.
_BELIEVED: Final = (Cause.NODE_LEASE.value, _EXPIRED)
_CREATE_LOCK: Final = 0x666C6174  # PostgreSQL's advisory locks are numbers
_ADDRESS_LOCK: Final = 0x69705F63

_SAME = "s.session_id = b.session_id AND s.user_id = b.user_id"
_NOT_OVER = f"(s.ended_by IS NULL OR s.ended_by NOT IN {FINAL})"
_AGE = "substr(s.connection_id, length(s.connection_id) - 13)"  # larger for a newer connection
_NEW_AGE = "substr(b.connection_id, length(b.connection_id) - 13)"
_SEEN = """updated_at = :now_ms, last_active_time =
    CASE WHEN s.last_active_time < {0} THEN {0} ELSE s.last_active_time END"""
_FOLLOW: Final = """UPDATE users SET updated_at = NEW.updated_at, online_status = CASE WHEN EXISTS
    (SELECT 1 FROM user_sessions WHERE user_id = NEW.user_id AND status = 1) THEN 1 ELSE 0 END
    WHERE user_id = NEW.user_id"""
_TRIGGERS: Final = {
    "sqlite": f"""
    CREATE TRIGGER IF NOT EXISTS online_status AFTER UPDATE OF status ON user_sessions
    WHEN OLD.status <> NEW.status BEGIN {_FOLLOW}; END""",
    # The lock comes first: who waits for another session's change of the same user has to see it then.
    "postgresql": f"""
    CREATE OR REPLACE FUNCTION online_status() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM 1 FROM users WHERE user_id = NEW.user_id FOR NO KEY UPDATE;
        {_FOLLOW}; RETURN NULL; END $$;
    CREATE OR REPLACE TRIGGER online_status AFTER UPDATE OF status ON user_sessions
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION online_status()""",
}
_USERS: Final = """
    INSERT INTO users (user_id, online_status, created_at, updated_at)
    SELECT DISTINCT b.user_id, 0, :now_ms, :now_ms FROM {batch} WHERE true ORDER BY b.user_id
    ON CONFLICT (user_id) DO NOTHING"""
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
    UPDATE user_sessions AS s SET {_SEEN.format("b.seen_ms")},
        status = CASE WHEN s.connection_id = b.connection_id THEN 1 ELSE s.status END,
        logout_time = NULL, ended_by = NULL
    FROM {{batch}} WHERE {_SAME} AND (s.logout_time IS NULL AND s.last_active_time < b.seen_ms
        OR s.connection_id = b.connection_id AND s.ended_by IN {_BELIEVED})""",
}

_UNKNOWN: Final = """
    SELECT b.session_id FROM {batch} WHERE NOT EXISTS (SELECT 1 FROM user_sessions AS s
        WHERE s.session_id = b.session_id AND (b.user_id = '' OR s.user_id = b.user_id))"""

_log = logging.getLogger(__name__)
T = TypeVar("T")


class LedgerTables:
    """The tables as one database has them.

    Attributes:
        users: one row a user who has logged in, ``online_status`` 1 while a connection has one of the user's sessions:
            a trigger of the database keeps it, in the transaction that changes the session's row.
        sessions: one row a session, ``status`` 1 while a connection has it. ``logout_time`` and
            ``ended_by`` are of its end, ``connection_id`` (the owner token) and ``node`` of the connection that
            has or had it, ``device_id`` tells a user's devices of one type apart.
        nodes: one row a gateway: how long its sessions live, and when it last opened or found the ledger.
    """

    def __init__(self, engine: Engine) -> None:
        partitioned = engine.dialect.name == "postgresql"
        self.metadata = MetaData()
        self.users = Table(
            "users",
            self.metadata,
            Column("user_id", String(128), primary_key=True),
            Column("online_status", SmallInteger, nullable=False),
            Column("created_at", BigInteger, nullable=False),
            Column("updated_at", BigInteger, nullable=False),
        )
        user = ForeignKey(self.users.c.user_id)
        self.sessions = Table(
            "user_sessions",
            self.metadata,
            Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
            Column("user_id", String(128), user, nullable=False, primary_key=partitioned),
            Column("session_id", String(128), nullable=False),
            Column("device_type", String(50), nullable=False),
            Column("ip_address", String(45), nullable=False),
            Column("user_agent", Text, nullable=False),
            Column("login_time", BigInteger, nullable=False),
            Column("last_active_time", BigInteger, nullable=False),
            Column("status", SmallInteger, nullable=False),
            Column("created_at", BigInteger, nullable=False),
            Column("updated_at", BigInteger, nullable=False),
            Column("logout_time", BigInteger),
            Column("ended_by", String(32)),
            Column("device_id", String(128), nullable=False),
            Column("connection_id", String(128), nullable=False),
            Column("node", String(64), nullable=False),
            Index("idx_user_id", "user_id"),
            Index("idx_session_id", "session_id", "user_id", unique=True),
            Index("idx_status", "status", "node"),
            Index("idx_login_time", "login_time"),
            postgresql_partition_by="HASH (user_id)",
        )
        is_open = self.sessions.c.logout_time.is_(None)
        Index("idx_open_ip", self.sessions.c.ip_address, sqlite_where=is_open, postgresql_where=is_open)
        self.nodes = Table(
            "ledger_nodes",
            self.metadata,
            Column("node", String(64), primary_key=True),
            Column("seen_at", BigInteger, nullable=False),
            Column("session_ttl_s", Float, nullable=False),
        )


def ledger_url(url_or_path: str | Path) -> str:
    """Return a URL; whatever is not one is the path of an SQLite file."""
    text = str(url_or_path)
    return text if "://" in text else f"sqlite:///{Path(text).absolute()}"


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def open_engine(url: str, *, reads_only: bool = False) -> Engine:
    """Return an engine of one connection, durable and impatient; nothing is opened yet.

    Args:
        url: of the database.
        reads_only: its transactions do not keep writers out.

    Raises:
        LedgerUnfit: not the URL of an SQLite file or a PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise LedgerUnfit(f"ledger {url!r}: {error}") from error
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        options = f"-c synchronous_commit=on -c lock_timeout={_BUSY_TIMEOUT_S:g}s -c statement_timeout=10s"
        patience = {"connect_timeout": 2, "tcp_user_timeout": 3000, "keepalives_idle": 5, "options": options}
        try:
            return create_engine(parsed, pool_size=1, max_overflow=0, connect_args=patience)
        except ModuleNotFoundError as error:
            raise LedgerUnfit(f"ledger: {error}; pip install 'flatline[postgres]'") from error
    if kind != "sqlite":
        shown = parsed.render_as_string()
        raise LedgerUnfit(f"ledger {shown!r}: sqlite:///PATH or postgresql+psycopg://…, not {kind}")
    if not parsed.database or parsed.database == ":memory:":
        raise LedgerUnfit("ledger: an SQLite ledger is a file; sqlite:////an/absolute/path")
    # No isolation level: SQLAlchemy says BEGIN, not the driver.
    busy = {"timeout": _BUSY_TIMEOUT_S, "isolation_level": None}
    engine = create_engine(parsed, pool_size=1, max_overflow=0, connect_args=busy)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


class LedgerDatabase:
    """The ledger's database, for one node. Everything that asks it raises `LedgerUnavailable` without one.

    Args:
        config: of the gateway: the ledger's URL, the node, a session's life, how many sessions an address may have.

    Raises:
        LedgerUnfit: another kind of URL.
    """

    def __init__(self, config: GatewayConfig) -> None:
        assert config.ledger_url is not None
        self._config = config
        self._engine = open_engine(config.ledger_url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._tables = LedgerTables(self._engine)
        # In the driver's own words: what a login waits for is written a quarter sooner so.
        self._statements = [
            (kind, self._worded(statement.format(batch=_batch(kind, self._is_sqlite))))
            for kind, statement in ((Login, _USERS), *_STATEMENTS.items())
        ]
        self._unknown = self._worded(_UNKNOWN.format(batch=_batch(Over, self._is_sqlite)))
        self._path = Path(self._engine.url.database or "")
        self._inode: tuple[int, int] | None = None  # of the SQLite file that is open
        self._is_open = False

    def open(self) -> int:
        """Find out whether a write reaches the disk; the first time, make the tables where there are none.

        Also closes, the first time, the rows that an earlier life of this node left online: they ended when they
        were last seen. Returns how many they were.

        Raises:
            LedgerUnfit: a table of another make, a damaged SQLite file, or one that nobody can open.
        """
        if self._is_sqlite and not self._is_open:
            self._check_file()
        stale = self._carry_out(self._open)
        self._is_open = True
        return stale

    def write(self, rows: Sequence[Row]) -> dict[str, Exception]:
        """Write rows in one transaction; return which sessions' rows were not taken, and why.

        `AddressFull`: their address has too many sessions. `UnknownSession`: what is over never was. A row that the
        database cannot take, whatever a client sent, must not keep the others out: then each is written by itself,
        and that one is dropped.

        Args:
            rows: at most one of a kind for each session.

        Raises:
            LedgerUnavailable: nothing of it is written, as far as can be known.
        """
        try:
            return self._carry_out(lambda connection: self._write(connection, rows))
        except (DataError, IntegrityError) as error:
            if len(rows) > 1:
                return {k: why for row in rows for k, why in self.write([row]).items()}
            _log.error("the ledger refuses %s: %s", rows, error.orig)
            return {row.session_id: LedgerUnavailable("the ledger refuses the row") for row in rows}

    def expire(self) -> int:
        """Close sessions that nobody has heard of for a session's whole life; return how many."""
        s = self._tables.sessions
        quiet = update(s).where(s.c.logout_time.is_(None), s.c.last_active_time < self._oldest_ms())
        return self._carry_out(lambda connection: self._close(connection, quiet, _EXPIRED))

    def unconnected(self) -> list[Unconnected]:
        """Return the logins that are not over and have not had a connection yet.

        Where sessions survive their connections, so do those that had one: whatever ended it, but a newer session.
        """
        c = self._tables.sessions.c
        waits = and_(c.logout_time.is_(None), c.connection_id == "")
        if self._config.session_survives_connection:
            waits = or_(waits, and_(c.status == 0, c.ended_by.not_in((*FINAL, _EXPIRED, Cause.TAKE_OVER))))
        device = case((c.device_id != "", c.device_id), else_=c.device_type)
        query = select(c.session_id, c.user_id, device, c.connection_id, c.last_active_time).where(
            waits, c.last_active_time > self._oldest_ms()
        )
        return self._carry_out(lambda connection: [Unconnected(*row) for row in connection.execute(query)])

    def over(self, session_ids: Sequence[str]) -> set[str]:
        """Return which of these sessions are over for good."""
        c = self._tables.sessions.c
        query = select(c.session_id).where(c.session_id.in_(session_ids), c.ended_by.in_(FINAL))
        return set(self._carry_out(lambda connection: connection.scalars(query).all()))

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _carry_out(self, work: Callable[[Connection], T]) -> T:
        try:
            # SQLite goes on writing into a file that has been deleted; nobody would ever read it.
            if self._inode is not None and self._file() != self._inode:
                self._inode = None
                raise FileNotFoundError(f"{self._engine.url.database} was replaced")
            with self._engine.begin() as connection:
                done = work(connection)
            if self._inode is None:
                self._inode = self._file()
            return done
        except (DataError, IntegrityError):
            raise
        except (SQLAlchemyError, OSError) as error:
            # Whatever state the connection is in, the next one has none of it.
            self._engine.dispose()
            cause = getattr(error, "orig", None) or error
            raise LedgerUnavailable(f"{type(cause).__name__}: {cause}") from error

    def _check_file(self) -> None:
        try:
            # In no transaction: others may write meanwhile.
            with closing(self._engine.raw_connection()) as raw:
                cursor = raw.cursor()
                cursor.execute("PRAGMA quick_check(1)")
                (found,) = cursor.fetchone() or ("nothing",)
        except (SQLAlchemyError, sqlite3.Error) as error:
            self._engine.dispose()
            cause = getattr(error, "orig", None) or error
            kind = (
                LedgerUnfit if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _UNFIT else LedgerUnavailable
            )
            raise kind(f"ledger {self._engine.url.database}: {cause}") from error
        if found != "ok":
            raise LedgerUnfit(f"ledger {self._engine.url.database} is damaged: {found}")

    def _worded(self, statement: str) -> str:
        return statement if self._is_sqlite else str(text(statement).compile(dialect=self._engine.dialect))

    def _file(self) -> tuple[int, int] | None:
        if not self._is_sqlite:
            return None
        found = self._path.stat()
        return found.st_dev, found.st_ino

    def _open(self, connection: Connection) -> int:
        stale = 0
        if not self._is_open:
            self._make_tables(connection)
            s = self._tables.sessions
            mine = update(s).where(s.c.status == 1, s.c.node == self._config.node)
            stale = self._close(connection, mine, _RESTARTED)
        nodes, node = self._tables.nodes, self._config.node
        values = {"seen_at": now_ms(), "session_ttl_s": self._config.session_life_s}
        if not connection.execute(update(nodes).where(nodes.c.node == node).values(values)).rowcount:
            connection.execute(insert(nodes).values(node=node, **values))
        return stale

    def _make_tables(self, connection: Connection) -> None:
        if not self._is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(_CREATE_LOCK)))
        inspector = inspect(connection)
        made = []
        for table in self._tables.metadata.sorted_tables:
            if not inspector.has_table(table.name):
                table.create(connection)
                made.append(table)
                partitioned = table is self._tables.sessions and not self._is_sqlite
                for n in range(_PARTITIONS if partitioned else 0):
                    part = f"CREATE TABLE user_sessions_{n} PARTITION OF user_sessions"
                    values = f"FOR VALUES WITH (MODULUS {_PARTITIONS}, REMAINDER {n})"
                    connection.execute(text(f"{part} {values}"))
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
        if made:
            connection.exec_driver_sql(_TRIGGERS[connection.dialect.name])
            s = self._tables.sessions.c  # of an older version, which had no users, perhaps
            had = select(s.user_id, func.max(s.status), func.min(s.created_at), func.max(s.updated_at))
            names = self._tables.users.c.keys()
            connection.execute(insert(self._tables.users).from_select(names, had.group_by(s.user_id)))

    def _close(self, connection: Connection, rows: Any, ended_by: str) -> int:
        """Close rows at their last sign of life."""
        seen = self._tables.sessions.c.last_active_time
        closed = rows.values(status=0, logout_time=seen, ended_by=ended_by, updated_at=now_ms())
        return connection.execute(closed).rowcount

    def _oldest_ms(self) -> int:
        return now_ms() - int(1000 * self._config.session_life_s)

    def _write(self, connection: Connection, rows: Sequence[Row]) -> dict[str, Exception]:
        crowded = self._crowded(connection, [row for row in rows if isinstance(row, Login)])
        refused = dict(crowded)
        common = {"now_ms": now_ms(), "node": self._config.node}
        for kind, statement in self._statements:
            batch = [r for r in rows if type(r) is kind and not (kind is Login and r.session_id in crowded)]
            if batch:
                given = common | {"batch": orjson.dumps(batch).decode()}
                connection.exec_driver_sql(statement, given)
                if kind is Over:
                    unknown = connection.exec_driver_sql(self._unknown, given).scalars()
                    refused |= {session_id: UnknownSession() for session_id in unknown}
        return refused

    def _crowded(self, connection: Connection, logins: Sequence[Login]) -> dict[str, Exception]:
        """Those of the logins, in their order, for which their address has no room."""
        most = self._config.max_sessions_per_ip
        if most is None or not logins:
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
