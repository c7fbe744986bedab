"""Torture: history after history until the time is over; a violation is shrunk and written, with how to replay it.

    seed ─► schedule 1, 2, 3 … ─► history ─► checker ─┬─ clean: forgotten
                                                      └─ violated: shrunk by running parts of it, kept in a folder

From a seed and a length to a count and a list of what was found. The run directory has a folder for each violated
schedule: `schedule.json`, `history.jsonl`, `violations.json` and the nodes' logs, and in `shrunk` the same of the
smallest part that was seen to fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import orjson

from harness.real.network.silence import silence_available
from harness.real.processes.children import end_on_sigterm
from harness.real.processes.die_with_parent import die_with_parent
from harness.runs.directory import RunDir, new_run
from harness.torture.checker import Violation, check, is_sound
from harness.torture.one_history import NODE_PROGRAM, run_history
from harness.torture.schedule import Schedule, Step, draw, seed_of
from harness.torture.shrink import shrink
from reference_server.errors import FlatlineError, MachineError

__all__ = ["Found", "Torture", "abilities", "replay", "torture"]

_SHRINK_TRIES = 24
_SPOILT = 3  # tries of an unsound history


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule whose history was violated."""

    folder: Path
    schedule: Schedule
    violations: list[Violation]
    shrunk: Schedule

    @property
    def file(self) -> Path:
        """The smallest schedule that was seen to fail."""
        smaller = self.folder / "shrunk" / "schedule.json"
        return smaller if smaller.exists() else self.folder / "schedule.json"


@dataclass(slots=True)
class Torture:
    """What was done and found."""

    run: RunDir
    schedules: int = 0
    unsound: int = 0  # histories that say nothing: the machine was too busy
    faults: Counter[str] = field(default_factory=Counter)  # that took effect, by kind
    operations: Counter[str] = field(default_factory=Counter)  # of clients, by kind
    found: list[Found] = field(default_factory=list)
    interrupted: bool = False

    def add(self, part: Torture) -> None:
        """Take in what another process has done of it."""
        self.schedules += part.schedules
        self.unsound += part.unsound
        self.faults += part.faults
        self.operations += part.operations
        self.found += part.found


def abilities() -> set[str]:
    """What this machine can do: `silence` by socket filters, `hosts` by network namespaces."""
    can = {"silence"} if silence_available().ok else set()
    if os.geteuid() == 0 and shutil.which("ip") is not None and sys.platform == "linux":
        can.add("hosts")
    return can


def torture(
    seed: int,
    minutes: float,
    root: Path,
    say: Callable[[str], None],
    *,
    program: Sequence[str] = NODE_PROGRAM,
    first: int = 1,
    jobs: int = 1,
    most_schedules: int | None = None,
    most_found: int = 3,
    shrink_tries: int = _SHRINK_TRIES,
) -> Torture:
    """Run schedules until the time is over, or enough was found; Ctrl-C ends it, and keeps what was found.

    A history mostly waits, so several go on at a time, each in a process and with a cluster of its own.

    Args:
        seed: of all schedules.
        minutes: no schedule begins after that.
        root: folder of run directories.
        say: told what happens, by each process itself.
        program: the command line of a node; another one has a bug seeded.
        first: number of the first schedule.
        jobs: how many histories go on at a time.
        most_schedules: try so many; None: the time alone decides.
        most_found: stop after so many violated schedules.
        shrink_tries: histories that the shrinking of one may cost.

    Raises:
        MachineError: this machine cannot.
    """
    result = Torture(new_run(root, "torture"))
    can = abilities()
    ends_s = time.monotonic() + 60 * minutes
    numbers = iter(range(first, first + most_schedules) if most_schedules is not None else count(first))
    running: dict[Connection, ForkProcess] = {}
    try:
        while True:
            while len(running) < jobs and len(result.found) < most_found and time.monotonic() < ends_s:
                if (number := next(numbers, None)) is None:
                    break
                schedule = draw(seed_of(seed, number), can)
                pipe, process = _apart(schedule, result.run, can, program, shrink_tries, say)
                running[pipe] = process
            if not running:
                return result
            told = wait(list(running))
            for pipe in [one for one in running if one in told]:
                result.add(_told_by(pipe, running.pop(pipe)))
    except KeyboardInterrupt:
        result.interrupted = True
        return result
    finally:
        for process in running.values():
            process.terminate()
        for pipe, process in running.items():
            with suppress(MachineError):
                result.add(_told_by(pipe, process))


def _apart(
    schedule: Schedule,
    run: RunDir,
    can: Collection[str],
    program: Sequence[str],
    shrink_tries: int,
    say: Callable[[str], None],
) -> tuple[Connection, ForkProcess]:
    """Do one schedule in a process of its own, until SIGTERM; return where it tells, and the process."""
    fork, parent = get_context("fork"), os.getpid()
    ours, theirs = fork.Pipe(duplex=False)

    def work() -> None:
        die_with_parent(parent)
        part = Torture(run)
        try:
            with end_on_sigterm():
                _try(schedule, part, can, program, shrink_tries, say)
        except KeyboardInterrupt:
            pass
        except FlatlineError as error:
            theirs.send(str(error))
            return
        theirs.send(part)

    process = fork.Process(target=work)
    # Ctrl-C is for the parent, which ends the others: whoever is started now never gets it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return ours, process


def _told_by(pipe: Connection, process: ForkProcess) -> Torture:
    """Take what a process has done when it is over.

    Raises:
        MachineError: it could not; its words.
    """
    try:
        told = pipe.recv()
    except EOFError:
        told = None
    process.join()
    pipe.close()
    if isinstance(told, Torture):
        return told
    raise MachineError(told or f"the process of a history ended with exit code {process.exitcode}")


def replay(
    schedule: Schedule, root: Path, say: Callable[[str], None], program: Sequence[str] = NODE_PROGRAM
) -> Torture:
    """Run one schedule, and do not shrink it."""
    result = Torture(new_run(root, "torture"))
    try:
        _try(schedule, result, abilities(), program, 0, say)
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _try(
    schedule: Schedule,
    result: Torture,
    can: Collection[str],
    program: Sequence[str],
    shrink_tries: int,
    say: Callable[[str], None],
) -> None:
    folder = result.run.path / schedule.seed
    violations = _once(schedule, folder, result, can, program)
    if violations is None:
        say(f"schedule {schedule.seed}: unsound, the machine was too busy")
        return
    result.schedules += 1
    if not violations:
        say(f"schedule {schedule.seed}: {len(schedule.steps)} steps, good")
        shutil.rmtree(folder)
        return
    say(f"schedule {schedule.seed}: {len(schedule.steps)} steps, {_told(violations)}")
    found = Found(folder, schedule, violations, schedule)
    result.found.append(found)
    if not shrink_tries:
        return
    kinds = {one.kind for one in violations}
    again = folder / "shrinking"

    def fails(steps: Sequence[Step]) -> bool:
        shutil.rmtree(again, ignore_errors=True)
        part = schedule.with_steps(steps)
        seen = _once(part, again, result, can, program) or []
        is_same = any(one.kind in kinds for one in seen)
        say(f"  {len(steps)} steps: {_told(seen) if is_same else 'good'}")
        if is_same:
            smaller = folder / "shrunk"
            shutil.rmtree(smaller, ignore_errors=True)
            again.rename(smaller)
            result.found[-1] = Found(folder, schedule, violations, part)
        return is_same

    shrink(schedule.steps, fails, shrink_tries)
    shutil.rmtree(again, ignore_errors=True)


def _told(violations: Sequence[Violation]) -> str:
    return ", ".join(sorted({one.kind for one in violations}))


def _once(
    schedule: Schedule, folder: Path, result: Torture, can: Collection[str], program: Sequence[str]
) -> list[Violation] | None:
    """Make one history and check it; None: it says nothing."""
    for _ in range(_SPOILT):
        shutil.rmtree(folder, ignore_errors=True)
        run = RunDir(folder)
        run.logs.mkdir(parents=True)
        schedule.write(folder / "schedule.json")
        history = run_history(schedule, run, can, program)
        history.write(folder / "history.jsonl")
        if is_sound(history.entries):
            break
        result.unsound += 1
    else:
        return None
    violations = check(schedule, history.entries)
    for entry in history.entries:
        if entry.what == "fault":
            result.faults[entry["kind"]] += 1
        elif entry.what in ("login", "connect", "logout", "kick", "silent") and entry.get("outcome") is None:
            result.operations[entry.what] += 1
    (folder / "violations.json").write_bytes(
        orjson.dumps([asdict(one) for one in violations], option=orjson.OPT_INDENT_2)
    )
    return violations
