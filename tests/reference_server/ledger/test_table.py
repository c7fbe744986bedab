"""What the ledger's table says after what: the same sentences for SQLite and for PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Integer, create_engine, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from reference_server.config import GatewayConfig
from reference_server.ledger.rows import (
    LOGGED_OUT,
    AddressFull,
    Connected,
    Ended,
    LedgerUnavailable,
    LedgerUnfit,
    Login,
    Over,
    PendingRows,
    Seen,
    UnknownSession,
)
from reference_server.ledger.table import LedgerDatabase, LedgerTables, ledger_url, open_engine
from reference_server.liveness.heartbeat_policy import LivenessPolicy

T0 = time() - 1000.0  # when everything below begins


@pytest.fixture
def url(ledger: str) -> Iterator[str]:
    yield ledger
    while MADE:
        MADE.pop().close()


MADE: list[LedgerDatabase] = []


def config(
    url: str, node: str, session_ttl_s: float = 3600.0, most: int | None = None, survives: bool = False
) -> GatewayConfig:
    policy = LivenessPolicy(session_ttl=session_ttl_s)
    return GatewayConfig(
        ledger_url=url,
        node=node,
        policy=policy,
        max_sessions_per_ip=most,
        session_survives_connection=survives,
    )


def writer(url: str, node: str = "n1", **options: Any) -> LedgerDatabase:
    made = LedgerDatabase(config(url, node, **options))
    MADE.append(made)
    made.open()
    return made


def rows(url: str) -> dict[str, Any]:
    """The table, by session."""
    engine = open_engine(url)
    with engine.begin() as connection:
        found = connection.execute(select(LedgerTables(engine).sessions)).all()
    engine.dispose()
    return {row.session_id: row for row in found}


def at(seconds: float) -> int:
    return int(1000 * (T0 + seconds))


def login(session: str, user: str = "ann", seconds: float = 0.0, ip: str = "10.0.0.1") -> Login:
    return Login(session, user, "mobile", ip, "Test/1.0", "", at(seconds))


def begun(session: str, owner: str, seconds: float, user: str = "ann") -> Connected:
    return Connected(session, user, owner, at(seconds))


def ended(session: str, owner: str, seconds: float, cause: str, user: str = "ann") -> Ended:
    return Ended(session, user, owner, cause, at(seconds), at(seconds - 5))


def over(session: str, seconds: float, cause: str = LOGGED_OUT) -> Over:
    return Over(session, "", cause, at(seconds))


def story(ledger: LedgerDatabase, *steps: Login | Connected | Ended | Over, together: bool = False) -> None:
    """Write steps each by itself, or those that are left of them after an outage."""
    pending = PendingRows()
    for step in steps:
        if together and not isinstance(step, Login):
            pending.add(step)
        else:
            ledger.write([step])
    ledger.write(list(pending.values()))


def test_a_login_has_every_field(url: str) -> None:
    ledger = writer(url)
    assert ledger.write([login("s1"), login("s2", "bob", 1.5)]) == {}
    row = rows(url)["s2"]
    assert (row.user_id, row.device_type, row.ip_address) == ("bob", "mobile", "10.0.0.1")
    assert (row.user_agent, row.status, row.logout_time, row.ended_by) == ("Test/1.0", 0, None, None)
    assert (row.connection_id, row.node) == ("", "n1")
    assert row.login_time == row.last_active_time == at(1.5)
    assert abs(row.created_at - 1000 * time()) < 30_000
    assert row.created_at == row.updated_at
    assert row.id != rows(url)["s1"].id


# One row each: the steps, and then status, ended_by, connection, logout and last activity in seconds.
STORIES: dict[
    str, tuple[list[Connected | Ended | Over], tuple[int, str | None, str, float | None, float]]
] = {
    "online": ([begun("s", "a", 10)], (1, None, "a", None, 10)),
    "ended": ([begun("s", "a", 10), ended("s", "a", 60, "heartbeat")], (0, "heartbeat", "a", 60, 55)),
    "resumed": (
        [begun("s", "a", 10), ended("s", "a", 60, "tcp_fin"), begun("s", "b", 70)],
        (1, None, "b", None, 70),
    ),
    "the end of an older connection comes late": (
        [begun("s", "a", 10), begun("s", "b", 70), ended("s", "a", 90, "take_over")],
        (1, None, "b", None, 70),
    ),
    "the beginning of an older connection comes late": (
        [begun("s", "b", 70), begun("s", "a", 80)],
        (1, None, "b", None, 70),
    ),
    "both end, the older one last": (
        [
            begun("s", "a", 10),
            begun("s", "b", 70),
            ended("s", "b", 80, "close_frame"),
            ended("s", "a", 90, "take_over"),
        ],
        (0, "close_frame", "b", 80, 75),
    ),
    "logged out": ([begun("s", "a", 10), over("s", 30)], (0, "logout", "a", 30, 30)),
    "logged out, its connection's end afterwards": (
        [begun("s", "a", 10), over("s", 30), ended("s", "a", 31, "close_frame")],
        (0, "logout", "a", 30, 30),
    ),
    "ended, then logged out: over at its end": (
        [begun("s", "a", 10), ended("s", "a", 60, "tcp_fin"), over("s", 80)],
        (0, "logout", "a", 60, 80),
    ),
    "a logged out session never comes back": (
        [begun("s", "a", 10), over("s", 30), begun("s", "b", 40)],
        (0, "logout", "a", 30, 30),
    ),
    "gone before it was in service": ([ended("s", "a", 20, "tcp_reset")], (0, "tcp_reset", "a", 20, 15)),
    "seen to end twice": (
        [begun("s", "a", 10), ended("s", "a", 60, "tcp_fin"), ended("s", "a", 75, "node_lease")],
        (0, "tcp_fin", "a", 60, 55),
    ),
}


@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
def test_stories_of_sessions(together: bool, url: str) -> None:
    """Whether their rows are written one by one, or the last of them after an outage of the ledger."""
    ledger = writer(url)
    story(ledger, login("untouched"))
    for name, (steps, _) in STORIES.items():
        of_it = (replace(step, session_id=name) for step in steps)
        story(ledger, login(name), *of_it, together=together)
    table = rows(url)
    for name, (_, (status, cause, connection, logout_s, active_s)) in STORIES.items():
        row = table[name]
        assert (row.status, row.ended_by) == (status, cause), name
        assert row.connection_id == connection, name
        assert row.logout_time == (None if logout_s is None else at(logout_s)), name
        assert row.last_active_time == at(active_s), name
    row = table["untouched"]
    assert (row.status, row.connection_id, row.ended_by) == (0, "", None)


def test_signs_of_life_go_forward_only_and_not_past_the_end(url: str) -> None:
    ledger = writer(url)
    story(ledger, login("s"), login("t", "bob"), begun("s", "a", 1), over("t", 5))
    ledger.write(
        [Seen("s", "ann", "a", at(40)), Seen("t", "bob", "", at(40)), Seen("nobody", "x", "", at(0))]
    )
    ledger.write([Seen("s", "ann", "a", at(20))])
    assert rows(url)["s"].last_active_time == at(40)
    assert rows(url)["t"].last_active_time == at(5)


def test_a_connection_that_lives_opens_its_row_again_when_peers_took_its_node_for_dead(url: str) -> None:
    ledger = writer(url)
    story(ledger, login("s"), begun("s", "a", 1), ended("s", "a", 5, "node_lease"))
    story(ledger, login("t", "bob"), begun("t", "b", 1, "bob"), ended("t", "b", 5, "tcp_fin", "bob"))
    story(ledger, login("u", "cyd"), begun("u", "c", 1, "cyd"), ended("u", "c", 5, "node_lease", "cyd"))
    ledger.write(
        [Seen("s", "ann", "a", at(7)), Seen("t", "bob", "b", at(7)), Seen("u", "cyd", "older", at(7))]
    )
    table = rows(url)
    assert (table["s"].status, table["s"].ended_by, table["s"].logout_time) == (1, None, None)
    assert table["s"].last_active_time == at(7)
    assert (table["t"].status, table["t"].ended_by) == (0, "tcp_fin"), "its own node has seen the end"
    assert (table["u"].status, table["u"].ended_by) == (0, "node_lease"), "not that connection's"


def test_a_node_that_starts_closes_its_own_stale_rows_only(url: str) -> None:
    first, other = writer(url, "n1"), writer(url, "n2")
    story(first, login("mine"), begun("mine", "a", 1), login("waiting", "bob"))
    story(other, login("theirs", "cyd"), begun("theirs", "b", 2, "cyd"))
    first.write([Seen("mine", "ann", "a", at(33))])
    again = LedgerDatabase(config(url, "n1"))
    assert again.open() == 1
    table = rows(url)
    assert (table["mine"].status, table["mine"].ended_by) == (0, "node_restart")
    assert table["mine"].logout_time == at(33)
    assert table["theirs"].status == 1
    assert table["waiting"].logout_time is None
    story(again, begun("mine", "c", 50))  # its client comes back with the session it has
    row = rows(url)["mine"]
    assert (row.status, row.ended_by, row.logout_time, row.connection_id) == (1, None, None, "c")


def test_what_nobody_has_heard_of_for_a_session_s_life_is_over(url: str) -> None:
    ledger = writer(url, session_ttl_s=600.0)
    story(ledger, login("old"), login("young", "bob", time() - T0 - 10))  # T0 is as old as the test run
    assert ledger.expire() == 1
    table = rows(url)
    assert table["old"].ended_by == "ttl" and table["old"].logout_time == at(0)
    assert table["young"].logout_time is None


@pytest.mark.parametrize("survives", [False, True])
def test_logins_without_a_connection_can_be_told(url: str, survives: bool) -> None:
    """They are all that a Redis that lost everything does not get back from its connections."""
    ledger = writer(url, session_ttl_s=3600.0, survives=survives)
    second_phone = replace(login("phone"), device_id="p2")
    story(
        ledger,
        login("in"),
        second_phone,
        login("on"),
        begun("on", "a", 990),
        login("out"),
        over("out", 995),
        login("gone"),
        begun("gone", "c", 900),
        ended("gone", "c", 905, "tcp_fin"),
        login("replaced"),
        begun("replaced", "d", 900),
        ended("replaced", "d", 905, "take_over"),
        login("expired", seconds=-3000),
    )
    found = {s.session_id: s for s in ledger.unconnected()}
    assert found.keys() == {"in", "phone"} | ({"gone"} if survives else set())
    assert (found["in"].device, found["phone"].device) == ("mobile", "p2")
    assert found["in"].seen_ms == at(0)
    assert ledger.over(["in", "out", "gone", "unheard of"]) == {"out"}


def test_an_address_has_no_more_sessions_than_it_may(url: str) -> None:
    """In one batch and over several; an ended session makes room; unknown addresses are not counted."""
    ledger = writer(url, most=2)
    refused = ledger.write([login(f"s{n}", f"u{n}", ip="10.0.0.9") for n in range(3)])
    assert refused.keys() == {"s2"} and isinstance(refused["s2"], AddressFull)
    assert ledger.write([login("t", ip="10.0.0.9")]).keys() == {"t"}
    assert ledger.write([login("v", ip="10.0.0.8")]) == {}
    story(ledger, over("s0", 5))
    assert ledger.write([login("w", ip="10.0.0.9")]) == {}
    assert ledger.write([login(f"x{n}", ip="") for n in range(4)]) == {}
    assert rows(url).keys() == {"s0", "s1", "v", "w", "x0", "x1", "x2", "x3"}


def test_an_end_of_what_never_was_is_told(url: str) -> None:
    ledger = writer(url)
    story(ledger, login("s"), login("t"))
    ended = [Over("s", "ann", LOGGED_OUT, at(5)), Over("t", "bob", LOGGED_OUT, at(5)), over("unheard of", 5)]
    refused = ledger.write(ended)
    assert refused.keys() == {"t", "unheard of"}, "t is ann's"
    assert {type(why) for why in refused.values()} == {UnknownSession}
    assert ledger.write([over("s", 6)]) == {}, "over, and known"


def test_one_bad_row_does_not_keep_the_others_out(url: str) -> None:
    ledger = writer(url)
    story(ledger, login("s"))
    again = login("s")  # its id is taken
    refused = ledger.write([login("a", "bob"), again, login("b", "cyd")])
    assert refused.keys() == {"s"} and isinstance(refused["s"], LedgerUnavailable)
    assert rows(url).keys() == {"s", "a", "b"}


def test_a_batch_is_whole_or_not_at_all(url: str) -> None:
    """Killed between the statements of a transaction: nothing of it is there."""
    ledger = writer(url)
    story(ledger, login("s"))

    def fail_halfway(connection: Connection) -> None:
        ledger._write(connection, [login("t")])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ledger._carry_out(fail_halfway)
    assert rows(url).keys() == {"s"}
    story(ledger, login("t"))
    assert rows(url).keys() == {"s", "t"}


def test_a_table_of_another_make_is_refused(url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS user_sessions"))
        columns = "id INTEGER, session_id TEXT, login_time TIMESTAMP"
        connection.execute(text(f"CREATE TABLE user_sessions ({columns})"))
    with pytest.raises(LedgerUnfit, match=r"lacks .*login_time.*user_id"):
        writer(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE user_sessions"))
    engine.dispose()


@pytest.mark.parametrize("url_", ["mysql://h/db", "sqlite:///:memory:", "sqlite://", "no url"])
def test_other_urls_are_refused(url_: str) -> None:
    with pytest.raises(LedgerUnfit, match="ledger"):
        open_engine(url_)


def indexes(engine: Engine, tables: LedgerTables) -> set[tuple[str, ...]]:
    found = inspect(engine).get_indexes(tables.sessions.name)
    return {tuple(str(name) for name in index["column_names"]) for index in found}


def test_the_indexes_are_there(url: str) -> None:
    writer(url)
    engine = open_engine(url)
    found = indexes(engine, LedgerTables(engine))
    assert {("user_id",), ("session_id", "user_id"), ("status", "node"), ("login_time",)} <= found
    engine.dispose()


def test_sqlite_is_durable(tmp_path: Path) -> None:
    engine = open_engine(ledger_url(tmp_path / "ledger.db"))
    with engine.begin() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA busy_timeout")) == 1000
    engine.dispose()


@pytest.mark.real
def test_postgresql_is_partitioned_by_user(postgres_url: str) -> None:
    writer(postgres_url, "elsewhere").close()
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        kind = connection.scalar(text("SELECT pg_get_partkeydef('user_sessions'::regclass)"))
        parts = connection.scalar(
            text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'user_sessions'::regclass")
        )
        key = inspect(engine).get_pk_constraint("user_sessions")["constrained_columns"]
    engine.dispose()
    assert (kind, parts, set(key)) == ("HASH (user_id)", 8, {"id", "user_id"})


def test_a_locked_file_is_an_outage_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = writer(ledger_url(path))
    locker = sqlite3.connect(path, isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerUnavailable, match="locked"):
        ledger.write([login("s")])
    locker.execute("ROLLBACK")
    locker.close()
    ledger.write([login("s")])
    assert rows(ledger_url(path)).keys() == {"s"}


def test_a_file_that_was_deleted_is_noticed(tmp_path: Path) -> None:
    """SQLite itself would go on writing into it, and say that all is well."""
    path = tmp_path / "ledger.db"
    ledger = writer(ledger_url(path))
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    with pytest.raises(LedgerUnavailable):
        ledger.write([login("s")])
    ledger.close()


def users(url: str) -> dict[str, int]:
    """Who is shown online, by user."""
    engine = open_engine(url)
    with engine.begin() as connection:
        table = LedgerTables(engine).users.c
        found = {row[0]: row[1] for row in connection.execute(select(table.user_id, table.online_status))}
    engine.dispose()
    return found


def test_a_user_is_online_while_one_of_the_sessions_has_a_connection(url: str) -> None:
    ledger = writer(url)
    ledger.write([login("s1"), login("s2"), login("s3", user="bob")])
    assert users(url) == {"ann": 0, "bob": 0}
    ledger.write([begun("s1", "a", 1), begun("s2", "b", 1)])
    ledger.write([ended("s1", "a", 2, "tcp_fin")])
    assert users(url) == {"ann": 1, "bob": 0}
    ledger.write([over("s2", 3), login("s4")])
    assert users(url) == {"ann": 0, "bob": 0}
    ledger.write([begun("s4", "c", 4)])
    assert users(url)["ann"] == 1
    writer(url)  # another life of the node closes the row
    assert users(url)["ann"] == 0


def test_a_session_is_a_user_s(url: str) -> None:
    writer(url)
    engine = open_engine(url)
    sessions = LedgerTables(engine).sessions
    (key,) = inspect(engine).get_foreign_keys("user_sessions")
    assert (key["constrained_columns"], key["referred_table"]) == (["user_id"], "users")
    row = {name: 0 if isinstance(sessions.c[name].type, Integer) else "" for name in sessions.c.keys()[1:]}
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(sessions).values(row | {"user_id": "nobody"}))
    engine.dispose()


def test_a_ledger_from_before_there_were_users_gets_them(url: str) -> None:
    ledger = writer(url)
    ledger.write([login("s1"), login("s2", user="bob"), begun("s2", "a", 1, user="bob")])
    engine = create_engine(url)  # without foreign keys, where it is SQLite
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE users" + " CASCADE" * (not url.startswith("sqlite"))))
    engine.dispose()
    again = writer(url, "n2")
    assert users(url) == {"ann": 0, "bob": 1}
    again.write([ended("s2", "a", 2, "tcp_fin", user="bob"), login("s3", user="carl")])
    assert users(url) == {"ann": 0, "bob": 0, "carl": 0}
