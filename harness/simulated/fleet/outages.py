"""Outage processes of n clients: from when to when no packet passes, drawn ahead one outage at a time.

A process is asked about rising times, client by client. Three kinds: outages that come and go, one fault, and the
fault that is a NAT; and a NAT before any of them. It knows nothing of pings but when one passed. Times are seconds
since the run's start, arrays of float64, shape (n,) for all clients and (m,) for those asked about.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.simulated.fleet.draws import Draws, FloatArray, Index
from scenarios.network import Nat, Outages

__all__ = ["BehindNat", "Flags", "ForgetfulNat", "Harmless", "OneFault", "OutageProcess", "RecurringOutages"]

Flags = npt.NDArray[np.bool_]


class OutageProcess:
    """Vectorised outage process of n clients; the base class has no outages.

    Attributes:
        begins_s: start of the current or next outage, shape (n,), float64, seconds since the run's start; inf: none.
        ends_s: its end, likewise.
        matters_from_s: pings that reach the client before this need not be looked at one by one, shape (n,).
        acknowledges: the client's kernel takes the pings of an outage and keeps them (a frozen process).
        resets: a middlebox that has forgotten a connection answers its packets with RST.
        recurs: outages come again and again.
        counts_packets: it must be told of every packet that passes.
    """

    acknowledges = False
    resets = False
    recurs = False
    counts_packets = False

    def __init__(self, clients: int) -> None:
        self.begins_s: FloatArray = np.full(clients, np.inf)
        self.ends_s: FloatArray = np.full(clients, np.inf)

    @property
    def matters_from_s(self) -> FloatArray:
        """See the class."""
        return self.begins_s

    def advance(self, who: Index) -> None:
        """The outage is over: draw the next one."""
        self.begins_s[who] = np.inf
        self.ends_s[who] = np.inf

    def is_open(self, who: Index, at_s: FloatArray) -> Flags:
        """Whether a packet passes the client's end at these times, shape of ``who``; rising per client."""
        late = self.ends_s[who] <= at_s
        while late.any():
            self.advance(who[late])
            late = self.ends_s[who] <= at_s
        return np.asarray(self.begins_s[who] > at_s)

    def lets_in(self, who: Index, at_s: FloatArray) -> Flags:
        """Whether a client without a connection gets through, as `is_open`."""
        return self.is_open(who, at_s)

    def forgot(self, who: Index, at_s: FloatArray) -> Flags:
        """Whether a middlebox has forgotten the connection by these times."""
        return np.zeros(len(who), dtype=bool)

    def meets_reset(self, who: Index, at_s: FloatArray) -> Flags:
        """Whether a packet at these times reaches a middlebox that answers it with RST."""
        return self.forgot(who, at_s) if self.resets else np.zeros(len(who), dtype=bool)

    def heals_s(self, who: Index, at_s: FloatArray) -> FloatArray:
        """When the way is open again that is shut at these times; inf: not for this connection."""
        return np.asarray(self.ends_s[who])

    def passed(self, who: Index, at_s: FloatArray) -> None:
        """Packets passed at these times."""

    def reconnected(self, who: Index, ended_s: FloatArray, at_s: FloatArray) -> None:
        """These clients have a new connection since ``at_s``, the one before was over at ``ended_s``."""


class Harmless(NamedTuple):
    """Which outages change nothing but when some answers come, whatever ping they meet. Seconds."""

    longest_s: float  # below 0: none
    apart_s: float  # they are so far from the outage before and the one after, and from the run's end
    until_s: float  # the run's end


class RecurringOutages(OutageProcess):
    """Outages of healthy clients: a Poisson process, the next one counted from the end of the last.

    All of them are drawn; those that are harmless are passed over here, before any ping is looked at.
    """

    recurs = True

    def __init__(
        self, clients: int, law: Outages, from_s: float, rng: np.random.Generator, harmless: Harmless
    ) -> None:
        super().__init__(clients)
        self._every_s = law.every
        self._lengths = Draws(law.length, rng)
        self._rng = rng
        self._harmless = harmless
        self._calm_s = self._drawn_calm_s(clients)  # from the end of the current outage to the next one
        self.ends_s[:] = from_s
        self.advance(np.arange(clients))

    def _drawn_calm_s(self, count: int) -> FloatArray:
        return self._rng.exponential(self._every_s, count)

    def advance(self, who: Index) -> None:
        """Draw the next outage that is to be looked at."""
        longest_s, apart_s, until_s = self._harmless
        ended_s, before_s = self.ends_s[who], self._calm_s[who]
        while who.size:
            begins_s, length_s = ended_s + before_s, self._lengths.take(len(who))
            ends_s, after_s = begins_s + length_s, self._drawn_calm_s(len(who))
            over = (length_s <= longest_s) & (np.minimum(before_s, after_s) >= apart_s)
            over &= ends_s + apart_s < until_s
            met = ~over
            now = who[met]
            self.begins_s[now], self.ends_s[now], self._calm_s[now] = begins_s[met], ends_s[met], after_s[met]
            who, ended_s, before_s = who[over], ends_s[over], after_s[over]


class OneFault(OutageProcess):
    """One outage: the way is cut or the client is frozen; ``lengths_s`` None: it never ends."""

    def __init__(self, at_s: FloatArray, lengths_s: FloatArray | None, *, acknowledges: bool) -> None:
        super().__init__(len(at_s))
        self.acknowledges = acknowledges
        self._length_s = np.full(len(at_s), np.inf) if lengths_s is None else lengths_s
        self.begins_s = at_s.copy()
        self.ends_s = at_s + self._length_s

    def lets_in(self, who: Index, at_s: FloatArray) -> Flags:
        """A client that is away has its fault when it is back."""
        return np.ones(len(who), dtype=bool)

    def reconnected(self, who: Index, ended_s: FloatArray, at_s: FloatArray) -> None:
        """A fault that came while its client was away comes now."""
        self.begins_s[who] = np.maximum(self.begins_s[who], at_s)
        self.ends_s[who] = self.begins_s[who] + self._length_s[who]

    def advance(self, who: Index) -> None:
        """Keep the only outage: what is asked about it later is when it was."""

    def is_open(self, who: Index, at_s: FloatArray) -> Flags:
        """See `OutageProcess`."""
        return np.asarray((at_s < self.begins_s[who]) | (at_s >= self.ends_s[who]))


class ForgetfulNat(OutageProcess):
    """From ``armed_s`` on there is a NAT: the mapping expires ``idle_s`` after the last packet that passed.

    The first packet after ``armed_s`` makes the mapping. A connection made later has one that never expires.
    """

    def __init__(self, armed_s: FloatArray, idle_s: float, *, resets: bool) -> None:
        super().__init__(len(armed_s))
        self.resets = resets
        self._armed_s = armed_s.copy()
        self._idle_s = idle_s

    def forgot(self, who: Index, at_s: FloatArray) -> Flags:
        """See `OutageProcess`."""
        return np.asarray(self.begins_s[who] <= at_s)

    @property
    def matters_from_s(self) -> FloatArray:
        """Every packet from here on makes the mapping last longer."""
        return self._armed_s

    def passed(self, who: Index, at_s: FloatArray) -> None:
        """The mapping lasts from these packets on."""
        mapped = at_s > self._armed_s[who]
        self.begins_s[who[mapped]] = at_s[mapped] + self._idle_s

    def lets_in(self, who: Index, at_s: FloatArray) -> Flags:
        """A NAT forgets connections, it does not refuse them."""
        return np.ones(len(who), dtype=bool)

    def reconnected(self, who: Index, ended_s: FloatArray, at_s: FloatArray) -> None:
        """A NAT that was there already has nothing to do with the new connection; a later one comes now."""
        before = self._armed_s[who] < ended_s
        self._armed_s[who] = np.where(before, np.inf, np.maximum(self._armed_s[who], at_s))
        self.begins_s[who] = np.inf


class BehindNat(OutageProcess):
    """A NAT for the whole run, before any other way: a connection silent for its idle timeout is forgotten.

    A mapping begins with its connection. ``longest_gap_s``: packets of a connection whose pings are answered in
    time are never further apart; a NAT that waits longer need not be told of each.
    """

    counts_packets = True

    def __init__(self, inner: OutageProcess, nat: Nat, longest_gap_s: float) -> None:
        super().__init__(len(inner.begins_s))
        self._inner = inner
        self._idle_s = nat.idle_timeout
        self._kept_by_beats = nat.idle_timeout >= longest_gap_s
        self._mapped_until_s = np.full(len(inner.begins_s), np.inf)
        self.begins_s, self.ends_s = inner.begins_s, inner.ends_s  # the same arrays
        self.acknowledges = inner.acknowledges
        self.recurs = inner.recurs
        self.resets = nat.expiry == "reset"

    @property
    def matters_from_s(self) -> FloatArray:
        """From the start, where beats do not keep the mapping."""
        inner_s = self._inner.matters_from_s
        return inner_s if self._kept_by_beats else np.full_like(inner_s, -np.inf)

    def advance(self, who: Index) -> None:
        """See `OutageProcess`."""
        self._inner.advance(who)

    def is_open(self, who: Index, at_s: FloatArray) -> Flags:
        """See `OutageProcess`."""
        return self._inner.is_open(who, at_s) & ~self.forgot(who, at_s)

    def lets_in(self, who: Index, at_s: FloatArray) -> Flags:
        """A new connection gets a mapping of its own."""
        return self._inner.lets_in(who, at_s)

    def forgot(self, who: Index, at_s: FloatArray) -> Flags:
        """See `OutageProcess`."""
        return np.asarray(self._mapped_until_s[who] <= at_s)

    def meets_reset(self, who: Index, at_s: FloatArray) -> Flags:
        """See `OutageProcess`. A cut keeps packets from getting there, a frozen client does not."""
        hit = super().meets_reset(who, at_s)
        return hit if self.acknowledges else hit & self._inner.is_open(who, at_s)

    def heals_s(self, who: Index, at_s: FloatArray) -> FloatArray:
        """What is forgotten and dropped stays so, whatever heals."""
        heals_s = self._inner.heals_s(who, at_s)
        return heals_s if self.resets else np.where(self.forgot(who, at_s), np.inf, heals_s)

    def passed(self, who: Index, at_s: FloatArray) -> None:
        """Each packet renews the mapping."""
        self._mapped_until_s[who] = at_s + self._idle_s
        self._inner.passed(who, at_s)

    def reconnected(self, who: Index, ended_s: FloatArray, at_s: FloatArray) -> None:
        """A new mapping."""
        self._inner.reconnected(who, ended_s, at_s)
        self._mapped_until_s[who] = at_s + self._idle_s
