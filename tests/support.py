"""Helpers that several tests share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import psutil
import pytest
from matplotlib.figure import Figure

from harness.real.network.silence import silence_available

__all__ = [
    "MachineLate",
    "again_if_late",
    "at_most_late",
    "blank",
    "is_gone",
    "missing",
    "require_root",
    "require_silence",
    "wait_until",
]

T = TypeVar("T")


def blank(_figure: Figure, *files: Path) -> None:
    """Stand in for `reports.style._render`, which takes four fifths of a report."""
    for file in files:
        file.write_text("<svg/>")


def missing(reason: str) -> NoReturn:
    """Skip a test that this machine cannot run; where CI=true it is a failure, not a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"cannot run here, and CI must: {reason}", pytrace=False)
    pytest.skip(reason)


def require_root() -> None:
    """Let the test go on only as root."""
    if os.geteuid() != 0:
        missing("needs root")


def require_silence() -> None:
    """Let the test go on only where socket filters work."""
    available = silence_available()
    if not available.ok:
        missing(f"{available.reason}; {available.help}")


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = 10.0) -> float:
    """Look every 5 ms until the condition holds; return how long that took, in seconds.

    Raises:
        AssertionError: it did not hold by the deadline.
    """
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > deadline_s:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.005)
    return time.monotonic() - began_s


class MachineLate(Exception):
    """The machine stood still for longer than what a test looks at bears: the law says nothing of what was seen."""


def again_if_late(measure: Callable[[], T]) -> T:
    """Measure; once more, and a third time, where the machine was late.

    Raises:
        MachineLate: it was each time.
    """
    for _ in range(2):
        with suppress(MachineLate):
            return measure()
    return measure()


@contextmanager
def at_most_late(bears_s: float) -> Iterator[None]:
    """Look every 10 ms whether this process gets its turn, as long as the context lasts.

    Raises:
        MachineLate: at the end, if it has waited for longer than so many seconds once.
    """
    over, most_s = threading.Event(), 0.0

    def work() -> None:
        nonlocal most_s
        slept_s = time.monotonic()
        while not over.wait(0.01):
            before_s, slept_s = slept_s, time.monotonic()
            most_s = max(most_s, slept_s - before_s - 0.01)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if most_s > bears_s:
        raise MachineLate(f"it stood still for {most_s:.2f} s")


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie that nobody reaps has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
