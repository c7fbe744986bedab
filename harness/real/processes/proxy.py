"""A real proxy on the path, nginx or HAProxy: it closes connections that are idle, on both sides.

    client ────── round trip ────── [ proxy ] gateway node          at: gateway
    client [ proxy ] ── relay ───── round trip ───── gateway node   at: client (`delay.py`)

From the gateway nodes' ports to the proxy's, a listener a node; its configuration is in the run's logs, its timeout
the scenario's `network.nat.idle_timeout`, as much shorter as the run is faster. It is the box of `network.nat` then,
and the generator makes none (`generator/middlebox.py`).

Both restart their timer for bytes of either direction. nginx sets a timer anew only where that changes it by 300 ms
or more (``NGX_TIMER_LAZY_DELAY``), so it may close up to so much early.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import time
from pathlib import Path
from typing import Literal, get_args

from harness.real.errors import CannotRun
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import quiet_port
from scenarios.network import Network

__all__ = ["PROXIES", "ProxyKind", "check_proxy", "find_proxy", "start_proxy"]

ProxyKind = Literal["nginx", "haproxy"]
PROXIES: tuple[ProxyKind, ...] = get_args(ProxyKind)
_START_DEADLINE_S = 10.0
_ADDRESS = "127.0.0.1"
_SPARE = 64  # descriptors beside two a client


def check_proxy(kind: ProxyKind, network: Network) -> None:
    """Return if the proxy is installed and does what the scenario's box does.

    Raises:
        CannotRun: it is not, or does something else.
    """
    _program(kind)
    nat = network.nat
    if nat is None or (nat.expiry, nat.counts) != ("close", "any"):
        raise CannotRun(
            f"--network {kind}: it counts any packet and closes both sides; allowed: network.nat: "
            "{idle_timeout: …, expiry: close, counts: any}"
        )
    if network.max_age is not None:
        raise CannotRun(f"--network {kind}: network.max_age: it does not close connections for their age")


def start_proxy(
    kind: ProxyKind, children: Children, logs: Path, ports: list[int], idle_s: float, clients: int
) -> tuple[Child, list[int]]:
    """Start a proxy of gateway nodes.

    Args:
        kind: which.
        children: of the run; it becomes one of them.
        logs: where its configuration and its log go.
        ports: of the nodes, on this host.
        idle_s: its timeout, real seconds.
        clients: how many connections it may have to hold.

    Returns:
        the process, and where it listens for each node.

    Raises:
        CannotRun: it is not installed, or does not begin to listen.
    """
    program = _program(kind)
    listens = [quiet_port() for _ in ports]
    config = logs / f"{kind}.conf"
    make = _nginx if kind == "nginx" else _haproxy
    config.write_text(make(list(zip(listens, ports, strict=True)), round(idle_s * 1000), clients, logs))
    argv = {"nginx": ["-p", str(logs), "-c", str(config)], "haproxy": ["-db", "-f", str(config)]}[kind]
    child = children.start(kind, [program, *argv], log=logs / f"{kind}.log")
    deadline_s = time.monotonic() + _START_DEADLINE_S
    while not all(map(_is_open, listens)):
        children.check()
        if time.monotonic() > deadline_s:
            raise CannotRun(f"{kind} does not listen after {_START_DEADLINE_S:g} s: {child.log}")
        time.sleep(0.02)
    return child, listens


def find_proxy(kind: ProxyKind) -> str | None:
    """Find its program; Debian has it where only root's PATH looks."""
    return shutil.which(kind, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def _program(kind: ProxyKind) -> str:
    found = find_proxy(kind)
    if found is None:
        raise CannotRun(f"--network {kind}: no program {kind!r} on the PATH: apt install {kind}")
    return found


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_ADDRESS, port)) == 0


def _sockets(clients: int) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * clients + _SPARE
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _nginx(pairs: list[tuple[int, int]], idle_ms: int, clients: int, logs: Path) -> str:
    servers = "".join(
        f"""
  server {{
    listen {_ADDRESS}:{listens} backlog=4096;
    location / {{
      proxy_pass http://{_ADDRESS}:{port};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout {idle_ms}ms;
      proxy_send_timeout {idle_ms}ms;
    }}
  }}"""
        for listens, port in pairs
    )
    temporary = "".join(
        f"\n  {kind}_temp_path {logs}/nginx-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""{"user root;" if os.geteuid() == 0 else ""}
daemon off;
master_process off;
pid {logs}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile {_sockets(clients)};
events {{ worker_connections {_sockets(clients)}; }}
http {{
  access_log off;{temporary}{servers}
}}
"""


def _haproxy(pairs: list[tuple[int, int]], idle_ms: int, clients: int, logs: Path) -> str:
    proxies = "".join(
        f"""
listen node-{number}
  bind {_ADDRESS}:{listens}
  option forwardfor
  server gateway {_ADDRESS}:{port}
"""
        for number, (listens, port) in enumerate(pairs, 1)
    )
    return f"""global
  maxconn {clients + _SPARE}

defaults
  mode http
  timeout connect 5s
  timeout client {idle_ms}ms
  timeout server {idle_ms}ms
  timeout tunnel {idle_ms}ms
{proxies}"""
