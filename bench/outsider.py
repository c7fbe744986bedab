"""Two bundled servers measured by somebody else's few lines, and by flatline: do the quantiles agree?

    python -m bench.outsider [--clients 100] [--interval-s 2]

The outsider has raw sockets and nothing of flatline's: it shakes hands, answers pings, falls silent at a moment of its
own for each client, and reads the server's output. Then flatline runs the same target. Printed: median and 90 %
quantile with exact 95 % intervals (order statistics) of the outsider, beside flatline's, and the two-sample
Kolmogorov-Smirnov test. Exit code 1 where p is below 0.001.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from scipy.stats import binom, ks_2samp

from bench.figures import Figure, add_save, keep
from harness.conclude import measure_run
from harness.real.engine import RealSetup
from harness.real.targets import describe
from harness.run import prepare, run_engines
from scenarios.load import parse_scenario
from scenarios.target_files import load_target

TARGETS = ("uvicorn", "ws")
QUANTILES = (0.5, 0.9)
LEAST_P = 0.001
_HERE = Path(__file__).resolve().parents[1] / "scenarios" / "targets"


def command(name: str, port: int, interval_s: float) -> tuple[list[str], str]:
    """How the server is started, and its path; as its documentation says."""
    if name == "ws":
        node = shutil.which("node") or "node"
        return [
            node,
            str(_HERE / "node/serve_ws.js"),
            str(port),
            str(round(interval_s * 1000)),
        ], "/?client=c{}x1"
    words = (
        f"-m uvicorn echo_asgi:app --host 127.0.0.1 --port {port} --log-level warning --ws websockets-sansio"
    )
    words += f" --ws-ping-interval {interval_s} --ws-ping-timeout {interval_s} --app-dir"
    return [sys.executable, "-u", *words.split(), str(_HERE)], "/ws?client=c{}x1"


class Client:
    """A raw socket that has shaken hands; silent from a moment on."""

    def __init__(self, port: int, path: str, silent_s: float) -> None:
        self.silent_s = silent_s
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.bytes = b""
        while b"\r\n\r\n" not in self.bytes:
            self.bytes += self.socket.recv(4096)
        self.bytes = self.bytes.partition(b"\r\n\r\n")[2]

    def answer(self) -> None:
        """Read what there is; answer each ping with a pong, masked by zeros."""
        self.bytes += self.socket.recv(4096)
        while len(self.bytes) >= 2 and len(self.bytes) >= 2 + (length := self.bytes[1] & 127):
            kind, payload = self.bytes[0] & 15, self.bytes[2 : 2 + length]
            self.bytes = self.bytes[2 + length :]
            if kind == 9:
                self.socket.sendall(bytes([0x8A, 0x80 | length, 0, 0, 0, 0]) + payload)


def silences_s(name: str, clients: int, interval_s: float, seed: int) -> list[float]:
    """How long each client had been silent when the server said that it is gone, sorted. Seconds."""
    rng = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words, path = command(name, port, interval_s)
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=_HERE)
    assert server.stdout is not None
    gone_s: dict[int, float] = {}

    def read() -> None:
        for line in server.stdout or ():
            if found := re.match(r"gone c(\d+)x1", line):
                gone_s[int(found[1])] = time.monotonic()

    threading.Thread(target=read, daemon=True).start()
    try:
        deadline_s = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        begin_s = time.monotonic()
        held, watch = {}, selectors.DefaultSelector()
        for number in range(clients):
            time.sleep(max(0.0, begin_s + interval_s * number / clients - time.monotonic()))
            silent_s = begin_s + rng.uniform(2 * interval_s, 4 * interval_s)
            held[number] = client = Client(port, path.format(number), silent_s)
            watch.register(client.socket, selectors.EVENT_READ, client)
        while time.monotonic() < begin_s + 7.5 * interval_s and len(gone_s) < clients:
            for key, _ in watch.select(0.005):
                if time.monotonic() >= key.data.silent_s:
                    watch.unregister(key.fileobj)
                else:
                    key.data.answer()
        return sorted(at_s - held[number].silent_s for number, at_s in gone_s.items())
    finally:
        server.kill()
        server.wait()


def flatlines_s(name: str, clients: int, interval_s: float, folder: Path) -> list[float]:
    """The same by flatline: real seconds until its log witness tells of each."""
    target = load_target(name).model_dump(mode="json")
    target["heartbeat"]["interval"] = f"{interval_s}s"
    if target["heartbeat"].get("timeout"):
        target["heartbeat"]["timeout"] = f"{interval_s}s"
    scenario = parse_scenario(
        f"name: outsider\nclients: {clients}\nramp: {interval_s}s\nduration: {7 * interval_s}s\n"
        "faults: [{kind: frozen, share: 100%, at: {uniform: "
        f"{{low: {interval_s}s, high: {3 * interval_s}s}}}}}}]\n",
        target=target,
    )
    run, plan = prepare(scenario, ("real",), folder, RealSetup())
    run_engines(scenario, plan, run, ("real",), RealSetup())
    seen = measure_run(run).tables.table("detections")
    seen = seen[
        (seen["engine"] == "real") & (seen["milestone"] == "suspected") & (seen["outcome"] == "detected")
    ]
    return sorted(float(one) for one in seen["duration_s"])


def interval(ranked: list[float], share: float) -> tuple[float, float]:
    """The exact 95 % interval of a quantile, from order statistics."""
    low, high = (int(binom.ppf(p, len(ranked), share)) for p in (0.025, 0.975))
    return ranked[max(low - 1, 0)], ranked[min(high, len(ranked) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--interval-s", type=float, default=2.0)
    add_save(parser)
    args = parser.parse_args()
    if lacking := [one for name in TARGETS for one in describe.lacking(load_target(name))]:
        print("; ".join(lacking) + ": nothing was tried")
        return
    figures = []
    for name in TARGETS:
        theirs_s = silences_s(name, args.clients, args.interval_s, seed=1)
        with tempfile.TemporaryDirectory() as folder:
            ours_s = flatlines_s(name, args.clients, args.interval_s, Path(folder))
        for share in QUANTILES:
            low_s, high_s = interval(theirs_s, share)
            mine_s = ours_s[int(share * len(ours_s))]
            print(
                f"{name:8} {share:.0%}: outsider {theirs_s[int(share * len(theirs_s))]:.2f} s "
                f"({low_s:.2f} to {high_s:.2f}; n = {len(theirs_s)}), flatline {mine_s:.2f} s (n = {len(ours_s)})"
            )
        test = ks_2samp(theirs_s, ours_s)
        print(f"{name:8} D = {test.statistic:.3f}, p = {test.pvalue:.3f}")
        half = theirs_s[len(theirs_s) // 2]
        figures += [
            Figure(
                f"{name}: median silence",
                float(ours_s[len(ours_s) // 2] / half),
                against="an outsider's clock",
            ),
            Figure(
                f"{name}: Kolmogorov-Smirnov, p", float(test.pvalue), "", "an outsider's clock", least=LEAST_P
            ),
        ]
    sys.exit(not keep(args.save, "outsider", figures))


if __name__ == "__main__":
    main()
