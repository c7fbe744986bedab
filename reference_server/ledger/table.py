"""The table `user_sessions` in SQLite or PostgreSQL: columns, indexes, partitions, and how batches of rows get in.

From a URL to an engine whose connections are durable and impatient, and to Core constructs that both
databases understand. Writes nothing.

SQLite: WAL, ``synchronous=FULL`` (a commit is on the disk), transactions begin IMMEDIATE, so that two
processes never deadlock over one file. PostgreSQL: hash-partitioned by ``user_id``, which its primary key
therefore includes. All times are UTC, to the millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    DateTime,
    Engine,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Subquery,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    cast,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from reference_server.ledger.rows import LedgerUnfit

__all__ = [
    "BUSY_TIMEOUT_S",
    "PARTITIONS",
    "LedgerTables",
    "UtcDateTime",
    "age_of",
    "batch_of",
    "instant",
    "ledger_tables",
    "ledger_url",
    "open_engine",
    "shown_url",
    "unix_seconds",
]

BUSY_TIMEOUT_S: Final = 1.0
"""How long a transaction waits for another process's before it counts as an outage."""
PARTITIONS: Final = 8
_BATCH: Final = "batch"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware, in UTC. SQLite has no time zones: it is kept there as UTC without saying so."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Refuse a naive time, of which nobody knows what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Return it aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class instant(FunctionElement[datetime]):
    """Unix seconds (SQL) → a moment as the table keeps it."""

    type = UtcDateTime()
    inherit_cache = True
    name = "instant"


class unix_seconds(FunctionElement[float]):
    """A moment as the table keeps it → Unix seconds (SQL)."""

    type = Float()
    inherit_cache = True
    name = "unix_seconds"


@compiles(instant, "sqlite")
def _instant_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # Six places, as every other time in the table has: they are compared as text.
    inner = compiler.process(element.clauses, **options)
    return f"(strftime('%Y-%m-%d %H:%M:%f', {inner}, 'unixepoch') || '000')"


@compiles(instant, "postgresql")
def _instant_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"to_timestamp(CAST({compiler.process(element.clauses, **options)} AS double precision))"


@compiles(unix_seconds, "sqlite")
def _unix_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    inner = compiler.process(element.clauses, **options)
    # Whole days and milliseconds apart: a Julian day alone is good to 0.05 ms, times 86400 rounds on.
    return f"(strftime('%s', {inner}) + (strftime('%f', {inner}) - strftime('%S', {inner})))"


@compiles(unix_seconds, "postgresql")
def _unix_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    inner = compiler.process(element.clauses, **options)
    return f"CAST(extract(epoch FROM {inner}) AS double precision)"


class age_of(FunctionElement[str]):
    """Owner token (SQL) → what is larger for the newer of two connections, see `owners.py`."""

    type = String()
    inherit_cache = True
    name = "age_of"


@compiles(age_of, "sqlite")
def _age_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"substr({compiler.process(element.clauses, **options)}, -14)"


@compiles(age_of, "postgresql")
def _age_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f'right({compiler.process(element.clauses, **options)}, 14) COLLATE "C"'


class LedgerTables:
    """The tables of one database.

    Attributes:
        sessions: one row a session, ``status`` 1 while a connection has it. ``logout_time`` and
            ``ended_by`` are of its end, ``connection_id`` (the owner token) and ``node`` of the connection that
            has or had it, ``device_id`` tells a user's devices of one type apart.
        nodes: one row a gateway: when it started, what its sessions live by, when it last tried the ledger.
    """

    def __init__(self, partitioned: bool) -> None:
        self.metadata = MetaData()
        self.sessions = Table(
            "user_sessions",
            self.metadata,
            Column(
                "id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True
            ),
            Column("user_id", String(128), nullable=False, primary_key=partitioned),
            Column("session_id", String(128), nullable=False),
            Column("device_type", String(50), nullable=False),
            Column("ip_address", String(45), nullable=False),
            Column("user_agent", Text, nullable=False),
            Column("login_time", UtcDateTime, nullable=False),
            Column("last_active_time", UtcDateTime, nullable=False),
            Column("status", SmallInteger, nullable=False),
            Column("created_at", UtcDateTime, nullable=False),
            Column("updated_at", UtcDateTime, nullable=False),
            Column("logout_time", UtcDateTime),
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
        Index("idx_open_ip", self.sessions.c.ip_address, sqlite_where=is_open, postgresql_where=is_open)  # fmt: skip
        self.nodes = Table(
            "ledger_nodes",
            self.metadata,
            Column("node", String(64), primary_key=True),
            Column("started_at", UtcDateTime, nullable=False),
            Column("seen_at", UtcDateTime, nullable=False),
            Column("session_ttl_s", Float, nullable=False),
            Column("resume_window_s", Float, nullable=False),
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
    engine = create_engine(
        url, pool_size=1, max_overflow=0, connect_args={"timeout": BUSY_TIMEOUT_S}
    )

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


def batch_of(dialect: str, columns: Sequence[tuple[str, type[str] | type[float]]]) -> Subquery:
    """Return a table made of the bind parameter ``batch``: a JSON array of arrays, one a row.

    One statement for a whole batch, and not one a row: a driver lets go of the interpreter's lock for each
    statement, and beside a busy event loop it would wait up to 5 ms to get it back.
    """
    if dialect == "sqlite":
        rows = func.json_each(bindparam(_BATCH, type_=String)).table_valued("value", name="item")
        fields: list[ColumnElement[Any]] = [
            func.json_extract(rows.c.value, f"$[{n}]") for n in range(len(columns))
        ]
    else:
        batch = cast(bindparam(_BATCH, type_=String), JSONB)
        rows = func.jsonb_array_elements(batch).table_valued("value", name="item")
        fields = [
            cast(rows.c.value.op("->>")(n), Text if kind is str else Float)
            for n, (_, kind) in enumerate(columns)
        ]
    named = [field.label(name) for field, (name, _) in zip(fields, columns, strict=True)]
    return select(*named).subquery("batch")
