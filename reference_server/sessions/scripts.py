"""The Lua scripts that change session records: each is one atomic step in Redis. Their text is beside, in ``*.lua``.

Keys, below the gateway's prefix:

    session:{session_id}     "{slot}|{owner}"          string, TTL session_ttl; owner "" until connected, ":{number}"
                             when it has survived its connection
    status:{slot}            "{session_id}|{owner}"    string, TTL status_ttl; a TTL of 0 ms is none
    code:{user_id}           see codes.py
    online                   zset: user_id by the time last seen (Redis's own clock, seconds)
    devices:{user_id}        set of the devices online, TTL status_ttl; only with one connection a device
    node:{incarnation}:sessions    hash: session_id to what its session record says; who holds what
    over                     hash: session to user: ended by a logout or kick, its row is to be written
    ended:{session_id}       "logged_out" or "kicked", TTL session_ttl: no node brings its records back; "reaped": its
                             own node may, unless a logout comes first
    presence:{tag}           pub/sub: {"type": "online"|"offline", "user_id", "session_id", "node"}; the tag is the
                             first three hexadecimal digits of the user's SHA-1
    to:{incarnation}         pub/sub: what one node is told, see `cluster/routing.py`
    nodes                    hash: incarnation to "up" or "drained"; those whose sessions are not all ended yet
    lease:{incarnation}      "back:{nonce}" while the node asserts its records, then "held:{run_id}", which names
                             the start of Redis that it holds for; TTL lease_ttl
    epoch                    made by whoever finds none: another one means that Redis has lost everything

A session's id is the hash of the token that its client has; no token comes to Redis.
A slot is what has one connection at most: a user ("ann"), or one of her devices ("ann/phone"). The owner
is the connection that wrote a record last, and says which node holds it (`owner_tokens.py`). A connection changes
or deletes only what names it or an older one, so whatever arrives late from an older one does nothing. Every
script may be executed twice.

Some keys are found in the session record, so they are not among KEYS: one Redis, not a Redis Cluster.
Nothing newer than Redis 6.2 is used.
"""

from __future__ import annotations

from enum import StrEnum
from importlib.resources import files

__all__ = ["Script"]


def _script(*names: str) -> str:
    """Return a script: its own file, the last, behind the functions that it uses."""
    folder = files("reference_server.sessions")
    return "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names)


class Script(StrEnum):
    """All of them; a value is the text."""

    # Of sessions.
    LOGIN = _script("put", "login")
    RESTORE = _script("put", "restore")
    CONNECT = _script("put", "records", "connect")
    REFRESH = _script("put", "records", "refresh")
    CLEAR = _script("put", "records", "clear")
    RELEASE = _script("release")
    LOGOUT = _script("put", "records", "logout")
    PRUNE = _script("prune")
    UNWRITTEN = "return redis.call('HKEYS', KEYS[1])"
    WRITTEN = "return redis.call('HDEL', KEYS[1], ARGV[1])"
    # Of nodes.
    RENEW = _script("put", "records", "renew")
    HOLD = _script("put", "records", "hold")
    RETIRE = _script("retire")
    DEAD = _script("dead")
    REAP = _script("put", "records", "reap")
    HELD = _script("held")
    # Of who is where.
    ONLINE = _script("online")
    SEND = _script("put", "records", "statuses", "send")
    SESSIONS_OF = _script("put", "records", "statuses", "sessions_of")
    PLAIN_ADD = "return redis.call('SADD', KEYS[1], ARGV[1])"
    PLAIN_REMOVE = "return redis.call('SREM', KEYS[1], ARGV[1])"
    # Of verification codes.
    CODE_ISSUE = _script("code_issue")
    CODE_USE = _script("code_use")
