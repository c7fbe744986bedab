"""A long way between a proxy and the gateway: a relay that hands bytes on half a round trip later, in each direction.

    client ── [ proxy ] ── relay ────── half a round trip ────── gateway node

    python -m harness.real.processes.delay --scenario FILE LISTEN=PORT [LISTEN=PORT ...]

From the law of `network.round_trip` to a delay for each piece of bytes; they stay in order. An end of stream is
handed on as late as bytes are. Its kernel acknowledges for the other end, as a proxy's does: a silence of the peer is
not seen through it, only missing answers are.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from harness.real.errors import CannotRun
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import quiet_port
from scenarios.distributions import Distribution
from scenarios.load import load_scenario

__all__ = ["start_delay"]

_ADDRESS = "127.0.0.1"
_START_DEADLINE_S = 20.0
_CHUNK = 1 << 16
_READY = "listens"


def start_delay(children: Children, logs: Path, scenario: Path, ports: list[int]) -> tuple[Child, list[int]]:
    """Start the relay of gateway nodes.

    Args:
        children: of the run; it becomes one of them.
        logs: where its own log goes.
        scenario: the run's file, with the law of the round trip.
        ports: of the nodes, on this host.

    Returns:
        the process, and where it listens for each node.

    Raises:
        CannotRun: it does not begin to listen.
    """
    listens = [quiet_port() for _ in ports]
    pairs = [f"{here}={there}" for here, there in zip(listens, ports, strict=True)]
    argv = [sys.executable, "-m", __name__, "--scenario", str(scenario), *pairs]
    child = children.start("delay", argv, log=logs / "delay.log")
    deadline_s = time.monotonic() + _START_DEADLINE_S
    while _READY not in child.log_tail():
        children.check()
        if time.monotonic() > deadline_s:
            raise CannotRun(f"the relay does not listen after {_START_DEADLINE_S:g} s: {child.log}")
        time.sleep(0.02)
    return child, listens


class _Relay:
    def __init__(self, round_trip: Distribution, seed: int) -> None:
        self._round_trip = round_trip
        self._rng = np.random.default_rng(seed)

    async def serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection to a port."""
        try:
            there_reader, there_writer = await asyncio.open_connection(_ADDRESS, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand on what is read, each piece as late as its draw says, behind those before it."""
        loop = asyncio.get_running_loop()
        due_s = 0.0
        data = b"begun"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:  # reset
                data = b""
            due_s = max(due_s, loop.time() + float(self._round_trip.sample(self._rng, 1)[0]) / 2)
            loop.call_at(due_s, partial(_hand_on, writer, data))


def _hand_on(writer: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(OSError, RuntimeError):  # the other direction has ended it
        if data:
            writer.write(data)
        else:
            writer.close()


async def _main(relay: _Relay, pairs: list[tuple[int, int]]) -> None:
    for listens, port in pairs:
        await asyncio.start_server(partial(relay.serve, port), _ADDRESS, listens, backlog=4096)
    print(_READY, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Relay until it is told to end."""
    parser = argparse.ArgumentParser(description="Hand bytes on half a round trip later.")
    parser.add_argument("--scenario", required=True)
    parser.add_argument("pairs", nargs="+", metavar="LISTEN=PORT")
    options = parser.parse_args()
    told = load_scenario(options.scenario)
    pairs = [(int(here), int(there)) for here, _, there in (pair.partition("=") for pair in options.pairs)]
    asyncio.run(_main(_Relay(told.network.round_trip, told.seed), pairs))


if __name__ == "__main__":
    main()
