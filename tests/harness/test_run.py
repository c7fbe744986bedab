"""The main job with real sockets: small scenarios, bounds from the formula plus the ε that the run measured."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import orjson
import pandas as pd
import psutil
import pytest

from harness.conclude import Outcome, conclude
from harness.real.engine import RealSetup
from harness.run import run
from harness.runs.directory import RunDir, find_run
from reference_server.errors import Exit
from reference_server.events import EventKind
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.load import parse_scenario
from scenarios.schema import Scenario
from tests.support import is_gone, require_silence, wait_until

pytestmark = [pytest.mark.real, pytest.mark.root, pytest.mark.alone, pytest.mark.timeout(180)]

# T = 0.6 s of real time; T_D in [14, 20) s of scenario time.
POLICY = "liveness: {heartbeat_interval: 6s, heartbeat_timeout: 2s, max_failures: 3, resume_window: 4s}\n"


def scenario(text: str, **overrides: Any) -> Scenario:
    base = "name: small\nseed: 3\nclients: 40\nramp: 10s\nduration: 45s\nspeedup: 10\n"
    return parse_scenario(base + POLICY + text, **overrides)


def measured(directory: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(directory / f"{name}.csv", keep_default_na=False, na_values={"duration_s": [""]})


def rows(directory: Path, milestone: str = "suspected", engine: str = "real") -> pd.DataFrame:
    table = measured(directory, "detections")
    return table[(table["engine"] == engine) & (table["milestone"] == milestone)]


def latest(root: Path) -> Path:
    return find_run("latest", root).path


def summary(directory: Path) -> dict[str, Any]:
    return RunDir(directory).read_json(directory / "summary.json")


@pytest.fixture(autouse=True)
def _silence() -> None:
    require_silence()


@pytest.mark.usefixtures("pictures")
def test_host_crash_three_ways(tmp_path: Path) -> None:
    """Every detection within [lo - ε, hi + ε], nobody else thrown out, the data unacknowledged."""
    text = "faults: [{kind: host_crash, share: 75%, at: {uniform: {low: 8s, high: 18s}}}]\n"
    text += "reconnect: {relogin: {after: 0s, retry: 1s}}\nsessions: {second_login: refuse}\n"
    outcome = run(scenario(text), root=tmp_path)
    directory = latest(tmp_path)
    assert outcome.exit_code in (Exit.GOOD, Exit.UNSOUND), outcome
    epsilon = summary(directory)["epsilon_s"]
    for engine in ("real", "simulated"):
        seen = rows(directory, engine=engine)
        assert len(seen) == 30
        assert set(seen["outcome"]) == {"detected"}
        assert set(seen["cause"]) == {"heartbeat"}
        slack = epsilon if engine == "real" else 0.01
        assert seen["duration_s"].between(14 - slack, 20 + slack).all(), seen["duration_s"].describe()
    for milestone in ("socket_closed", "store_cleared", "peers_notified", "locked_out"):
        later = rows(directory, milestone)
        assert set(later["outcome"]) == {"detected"}, milestone
        assert (later["duration_s"].to_numpy() >= rows(directory)["duration_s"].to_numpy() - epsilon).all()
    false = measured(directory, "false_suspicions")
    assert (false["count"] == 0).all()
    tcp = measured(directory, "tcp_info").query("engine == 'real'")
    assert tcp["unacked_share"].tolist() == [1.0]
    assert tcp["retransmitted_share"].tolist() == [1.0]
    for name in ("report.html", "report.md", "summary.json", "qos.csv", "agreement.csv"):
        assert (directory / name).stat().st_size > 0


def test_each_fault_is_caught_by_its_layer(tmp_path: Path) -> None:
    at = "at: {uniform: {low: 8s, high: 16s}}"
    text = f"""faults:
  - {{kind: orderly_close, share: 10%, {at}}}
  - {{kind: refresh, share: 10%, {at}}}
  - {{kind: process_crash, name: fin, share: 10%, {at}}}
  - {{kind: process_crash, name: rst, by: rst, share: 10%, {at}}}
  - {{kind: frozen, share: 10%, {at}}}
  - {{kind: nat_timeout, name: nat_kept, share: 10%, {at}, nat: {{idle_timeout: 8s}}}}
  - {{kind: nat_timeout, name: nat_lost, share: 10%, {at}, nat: {{idle_timeout: 4s}}}}
  - {{kind: nat_timeout, name: nat_reset, share: 10%, {at}, nat: {{idle_timeout: 4s, expiry: reset}}}}
"""
    outcome = run(scenario(text), engines=("theory", "real"), root=tmp_path, setup=RealSetup(ledger=True))
    directory = latest(tmp_path)
    assert outcome.exit_code in (Exit.GOOD, Exit.UNSOUND), outcome
    epsilon = summary(directory)["epsilon_s"]
    seen = rows(directory)
    causes = {fault: set(group["cause"]) for fault, group in seen.groupby("fault")}
    assert causes["orderly_close"] == {"close_frame"}
    assert causes["refresh"] == {"close_frame"}
    assert causes["fin"] == {"tcp_fin"}
    assert causes["rst"] == {"tcp_reset"}
    assert causes["frozen"] == {"heartbeat"}
    assert causes["nat_lost"] == {"heartbeat"}
    assert causes["nat_reset"] == {"tcp_reset"}
    assert set(seen.loc[seen["fault"] == "nat_kept", "outcome"]) == {"not_applicable"}
    # (T - N) + (k-1)R + tau = 2 + 12 + 2, not random
    assert seen.loc[seen["fault"] == "nat_lost", "duration_s"].between(16 - epsilon, 16 + epsilon).all()
    assert seen.loc[seen["fault"] == "nat_reset", "duration_s"].between(2 - epsilon, 2 + epsilon).all()
    assert seen.loc[seen["fault"].isin(["fin", "rst", "refresh"]), "duration_s"].between(0, epsilon).all()
    frozen = measured(directory, "tcp_info").query("fault == 'frozen'")
    assert frozen["unacked_share"].tolist() == [0.0]
    refreshed = rows(directory, "store_cleared").query("fault == 'refresh'")
    assert set(refreshed["outcome"]) == {"recovered"}
    quality = measured(directory, "session_quality").set_index("figure")
    audited = quality.loc["ledger_inconsistencies"]
    assert (audited["count"], audited["note"]) == (0, "")
    assert audited["denominator"] >= 40  # each client's session


def test_a_new_login_takes_over_from_a_dead_client(tmp_path: Path) -> None:
    """Nobody is locked out, and the take-over catches the dead client before any heartbeat does."""
    text = "faults: [{kind: host_crash, share: 50%, at: {uniform: {low: 8s, high: 14s}}}]\n"
    text += "reconnect: {relogin: {after: 3s, retry: 1s}}\nsessions: {second_login: take_over}\n"
    outcome = run(scenario(text), root=tmp_path)
    directory = latest(tmp_path)
    assert outcome.exit_code in (Exit.GOOD, Exit.UNSOUND), outcome
    for engine in ("real", "simulated"):
        seen = rows(directory, engine=engine)
        assert set(seen["cause"]) == {"take_over"}
        # The try comes 3 s after the fault. For real seven loops are passed on the way, each of which may lag:
        # the client's timer, the login and its answer, the handshake and its answer, the authentication,
        # the store's answer. The model knows one round trip.
        told = summary(directory)
        late_s = 7 * told["epsilon_s"] if engine == "real" else told["round_trip_s"]
        assert seen["duration_s"].between(3, 3 + late_s).all(), seen["duration_s"].describe()
        locked = rows(directory, "locked_out", engine=engine)
        assert (locked["duration_s"] == 0).all()


def test_a_gateway_with_another_policy_turns_the_agreement_red(tmp_path: Path) -> None:
    """Negative control: k = 2 under a scenario that says 3."""
    text = "faults: [{kind: host_crash, share: 50%, at: {uniform: {low: 8s, high: 14s}}}]\n"
    told = scenario(text)
    other = told.liveness.model_copy(update={"max_failures": 2})
    outcome = run(told, engines=("theory", "real"), root=tmp_path, setup=RealSetup(gateway_policy=other))
    agreement = measured(latest(tmp_path), "agreement")
    failed = agreement[(agreement["milestone"] == "suspected") & (agreement["verdict"] == "fail")]
    assert "range" in set(failed["figure"])
    assert outcome.exit_code in (Exit.MISSED, Exit.UNSOUND), outcome


HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Running:
    """`flatline run` as a user starts it, without figures."""

    def __init__(self, root: Path, text: str, *, terminal: bool = False) -> None:
        self.root, self._terminal, self._shown = root, terminal, bytearray()
        file = root / "small.yaml"
        root.mkdir(exist_ok=True)
        base = "seed: 3\nclients: 40\nramp: 10s\nduration: 45s\nspeedup: 10\n"
        file.write_text(base + POLICY + text)
        argv = [sys.executable, "-m", "tests.without_pictures", "run", str(file), "--runs", str(root)]
        screen, out = pty.openpty() if terminal else (None, subprocess.PIPE)
        self.process = subprocess.Popen(
            [*argv, "--live-page", "0"] if terminal else argv,
            stdout=out,
            stderr=out if terminal else subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | ({"TERM": "xterm"} if terminal else {}),
        )
        if screen is not None:
            os.close(out)
            self._reader = threading.Thread(target=self._read, args=(screen,), daemon=True)
            self._reader.start()

    def _read(self, screen: int) -> None:
        with suppress(OSError):  # EIO: the last one has closed its end
            while True:
                self._shown += os.read(screen, 65536)

    @property
    def shown(self) -> str:
        """What a terminal has been sent so far."""
        return self._shown.decode(errors="replace")

    @property
    def run(self) -> RunDir:
        return find_run("latest", self.root)

    def pids(self) -> dict[str, int]:
        wait_until(lambda: (self.root / "latest" / "logs" / "pids.json").exists(), "processes", 60)
        found: dict[str, int] = orjson.loads((self.run.logs / "pids.json").read_bytes())
        return found

    def wait_for(self, kind: str) -> None:
        def logged() -> bool:
            return any(kind.encode() in p.read_bytes() for p in self.run.logs.glob("client-*.jsonl"))

        wait_until(logged, kind, 60)

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def end(self, timeout_s: float = 90) -> tuple[int, str]:
        if self._terminal:
            self.process.wait(timeout_s)
            self._reader.join(timeout_s)
            return self.process.returncode, self.shown
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output


CRASH = "faults: [{kind: host_crash, share: 50%, at: {uniform: {low: 8s, high: 14s}}}]\n"


def test_ctrl_c_ends_every_child_and_reports_what_was_measured(tmp_path: Path) -> None:
    """On a terminal, with the live page."""
    running = Running(tmp_path, CRASH, terminal=True)
    running.pids()
    running.wait_for("fault_injected")
    (url,) = re.findall(r"live page: (http://127\.0\.0\.1:\d+/liveness)", running.shown)

    def now() -> dict[str, Any]:
        with urlopen(f"{url}/data", timeout=5) as answer:
            found: dict[str, Any] = orjson.loads(answer.read())
            return found

    wait_until(lambda: now()["injected"] > 0, "a fault on the page", 20)
    assert (now()["phase"], now()["clients"], now()["losses"]) == ("real", 40, 0)
    wait_until(lambda: "faults" in running.shown, "a fault on the terminal", 20)
    children = running.children()
    assert len(children) >= 4  # redis, gateway, store watch, locust
    running.process.send_signal(signal.SIGINT)
    code, output = running.end()
    assert code == Exit.INTERRUPTED, output
    assert output.rfind(SHOW_CURSOR) > output.rfind(HIDE_CURSOR) > 0
    with pytest.raises(URLError):
        now()
    assert all(is_gone(pid) for pid in children)
    assert summary(running.run.path)["status"] == "partial"
    assert "partial" in (running.run.path / "report.html").read_text().lower()
    assert len(rows(running.run.path)) == 20


def test_a_killed_run_leaves_no_child_and_its_log_can_be_reported(tmp_path: Path) -> None:
    running = Running(tmp_path, CRASH)
    running.pids()
    running.wait_for("fault_injected")
    children = running.children()
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: all(is_gone(pid) for pid in children), "the children end by themselves")
    conclude(running.run)
    assert summary(running.run.path)["status"] == "partial"
    assert (rows(running.run.path)["injected_at_s"] != "").any()


def run_and(
    told: Scenario, root: Path, kind: EventKind, act: Callable[[dict[str, int]], None]
) -> tuple[Outcome, dict[str, int]]:
    """Run it; do something to its processes, by their names, once a client has logged such an event."""
    pids: dict[str, int] = {}

    def look(_phase: str, _done: float) -> None:
        logs = find_run("latest", root).client_logs()
        if not pids and any(f'"kind":"{kind}"'.encode() in log.read_bytes() for log in logs):
            pids.update(find_run("latest", root).read_json(find_run("latest", root).pids))
            act(pids)

    return run(told, root=root, progress=look), pids


def test_a_stopped_gateway_still_has_the_store_watch_see_its_rows(tmp_path: Path) -> None:
    """The store's own TTL clears the records; the gateway's word is not needed for it."""
    told = scenario(CRASH)
    liveness = {"resume_window": LivenessPolicy().resume_window, "session_ttl": 20.0, "status_ttl": 20.0}
    told = told.model_copy(update={"liveness": told.liveness.model_copy(update=liveness)})

    def stop(pids: dict[str, int]) -> None:
        os.kill(pids["gateway/node-1"], signal.SIGSTOP)

    outcome, _ = run_and(told, tmp_path, EventKind.FAULT_INJECTED, stop)
    assert outcome.exit_code != Exit.GOOD, outcome
    cleared = rows(latest(tmp_path), "store_cleared")
    assert (cleared["outcome"] == "detected").any(), outcome
    assert (rows(latest(tmp_path))["outcome"] != "detected").all()


def test_a_stalled_generator_makes_the_run_unsound(tmp_path: Path) -> None:
    def stall(pids: dict[str, int]) -> None:
        generator = psutil.Process(pids["generator"])
        generator.suspend()
        wait_until(lambda: generator.status() == psutil.STATUS_STOPPED, "it stops")
        stopped_s = time.monotonic()
        wait_until(lambda: time.monotonic() - stopped_s > 0.5, "half a second of stall")
        generator.resume()

    outcome, _ = run_and(scenario(CRASH), tmp_path, EventKind.FAULT_INJECTED, stall)
    assert outcome.exit_code == Exit.UNSOUND, outcome
    assert "generator" in summary(latest(tmp_path))["unsound_reasons"][0]
