"""Helpers that several tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from matplotlib.figure import Figure

from harness.real.network.silence import silence_available

__all__ = ["blank", "is_gone", "missing", "require_root", "require_silence", "wait_until"]


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


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie that nobody reaps has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
