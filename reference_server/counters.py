"""What one gateway process counts while it works: plain numbers, added up where things happen.

From the gateway's callbacks to totals since the process began. Nothing here is touched at a heartbeat:
beats are counted once a second, from the list of how late they were (`scheduler.Lateness`). How the
totals are shown is `metrics.py`'s business.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Totals since the process began."""

    connects: int = 0  # connections that got their session's records
    resumes: int = 0  # of these, of a session that had a connection before
    missed: int = 0  # heartbeats that stayed unanswered
    decided: Counter[str] = field(
        default_factory=Counter
    )  # ends of sessions' connections, by cause
    closed: Counter[str] = field(default_factory=Counter)  # sockets of these gone, by cause
    refused: Counter[str] = field(default_factory=Counter)  # who was not let in, by code
    logins: Counter[str] = field(default_factory=Counter)  # by outcome: ok, or the error's code
