"""The observer as the engine sees it: whether a target can be run here, its start, and when its server is ready."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import redis

from harness.real.dialects import check_options, find_dialect
from harness.real.errors import CannotRun
from harness.real.processes.children import Child, Children
from harness.real.targets.describe import attached_port, lacking
from harness.real.targets.sock_diag import sock_diag_works
from harness.real.tls import check_insecure, client_context
from harness.runs.directory import RunDir
from scenarios.target import Target, filled

__all__ = ["check_target", "start_observer", "wait_ready"]

_POLL_S = 0.02
_STORE_DEADLINE_S = 2.0
_SPARE_S = 3.0  # beyond the server's own grace


def check_target(target: Target, network: str = "loopback", hosts: int = 0) -> None:
    """Return if a target can be run here.

    Raises:
        CannotRun: a program or package is missing, its network is not supported, or a witness cannot see anything.
        DialectError: no such dialect, or options that it does not know.
    """
    dialect = find_dialect(target.dialect_name, Path(target.folder))
    check_options(dialect, target.dialect_options)
    if network != "loopback" or hosts:
        raise CannotRun(
            f"--network {network}, --hosts {hosts}: a target runs on loopback, from this host alone"
        )
    if missing := lacking(target):
        raise CannotRun("; ".join(missing))
    host = urlsplit(target.connect.url).hostname
    if not target.connect.verifies:
        check_insecure([target.connect.url], "connect.verifies: false")
    if target.connect.url.startswith("wss:"):
        client_context(filled(target.connect.ca, {"here": target.folder}))
    if target.start is not None and host not in ("127.0.0.1", "localhost", "::1"):
        raise CannotRun(f"connect.url: {host}; allowed: a server that is started here is on 127.0.0.1")
    if target.start is None:
        try:
            attached_port(target)
        except ValueError as error:
            raise CannotRun(f"connect.url: {error}") from error
    if target.login is not None:
        at = urlsplit(filled(target.login.post, {"port": 1, "http_port": 1})).hostname
        if at != host and at not in ("127.0.0.1", "localhost", "::1"):
            raise CannotRun(f"login.post: {at} is another host than that of connect.url, {host}")
    if target.witnesses.socket_closed == "kernel":
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise CannotRun(
                f"witnesses.socket_closed: the kernel of {host} is another one; write `socket_closed: null`"
            )
        if not sock_diag_works():
            raise CannotRun(
                "witnesses.socket_closed: this kernel has no sock_diag; write `socket_closed: null`"
            )
    _check_store(target)
    if target.witnesses.suspected is not None and target.start is None:
        raise CannotRun(
            "witnesses.suspected: the output of a server that runs already goes elsewhere; write null"
        )


def _check_store(target: Target) -> None:
    """Return if the store of a target's witness is there, or will be."""
    record = target.witnesses.store_cleared
    if record is None:
        return
    private = target.start is not None and "redis" in target.start.services
    if "{redis_url}" in record.redis:
        if not private:
            raise CannotRun(
                "witnesses.store_cleared.redis: {redis_url} is that of `start.services: [redis]`; write the "
                "URL of yours"
            )
        return
    try:
        with redis.Redis.from_url(record.redis, socket_timeout=_STORE_DEADLINE_S) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise CannotRun(f"witnesses.store_cleared.redis: no answer: {error}") from error


def start_observer(
    children: Children,
    target: Target,
    run: RunDir,
    origin_s: float,
    ports: tuple[int, int],
    redis_url: str = "",
) -> Child:
    """Start the observer, which starts the server: its words are in `observer.log`, the server's in `target.log`."""
    argv = [sys.executable, "-m", "harness.real.targets.observer", "--run-dir", str(run.path)]
    argv += ["--origin-s", repr(origin_s), "--port", str(ports[0]), "--http-port", str(ports[1])]
    argv += ["--redis-url", redis_url]
    deadline_s = target.stop.grace + _SPARE_S
    return children.start("target", argv, log=run.logs / "observer.log", stop_deadline_s=deadline_s)


def wait_ready(children: Children, target: Target, run: RunDir) -> int | None:
    """Wait until the server is ready; return its process id, None where it is not ours.

    Raises:
        CannotRun: it is not ready in time.
        ChildDied: it has ended.
    """
    deadline_s = time.monotonic() + target.ready.within
    while not run.ready_file("target").exists():
        children.check()
        if time.monotonic() > deadline_s:
            log = run.logs / "target.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""
            raise CannotRun(
                f"{target.target} is not ready after {target.ready.within:g} s (ready: {target.ready.model_dump()}); "
                f"its output so far, {log}:\n{tail or '(nothing)'}"
            )
        time.sleep(_POLL_S)
    pid = run.read_json(run.ready_file("target"))["pid"]
    return None if pid is None else int(pid)
