"""What can end a command: every error that a user can meet, and the exit code that it ends with.

::

    FlatlineError
    ├── CannotCalibrate
    ├── CannotCompare
    ├── CannotEmit
    ├── CannotStart
    ├── CustomFaultError
    ├── DialectError
    ├── FleetError
    ├── LedgerUnfit
    ├── LintInputError
    ├── MachineError
    │   ├── CannotAudit
    │   ├── CannotRun
    │   ├── ChildDied
    │   ├── LedgerUnavailable
    │   ├── RedisUnavailable
    │   └── StoreUnavailable
    ├── NetworkDataError
    ├── NotConfigurable
    ├── NotTunable
    ├── ProbeError
    ├── RequirementsError
    ├── RunDirError
    ├── ScenarioError
    ├── ScheduleError
    ├── TargetError
    ├── ThresholdError
    ├── Unfit
    ├── UnknownPresetError
    └── UnknownProfileError

Each class is defined beside the code that raises it; this module holds the two that others derive
from, and what is said where a name is none that is known.
`reports` imports nothing of ours, so its `TablesError` stands beside the tree, with an exit code of its own.
Not here: exceptions that one part of a process raises for another and that never leave it, as `ConnectionEnded`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum
from typing import ClassVar

__all__ = ["Exit", "FlatlineError", "MachineError", "unknown_name"]


class Exit(IntEnum):
    """Exit codes; the larger problem wins: bad input, interrupted, unsound, missed, undecided."""

    GOOD = 0
    BAD_INPUT = 2  # scenario, threshold, run directory
    UNSOUND = 3  # generator or gateway lag: the run says nothing about the policy
    MACHINE_CANNOT = 4  # no Redis, no socket filter, a child that died
    INCONSISTENT = 5  # audit: memory, Redis and ledger differ
    UNDECIDED = 97  # nothing is wrong as far as was seen, but too little was: no pass
    MISSED = 99  # thresholds missed, or engines disagree
    INTERRUPTED = 130  # Ctrl-C; the report of what was measured is written


class FlatlineError(Exception):
    """Something that can be foreseen is wrong: its text says what, where to look and what would help.

    Commands print the text without a traceback. Without further word it is the input that is wrong.
    """

    exit_code: ClassVar[Exit] = Exit.BAD_INPUT


class MachineError(FlatlineError):
    """The input is good, but this machine, or a process or server on it, does not do what is needed."""

    exit_code: ClassVar[Exit] = Exit.MACHINE_CANNOT


def unknown_name(said: str, name: str, known: Iterable[str]) -> str:
    """``said``, then which of the known names was meant, where that can be told, and all of them."""
    known = list(known)
    near = [one for one in known if name and name.lower() in one][:4]
    if not 0 < len(near) < 4:
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.7)
    meant = f"; did you mean {' or '.join(near)}? Allowed" if near else "; allowed"
    return f"{said}{meant}: {', '.join(known)}"
