"""What a held client costs here and in Tsung: the same clients on the same server, one tool after the other.

    python -m bench.tsung [--clients 10000] [--interval-s 10] [--seconds 20] [--rate 250]

One gateway sends every client a heartbeat each interval and never suspects anybody. Tsung's users have a session
id made beforehand, connect and wait; ours log in, connect, and answer every heartbeat, and each connect is in an
event log. Memory is the generator's resident set per client: less what it was before the first client came, by
when ours has made an object of a kilobyte for each already; and with all of it, which leaves nothing out. CPU is
the generator's, user and system, while all are held, per heartbeat that reached a client. All are of one run on
one machine: figures of different runs or machines do not compare.

What Tsung 1.7 cannot do in this run is said in its row: it answers no application heartbeat (its users think while
the messages come in and are thrown away), so a gateway would take all of them for dead; and its log has sums every
ten seconds, no event of one user, so no fault of one could be timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil

from bench.figures import Figure, add_save, keep
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import redis_server
from harness.runs.directory import RunDir
from reference_server.websocket.listener import raise_descriptor_limit
from scenarios.load import dump_scenario, parse_scenario
from scenarios.plan import make_plan

MOST_MEMORY_RATIO = 0.5
_TICK_S, _PAGE = 1 / os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_LOCUSTFILE = Path(__file__).parents[1] / "harness" / "real" / "generator" / "locustfile.py"
_CONFIG = """<?xml version="1.0"?>
<!DOCTYPE tsung SYSTEM "/usr/share/tsung/tsung-1.0.dtd">
<tsung loglevel="warning" version="1.0">
  <clients><client host="{host}" use_controller_vm="true" maxusers="60000"/></clients>
  <servers><server host="127.0.0.1" port="{port}" type="tcp"/></servers>
  <load duration="3600" unit="second">
    <arrivalphase phase="1" duration="{seconds}" unit="second">
      <users maxnumber="{clients}" arrivalrate="{rate:g}" unit="second"/>
    </arrivalphase>
  </load>
  <options><option name="file_server" id="ids" value="{ids}"/></options>
  <sessions>
    <session name="hold" probability="100" type="ts_websocket">
      <setdynvars sourcetype="file" fileid="ids" delimiter=";" order="iter"><var name="sid"/></setdynvars>
      <request subst="true"><websocket type="connect" path="/ws/%%_sid%%"/></request>
      <thinktime value="3000"/>
      <request><websocket type="close"/></request>
    </session>
  </sessions>
</tsung>
"""


@dataclass(frozen=True)
class Cost:
    bytes: float  # a client
    process_bytes: int  # before the first one
    all_bytes: float  # a client, the process itself included
    cpu_us: float  # a heartbeat that came in


def live(http_port: int) -> int:
    """How many sessions the gateway holds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/api/sessions?per_page=1") as answer:
        return int(json.loads(answer.read())["total"])


def log_in(http_port: int, users: range) -> list[str]:
    """Log users in over one connection; return their tokens."""
    http = HTTPConnection("127.0.0.1", http_port)
    ids = []
    for n in users:
        http.request("POST", "/user/login", json.dumps({"user_id": f"tsung-{n}"}))
        ids.append(json.loads(http.getresponse().read())["token"])
    http.close()
    return ids


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def resident(pid: int) -> int:
    return sum(process.memory_info().rss for process in family(pid))


def cpu_s(pid: int) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in family(pid))


def hold(child: Child, children: Children, http_port: int, options: argparse.Namespace) -> Cost:
    """Wait until a generator holds all clients, and measure it."""
    before = resident(child.pid)
    deadline_s = time.monotonic() + 60 + 3 * options.clients / options.rate
    while (held := live(http_port)) < options.clients:
        children.check()
        if held == 0:
            before = resident(child.pid)  # the last look before the first client
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{child.name}: {held} of {options.clients} came: {child.log}")
        time.sleep(0.2)
    time.sleep(options.interval_s + 1)  # every client has had a heartbeat
    began_s, cpu = time.monotonic(), cpu_s(child.pid)
    time.sleep(options.seconds)
    # The kernel counts in ticks: of few heartbeats there may be none.
    used_s, seconds = max(_TICK_S, cpu_s(child.pid) - cpu), time.monotonic() - began_s
    heartbeats, held_bytes = options.clients * seconds / options.interval_s, resident(child.pid)
    each = max(_PAGE, held_bytes - before) / options.clients
    return Cost(each, before, held_bytes / options.clients, 1e6 * used_s / heartbeats)


def tsung(children: Children, ports: dict[str, int], options: argparse.Namespace, folder: Path) -> Cost:
    """Hold the clients with Tsung."""
    with ThreadPoolExecutor(4) as pool:
        parts = [range(n, options.clients, 4) for n in range(4)]
        found = list(pool.map(lambda users: log_in(ports["http_port"], users), parts))
    ids = folder / "ids.csv"
    ids.write_text("\n".join(one for part in found for one in part) + "\n")
    config = folder / "tsung.xml"
    config.write_text(
        _CONFIG.format(
            host=os.uname().nodename.partition(".")[0],
            port=ports["port"],
            ids=ids,
            clients=options.clients,
            rate=options.rate,
            seconds=round(2 * options.clients / options.rate) + 1,
        )
    )
    # Tsung names its node to a daemon that it would leave behind: it gets one of ours, on another port.
    environment = {"ERL_EPMD_PORT": "14369", "HOME": str(folder)}
    wrap = ["env", *(f"{key}={value}" for key, value in environment.items())]
    daemon = children.start("epmd", [*wrap, "epmd"], log=folder / "epmd.log", may_finish=True)
    argv = [*wrap, "tsung", "-n", "-f", str(config), "-l", str(folder / "log"), "start"]
    child = children.start("tsung", argv, log=folder / "tsung.log", may_finish=True)
    try:
        return hold(child, children, ports["http_port"], options)
    finally:
        children.stop(child, kill=True)
        children.stop(daemon)


def ours(children: Children, ports: dict[str, int], options: argparse.Namespace, folder: Path) -> Cost:
    """Hold the clients with this project's Locust suite, by a plan as `flatline run` has one."""
    ramp_s = options.clients / options.rate
    scenario = parse_scenario(
        f"name: hold\nclients: {options.clients}\nramp: {ramp_s}s\n"
        f"duration: {2 * ramp_s + options.interval_s + options.seconds + 60}s\n"
    )
    run = RunDir(folder / "run")
    run.logs.mkdir(parents=True)
    run.scenario.write_text(dump_scenario(scenario))
    make_plan(scenario).save(run.plan)
    argv = [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"),
        *("--users", str(options.clients), "--spawn-rate", str(options.clients)),
        *("--run-dir", str(run.path), "--ws-url", f"ws://127.0.0.1:{ports['port']}/ws"),
        *("--http-url", f"http://127.0.0.1:{ports['http_port']}"),
    ]
    child = children.start("locust", argv, log=folder / "locust.log", may_finish=True)
    try:
        return hold(child, children, ports["http_port"], options)
    finally:
        children.stop(child, kill=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A held client here and in Tsung.")
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--interval-s", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=250.0, help="clients that come a second")
    add_save(parser)
    options = parser.parse_args()
    if shutil.which("tsung") is None or shutil.which("epmd") is None:
        print("skipped: tsung is not installed (Debian: apt-get install tsung)")
        return 0
    raise_descriptor_limit()
    with (
        tempfile.TemporaryDirectory() as name,
        Children() as children,
        redis_server(None, children, Path(name)) as redis,
    ):
        folder = Path(name)
        ready, config = folder / "ready.json", folder / "config.json"
        policy = {
            "heartbeat_interval": f"{options.interval_s}s",
            "heartbeat_timeout": f"{options.interval_s / 3:.3f}s",
            "max_failures": 100_000,  # Tsung's clients answer nothing
            "session_timeout": None,
        }
        config.write_text(
            json.dumps(
                {
                    "redis_url": redis.url,
                    "policy": policy,
                    "records": {"token_in_path": True},
                    "ready_file": str(ready),
                }
            )
        )
        argv = [sys.executable, "-m", "reference_server", "--config", str(config)]
        children.start("gateway", argv, log=folder / "gateway.log")
        while not ready.exists():
            children.check()
            time.sleep(0.02)
        ports = json.loads(ready.read_text())
        costs = {}
        for tool in (tsung, ours):
            (folder / tool.__name__).mkdir()
            costs[tool.__name__] = tool(children, ports, options, folder / tool.__name__)
            while live(ports["http_port"]):
                time.sleep(0.2)
    return report(costs["tsung"], costs["ours"], options)


def report(theirs: Cost, mine: Cost, options: argparse.Namespace) -> int:
    """Print both and their ratio; return 1 when ours needs too much memory."""
    print(
        f"{options.clients} clients held on one gateway, a heartbeat every {options.interval_s:g} s; "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    print(
        f"{'':8}{'KiB a client':>14}{'with all':>10}{'MiB before':>12}{'µs a heartbeat':>16}   answers, logs"
    )
    for name, cost, can in (("tsung", theirs, "no, no"), ("ours", mine, "yes, yes")):
        print(
            f"{name:8}{cost.bytes / 2**10:14.1f}{cost.all_bytes / 2**10:10.1f}"
            f"{cost.process_bytes / 2**20:12.0f}{cost.cpu_us:16.1f}   {can}"
        )
    memory = max(mine.bytes / theirs.bytes, mine.all_bytes / theirs.all_bytes)
    print(
        f"{'ratio':8}{mine.bytes / theirs.bytes:13.2f}×{mine.all_bytes / theirs.all_bytes:9.2f}×"
        f"{mine.process_bytes / theirs.process_bytes:11.2f}×{mine.cpu_us / theirs.cpu_us:15.2f}×"
    )
    good = memory <= MOST_MEMORY_RATIO
    print(f"limit: at most {MOST_MEMORY_RATIO:g}× Tsung's memory a client: {'met' if good else 'MISSED'}")
    keep(
        options.save,
        "tsung",
        [
            Figure("memory of a client", memory, against="Tsung", most=MOST_MEMORY_RATIO),
            Figure("memory of a client", mine.bytes / 1024, "KiB", f"Tsung's {theirs.bytes / 1024:.1f}"),
            Figure("processor, a heartbeat", mine.cpu_us / theirs.cpu_us, against="Tsung"),
        ],
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
