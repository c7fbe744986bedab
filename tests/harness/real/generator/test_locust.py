"""The suite under plain Locust, with Locust's own options, against a gateway that somebody else started."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import pytest

from harness.events.log import read_log
from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer, quiet_port
from reference_server.errors import Exit
from reference_server.events import Event, EventKind
from tests.reference_server.apart import start
from tests.support import is_gone, wait_until

pytestmark = pytest.mark.real

LOCUSTFILE = Path(__file__).parents[4] / "harness" / "real" / "generator" / "locustfile.py"
POLICY = {"heartbeat_interval": "0.5s", "heartbeat_timeout": "0.2s", "max_failures": 3}
SCENARIO = f"""name: plain
duration: 60s
liveness: {json.dumps(POLICY)}
faults: [{{kind: process_crash, share: 50%, at: {{uniform: {{low: 0s, high: 500ms}}}}}}]
thresholds: ["detection_latency{{fault=process_crash}}.max < 1ms"]
"""  # nothing is that fast: a threshold that is missed


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "scenario.yaml").write_text(SCENARIO)
    return tmp_path / "run"


@pytest.fixture
def gateway(
    private_redis: RedisServer, key_prefix: str, run_dir: Path, tmp_path: Path
) -> Iterator[dict[str, int]]:
    """A gateway that logs into the run directory, as one of `flatline serve` does."""
    origin_s = time.monotonic()
    logs = run_dir / "logs"
    (logs / "gateway-node-1.json").write_text(json.dumps({"origin_s": origin_s}))
    with Children() as children:
        _, ports = start(
            children,
            private_redis,
            key_prefix,
            tmp_path,
            policy=POLICY,
            origin_s=origin_s,
            event_log=str(logs / "gateway-node-1.jsonl"),
        )
        yield ports


QUICK = """
from harness.real.generator import locustfile
locustfile._SILENT_S = 5
from harness.real.generator.locustfile import LivenessClient
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """The suite, with a master that takes workers for dead in half the time."""
    path = tmp_path / "quick.py"
    path.write_text(QUICK)
    return path


def locust(
    ports: dict[str, int],
    run_dir: Path,
    *arguments: str,
    program: tuple[str, str] = ("-m", "locust"),
    locustfile: Path = LOCUSTFILE,
) -> subprocess.Popen[str]:
    argv = [
        *(sys.executable, *program, "-f", str(locustfile), "--headless", "--only-summary"),
        *("--ws-url", f"ws://127.0.0.1:{ports['port']}/ws"),
        *("--http-url", f"http://127.0.0.1:{ports['http_port']}", "--run-dir", str(run_dir)),
        *arguments,
    ]
    # Options may come by the environment, too, as for any of Locust's.
    environment = os.environ | {"LOCUST_USERS": "12", "LOCUST_SPAWN_RATE": "12"}
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=run_dir.parent,
        start_new_session=True,
    )


def late_worker(port: str) -> subprocess.Popen[str]:
    """A worker for a master whose run has begun, as soon as it knows that."""
    argv = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker", "--master-port", port]
    late = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert late.stdout is not None
    if not any("has begun without this worker" in line for line in late.stdout):
        raise AssertionError(f"the worker ended, with {late.wait()}")
    return late


def two_workers(ports: dict[str, int], run_dir: Path, locustfile: Path) -> tuple[subprocess.Popen[str], str]:
    """Begin a run that nobody judges, of 12 clients in two processes; its master's port, too."""
    (run_dir / "scenario.yaml").write_text(f"duration: 60s\nliveness: {json.dumps(POLICY)}\n")
    (run_dir / "logs" / "gateway-node-1.json").unlink()  # of an unknown origin
    port = str(quiet_port())
    what = ("-t", "300s", "--processes", "2", "--master-port", port, "--master-bind-port", port)
    return locust(ports, run_dir, *what, locustfile=locustfile), port


def logged(run_dir: Path, kind: EventKind, which: str = "client-*.jsonl") -> list[Event]:
    events = read_log(*sorted((run_dir / "logs").glob(which))).events
    return [event for event in events if event.kind is kind]


def test_a_missed_threshold_is_locusts_exit_code(
    gateway: dict[str, int], run_dir: Path, tmp_path: Path
) -> None:
    """Faults, request events and the horizon, by -u, -r and -t alone."""
    process = locust(gateway, run_dir, "-t", "2s", "--csv", str(tmp_path / "stats"))
    output, _ = process.communicate(timeout=60)
    # No store watch logs here: without all of its witnesses a run says nothing, however it came out.
    assert process.returncode == Exit.UNSOUND, output
    assert "has no end" not in output, "the gateway goes on, and so does its log"
    thresholds = (run_dir / "thresholds.csv").read_text()
    assert "process_crash" in thresholds
    assert len(logged(run_dir, EventKind.FAULT_INJECTED)) == 6
    with (tmp_path / "stats_stats.csv").open() as file:
        rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}
    assert rows["WSC", "connect"]["Request Count"] == "12"
    # One every 0.5 s of 2 s: at most 4 and the first; of the six healthy ones, there for 1 s, one at least.
    assert 6 <= int(rows["WSR", "heartbeat"]["Request Count"]) <= 60


def test_a_shape_sends_clients_away_and_brings_them_back(gateway: dict[str, int], run_dir: Path) -> None:
    """The load rises sixfold and falls again; whoever leaves does so in order."""
    (run_dir / "scenario.yaml").write_text(f"duration: 60s\nliveness: {json.dumps(POLICY)}\n")
    (run_dir / "logs" / "gateway-node-1.json").unlink()  # of an unknown origin: nothing is judged
    process = locust(gateway, run_dir, "-t", "4s", "--shape", "spike")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    connected = [event.detail["client"] for event in logged(run_dir, EventKind.CONNECTED)]
    assert sorted(connected) == list(range(12))
    ends = [event.cause for event in logged(run_dir, EventKind.SUSPECTED, "gateway-*.jsonl")]
    # Back from twelve to two; these two live until the process ends, which is no part of the run.
    assert ends[:10] == ["close_frame"] * 10
    assert set(ends[10:]) <= {"tcp_fin", "tcp_reset"}


def test_workers_share_the_plan_and_one_that_dies_is_told(gateway: dict[str, int], run_dir: Path) -> None:
    """The others go on as before; Locust, whose minute of patience is two seconds here, would begin anew with them."""
    (run_dir / "scenario.yaml").write_text(f"duration: 60s\nliveness: {json.dumps(POLICY)}\n")
    port = str(quiet_port())
    ports = ("--master-port", port, "--master-bind-port", port)
    impatient = "from locust import main, runners; runners.HEARTBEAT_DEAD_INTERNAL = -2; main.main()"
    what = ("-t", "60s", "--processes", "2", "-u", "11", "-r", "3", *ports)
    process = locust(gateway, run_dir, *what, program=("-c", impatient))
    try:
        wait_until(lambda: len(logged(run_dir, EventKind.CONNECTED)) == 11, "all clients", 30)
        logs = sorted((run_dir / "logs").glob("client-*.jsonl"))
        clients = [{event.detail["client"] for event in _connected(log)} for log in logs]
        assert {frozenset(mine) for mine in clients} == {
            frozenset(range(0, 11, 2)),
            frozenset(range(1, 11, 2)),
        }
        begun = logged(run_dir, EventKind.RUN_STARTED)
        assert len({event.time_s for event in begun}) == 1  # one time zero for all
        pid = int(logs[0].stem.removeprefix("client-"))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: logged(run_dir, EventKind.WORKER_LOST, "harness-*.jsonl"), "the loss", 30)
        (lost,) = logged(run_dir, EventKind.WORKER_LOST, "harness-*.jsonl")
        assert lost.detail["clients"] == len(clients[0])
        time.sleep(6)
        ends = {event.cause for event in logged(run_dir, EventKind.SUSPECTED, "gateway-*.jsonl")}
        assert ends, "those of the dead worker"
        assert "close_frame" not in ends, "and nobody else was told to go"
        family = [process.pid, *_children(process.pid)]
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: all(is_gone(pid) for pid in family), "nobody is left", 10)


@pytest.mark.parametrize(
    ("rate", "came"), [("1", 1), ("12", 12)], ids=["while they come", "when all are there"]
)
def test_a_worker_that_comes_late_has_no_part_and_moves_nobody(
    rate: str, came: int, gateway: dict[str, int], run_dir: Path
) -> None:
    (run_dir / "scenario.yaml").write_text(f"duration: 60s\nliveness: {json.dumps(POLICY)}\n")
    (run_dir / "logs" / "gateway-node-1.json").unlink()  # of an unknown origin: nothing is judged
    port = str(quiet_port())
    what = ("-t", "60s", "--processes", "2", "-r", rate, "--master-port", port, "--master-bind-port", port)
    process = locust(gateway, run_dir, *what, "--enable-rebalancing")
    late: subprocess.Popen[str] | None = None
    try:
        wait_until(lambda: len(logged(run_dir, EventKind.CONNECTED)) >= came, "the first clients", 30)
        late = late_worker(port)
        wait_until(lambda: len(_clients(logged(run_dir, EventKind.CONNECTED))) == 12, "all clients", 30)
        time.sleep(1.5)
        logs = sorted((run_dir / "logs").glob("client-*.jsonl"))
        clients = [_clients(_connected(log)) for log in logs]
        assert sorted(clients, key=min) == [set(range(0, 12, 2)), set(range(1, 12, 2))]
        ends = {event.cause for event in logged(run_dir, EventKind.SUSPECTED, "gateway-*.jsonl")}
        assert "close_frame" not in ends, "nobody was told to go"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert late.wait(30) == 0
        assert output.count("Sending spawn jobs") == 1, "each time all others stand still for a moment"
    finally:
        for one in filter(None, (process, late)):
            one.kill()
            print(one.communicate()[0])


@pytest.mark.parametrize("late", [False, True], ids=["alone", "beside one that came late"])
def test_a_run_whose_workers_are_all_dead_is_over(
    late: bool, gateway: dict[str, int], run_dir: Path, quick: Path
) -> None:
    process, port = two_workers(gateway, run_dir, quick)
    idle: subprocess.Popen[str] | None = None
    try:
        wait_until(lambda: len(logged(run_dir, EventKind.CONNECTED)) == 12, "all clients", 30)
        if late:
            idle = late_worker(port)
        for log in sorted((run_dir / "logs").glob("client-*.jsonl"), reverse=True):
            os.kill(int(log.stem.removeprefix("client-")), signal.SIGKILL)
            time.sleep(1.2)  # so that its master takes one for dead after the other, the first that came last
        output, _ = process.communicate(timeout=60)
        assert output.count("died, and 6 clients with it") == 2, output
        lost = logged(run_dir, EventKind.WORKER_LOST, "harness-*.jsonl")
        assert [event.detail["clients"] for event in lost] == [6, 6]
        assert "Unhandled exception" not in output
        assert process.returncode == Exit.MACHINE_CANNOT
        assert "has no workers any more" in output
        assert idle is None or idle.wait(30) == 0
    finally:
        for one in filter(None, (process, idle)):
            one.kill()
            print(one.communicate()[0])


def test_a_worker_that_was_taken_for_dead_carries_the_run_on(
    gateway: dict[str, int], run_dir: Path, quick: Path
) -> None:
    """One is silent for a while and told dead, then the other dies: the first has its clients still."""
    process, _ = two_workers(gateway, run_dir, quick)

    def lost() -> int:
        return len(logged(run_dir, EventKind.WORKER_LOST, "harness-*.jsonl"))

    try:
        wait_until(lambda: len(logged(run_dir, EventKind.CONNECTED)) == 12, "all clients", 30)
        first, other = (
            int(log.stem.removeprefix("client-")) for log in (run_dir / "logs").glob("client-*.jsonl")
        )
        os.kill(first, signal.SIGSTOP)
        wait_until(lambda: lost() == 1, "that it is taken for dead", 30)
        os.kill(first, signal.SIGCONT)
        time.sleep(3.0)  # for its master to hear of it again
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: lost() == 2, "that the other one is", 30)
        time.sleep(2.0)
        assert process.poll() is None, "half of the clients are there"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert "has no workers any more" not in output
    finally:
        process.kill()
        print(process.communicate()[0])


def test_a_test_of_the_web_ui_leaves_no_client_behind(
    gateway: dict[str, int], run_dir: Path, tmp_path: Path, quick: Path
) -> None:
    """The next one of this process has the same users: they are offline, and may log in. Workers die, too: all of them
    at last, while clients come.
    """
    port, of_master = quiet_port(), str(quiet_port())
    argv = [
        *(sys.executable, "-m", "locust", "-f", str(quick), "--web-host", "127.0.0.1"),
        *("--processes", "3", "--master-port", of_master, "--master-bind-port", of_master),
        *("--web-port", str(port), "--scenario", str(run_dir / "scenario.yaml")),
        *("--ws-url", f"ws://127.0.0.1:{gateway['port']}/ws"),
        *("--http-url", f"http://127.0.0.1:{gateway['http_port']}"),
    ]

    def answer(path: str, form: dict[str, int] | None = None) -> str:
        try:
            data = None if form is None else urlencode(form).encode()
            with urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as found:
                return str(found.read().decode())
        except URLError:
            return ""

    def is_stopped() -> bool:  # as of up to two seconds ago
        time.sleep(0.1)  # an answer takes Locust as long as a client's connect
        return bool(json.loads(answer("/stats/requests"))["state"] == "stopped")

    (run_dir / "scenario.yaml").write_text(f"duration: 60s\nliveness: {json.dumps(POLICY)}\n")
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: len(json.loads(answer("/stats/requests") or "{}").get("workers", ())) == 3, "workers", 30
        )
        for came in (4, 8, 10):
            if came == 10:  # half of the clients are dealt out to a worker that is dead already
                os.kill(_children(process.pid)[0], signal.SIGKILL)
            assert answer("/swarm", {"user_count": 4, "spawn_rate": 20})
            wait_until(partial(_are, run_dir, EventKind.CONNECTED, came), "all clients", 20)
            wait_until(lambda: not is_stopped(), "the test's beginning", 20)
            if came == 8:  # Locust waits for it until it has been silent for a while
                os.kill(_children(process.pid)[0], signal.SIGKILL)
            assert answer("/stop", {})
            wait_until(partial(_are, run_dir, EventKind.SUSPECTED, came), "their ends", 20)
            wait_until(is_stopped, "the test's end", 20)
        assert answer("/swarm", {"user_count": 12, "spawn_rate": 1})
        wait_until(lambda: not is_stopped(), "the last test's beginning", 20)
        os.kill(_children(process.pid)[0], signal.SIGKILL)
        wait_until(is_stopped, "the last test's end", 20)
        time.sleep(6.0)
        assert is_stopped(), "nobody spawns clients any more"
        causes = {event.cause for event in logged(run_dir, EventKind.SUSPECTED, "gateway-*.jsonl")}
        assert "heartbeat" not in causes, "their sockets stood, and nobody answered any more"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()


def test_a_second_run_into_the_same_directory_is_refused(run_dir: Path) -> None:
    (run_dir / "logs" / "client-1.jsonl").touch()
    process = locust({"port": 9, "http_port": 9}, run_dir)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == Exit.BAD_INPUT
    assert "holds a run already" in output


def _are(run_dir: Path, kind: EventKind, count: int) -> bool:
    return len(logged(run_dir, kind, "gateway-*.jsonl")) >= count


def _clients(events: list[Event]) -> set[int]:
    return {event.detail["client"] for event in events}


def _connected(log: Path) -> list[Event]:
    return [event for event in read_log(log).events if event.kind is EventKind.CONNECTED]


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True) if not is_gone(child.pid)]
