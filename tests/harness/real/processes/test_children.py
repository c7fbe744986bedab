"""No child outlives its run: orderly end, death of a child, Ctrl-C once and twice, SIGTERM, SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psutil
import pytest

from harness.real.processes.children import ChildDied, Children, Terminated, end_on_sigterm
from tests.support import is_gone, wait_until

pytestmark = pytest.mark.real

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)",
]
# Forks twice: one fork ties itself to its parent, the other does not.
FORKER = [
    sys.executable,
    "-c",
    "import os, time\n"
    "from harness.real.processes.die_with_parent import die_with_parent\n"
    "me = os.getpid()\n"
    "tied = os.fork()\n"
    "if not tied: die_with_parent(me); time.sleep(600)\n"
    "loose = os.fork()\n"
    "if not loose: time.sleep(600)\n"
    "print(tied, loose, flush=True)\n"
    "time.sleep(600)",
]
# A run in miniature: four children, one deaf to SIGTERM, one with forks, the last one frozen.
PARENT = """
import json, os, signal, sys, time
from pathlib import Path
from harness.real.processes.children import Children, end_on_sigterm
folder = Path(sys.argv[1])
with end_on_sigterm(), Children() as children:
    for name, argv in json.loads(sys.argv[2]).items():
        child = children.start(name, argv, log=folder / f"{name}.log", stop_deadline_s=float(sys.argv[3]))
        while not child.log.read_bytes():
            time.sleep(0.005)
    frozen = children.start("frozen", json.loads(sys.argv[2])["sleeper"], log=folder / "frozen.log")
    while not frozen.log.read_bytes():
        time.sleep(0.005)
    frozen.send_signal(signal.SIGSTOP)
    pids = [child.pid for child in children]
    pids += [int(word) for word in (folder / "forker.log").read_text().split()]
    (folder / "pids.tmp").write_text(json.dumps(pids))
    (folder / "pids.tmp").rename(folder / "pids")
    time.sleep(600)
"""


@contextmanager
def parent(folder: Path, stop_deadline_s: float) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    programs = {"sleeper": SLEEPER, "stubborn": STUBBORN, "forker": FORKER}
    argv = [str(folder), orjson.dumps(programs).decode(), str(stop_deadline_s)]
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, *argv], stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        wait_until((folder / "pids").exists, "all children are up", deadline_s=30.0)
        pids = orjson.loads((folder / "pids").read_bytes())
        assert len(pids) == 6
        assert not any(is_gone(pid) for pid in pids)
        frozen = psutil.Process(pids[3])
        wait_until(lambda: frozen.status() == psutil.STATUS_STOPPED, "the last one is frozen")
        yield process, pids
    finally:
        process.kill()
        process.communicate()
        if (folder / "pids").exists():
            loose = orjson.loads((folder / "pids").read_bytes())[-1]
            if not is_gone(loose):
                os.kill(loose, signal.SIGKILL)


def all_gone(pids: list[int]) -> bool:
    return all(is_gone(pid) for pid in pids)


def test_after_sigkill_of_the_parent_its_children_are_gone(tmp_path: Path) -> None:
    with parent(tmp_path, stop_deadline_s=60.0) as (process, pids):
        *tied, _loose = pids
        process.kill()
        process.wait()
        wait_until(lambda: all_gone(tied), "children of a killed parent end, a frozen one too")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_parent_ends_all_children_before_itself(
    tmp_path: Path, number: signal.Signals
) -> None:
    with parent(tmp_path, stop_deadline_s=0.2) as (process, pids):
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert all_gone(pids), "forks and those deaf to SIGTERM included"
        expected = b"KeyboardInterrupt" if number is signal.SIGINT else b"Terminated"
        assert expected in errors


def test_a_second_interrupt_does_not_wait_for_the_stubborn(tmp_path: Path) -> None:
    with parent(tmp_path, stop_deadline_s=600.0) as (process, pids):
        process.send_signal(signal.SIGINT)
        wait_until(lambda: is_gone(pids[3]), "the last child is asked first")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert all_gone(pids)


def test_children_stop_in_reverse_order_but_for_one_that_is_to_be_the_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    with open({str(order)!r}, 'a') as file: file.write(sys.argv[1] + ' ')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    with Children() as children:
        for name in ("redis", "gateway", "clients", "proxy"):
            child = children.start(name, [sys.executable, "-c", script, name], log=tmp_path / f"{name}.log")
            wait_until(child.log.read_bytes, f"{name} is up")
        children.check()
        children.end_first(next(child for child in children if child.name == "clients"))
    assert order.read_text().split() == ["clients", "proxy", "gateway", "redis"]


def test_a_death_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    with Children() as children:
        child = children.start(
            "gateway", [sys.executable, "-c", "raise SystemExit('no port')"], log=tmp_path / "log"
        )
        assert child.wait(10.0) == 1
        with pytest.raises(ChildDied, match=r"gateway ended with exit code 1(.|\n)*no port") as died:
            children.check()
        assert (died.value.name, died.value.returncode) == ("gateway", 1)


def test_a_killed_child_is_reported_by_its_signal(tmp_path: Path) -> None:
    with Children() as children:
        child = children.start("redis", SLEEPER, log=tmp_path / "log")
        child.send_signal(signal.SIGKILL)
        assert child.wait(10.0) == -signal.SIGKILL
        with pytest.raises(ChildDied, match="redis was killed by SIGKILL"):
            children.check()


def test_a_child_may_finish_where_that_is_said_but_not_fail(tmp_path: Path) -> None:
    with Children() as children:
        for name, code in (("good", 0), ("bad", 3)):
            child = children.start(
                name,
                [sys.executable, "-c", f"raise SystemExit({code})"],
                log=tmp_path / name,
                may_finish=True,
            )
            assert child.wait(10.0) == code
        with pytest.raises(ChildDied, match="bad ended with exit code 3"):
            children.check()


def test_a_stopped_child_is_forgotten_and_its_exit_code_kept(tmp_path: Path) -> None:
    with Children() as children:
        soft = children.start("soft", SLEEPER, log=tmp_path / "soft")
        hard = children.start("hard", STUBBORN, log=tmp_path / "hard", stop_deadline_s=600.0)
        wait_until(lambda: soft.log.read_bytes() and hard.log.read_bytes(), "both are up")
        assert children.stop(hard, kill=True) == -signal.SIGKILL
        assert children.stop(soft) == -signal.SIGTERM
        assert list(children) == []
        children.check()
        soft.send_signal(signal.SIGKILL)  # its pid may be another's by now: nothing is sent
        assert children.stop(soft) == -signal.SIGTERM


def test_an_interrupt_while_stopping_ends_the_wait_and_then_interrupts(tmp_path: Path) -> None:
    with Children() as children:
        child = children.start("stubborn", STUBBORN, log=tmp_path / "log", stop_deadline_s=600.0)
        wait_until(child.log.read_bytes, "it is up")
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            children.stop(child)
        assert is_gone(child.pid)


def test_a_child_has_its_own_session_environment_and_default_signals(tmp_path: Path) -> None:
    script = "grep SigIgn /proc/self/status; echo $WHAT; ps -o sid= -p $$; echo $$"
    with Children() as children:
        child = children.start(
            "probe",
            ["/bin/sh", "-c", script],
            log=tmp_path / "log",
            env={"WHAT": "ours", "PATH": os.environ["PATH"]},
            may_finish=True,
        )
        assert child.wait(10.0) == 0
        ignored, what, session, pid = child.log.read_text().split("\n")[:4]
        assert int(session) == int(pid) == child.pid
    assert what == "ours"
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not int(ignored.split()[1], 16) >> (number - 1) & 1, "Python's own, not handed on"


def test_a_missing_program_is_an_error_at_once(tmp_path: Path) -> None:
    with Children() as children, pytest.raises(FileNotFoundError, match="gateway: no program"):
        children.start("gateway", ["no-such-program"], log=tmp_path / "log")


def test_children_start_from_the_main_thread_only(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            children.start("late", SLEEPER, log=tmp_path / "log")
        except RuntimeError as error:
            errors.append(error)

    with Children() as children:
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    assert "main thread" in str(errors[0])


def test_sigterm_becomes_an_orderly_end_and_the_old_handler_returns() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated, match="SIGTERM"), end_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_child_that_was_told_to_end_is_no_death_and_its_next_start_is_watched_again(tmp_path: Path) -> None:
    with Children() as children:
        first = children.start("first", SLEEPER, log=tmp_path / "first.log")
        second = children.start("second", SLEEPER, log=tmp_path / "second.log")
        children.expect_end(first)
        first.send_signal(signal.SIGKILL)
        first.wait(10.0)
        children.check()
        again = children.start_again(first)
        assert again.pid != first.pid
        assert list(children) == [again, second], "in its place: who came after it ends before it"
        again.send_signal(signal.SIGKILL)
        again.wait(10.0)
        with pytest.raises(ChildDied, match="first was killed by SIGKILL"):
            children.check()
