"""The statements that write batches into the ledger: login, connection, end, end for good, sign of life.

From JSON arrays of rows (bind parameter ``batch``) and the time (``now_s``) to one statement for each kind. Which
row is changed by what is decided here, in the database, so that it does not matter who comes first.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Float,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from reference_server.ledger_rows import FINAL
from reference_server.ledger_table import LedgerTables, age_of, batch_of, instant

__all__ = ["Statements"]

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
