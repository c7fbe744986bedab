"""A plain SET of online users, without expiry per member, written apart from the records: as some systems do.

From connections that begin and end to SADD and SREM. A node that dies between the two leaves its users online
for ever; that is what it is here to show. The gateway's own set is scored and written in one step (`scripts.py`).
"""

from __future__ import annotations

from reference_server.store import Call, Script, StoreWriter

__all__ = ["ONLINE_SET_SCRIPTS", "PlainOnlineSet"]

_ADD = Script("return redis.call('SADD', KEYS[1], ARGV[1])")
_REMOVE = Script("return redis.call('SREM', KEYS[1], ARGV[1])")
ONLINE_SET_SCRIPTS = (_ADD, _REMOVE)


class PlainOnlineSet:
    """Who is online, as one gateway after the other says; key ``online_users`` below the prefix."""

    def __init__(self, writer: StoreWriter, prefix: str) -> None:
        self._writer = writer
        self._key = f"{prefix}online_users"

    def add(self, user_id: str) -> None:
        """A connection of the user has begun."""
        self._write(_ADD, user_id)

    def remove(self, user_id: str) -> None:
        """A connection of the user has ended, whatever other connections the user has."""
        self._write(_REMOVE, user_id)

    def _write(self, script: Script, user_id: str) -> None:
        self._writer.submit(Call(script, (self._key,), (user_id,), duty=f"online:{user_id}"))
