"""Child processes of a run: start them, notice when one dies, end them all whatever happens.

From command lines to running processes with a name and a log file. Knows nothing of what they do.

No child outlives the run. An orderly end stops them in reverse order; Ctrl-C reaches only the
parent (each child has a session of its own), which then stops them; a parent that is killed takes
them along (`die_with_parent.py`). Only processes started here, and what those have forked, are ever signalled.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Self

from harness.real.processes import die_with_parent
from reference_server.errors import MachineError

__all__ = ["Child", "ChildDied", "Children", "Terminated", "end_on_sigterm"]

_POLL_S = 0.01  # how often a wait looks; waiting on several children at once has no blocking call
_LOG_TAIL_LINES = 20


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: wind up as after Ctrl-C. Its argument is the signal."""


class ChildDied(MachineError):
    """A child ended that should be running. Fields: name, returncode (−n: by signal n), log."""

    def __init__(self, name: str, returncode: int, log: Path, tail: str) -> None:
        how = (
            f"was killed by {signal.Signals(-returncode).name}"
            if returncode < 0
            else f"ended with exit code {returncode}"
        )
        super().__init__(f"{name} {how}; the end of {log}:\n{tail or '(empty)'}")
        self.name, self.returncode, self.log = name, returncode, log


@dataclass(eq=False, slots=True)
class Child:
    """A process that `Children` started. Until stopped it is never reaped, so the pid stays its own."""

    name: str
    log: Path  # its stdout and stderr
    popen: subprocess.Popen[bytes]
    may_finish: bool  # exit code 0 is a good end, not a death
    stop_deadline_s: float  # from SIGTERM to SIGKILL
    argv: Sequence[str]
    env: Mapping[str, str] | None
    may_die: bool = False  # somebody has been told to end it

    @property
    def pid(self) -> int:
        """The process's id, and its process group's."""
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, −n when signal n killed it, None while it runs. Does not reap it."""
        if self.popen.returncode is not None:
            return self.popen.returncode
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process itself, unless it has been stopped; SIGSTOP, say, to freeze it."""
        if self.popen.returncode is None:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for it to end by itself; None when it still runs after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while (code := self.returncode) is None and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        return code

    def log_tail(self) -> str:
        """Return the last lines that it wrote."""
        text = self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])


class Children:
    """The child processes of a run. Leaving the context ends every one of them.

    A second Ctrl-C while they are being stopped kills those that are left at once.
    """

    def __init__(self) -> None:
        self._running: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with _deferred_interrupts() as interrupted:
            self._stop(list(self._running), interrupted)
            if kind is not None:
                interrupted.clear()  # the exception that is under way says it already

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        may_finish: bool = False,
        stop_deadline_s: float = 5.0,
    ) -> Child:
        """Start a process that ends with this one.

        Args:
            name: what errors call it.
            argv: program (looked up on the PATH) and arguments.
            log: file that its stdout and stderr are appended to.
            env: its whole environment; None: this process's.
            may_finish: it may end by itself with exit code 0.
            stop_deadline_s: how long it may take to wind up after SIGTERM.

        Raises:
            FileNotFoundError: no such program.
            RuntimeError: not called from the main thread.
        """
        _only_the_main_thread()
        program = shutil.which(argv[0])
        if program is None:
            raise FileNotFoundError(f"{name}: no program {argv[0]!r}")
        # An interrupt between the fork and the list would leave a child that nobody knows.
        with _deferred_interrupts():
            popen = _popen([program, *argv[1:]], log, env)
            child = Child(name, log, popen, may_finish, stop_deadline_s, [program, *argv[1:]], env)
            self._running.append(child)
        return child

    def expect_end(self, child: Child) -> None:
        """From now on its end is no death: somebody has been told to end it."""
        child.may_die = True

    def end_first(self, child: Child) -> None:
        """Stop it before all others, as though it had been started last."""
        with _deferred_interrupts():
            self._running.remove(child)
            self._running.append(child)

    def start_again(self, child: Child) -> Child:
        """Start a child anew, with the same command line, in the place of one that has ended.

        One that runs still is killed first. In its place: whoever was started after it still ends before it.

        Raises:
            RuntimeError: not called from the main thread.
        """
        _only_the_main_thread()
        with _deferred_interrupts():
            place = self._running.index(child)
            _reap(child)
            popen = _popen(child.argv, child.log, child.env)
            self._running[place] = again = replace(child, popen=popen, may_die=False)
        return again

    def check(self) -> None:
        """Return if every child runs, or has finished where it may.

        Raises:
            ChildDied: one has ended, with the end of its log.
        """
        for child in self._running:
            code = child.returncode
            if code is not None and not (child.may_finish and code == 0) and not child.may_die:
                raise ChildDied(child.name, code, child.log, child.log_tail())

    def __iter__(self) -> Iterator[Child]:
        """Iterate over the children that were not stopped, the oldest first."""
        return iter(list(self._running))

    def stop(self, child: Child, *, kill: bool = False) -> int:
        """End one child and forget it: SIGTERM, its deadline, SIGKILL; `kill` skips the first two.

        Returns:
            its exit code, −n when signal n ended it.
        """
        with _deferred_interrupts() as interrupted:
            self._stop([child], [signal.SIGKILL] if kill else interrupted)
        return child.popen.returncode

    def stop_others(self, keep: Collection[Child]) -> None:
        """End every child but those to keep, the last first."""
        with _deferred_interrupts() as interrupted:
            self._stop([child for child in self._running if child not in keep], interrupted)

    def _stop(self, children: list[Child], hurry: list[signal.Signals]) -> None:
        """End children, the last first; once `hurry` is not empty there is no time for manners."""
        for child in reversed(children):
            if child.popen.returncode is not None:
                continue  # stopped before: its pid may be another's by now
            if child.returncode is None and not hurry:
                child.send_signal(signal.SIGTERM)
                child.send_signal(signal.SIGCONT)  # a stopped process handles nothing until it goes on
                deadline_s = time.monotonic() + child.stop_deadline_s
                while child.returncode is None and time.monotonic() < deadline_s and not hurry:
                    time.sleep(_POLL_S)
            _reap(child)
            self._running.remove(child)


def _only_the_main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start children from the main thread: they end with the thread")


def _popen(argv: Sequence[str], log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Start a program that the kernel kills when this process ends."""
    wrapper = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*wrapper, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )


def _reap(child: Child) -> None:
    """Kill what is left of a child and what it has forked, and take its exit code."""
    # The group holds what the child has forked; not reaped yet, its id is still its own.
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.popen.wait()


@contextmanager
def end_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM, and SIGHUP of a closed terminal, into `Terminated` inside the context.

    A run told to end then winds up as after Ctrl-C. An ignored SIGHUP (nohup) stays ignored.
    """

    def terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated(signal.Signals(number).name)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, terminated) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _deferred_interrupts() -> Iterator[list[signal.Signals]]:
    """Hold back Ctrl-C and its kin; yield the list of those that came, act on the last one later.

    In a thread other than the main one, where Python delivers no signals, it holds back nothing.
    """
    came: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    numbers = [
        n
        for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(n))  # the default action ends us, and the children with us
    ]
    before = {n: signal.signal(n, lambda n, _: came.append(signal.Signals(n))) for n in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        handler = before[came[-1]]
        assert callable(handler)
        handler(came[-1], None)
