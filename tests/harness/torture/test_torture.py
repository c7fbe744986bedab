"""Torture for real, in short: the product comes through, a seeded bug does not, Ctrl-C leaves nobody behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.torture.schedule import Schedule, Step, read_schedule
from harness.torture.torture import abilities, replay, torture
from reference_server.errors import Exit
from tests.support import is_gone, wait_until

pytestmark = pytest.mark.real

# Without root, too: a refresh, a take-over, a logout and a node that dies, all within a second.
SHORT = Schedule(
    "0.1",
    (
        *(Step(0.3, "come", client, node=1 + client % 2) for client in (0, 2, 4, 5)),
        Step(0.9, "crash", 2, 0.2),
        Step(1.0, "refresh", 0, 0.1, node=1),
        Step(1.1, "take_over", 4, node=1),
        Step(1.2, "logout", 2, node=1),
    ),
    clients=6,
    nodes=2,
    length_s=1.5,
    settle_s=3.5,
)


# A client asks a node with a fast clock that is cut off from Redis, and then another node. TCP would deliver the first
# question once the cable is back: as that of a newer connection, by its number.
LATE = Schedule(
    "1.315",
    (
        Step(0.674, "come", 4, node=1),
        Step(1.882, "refresh", 4, 0.431, node=2),
        Step(2.254, "partition", 2, 2.159, node=2),
        Step(3.054, "partition", 1, 0.855, node=2),
    ),
    clocks_s=(-10.721, 2.732, -7.535),
    length_s=5.0,
    settle_s=4.0,
)


@pytest.mark.parametrize("schedule", [SHORT, LATE], ids=["short", "late"])
def test_the_gateway_comes_through(tmp_path: Path, schedule: Schedule) -> None:
    path = tmp_path / "schedule.json"
    schedule.write(path)
    done = CliRunner().invoke(app, ["torture", "--schedule", str(path), "--runs", str(tmp_path)])
    assert done.exit_code == Exit.GOOD, done.output
    assert "1 schedules, 0 violated" in done.output


def test_a_seeded_bug_is_found_and_kept_with_what_replays_it(tmp_path: Path) -> None:
    program = (sys.executable, "-m", "tests.harness.torture.seeded_bugs", "logout_leaves_the_status")
    result = replay(SHORT, tmp_path, lambda _: None, program)
    (found,) = result.found
    assert ("wrong_belief", "user-1") in {(one.kind, one.about) for one in found.violations}
    assert read_schedule(found.file, abilities()) == SHORT
    assert {"history.jsonl", "violations.json", "logs"} <= {path.name for path in found.folder.iterdir()}


def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "harness",
        "torture",
        "--minutes",
        "5",
        "--jobs",
        "2",
        "--runs",
        str(tmp_path),
    ]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    children: list[psutil.Process] = []

    def nodes() -> int:
        children[:] = psutil.Process(running.pid).children(recursive=True)
        count = 0
        for one in children:
            with suppress(psutil.Error):  # one that has just ended
                count += "harness.torture.node" in one.cmdline()
        return count

    wait_until(lambda: nodes() == 6, "the nodes of both histories are there", 60.0)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == Exit.INTERRUPTED, output
    assert b"0 schedules, 0 violated" in output
    assert all(is_gone(one.pid) for one in children)


def test_no_time_no_schedule(tmp_path: Path) -> None:
    assert torture(1, 0.0, tmp_path, lambda _: None).schedules == 0
