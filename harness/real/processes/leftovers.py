"""What runs leave behind that were killed: folders of private Redis servers, and keys in a user's Redis.

From names to owners: each folder, and each prefix in the hash `flatline:runs`, says which process made it. What a
process of this machine made that lives no more is nobody's. What another machine or container made is left alone.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import psutil
import redis

__all__ = ["FOLDER_PREFIX", "RUNS_KEY", "dead_folders", "dead_prefixes", "is_dead", "me", "remove_folders"]

FOLDER_PREFIX = "flatline-redis-"
RUNS_KEY = "flatline:runs"
_OWNER = re.compile(r"(\d+)-(\d+)-(\d+)@(.+)")  # pid, its start (seconds since 1970), pid namespace, machine
_SAME_START_S = 2  # the boot time, which starts are counted from, follows the clock

_log = logging.getLogger(__name__)


def me() -> str:
    """Return what names this process, as part of a file's name, too."""
    started_s = round(psutil.Process().create_time())
    return f"{os.getpid()}-{started_s}-{_namespace()}@{socket.gethostname()}"


def is_dead(owner: str) -> bool:
    """Tell whether an owner was a process of this machine that lives no more."""
    parts = _OWNER.fullmatch(owner)
    if parts is None or (int(parts[3]), parts[4]) != (_namespace(), socket.gethostname()):
        return False
    try:
        started_s = psutil.Process(int(parts[1])).create_time()
    except psutil.NoSuchProcess:
        return True
    return abs(started_s - int(parts[2])) > _SAME_START_S  # its number is another's by now


def dead_folders() -> list[Path]:
    """Return the folders of private servers whose run was killed, as far as they are this user's."""
    found = Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*")
    return [path for path in found if _is_ours(path) and is_dead(_owner_of(path))]


def remove_folders() -> list[Path]:
    """Delete `dead_folders`, and say so in the log; return them."""
    removed = []
    for path in dead_folders():
        shutil.rmtree(path, ignore_errors=True)  # another run may be at it, too
        removed.append(path)
        _log.warning("removed %s, which a killed run had left", path)
    return removed


def dead_prefixes(client: redis.Redis) -> list[str]:
    """Return the prefixes of keys in a user's Redis whose run was killed.

    Raises:
        redis.RedisError: it does not answer.
    """
    made: Any = client.hgetall(RUNS_KEY)
    return [prefix.decode() for prefix, owner in made.items() if is_dead(owner.decode(errors="replace"))]


def _owner_of(folder: Path) -> str:
    return folder.name.removeprefix(FOLDER_PREFIX).rpartition("+")[0]


def _is_ours(path: Path) -> bool:
    try:
        return not path.is_symlink() and path.is_dir() and path.stat().st_uid == os.getuid()
    except OSError:  # it went meanwhile
        return False


def _namespace() -> int:
    """The pid namespace: containers that share a folder have processes of the same number."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
