"""Does every query of the dashboards return data? `python -m bench.dashboards`, with a real Prometheus.

Runs a scenario with a live page, has Prometheus (`apt install prometheus`) scrape the page and the gateways once a
second, and asks it every query of `examples/grafana-*.json` before the clients come to their end. Prints what each
returned; exit code 1 where one returned nothing. Without Prometheus it says so, and that is all.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from bench.figures import Figure, add_save, keep
from harness.real.processes.children import Children
from harness.real.processes.redis import quiet_port
from harness.runs.directory import RunDir, find_run

EXAMPLES = Path(__file__).parents[1] / "examples"
SCENARIO = """
name: dashboards
seed: 3
clients: 200
ramp: 40s
duration: 260s
speedup: 10
gateway: {nodes: 2}
liveness: {heartbeat_interval: 30s, heartbeat_timeout: 10s, max_failures: 2, resume_window: 20s}
faults:
  - {kind: orderly_close, share: 10%, at: {uniform: {low: 10s, high: 150s}}}
  - {kind: frozen, share: 20%, at: {uniform: {low: 10s, high: 150s}}}
"""
RATE_WINDOW, ENOUGH = "10s", 0.9
PATIENCE_S = 90.0


def queries(dashboard: Path) -> Iterator[tuple[str, str]]:
    """Yield (panel, query) of a dashboard of Grafana's."""
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], re.sub(r"\$__(rate_)?interval", RATE_WINDOW, target["expr"])


def read(url: str) -> Any:
    with urlopen(url, timeout=5) as answer:
        return json.loads(answer.read())


def ask(prometheus: str, query: str) -> list[tuple[dict[str, str], float]]:
    """Return the series of a query and the last value of each that is a number."""
    now = time.time()
    asked = urlencode({"query": query, "start": now - 60, "end": now, "step": 1})
    found = []
    for series in read(f"{prometheus}/api/v1/query_range?{asked}")["data"]["result"]:
        values = [float(value) for _, value in series["values"]]
        if numbers := [value for value in values if not math.isnan(value)]:
            found.append((series["metric"], numbers[-1]))
    return found


def config(page: int, run: RunDir) -> str:
    """Return Prometheus' configuration: that of the examples, with this run's addresses."""
    text = (EXAMPLES / "prometheus.yml").read_text()
    assert run.gateway_configs(), "no gateway"
    nodes = [run.node_ports(one.node) for one in run.gateway_configs()]
    gateways = ", ".join(f'"127.0.0.1:{ports.http_port}"' for ports in nodes if ports is not None)
    return text.replace('"127.0.0.1:8090"', f'"127.0.0.1:{page}"').replace('"127.0.0.1:8766"', gateways)


def wait_for(what: str, found: Any) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not found():
        if time.monotonic() > until_s:
            raise SystemExit(f"{what}: not in {PATIENCE_S:g} s")
        time.sleep(0.2)


def is_far(page: int) -> bool:
    try:
        now = read(f"http://127.0.0.1:{page}/liveness/data")
    except OSError:
        return False
    return bool(now["phase"] == "real" and now["done"] >= ENOUGH)


def main() -> int:
    """Run, scrape, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_save(parser)
    given = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        print("no prometheus on the PATH (apt install prometheus): nothing was tried")
        return 0
    with tempfile.TemporaryDirectory() as folder, Children() as children:
        here = Path(folder)
        (here / "dashboards.yaml").write_text(SCENARIO)
        page, port = quiet_port(), quiet_port()
        argv = [
            sys.executable,
            "-m",
            "harness",
            "run",
            str(here / "dashboards.yaml"),
            "--real-only",
            "--ledger",
        ]
        argv += ["--runs", str(here / "runs"), "--live-page", str(page), "--allow-undecided"]
        run = children.start("flatline", argv, log=here / "flatline.log", may_finish=True, stop_deadline_s=60)
        wait_for("the run", lambda: (here / "runs/latest/logs/pids.json").exists())
        (here / "prometheus.yml").write_text(config(page, find_run("latest", here / "runs")))
        tool = shutil.which("promtool")
        if tool is not None:
            subprocess.run(
                [tool, "check", "config", str(here / "prometheus.yml")], check=True, capture_output=True
            )
        argv = [program, f"--config.file={here / 'prometheus.yml'}", f"--storage.tsdb.path={here / 'tsdb'}"]
        children.start(
            "prometheus", [*argv, f"--web.listen-address=127.0.0.1:{port}"], log=here / "prometheus.log"
        )
        wait_for("nine tenths of the run", lambda: is_far(page) or run.returncode is not None)
        empty = 0
        for dashboard in sorted(EXAMPLES.glob("grafana-*.json")):
            print(f"\n{dashboard.name}")
            for panel, query in queries(dashboard):
                found = ask(f"http://127.0.0.1:{port}", query)
                empty += not found
                shown = ", ".join(
                    f"{'/'.join(v for k, v in names.items() if k not in ('__name__', 'job')) or 'all'} {value:.4g}"
                    for names, value in found[:4]
                )
                print(
                    f"  {'ok' if found else 'NOTHING':8}{panel}: {query}\n{'':10}{len(found)} series: {shown}"
                )
        print(f"\n{empty} queries returned nothing")
        figures = [Figure("queries without an answer", float(empty), "", "all of the dashboards'", most=0)]
        return int(not keep(given.save, "dashboards", figures))


if __name__ == "__main__":
    sys.exit(main())
