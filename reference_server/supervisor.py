"""Several gateway processes on one WebSocket port: starts them, watches them, ends them all.

From one configuration to a node in a process of its own for each number 1 to N. The kernel spreads connections
over them (SO_REUSEPORT). Restarts nobody: when one dies unasked the others are drained and the exit code is 1,
so that whoever supervises this process finds out.

What differs from node to node:

    node          {node}-1, {node}-2, …; "node-1", … when the configuration names none
    http_port     its own: http_port, http_port + 1, …, or any free one
    event_log, ready_file    with the node's name before the suffix: ready.json, ready-node-1.json
    seed          seed + 1, seed + 2, …

The parent's own ready file says ``port``, ``pid`` and ``nodes``: what each node's ready file says, and its name.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from reference_server.config import GatewayConfig
from reference_server.ready import write_ready

__all__ = ["die_with_parent", "node_config", "supervise"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_START_DEADLINE_S = 30.0
_POLL_S = 0.02
_GRACE_S = 5.0  # from the end of a drain to SIGKILL: Redis and the ledger have theirs meanwhile


def node_config(config: GatewayConfig, number: int, port: int, folder: Path) -> GatewayConfig:
    """Return the configuration of one node.

    Args:
        config: of all of them.
        number: 1 for the first.
        port: the WebSocket port that they share.
        folder: where ready files go when the configuration names none.
    """
    named = "node" in config.model_fields_set
    node = f"{config.node}-{number}" if named else f"node-{number}"
    ready = config.ready_file or folder / "ready.json"
    return config.model_copy(
        update={
            "node": node,
            "port": port,
            "reuse_port": True,
            "http_port": config.http_port and config.http_port + number - 1,
            "ready_file": _of_node(ready, node),
            "event_log": config.event_log and _of_node(config.event_log, node),
            "seed": config.seed + number,
        }
    )


async def supervise(config: GatewayConfig, processes: int) -> int:
    """Run so many nodes until SIGTERM or Ctrl-C; return 0, or 1: one of them ended unasked.

    Raises:
        OSError: the port is in use by something that does not share it.
    """
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    with tempfile.TemporaryDirectory(prefix="flatline-nodes-") as folder, _reserve(config) as sock:
        port = sock.getsockname()[1]
        configs = [node_config(config, n, port, Path(folder)) for n in range(1, processes + 1)]
        nodes: list[Process] = []
        try:
            for each in configs:
                nodes.append(await _start(each))
            return await _watch(config, configs, nodes, ending)
        finally:
            await _end(nodes, config.drain_notice_s + config.drain_timeout_s + _GRACE_S)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the supervisor ends, however that ends; Linux only."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:  # it died before this took effect
        os.kill(os.getpid(), signal.SIGKILL)


def _of_node(path: Path, node: str) -> Path:
    return path.with_name(f"{path.stem}-{node}{path.suffix}")


def _reserve(config: GatewayConfig) -> socket.socket:
    """Bind the port, so that a free one stays ours; without listening: no connection comes here."""
    sock = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((config.host, config.port))
    except OSError:
        sock.close()
        raise
    return sock


async def _start(config: GatewayConfig) -> Process:
    assert config.ready_file is not None
    config.ready_file.unlink(missing_ok=True)
    argv = ("-m", "reference_server", "--config", "-", "--parent", str(os.getpid()))
    node = await asyncio.create_subprocess_exec(sys.executable, *argv, stdin=PIPE)
    assert node.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # its end is noticed where ends are
        node.stdin.write(config.model_dump_json().encode())
        await node.stdin.drain()
    node.stdin.close()
    return node


async def _watch(
    config: GatewayConfig,
    configs: list[GatewayConfig],
    nodes: list[Process],
    ending: asyncio.Event,
) -> int:
    asked = asyncio.create_task(ending.wait())
    ends = [asyncio.create_task(node.wait()) for node in nodes]
    ready = asyncio.create_task(_say_ready(config, configs))
    try:
        await asyncio.wait({asked, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return 0
        for each, end in zip(configs, ends, strict=True):
            if end.done():
                print(f"{each.node} ended unasked, exit code {end.result()}", file=sys.stderr)
        return 1
    finally:
        for task in (asked, ready, *ends):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await ready


async def _say_ready(config: GatewayConfig, configs: list[GatewayConfig]) -> None:
    """Write the parent's ready file when all nodes have written theirs."""
    listed: list[dict[str, Any]] = []
    for each in configs:
        assert each.ready_file is not None
        while not each.ready_file.exists():
            await asyncio.sleep(_POLL_S)
        listed.append({"node": each.node, **orjson.loads(each.ready_file.read_bytes())})
    if config.ready_file is not None:
        ready = {"port": configs[0].port, "pid": os.getpid(), "nodes": listed}
        write_ready(config.ready_file, ready)


async def _end(nodes: list[Process], deadline_s: float) -> None:
    """Drain every node that still runs; kill those that take too long."""
    for node in nodes:
        with suppress(ProcessLookupError):
            node.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.gather(*(node.wait() for node in nodes))
    except TimeoutError:
        for node in nodes:
            if node.returncode is None:
                print(f"process {node.pid} does not end: killed", file=sys.stderr)
                node.kill()
        await asyncio.gather(*(node.wait() for node in nodes))
