"""Does the kernel's word on a socket come when the server's own does?

    python -m bench.kernel_witness [--clients 220] [--host ::1]

The reference gateway runs as a target, watched through the kernel like any server, and writes its own event log beside.
Printed: how much later than the gateway's own `socket_closed` the kernel's witness has it, for each faulted client;
over IPv4 and over IPv6. Bound: 5 ms for each, beside what the observer says that it was itself late by.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.figures import Figure, add_save, keep
from harness.events.log import read_log
from harness.real.engine import RealSetup
from harness.run import prepare, run_engines
from harness.runs.directory import RunDir
from reference_server.events import Event, EventKind, Source
from scenarios.load import parse_scenario
from scenarios.target_files import load_target

BOUND_S = 0.005
_ENGINES = ("real",)


def later_s(clients: int, host: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each faulted client whose end both tell of, the kernel's time less the gateway's. Real seconds.

    Beside each how late the observer was then, by its own word.
    """
    target = load_target("reference").model_dump(mode="json")
    for part, key in (("connect", "url"), ("login", "post")):
        target[part][key] = target[part][key].replace("127.0.0.1", f"[{host}]" if ":" in host else host)
    own = {"host": host, "event_log": "{run_dir}/own.jsonl"}
    text = target["start"]["files"]["reference.json"]
    target["start"]["files"]["reference.json"] = text.replace("{", "{" + json.dumps(own)[1:-1] + ",", 1)
    target["heartbeat"] |= {"interval": "1s", "timeout": "500ms"}
    scenario = parse_scenario(
        f"name: kernel-witness\nclients: {clients}\nramp: 3s\nduration: 12s\n"
        "faults: [{kind: network_cut, share: 92%, at: {uniform: {low: 1s, high: 6s}}}]\n",
        target=target,
    )
    run, plan = prepare(scenario, _ENGINES, folder, RealSetup())
    origins: list[float] = []
    run_engines(
        scenario,
        plan,
        run,
        _ENGINES,
        RealSetup(),
        lambda _phase, _done: origins or origins.extend(origin_s(run)),
    )
    events = read_log(*run.logs.glob("*.jsonl")).events
    gateway = {
        one.session_id: one.time_s - origins[0]
        for one in read_log(run.logs / "own.jsonl").events
        if one.kind is EventKind.SOCKET_CLOSED
    }
    session = {one.connection_id: str(one.detail.get("known_as")) for one in events if _is_client(one)}
    kernel = [one for one in events if one.source is Source.OBSERVER and one.kind is EventKind.SOCKET_CLOSED]
    lags = [one for one in events if one.source is Source.OBSERVER and one.kind is EventKind.LOOP_LAG]
    samples = np.array([(one.time_s, one.detail["max_lag_s"]) for one in lags])
    at_s = np.array([one.time_s for one in kernel])
    later = at_s - np.array([gateway[session[one.connection_id]] for one in kernel])
    # A sample is of the time before it; what an observer that was late saw may come after the sample that says so.
    following = np.searchsorted(samples[:-1, 0], at_s)
    return later, np.maximum(samples[following, 1], samples[np.maximum(following - 1, 0), 1])


def origin_s(run: RunDir) -> list[float]:
    """When the observer's clock began, CLOCK_MONOTONIC, from how it was started; nothing before it was."""
    if not run.pids.exists():
        return []
    words = Path(f"/proc/{json.loads(run.pids.read_text())['observer']}/cmdline").read_text().split("\0")
    return [float(words[words.index("--origin-s") + 1])]


def _is_client(event: Event) -> bool:
    return event.source is Source.CLIENT and event.kind is EventKind.CONNECTED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=220)
    parser.add_argument("--host", action="append")
    add_save(parser)
    args = parser.parse_args()
    worst_s = 0.0
    for host in args.host or ["127.0.0.1", "::1"]:
        with tempfile.TemporaryDirectory() as folder:
            found, late = (1000 * one for one in later_s(args.clients, host, Path(folder)))
        worst_s = max(worst_s, float((abs(found) - late).max()) / 1000)
        low, median, high = np.quantile(found, [0, 0.5, 1])
        print(
            f"{host:10} n = {found.size}: {low:.2f} to {high:.2f} ms later, median {median:.2f} ms; "
            f"{(abs(found) <= BOUND_S * 1000).sum()} within {BOUND_S * 1000:g} ms, "
            f"{(abs(found) - late <= BOUND_S * 1000).sum()} with the observer's own lag, largest {late.max():.2f} ms",
            flush=True,
        )
    worst = Figure(
        "the kernel's word, off by at most, less the observer's lag",
        worst_s * 1000,
        "ms",
        "the gateway's own log",
        most=BOUND_S * 1000,
    )
    sys.exit(not keep(args.save, "kernel_witness", [worst]))


if __name__ == "__main__":
    main()
