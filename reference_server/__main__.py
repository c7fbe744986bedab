"""``python -m reference_server --config FILE --preset NAME``: one gateway process, until SIGTERM or Ctrl-C.

``--processes N`` runs N of them on one WebSocket port (`supervisor.py`).

From a JSON file (``-``: standard input), laid over a preset where one is named, to a gateway that listens;
then the ready file says on which ports.
The whole configuration is `reference_server.config.GatewayConfig`; nothing is read from the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import orjson

from reference_server.api.http import HttpServer
from reference_server.config import GatewayConfig
from reference_server.gateway import Gateway
from reference_server.ledger.rows import LedgerUnfit
from reference_server.presets import find_preset, laid_over, load_presets
from reference_server.ready import write_ready
from reference_server.session_log import configure_logging
from reference_server.supervisor import die_with_parent, supervise
from reference_server.websocket.listener import listen, raise_descriptor_limit

__all__ = ["main"]


_BAD_CONFIG = 2


async def _serve(config: GatewayConfig) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    gateway = Gateway(config)
    http = HttpServer(gateway)
    http_sock = listen(config.host, config.http_port)
    port = await gateway.start()
    await http.begin(http_sock)
    if config.ready_file is not None:
        ports = {"port": port, "http_port": http_sock.getsockname()[1], "pid": os.getpid()}
        write_ready(config.ready_file, ports)
    await ending.wait()
    await gateway.drain()
    await http.end()  # last: until then health says why


def _tame_collector() -> None:
    """Spare the loop the collector's pauses.

    A full collection looks at every object: with 10,000 connections a stall of 0.1 s. What lives from
    here on is never looked at, and full collections come a thousand times more rarely; connections do
    not need them, they are taken apart when they end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 1000)


def main() -> None:
    """Run a gateway."""
    parser = argparse.ArgumentParser(prog="reference_server", description="Run one gateway.")
    parser.add_argument("--config", help="JSON file; -: standard input")
    parser.add_argument("--preset", help=f"begin with one of {', '.join(load_presets())}")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="nodes on one WebSocket port, node-1 to node-N, an HTTP port each",
    )  # fmt: skip
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parent is not None:
        die_with_parent(options.parent)
    source = options.config or f"--preset {options.preset}"
    if options.config is None and options.preset is None:
        parser.error("say what to run: --config, --preset, or both")
    if options.processes < 1:
        parser.error(f"--processes {options.processes}: at least 1")
    try:
        config = _read(options.config, options.preset)
    except (OSError, ValueError) as error:  # of JSON and of the configuration, too
        print(f"{source}: {error}", file=sys.stderr)
        sys.exit(_BAD_CONFIG)
    configure_logging(config.log_format, config.log_level)
    if options.processes > 1:
        try:
            sys.exit(asyncio.run(supervise(config, options.processes)))
        except OSError as error:
            print(f"{source}: port {config.port} of {config.host}: {error}", file=sys.stderr)
            sys.exit(_BAD_CONFIG)
    raise_descriptor_limit()
    _tame_collector()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_serve(config))
        except LedgerUnfit as error:
            print(f"{source}: {error}", file=sys.stderr)
            sys.exit(_BAD_CONFIG)


def _read(source: str | None, preset: str | None) -> GatewayConfig:
    text = (
        "{}" if source is None else sys.stdin.read() if source == "-" else Path(source).read_text()
    )
    if preset is None:
        return GatewayConfig.model_validate_json(text)
    keys = laid_over(find_preset(preset).gateway_keys, orjson.loads(text))
    return GatewayConfig.model_validate_json(orjson.dumps(keys))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not to be had on this system: slower, but the same
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
