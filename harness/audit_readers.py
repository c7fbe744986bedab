"""Reads what the audit compares: the nodes' API, Redis, the ledger; and repeats it until what differs has settled.

From addresses to snapshots. Changes nothing anywhere. A run directory knows the addresses of its own gateways.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import redis
from sqlalchemy import Engine, func, literal, or_, select
from sqlalchemy.exc import SQLAlchemyError

from harness.audit import (
    Difference,
    Held,
    Ledger,
    Memory,
    Row,
    Snapshot,
    Store,
    differences,
    lasting,
)
from harness.rundir import RunDir
from reference_server.ledger_rows import LedgerUnfit
from reference_server.ledger_table import LedgerTables, instant, ledger_tables, open_engine

__all__ = ["Audit", "AuditTarget", "CannotAudit", "audit", "snapshot", "target_of_run"]

_ANSWER_DEADLINE_S = 5.0
_AGAIN_S = 0.25
_PER_PAGE = 1000
_CHUNK = 500


class CannotAudit(RuntimeError):
    """One of the three cannot be read; the message says which."""


@dataclass(frozen=True, slots=True)
class AuditTarget:
    """Where the three are. Empty or None: not looked at."""

    http_urls: tuple[str, ...] = ()
    redis_url: str | None = None
    key_prefix: str = "flatline:"
    ledger_url: str | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found."""

    differences: tuple[Difference, ...]
    sessions: int  # that any of the three knows, over or not
    looks: int
    took_s: float


def audit(target: AuditTarget, settle_s: float = 2.0) -> Audit:
    """Look until nothing differs, or something has differed in every look for ``settle_s`` seconds.

    Raises:
        CannotAudit: one of the three cannot be read.
    """
    began_s = time.monotonic()
    rounds: list[Sequence[Difference]] = []
    while True:
        seen = snapshot(target)
        rounds.append(differences(seen))
        left = lasting(rounds)
        took_s = time.monotonic() - began_s
        if not left or (len(rounds) > 1 and took_s >= settle_s):
            return Audit(tuple(left), _known(seen), len(rounds), took_s)
        time.sleep(min(_AGAIN_S, settle_s))


def snapshot(target: AuditTarget) -> Snapshot:
    """Read all three, one after the other.

    Raises:
        CannotAudit: one of them cannot be read.
    """
    taken_s = time.monotonic()
    memory = store = ledger = None
    try:
        if target.http_urls:
            memory = _memory(target.http_urls)
        if target.redis_url is not None:
            store = _store(target.redis_url, target.key_prefix)
        if target.ledger_url is not None:
            known = {held.session_id for held in memory.live} if memory else set()
            ledger = _ledger(target.ledger_url, known | set(store.sessions if store else ()))
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        raise CannotAudit(f"a node's API: {error}") from error
    except redis.RedisError as error:
        raise CannotAudit(f"Redis: {error}") from error
    except (SQLAlchemyError, LedgerUnfit) as error:
        raise CannotAudit(f"the ledger: {getattr(error, 'orig', None) or error}") from error
    return Snapshot(memory, store, ledger, taken_s)


def target_of_run(run: RunDir) -> AuditTarget:
    """Return where the gateways of a run, or of `flatline serve`, say that everything is.

    Raises:
        CannotAudit: it has no gateways that listen.
    """
    configs = [orjson.loads(path.read_bytes()) for path in sorted(run.logs.glob("gateway-*.json"))]
    if not configs:
        raise CannotAudit(f"{run.path}: no gateway has run here")
    urls = []
    for config in configs:
        try:
            port = orjson.loads(Path(config["ready_file"]).read_bytes())["http_port"]
        except (OSError, TypeError, ValueError, KeyError) as error:
            raise CannotAudit(f"{config['node']} of {run.path} does not listen: {error}") from error
        urls.append(f"http://{config['host']}:{port}")
    first = configs[0]
    return AuditTarget(
        tuple(urls), first["redis_url"], first["key_prefix"], first.get("ledger_url")
    )


def _known(seen: Snapshot) -> int:
    sessions: set[str] = set()
    if seen.memory is not None:
        sessions |= {held.session_id for held in (*seen.memory.live, *seen.memory.waiting)}
    if seen.store is not None:
        sessions |= seen.store.sessions.keys()
    if seen.ledger is not None:
        sessions |= seen.ledger.rows.keys()
        # Those that are over, for all three, are not listed: nothing of them is wrong.
        return len(sessions) + seen.ledger.total - len(seen.ledger.rows)
    return len(sessions)


def _memory(urls: Sequence[str]) -> Memory:
    live = [held for url in urls for held in _pages(url, "live")]
    waiting = [held for url in urls for held in _pages(url, "waiting")]
    return Memory(_once(live), _once(waiting), frozenset(held.node for held in (*live, *waiting)))


def _once(found: Sequence[Held]) -> list[Held]:
    """A list that changes between two pages may show a row twice."""
    return list({held.owner: held for held in found}.values())


def _pages(url: str, state: str) -> Iterator[Held]:
    page, left = 1, 1
    while left > 0:
        query = f"{url.rstrip('/')}/api/sessions?state={state}&per_page={_PER_PAGE}&page={page}"
        with urllib.request.urlopen(query, timeout=_ANSWER_DEADLINE_S) as answer:
            told: Mapping[str, Any] = orjson.loads(answer.read())
        for row in told["sessions"]:
            yield Held(row["session_id"], row["user_id"], row["connection_id"], row["node"])
        left = told["total"] - page * _PER_PAGE
        page += 1


def _store(url: str, prefix: str) -> Store:
    with redis.Redis.from_url(
        url, socket_timeout=_ANSWER_DEADLINE_S, decode_responses=True
    ) as client:
        lists = {}
        for key in client.scan_iter(match=f"{prefix}node:*:sessions", count=1000):
            name = key.removeprefix(f"{prefix}node:").removesuffix(":sessions")
            lists[name] = dict(client.hscan_iter(key, count=1000))
        online: Sequence[str] = client.zrange(f"{prefix}online", 0, -1)
        return Store(
            _strings(client, f"{prefix}session:"), _strings(client, f"{prefix}status:"),
            frozenset(online), lists,
        )  # fmt: skip


def _strings(client: Any, prefix: str) -> dict[str, str]:
    keys = list(client.scan_iter(match=f"{prefix}*", count=1000))
    found: dict[str, str] = {}
    for chunk in _chunks(keys):
        for key, value in zip(chunk, client.mget(chunk), strict=True):
            if value is not None:  # it went in between
                found[key.removeprefix(prefix)] = value
    return found


def _ledger(url: str, known: set[str]) -> Ledger:
    engine = open_engine(url, reads_only=True)
    try:
        tables = ledger_tables(engine)
        with engine.begin() as connection:
            total = connection.scalar(select(func.count()).select_from(tables.sessions))
        return Ledger(_rows(engine, tables, known), total or 0)
    finally:
        engine.dispose()


def _rows(engine: Engine, tables: LedgerTables, known: set[str]) -> dict[str, Row]:
    c, nodes = tables.sessions.c, tables.nodes
    rows: dict[str, Row] = {}
    with engine.begin() as connection:
        lives_s = [life for (life,) in connection.execute(select(nodes.c.session_ttl_s))]
        oldest = instant(literal(time.time() - max(lives_s, default=0.0)))
        query = select(
            c.session_id, c.user_id, c.status == 1, c.connection_id, c.node, c.ended_by,
            c.last_active_time < oldest,
        )  # fmt: skip

        def keep(found: Any) -> None:
            for session, user, online, owner, node, ended_by, expired in found:
                rows[session] = Row(
                    session, user, bool(online), owner, node, ended_by or "", bool(expired)
                )

        keep(connection.execute(query.where(or_(c.status == 1, c.logout_time.is_(None)))))
        for chunk in _chunks(sorted(known - rows.keys())):
            keep(connection.execute(query.where(c.session_id.in_(chunk))))
    return rows


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(values), _CHUNK):
        yield values[begin : begin + _CHUNK]
