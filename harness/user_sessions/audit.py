"""The consistency audit: what memory, Redis and the ledger say about the same sessions, and where they differ.

From addresses (of the nodes' API, Redis, the ledger) to snapshots, and from a snapshot to differences, each with a
code, the session or user that it is about, and a sentence. Changes nothing anywhere. The three cannot be read at one
moment, so what differs once may be on its way: only what differs in every snapshot over a settling time counts.

Expected, and so no difference: a session that waits to be resumed has records and no connection; a login that
has not connected, and a session that has survived its connection, have a session record without a node's owner and no
status; a row that ended may have records while its node has it in a resume window, and a session record after it.
"""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import redis
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from harness.runs.directory import RunDir
from reference_server.errors import MachineError
from reference_server.ledger.rows import FINAL, LedgerUnfit, now_ms
from reference_server.ledger.table import LedgerTables, open_engine

__all__ = [
    "Audit",
    "AuditTarget",
    "CannotAudit",
    "Difference",
    "Held",
    "Ledger",
    "Memory",
    "Row",
    "Snapshot",
    "Store",
    "audit",
    "differences",
    "lasting",
    "snapshot",
    "target_of_run",
]


class Held(NamedTuple):
    """A session that a node holds in memory."""

    session_id: str
    user_id: str
    owner: str
    node: str


class Memory(NamedTuple):
    """What the nodes say: sessions with a connection, and those that wait to be resumed."""

    live: Sequence[Held]
    waiting: Sequence[Held]


class Store(NamedTuple):
    """What Redis says, keys without the prefix. A record is ``slot|owner``, a status ``session|owner``."""

    sessions: Mapping[str, str]  # session: record
    statuses: Mapping[str, str]  # slot: status
    online: frozenset[str]  # users
    lists: Mapping[str, Mapping[str, str]]  # incarnation: session: record


class Row(NamedTuple):
    """What the ledger says of a session."""

    session_id: str
    user_id: str
    online: bool
    owner: str
    node: str
    ended_by: str  # "": it has not ended
    expired: bool  # not heard of for a session's life; nobody has closed it yet


class Ledger(NamedTuple):
    """The ledger's rows that are open, and those of the sessions that memory or Redis knows."""

    rows: Mapping[str, Row]
    online_users: frozenset[str]  # as the table of users has them
    total: int = 0  # rows that it has, these and all others


class Snapshot(NamedTuple):
    """What all three say; None: not looked at."""

    memory: Memory | None
    store: Store | None
    ledger: Ledger | None


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One of them says what another does not. Two are the same when ``kind`` and ``subject`` are."""

    kind: str
    subject: str  # a session or a user
    sentence: str = field(compare=False)


def differences(snapshot: Snapshot) -> list[Difference]:
    """Return every difference, sorted.

    ======================= =====================================================================
    kind                    what is wrong
    ======================= =====================================================================
    live_twice              two connections of one session
    live_without_record     a connection whose session record is missing or names another owner
    live_without_status     the same of the status record
    record_of_nobody        a session record of a connection that no node has
    record_without_status   a waiting session's record, with a status that is missing or another's
    status_of_nobody        a status whose session record is missing or names another owner
    online_nobody           a user in the online set without any status
    online_missing          a status whose user is not in the online set
    list_of_nobody          a node's list has a session whose record is another or missing
    list_missing            a connection's record is not in its node's list: no peer could reap it
    live_not_in_ledger      a connection whose session has no row
    live_but_offline        a connection whose row is not online, or names another connection
    ledger_online_nobody    a row is online and no node has the connection
    login_without_record    a row waits for a connection, and Redis does not know its session
    record_not_in_ledger    a session record whose row is missing
    record_of_ended_session a session record whose row is over for good
    user_online_nobody      a user's ``online_status`` is 1 and none of the user's rows is online
    user_not_online         a row is online and its user's ``online_status`` is not 1
    ======================= =====================================================================
    """
    memory, store, ledger = snapshot
    pairs: tuple[tuple[Callable[..., Iterator[Difference]], tuple[Any, ...]], ...] = (
        (_within_memory, (memory,)),
        (_within_store, (store,)),
        (_within_ledger, (ledger,)),
        (_memory_and_store, (memory, store)),
        (_memory_and_ledger, (memory, ledger)),
        (_store_and_ledger, (store, ledger)),
    )
    return sorted({one for compare, parts in pairs if None not in parts for one in compare(*parts)})


def lasting(rounds: Iterable[Sequence[Difference]]) -> list[Difference]:
    """Return the differences that are in every round, as the last one tells them."""
    kept: list[Difference] | None = None
    for found in rounds:
        kept = list(found) if kept is None else [one for one in found if one in kept]
    return kept or []


def _split(value: str) -> tuple[str, str]:
    """Return the slot or session, and the owner."""
    left, _, owner = value.rpartition("|")
    return left, owner


def _users(slot: str) -> set[str]:
    """Whose slot it can be: the user's, or one of the user's devices'."""
    user, slash, _ = slot.rpartition("/")
    return {slot, user} if slash else {slot}


def _within_memory(memory: Memory) -> Iterator[Difference]:
    for session, n in Counter(held.session_id for held in memory.live).items():
        if n > 1:
            yield Difference("live_twice", session, f"{n} connections")


def _within_store(store: Store) -> Iterator[Difference]:
    for slot, status in store.statuses.items():
        session, owner = _split(status)
        record = store.sessions.get(session)
        if record != f"{slot}|{owner}":
            says = f"session:{session} says {record!r}" if record else f"there is no session:{session}"
            yield Difference("status_of_nobody", slot, f"status:{slot} is {status!r}; {says}")
        elif owner and not _users(slot) & store.online:
            yield Difference("online_missing", slot, f"status:{slot} is {status!r}, not online")
    for user in store.online.difference(*map(_users, store.statuses)):
        yield Difference("online_nobody", user, "in the online set, without a status")
    for incarnation, listed in store.lists.items():
        for session, record in listed.items():
            if store.sessions.get(session) != record:
                is_now = store.sessions.get(session, "missing")
                says = f"{incarnation} lists {record!r}; the record is {is_now!r}"
                yield Difference("list_of_nobody", session, says)
    for session, record in store.sessions.items():
        incarnation = _split(record)[1].rpartition(":")[0]
        if incarnation and store.lists.get(incarnation, {}).get(session) != record:
            yield Difference("list_missing", session, f"{record!r} is not in the list of {incarnation}")


def _within_ledger(ledger: Ledger) -> Iterator[Difference]:
    online = {row.user_id: row.session_id for row in ledger.rows.values() if row.online}
    for user in ledger.online_users - online.keys():
        yield Difference("user_online_nobody", user, "online_status is 1; no row of the user is online")
    for user in online.keys() - ledger.online_users:
        yield Difference(
            "user_not_online", user, f"online_status is not 1; the row of {online[user]} is online"
        )


def _memory_and_store(memory: Memory, store: Store) -> Iterator[Difference]:
    known = {held.owner for held in (*memory.live, *memory.waiting)}
    status_of = {_split(status)[0]: status for status in store.statuses.values()}
    for held in memory.live:
        record = store.sessions.get(held.session_id, "missing")
        slot, owner = _split(record)
        if owner != held.owner or held.user_id not in _users(slot):
            says = f"{held.node} has connection {held.owner}; its session record is {record!r}"
            yield Difference("live_without_record", held.session_id, says)
            continue
        status = status_of.get(held.session_id, "missing")
        if status != f"{held.session_id}|{held.owner}":
            says = f"{held.node} has connection {held.owner}; its status is {status!r}"
            yield Difference("live_without_status", held.session_id, says)
    live = {held.session_id for held in memory.live}
    for session, record in store.sessions.items():
        slot, owner = _split(record)
        if (
            not owner.rpartition(":")[0] or session in live
        ):  # not connected yet, or it has survived its connection
            continue
        if owner not in known:
            says = f"session:{session} is {record!r}; no node has it"
            yield Difference("record_of_nobody", session, says)
        elif status_of.get(session) != f"{session}|{owner}":
            says = f"session:{session} is {record!r}; its status is {status_of.get(session)!r}"
            yield Difference("record_without_status", session, says)


def _memory_and_ledger(memory: Memory, ledger: Ledger) -> Iterator[Difference]:
    live = {held.session_id: held for held in memory.live}
    for session, held in live.items():
        row = ledger.rows.get(session)
        if row is None:
            says = f"{held.node} has connection {held.owner}; there is no row"
            yield Difference("live_not_in_ledger", session, says)
        elif not row.online or row.owner != held.owner:
            state = "online" if row.online else f"offline ({row.ended_by or 'never connected'})"
            says = f"{held.node} has connection {held.owner}; the row is {state}, of {row.owner!r}"
            yield Difference("live_but_offline", session, says)
    for session, row in ledger.rows.items():
        if row.online and session not in live:
            says = f"the row is online at {row.node}, connection {row.owner}; no node has it"
            yield Difference("ledger_online_nobody", session, says)


def _store_and_ledger(store: Store, ledger: Ledger) -> Iterator[Difference]:
    for session, record in store.sessions.items():
        row = ledger.rows.get(session)
        if row is None:
            yield Difference("record_not_in_ledger", session, f"session:{session} is {record!r}")
        elif row.ended_by in FINAL:
            says = f"session:{session} is {record!r}; the row ended by {row.ended_by}"
            yield Difference("record_of_ended_session", session, says)
    for session, row in ledger.rows.items():
        waits = not row.online and not row.ended_by and not row.owner and not row.expired
        if waits and session not in store.sessions:
            says = f"{row.user_id} has logged in and not connected; Redis has no session:{session}"
            yield Difference("login_without_record", session, says)


_ANSWER_DEADLINE_S = 5.0
_AGAIN_S = 0.25
_PER_PAGE = 1000
_CHUNK = 500


class CannotAudit(MachineError):
    """One of the three cannot be read; the message says which."""


class AuditTarget(NamedTuple):
    """Where the three are. Empty or None: not looked at."""

    http_urls: tuple[str, ...] = ()
    redis_url: str | None = None
    key_prefix: str = "flatline:"
    ledger_url: str | None = None
    operator_token: str = ""  # of the gateways; they ask for it where they do not listen on loopback
    tls_ca: str = ""  # file with the CA to trust; empty: the system's


class Audit(NamedTuple):
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
    memory = store = ledger = None
    try:
        if target.http_urls:
            memory = _memory(
                target.http_urls,
                target.operator_token,
                ssl.create_default_context(cafile=target.tls_ca or None),
            )
        if target.redis_url is not None:
            store = _store(target.redis_url, target.key_prefix)
        if target.ledger_url is not None:
            known = {held.session_id for held in memory.live} if memory else set()
            ledger = _ledger(target.ledger_url, known | set(store.sessions if store else ()))
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        said = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        where = ", ".join(target.http_urls)
        raise CannotAudit(f"a node's API ({where}): {said}; an audit asks gateways that run") from error
    except redis.RedisError as error:
        raise CannotAudit(f"Redis: {error}") from error
    except (SQLAlchemyError, LedgerUnfit) as error:
        raise CannotAudit(f"the ledger: {getattr(error, 'orig', None) or error}") from error
    return Snapshot(memory, store, ledger)


def target_of_run(run: RunDir, tls_ca: str = "") -> AuditTarget:
    """Return where the gateways of a run, or of `flatline serve`, say that everything is.

    Args:
        run: the run.
        tls_ca: file with the CA to trust; empty: the system's.

    Raises:
        CannotAudit: it has no gateways that listen.
    """
    configs = run.gateway_configs()
    if not configs:
        raise CannotAudit(f"{run.path}: no gateway has run here")
    urls = []
    for config in configs:
        ports = run.node_ports(config.node)
        if ports is None:
            raise CannotAudit(f"{config.node} of {run.path} does not listen")
        urls.append(f"http{'s' * (config.tls_certificate is not None)}://{config.host}:{ports.http_port}")
    first = configs[0]
    stores = (first.redis_url, first.key_prefix, first.ledger_url)
    return AuditTarget(tuple(urls), *stores, first.operator_token, tls_ca)


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


def _memory(urls: Sequence[str], token: str, tls: ssl.SSLContext) -> Memory:
    def held(state: str) -> list[Held]:
        # Once each: a list that changes between two pages may show a row twice.
        return list({held.owner: held for url in urls for held in _pages(url, state, token, tls)}.values())

    return Memory(held("live"), held("waiting"))


def _pages(url: str, state: str, token: str, tls: ssl.SSLContext) -> Iterator[Held]:
    page, left = 1, 1
    while left > 0:
        query = f"{url.rstrip('/')}/api/sessions?state={state}&per_page={_PER_PAGE}&page={page}"
        request = urllib.request.Request(query, headers={"Authorization": f"Bearer {token}"} if token else {})
        with urllib.request.urlopen(request, timeout=_ANSWER_DEADLINE_S, context=tls) as answer:
            told: Mapping[str, Any] = orjson.loads(answer.read())
        for row in told["sessions"]:
            yield Held(row["session_id"], row["user_id"], row["connection_id"], row["node"])
        left = told["total"] - page * _PER_PAGE
        page += 1


def _store(url: str, prefix: str) -> Store:
    with redis.Redis.from_url(url, socket_timeout=_ANSWER_DEADLINE_S, decode_responses=True) as client:
        lists = {}
        for key in client.scan_iter(match=f"{prefix}node:*:sessions", count=1000):
            name = key.removeprefix(f"{prefix}node:").removesuffix(":sessions")
            lists[name] = dict(client.hscan_iter(key, count=1000))
        online: Sequence[str] = client.zrange(f"{prefix}online", 0, -1)
        return Store(
            _strings(client, f"{prefix}session:"),
            _strings(client, f"{prefix}status:"),
            frozenset(online),
            lists,
        )


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
    tables = LedgerTables(engine)
    c = tables.sessions.c
    try:
        with engine.begin() as connection:
            total = connection.scalar(select(func.count()).select_from(tables.sessions)) or 0
            life_s = connection.scalar(select(func.max(tables.nodes.c.session_ttl_s))) or 0.0
            expired = c.last_active_time < now_ms() - int(1000 * life_s)
            ended_by = func.coalesce(c.ended_by, "")
            query = select(c.session_id, c.user_id, c.status == 1, c.connection_id, c.node, ended_by, expired)
            is_open = or_(c.status == 1, c.logout_time.is_(None))
            rows = {row[0]: Row(*row) for row in connection.execute(query.where(is_open))}
            for chunk in _chunks(sorted(known - rows.keys())):
                found = connection.execute(query.where(c.session_id.in_(chunk)))
                rows |= {row[0]: Row(*row) for row in found}
            users = tables.users.c
            online = connection.scalars(select(users.user_id).where(users.online_status == 1))
            return Ledger(rows, frozenset(online), total)
    finally:
        engine.dispose()


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(values), _CHUNK):
        yield values[begin : begin + _CHUNK]
