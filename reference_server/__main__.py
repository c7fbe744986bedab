"""``python -m reference_server --config FILE --preset NAME``: one gateway process, until SIGTERM or Ctrl-C.

From a JSON file (``-``: standard input), laid over a preset where one is named, to a gateway that listens;
then the ready file says on which ports.
The whole configuration is `reference_server.config.GatewayConfig`; nothing is read from the environment. Several
nodes on one WebSocket port are several such processes with ``reuse_port``; who starts them watches them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool

sys.modules["opentelemetry"] = None  # type: ignore[assignment]  # redis-py would import it, a sixth of the start

from reference_server.api.http import HttpServer
from reference_server.config import GatewayConfig
from reference_server.gateway import Gateway
from reference_server.ledger.rows import LedgerUnfit
from reference_server.presets import find_preset, load_presets, merged
from reference_server.session_log import configure_logging
from reference_server.websocket.listener import listen, raise_descriptor_limit

__all__ = ["main"]

_BAD_CONFIG = 2


async def _serve(config: GatewayConfig) -> str | None:
    """Run one gateway until it is told to end; return why it could not start, or None."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    try:
        gateway = Gateway(config)
    except OSError as error:  # of its certificate
        return str(error)
    loop.add_signal_handler(signal.SIGHUP, _read_certificate, gateway)
    http = HttpServer(gateway)
    # It loads anyio, which serves files: 0.15 s, of somebody's heartbeats if it were done at the first file.
    await run_in_threadpool(os.getpid)
    try:
        http_sock = listen(config.host, config.http_port)
        port = await gateway.start()
    except (OSError, LedgerUnfit) as error:  # a port in use, a ledger of another make
        return str(error)
    await http.begin(http_sock)
    if config.ready_file is not None:
        ports = {"port": port, "http_port": http_sock.getsockname()[1], "pid": os.getpid()}
        _write_ready(config.ready_file, ports)
    await ending.wait()
    await gateway.drain()
    await http.end()  # last: until then health says why
    return None


def _read_certificate(gateway: Gateway) -> None:
    try:
        gateway.read_certificate()
    except OSError as error:
        logging.getLogger(__name__).error("SIGHUP: the older certificate stays: %s", error)


def _write_ready(path: Path, ports: dict[str, int]) -> None:
    """Write the ready file in one step: whoever sees it can read all of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(orjson.dumps(ports))
    draft.replace(path)


def _tame_collector() -> None:
    """Spare the loop the collector's pauses.

    A full collection looks at every object: with 10,000 connections a stall of 0.1 s. What lives from
    here on is never looked at, and full collections all but never come; connections do not need them,
    they are taken apart when they end. The others come often, so that each has little to look at.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 1, 100_000)


def main() -> None:
    """Run a gateway."""
    parser = argparse.ArgumentParser(prog="reference_server", description="Run one gateway.")
    parser.add_argument("--config", help="JSON file; -: standard input")
    parser.add_argument("--preset", help=f"begin with one of {', '.join(load_presets())}")
    options = parser.parse_args()
    source = options.config or f"--preset {options.preset}"
    if options.config is None and options.preset is None:
        parser.error("say what to run: --config, --preset, or both")
    try:
        config = _read(options.config, options.preset)
    except (OSError, ValueError) as error:  # of JSON and of the configuration, too
        print(f"{source}: {error}", file=sys.stderr)
        sys.exit(_BAD_CONFIG)
    configure_logging(config.log_format, config.log_level)
    raise_descriptor_limit()
    _tame_collector()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        problem = runner.run(_serve(config))
    if problem is not None:
        print(f"{source}: {problem}", file=sys.stderr)
        sys.exit(_BAD_CONFIG)


def _read(source: str | None, preset: str | None) -> GatewayConfig:
    text = "{}" if source is None else sys.stdin.read() if source == "-" else Path(source).read_text()
    if preset is None:
        return GatewayConfig.model_validate_json(text)
    keys = merged(find_preset(preset).gateway_keys, orjson.loads(text))
    return GatewayConfig.model_validate_json(orjson.dumps(keys))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not to be had on this system: slower, but the same
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
