"""The table `user_sessions` in SQLite or PostgreSQL: columns, indexes, partitions, durable connections.

From a URL to an engine whose connections are durable and impatient. Writes nothing.

SQLite: WAL, ``synchronous=FULL`` (a commit is on the disk), transactions begin IMMEDIATE, so that two
processes never deadlock over one file. PostgreSQL: hash-partitioned by ``user_id``, which its primary key
therefore includes. All times are epoch milliseconds, UTC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Engine,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from reference_server.ledger.rows import LedgerUnfit

__all__ = [
    "BUSY_TIMEOUT_S",
    "PARTITIONS",
    "LedgerTables",
    "ledger_tables",
    "ledger_url",
    "open_engine",
    "shown_url",
]

BUSY_TIMEOUT_S: Final = 1.0
"""How long a transaction waits for another process's before it counts as an outage."""
PARTITIONS: Final = 8


class LedgerTables:
    """The tables of one database.

    Attributes:
        sessions: one row a session, ``status`` 1 while a connection has it. ``logout_time`` and
            ``ended_by`` are of its end, ``connection_id`` (the owner token) and ``node`` of the connection that
            has or had it, ``device_id`` tells a user's devices of one type apart.
        nodes: one row a gateway: how long its sessions live, and when it last opened or found the ledger.
    """

    def __init__(self, partitioned: bool) -> None:
        self.metadata = MetaData()
        self.sessions = Table(
            "user_sessions",
            self.metadata,
            Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
            Column("user_id", String(128), nullable=False, primary_key=partitioned),
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
        if partitioned:
            for n in range(PARTITIONS):
                part = f"CREATE TABLE user_sessions_{n} PARTITION OF user_sessions"
                values = f"FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {n})"
                event.listen(self.sessions, "after_create", _ddl(f"{part} {values}"))


def _ddl(statement: str) -> DDL:
    return DDL(statement)  # type: ignore[no-untyped-call]


def ledger_tables(engine: Engine) -> LedgerTables:
    """Return the tables as this database has them."""
    return LedgerTables(partitioned=engine.dialect.name == "postgresql")


def ledger_url(url_or_path: str | Path) -> str:
    """Return a URL; whatever is not one is the path of an SQLite file."""
    text = str(url_or_path)
    return text if "://" in text else f"sqlite:///{Path(text).absolute()}"


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def open_engine(url: str, *, reads_only: bool = False) -> Engine:
    """Return an engine of one connection; nothing is opened yet.

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
    if kind == "sqlite":
        return _sqlite(parsed, "BEGIN" if reads_only else "BEGIN IMMEDIATE")
    if kind == "postgresql":
        try:
            return _postgresql(parsed)
        except ModuleNotFoundError as error:
            raise LedgerUnfit(f"ledger: {error}; pip install 'flatline[postgres]'") from error
    raise LedgerUnfit(
        f"ledger {parsed.render_as_string()!r}: sqlite:///PATH or postgresql+psycopg://…, not {kind}"
    )


def _sqlite(url: URL, begin: str) -> Engine:
    if not url.database or url.database == ":memory:":
        raise LedgerUnfit("ledger: an SQLite ledger is a file; sqlite:////an/absolute/path")
    engine = create_engine(url, pool_size=1, max_overflow=0, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy says BEGIN, not the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql(url: URL) -> Engine:
    patience = {"connect_timeout": 2, "tcp_user_timeout": 3000, "keepalives_idle": 5}
    engine = create_engine(url, pool_size=1, max_overflow=0, connect_args=patience)

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute("SET synchronous_commit = on")
            cursor.execute(f"SET lock_timeout = '{BUSY_TIMEOUT_S:g}s'")
            cursor.execute("SET statement_timeout = '10s'")
        connection.commit()

    return engine
