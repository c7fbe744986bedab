"""The store does not answer for a time, and comes back with its records or without.

    client           |  gateway      |  store
    beats go on      |  commands     |  ✗ no answer
                     |  fail or wait |  back: with its records (persistence), or empty

Meaning: a Redis restart or fail-over. Connections live on; log-ins, resumes and clean-ups wait or are refused.
"""

from __future__ import annotations

from harness.catalogue.fault import ServerFault

__all__ = ["StoreRestart"]


class StoreRestart(ServerFault):
    """No answer for a time."""

    kind = "store_restart"
    side = "store"
    summary = "the store does not answer for a time"
    on_the_wire = "clients: nothing; gateway: refused or reset connections to the store"
    is_real = True
    mechanism = "SIGKILL of Redis, then a start on the same port (keeps: append-only file)"
    cannot_show = "a fail-over to a replica that lags"
    example = "{kind: store_restart, at: 60s, down: 5s, keeps: false}"
