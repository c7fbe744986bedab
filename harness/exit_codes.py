"""What the exit code of the `flatline` command means."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """Exit codes; the larger problem wins: bad input, then unsound, then missed."""

    GOOD = 0
    BAD_INPUT = 2  # scenario, threshold, run directory
    UNSOUND = 3  # generator or gateway lag: the run says nothing about the policy
    MACHINE_CANNOT = 4  # no Redis, no socket filter, a child that died
    INCONSISTENT = 5  # audit: memory, Redis and ledger differ
    MISSED = 99  # thresholds missed, or engines disagree
    INTERRUPTED = 130  # Ctrl-C; the report of what was measured is written
