"""Are our clients noticed as real ones are? python-socketio's clients and ours on one Socket.IO server in one run.

    python -m bench.real_clients [--clients 100] [--interval-s 2]

The server (Node, unchanged) prints whom it gives up. Real clients connect over one interval and are stopped all at once
(SIGSTOP); ours freeze, each at a moment of its own. Printed: how long each silence lasted until the server's line, both
samples' range and median, and the two-sample Kolmogorov-Smirnov test. Exit code 1 where p is below 0.001.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from scipy import stats

from bench.figures import Figure, add_save, keep
from bench.kernel_witness import origin_s
from harness.events.log import read_log
from harness.real.engine import RealSetup
from harness.real.processes.redis import quiet_port
from harness.real.targets import describe
from harness.run import prepare, run_engines
from reference_server.events import EventKind
from scenarios.load import parse_scenario
from scenarios.target_files import bundled_targets, load_target, parse_target

LEAST_P = 0.001
_ENGINES = ("real",)
_SERVER = bundled_targets()["socketio"].parent / "node" / "serve_socketio.js"
_TARGET = """
target: there
connect: {{url: "ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket&client={{client}}"}}
dialect: engineio
heartbeat: {{model: ping_deadline, interval: {interval}, timeout: {interval}}}
witnesses: {{socket_closed: kernel}}
"""
_SCENARIO = """
name: real-clients
clients: {clients}
ramp: {interval}s
duration: {duration}s
faults: [{{kind: frozen, share: 100%, at: {{uniform: {{low: {interval}s, high: {later}s}}}}}}]
"""


class Server:
    """The server, and when it gave whom up: CLOCK_MONOTONIC by the client's name. End it by ``close``."""

    def __init__(self, port: int, interval_s: float) -> None:
        ms = str(round(interval_s * 1000))
        self._process = subprocess.Popen(
            ["node", str(_SERVER), str(port), ms, ms], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.gone_s: dict[str, float] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if found := re.match(r"gone (\S+) ping timeout", line):
                self.gone_s[found[1]] = time.monotonic()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


async def be_real(port: int, clients: int, spread_s: float) -> None:
    """Real clients, each on its own, in this process: to be stopped."""
    import socketio

    async def come(number: int) -> socketio.AsyncClient:
        await asyncio.sleep(spread_s * number / clients)
        client = socketio.AsyncClient(reconnection=False)
        await client.connect(f"http://127.0.0.1:{port}?client=real{number}", transports=["websocket"])
        return client

    held = await asyncio.gather(*(come(number) for number in range(clients)))
    print(len(held), flush=True)
    await asyncio.Event().wait()


def silences_s(clients: int, interval_s: float, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return how long the silence of each real client lasted, and of each of ours. Seconds."""
    port = quiet_port()
    server = Server(port, interval_s)
    words = [sys.executable, "-m", "bench.real_clients", "--be-real", str(port)]
    words += ["--clients", str(clients), "--interval-s", str(interval_s)]
    real = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    stopped_s: list[float] = []
    origins_s: list[float] = []

    def stop_once(_phase: str, _done: float | None) -> None:
        origins_s.extend([] if origins_s else origin_s(run))
        if origins_s and not stopped_s and time.monotonic() > origins_s[0] + 3 * interval_s:
            real.send_signal(signal.SIGSTOP)
            stopped_s.append(time.monotonic())

    try:
        assert real.stdout is not None
        assert int(real.stdout.readline()) == clients
        told = {
            "clients": clients,
            "interval": interval_s,
            "later": 2 * interval_s,
            "duration": 8 * interval_s,
        }
        target = parse_target(_TARGET.format(port=port, interval=interval_s)).model_dump(mode="json")
        scenario = parse_scenario(_SCENARIO.format(**told), target=target)
        run, plan = prepare(scenario, _ENGINES, folder, RealSetup())
        run_engines(scenario, plan, run, _ENGINES, RealSetup(), stop_once)
        froze_s = {
            one.connection_id: one.time_s + origins_s[0]
            for one in read_log(*run.logs.glob("*.jsonl")).events
            if one.kind is EventKind.FAULT_INJECTED
        }
        ours = [server.gone_s[name] - at_s for name, at_s in froze_s.items() if name in server.gone_s]
        theirs = [at_s - stopped_s[0] for name, at_s in server.gone_s.items() if name.startswith("real")]
        return np.array(theirs), np.array(ours)
    finally:
        os.kill(real.pid, signal.SIGKILL)
        real.wait()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--interval-s", type=float, default=2.0)
    parser.add_argument("--be-real", type=int, metavar="PORT", help=argparse.SUPPRESS)
    add_save(parser)
    args = parser.parse_args()
    if args.be_real:
        asyncio.run(be_real(args.be_real, args.clients, args.interval_s))
    if lacking := describe.lacking(load_target("socketio")):
        print("; ".join(lacking) + ": nothing was tried")
        return
    with tempfile.TemporaryDirectory() as folder:
        theirs_s, ours_s = silences_s(args.clients, args.interval_s, Path(folder))
    for name, sample_s in (("python-socketio", theirs_s), ("ours", ours_s)):
        low, median, high = np.quantile(sample_s, [0, 0.5, 1])
        print(f"{name:16} n = {sample_s.size}: {low:.2f} to {high:.2f} s, median {median:.2f} s")
    test = stats.ks_2samp(theirs_s, ours_s)
    print(f"two-sample Kolmogorov-Smirnov: D = {test.statistic:.3f}, p = {test.pvalue:.3f}")
    ratio = Figure(
        "median silence of our clients",
        float(np.median(ours_s) / np.median(theirs_s)),
        against="python-socketio",
    )
    same = Figure("Kolmogorov-Smirnov of both, p", float(test.pvalue), "", "python-socketio", least=LEAST_P)
    sys.exit(not keep(args.save, "real_clients", [ratio, same]))


if __name__ == "__main__":
    main()
