"""An hour of comings and goings: does the gateway grow, keep descriptors, or say anything?

    python -m bench.soak [--minutes 60] [--clients 2000] [--storms 0]

A real run of the scenario below, with a ledger: a box on the way closes each connection when it is four minutes old,
networks fail for seconds, pages are reloaded, clients crash, freeze and leave; about half of those who come back do so
too late for their session and log in again. Once a minute a line says what the gateway, the store watch and Redis hold.
Exit 1 unless, from the tenth minute on, the memory of gateway and store watch stays within 2 % (range, and trend
over the time), their descriptors do not grow, and the gateway's log has no line at all (it logs warnings and worse).

Memory once used is seldom given back: whoever storms the gateway (`--storms N`: everybody is cut off at once, N times
evenly over the run) raises it to what the largest crowd at its door takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import redis

from harness.real.engine import RealSetup
from harness.real.resources import RepeatingThread, usage_of
from harness.run import run
from harness.runs.directory import RunDir
from scenarios.load import parse_scenario

MOST_GROWTH = 0.02
WARM_S = 600.0
_EVERY_S = 60.0
_JUDGED = ("gateway", "store-watch")
_PROGRAMS = {
    "reference_server": "gateway",
    "harness.real.store_watch.process": "store-watch",
    "harness.real.generator": "clients",
}
_SCENARIO = """
name: soak
clients: {clients}
ramp: {ramp_s}s
duration: {length_s}s
liveness: {{heartbeat_interval: 15s, heartbeat_timeout: 5s, max_failures: 2, resume_window: 0.5s,
           session_ttl: 10m, status_ttl: 5m}}
network:
  max_age: 4m
  outages: {{every: 15m, length: {{uniform: {{low: 2s, high: 20s}}}}}}
traffic:
  to_gateway: {{every: {{exponential: {{mean: 30s}}}}, bytes: 100}}
  to_client: {{every: {{exponential: {{mean: 30s}}}}, bytes: 100}}
faults:
  - {{kind: refresh, share: 20%, at: &any {{uniform: {{low: 0s, high: {last_s}s}}}}}}
  - {{kind: frozen, share: 10%, at: *any, thaw_after: {{uniform: {{low: 5s, high: 120s}}}}}}
  - {{kind: network_cut, share: 10%, at: *any, heal_after: {{uniform: {{low: 5s, high: 120s}}}}}}
  - {{kind: process_crash, share: 4%, at: *any}}
  - {{kind: host_crash, share: 4%, at: *any}}
  - {{kind: orderly_close, share: 2%, at: *any}}
incidents: [{storms}]
"""


@dataclass(frozen=True)
class Minute:
    """What there was at one moment: resident bytes and descriptors by process, Redis, lines of the gateway's log."""

    at_s: float
    rss: dict[str, int]
    descriptors: dict[str, int]
    beside: dict[str, int]  # of them, those that are no established connection: what a leak would raise
    cpu: dict[str, float]  # percent of a core since the minute before
    keys: int
    redis_bytes: int
    lines: int

    def __str__(self) -> str:
        held = ", ".join(
            f"{role} {rss / (1 << 20):.1f} MiB, {self.descriptors[role]} descriptors "
            f"({self.beside[role]} beside connections), {self.cpu[role]:.0f} % CPU"
            for role, rss in sorted(self.rss.items())
        )
        redis_mib = self.redis_bytes / (1 << 20)
        return f"{self.at_s / 60:5.1f} min: {held}; Redis {self.keys} keys, {redis_mib:.1f} MiB; {self.lines} lines"


class Notebook(RepeatingThread):
    """Notes once a minute, from when the run has its directory."""

    def __init__(self, every_s: float, tell: Callable[[str], None]) -> None:
        super().__init__(self._note, every_s)
        self.minutes: list[Minute] = []
        self.run: RunDir | None = None
        self._tell = tell
        self._known: dict[int, psutil.Process] = {}
        self._began_s = time.monotonic()

    def _note(self) -> None:
        config = None if self.run is None else self.run.logs / "gateway-node-1.json"
        if self.run is None or config is None or not config.exists():
            return
        rss, descriptors, beside, cpu = {}, {}, {}, {}
        for process in psutil.Process().children(recursive=True):
            known = self._known.setdefault(process.pid, process)
            try:
                role = next((to for word, to in _PROGRAMS.items() if word in known.cmdline()), None)
                if role is None:
                    continue
                used = usage_of(known)
                connected = sum(one.status == psutil.CONN_ESTABLISHED for one in known.net_connections("tcp"))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            for found, value in (
                (rss, used["rss_bytes"]),
                (descriptors, used["descriptors"]),
                (beside, used["descriptors"] - connected),
                (cpu, used["cpu_percent"]),
            ):
                found[role] = found.get(role, 0) + value
        try:
            with redis.Redis.from_url(json.loads(config.read_text())["redis_url"]) as client:
                keys, redis_bytes = client.dbsize(), client.info("memory")["used_memory"]
        except redis.RedisError:
            return  # the run has ended
        lines = len((self.run.logs / "gateway-node-1.log").read_text().splitlines())
        at_s = time.monotonic() - self._began_s
        self.minutes.append(Minute(at_s, rss, descriptors, beside, cpu, keys, redis_bytes, lines))
        self._tell(str(self.minutes[-1]))


def what_grew(minutes: list[Minute], warm_s: float) -> list[str]:
    """Judge what was noted after the warm-up: sentences about what is not as it should be, and print the figures."""
    wrong = []
    late = [
        one for one in minutes if one.at_s >= warm_s and all(role in one.rss for role in _PROGRAMS.values())
    ]
    if len(late) < 6:
        return [f"{len(late)} looks after the warm-up, at least 6 are needed"]
    at_s = np.array([one.at_s for one in late])
    for role in _JUDGED:
        rss = np.array([one.rss[role] for one in late], dtype=float)
        middle, span_s = float(np.median(rss)), at_s[-1] - at_s[0]
        width = float(np.ptp(rss)) / middle
        trend = float(np.polyfit(at_s, rss, 1)[0]) * span_s / middle
        print(
            f"{role}: {middle / (1 << 20):.1f} MiB, range {width:.2%}, trend {trend:+.2%} in {span_s / 60:.0f} min"
        )
        if max(width, abs(trend)) > MOST_GROWTH:
            wrong.append(f"the memory of {role} is not flat within {MOST_GROWTH:.0%}")
        fds = [one.beside[role] for one in late]
        # What a leak has taken is there at each look. A socket that is being closed is not, and one that connects
        # between the two counts is one too few.
        usual, least = float(np.median(fds[: len(fds) // 3])), min(fds[-(len(fds) // 3) :])
        print(
            f"{role}: {usual:g} descriptors beside connections in the first third, at least {least} in the last"
        )
        if least > usual:
            wrong.append(f"{role} has more descriptors than in the first third")
    if late[-1].lines:
        wrong.append(f"{late[-1].lines} lines in the gateway's log")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="An hour of comings and goings.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--storms", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    length_s = 60 * options.minutes
    ramp_s = length_s / 30
    apart_s = (length_s - ramp_s) / (options.storms + 1)
    scenario = parse_scenario(
        _SCENARIO.format(
            clients=options.clients,
            ramp_s=ramp_s,
            length_s=length_s - ramp_s,
            last_s=(length_s - ramp_s) * 0.95,
            storms=", ".join(
                f"{{kind: reconnect_storm, name: storm_{n}, at: {{constant: {n * apart_s}s}}}}"
                for n in range(1, options.storms + 1)
            ),
        )
    )
    every_s = min(_EVERY_S, length_s / 30)
    with Notebook(every_s, lambda line: print(line, flush=True)) as notes:

        def began(directory: RunDir, *_: object) -> None:
            notes.run = directory

        outcome = run(
            scenario,
            engines=("theory", "real"),
            root=options.runs,
            setup=RealSetup(ledger=True),
            began=began,
            warn=print,
        )
    print(outcome.headline, *outcome.lines, sep="\n")
    wrong = what_grew(notes.minutes, min(WARM_S, length_s / 3))
    print(*wrong or ["flat, and nothing said"], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
