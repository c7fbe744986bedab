"""Locust's web UI with our tab and page, in a real browser, over a run that a person starts in it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import orjson
import pytest

from harness.real.processes.children import Children
from harness.runs.directory import RunDir
from tests.browser.cdp import browser, find_chromium
from tests.reference_server.gateways import run, until
from tests.support import missing, require_silence

pytestmark = [pytest.mark.real, pytest.mark.root, pytest.mark.alone]

CLIENTS = 20
SCENARIO = """
name: tab
seed: 3
duration: 200s
speedup: 10
liveness: {heartbeat_interval: 6s, heartbeat_timeout: 2s, max_failures: 3, resume_window: 4s}
faults: [{kind: host_crash, share: 50%, at: {uniform: {low: 5s, high: 10s}}}]
"""
TABLE = """[...document.querySelectorAll("table tbody tr")].map((row) =>
  [...row.cells].map((cell) => cell.innerText.trim()).filter(Boolean).join("|")
)"""
DETECTED = f"({TABLE}).find((row) => row.startsWith('suspected|host_crash|heartbeat|10'))?.slice(0, 33)"
LINES = "[...document.querySelectorAll('.plot path')].map((line) => line.dataset.key)"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def test_the_tab_and_the_page_show_a_run_while_it_goes_on(tmp_path: Path) -> None:
    require_silence()
    program = find_chromium()
    if program is None:
        missing("needs Chromium: apt install chromium")
    (tmp_path / "tab.yaml").write_text(SCENARIO)
    ws, http, web = free_port(), free_port(), free_port()
    runs = tmp_path / "runs"

    async def scenario(children: Children) -> None:
        python = (sys.executable, "-m")
        children.start(
            "serve",
            [
                *python,
                "harness",
                "serve",
                str(tmp_path / "tab.yaml"),
                "--port",
                str(ws),
                "--http-port",
                str(http),
                "--runs",
                str(runs),
            ],
            log=tmp_path / "serve.log",
        )
        await until(lambda: answers(f"http://127.0.0.1:{http}/healthz"), "the gateway", 30)
        (served,) = runs.glob("*tab*")
        children.start(
            "locust",
            [
                *python,
                "locust",
                "-f",
                "harness/real/generator/locustfile.py",
                "--web-host",
                "127.0.0.1",
                "--web-port",
                str(web),
                "--run-dir",
                str(served),
                "--ws-url",
                f"ws://127.0.0.1:{ws}/ws",
                "--http-url",
                f"http://127.0.0.1:{http}",
            ],
            log=tmp_path / "locust.log",
        )
        page_url = f"http://127.0.0.1:{web}"
        await until(lambda: answers(page_url), "Locust's web UI", 30)
        async with browser(program, children, tmp_path) as chromium:
            form = urlencode({"user_count": CLIENTS, "spawn_rate": 2 * CLIENTS}).encode()
            with urlopen(f"{page_url}/swarm", data=form, timeout=10) as answer:
                assert orjson.loads(answer.read())["success"], "Locust does not start"
            tab = await chromium.open(f"{page_url}/?tab=liveness")
            await tab.until(DETECTED, "suspected|host_crash|heartbeat|10", 30)
            page = await chromium.open(f"{page_url}/liveness")
            await page.until(f"({LINES}).join()", "live,in_store,faults,detected,ghosts,losses", 15)
            await page.until(DETECTED, "suspected|host_crash|heartbeat|10", 15)
            # The last ghost goes when the resume window of the last suspect is over.
            await page.until(f"({TABLE}).includes('ghosts|host_crash|0')", True, 15)
        assert len([*RunDir(served).logs.glob("client-*.jsonl")]) == 1

    with Children() as children:
        run(scenario(children))
