"""Every record is gone at once, and nothing is announced.

    client           |  gateway      |  store
    beats go on      |  live: yes    |  FLUSHALL: online? nobody
    refresh          |-------------->|  session unknown, unless the gateway has put the record back

Meaning: a flush by hand, a fail-over to an empty replica, an eviction. Who trusts the store alone forgets
everybody; a gateway that refreshes must re-assert the record, for EXPIRE on a vanished key does nothing.
"""

from __future__ import annotations

from harness.catalogue.fault import ServerFault

__all__ = ["StoreFlush"]


class StoreFlush(ServerFault):
    """The store is empty from one moment to the next."""

    kind = "store_flush"
    side = "store"
    summary = "every record is gone at once"
    on_the_wire = "clients: nothing; gateway: nothing"
    is_real = True
    mechanism = "FLUSHALL; on a server given by --redis, deletion of the run's own keys"
    cannot_show = "nothing: this is what a flush is"
    example = "{kind: store_flush, at: 60s}"
