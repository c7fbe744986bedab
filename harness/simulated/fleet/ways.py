"""The way of each client: from when to when nothing passes, drawn ahead one spell at a time.

A way is asked about rising times, client by client. Three kinds: outages that come and go, one fault, and a
NAT that forgets. Draws windows; knows nothing of pings but the moment at which one passed.
"""

from __future__ import annotations

import numpy as np

from harness.simulated.fleet.draws import Draws, FloatArray, Index
from scenarios.schema import Outages

__all__ = ["ForgetfulNat", "OneFault", "OutageWay", "Way"]


class Way:
    """Ways of n clients; the base class is always open. Seconds from the run's origin.

    ``begins_s``, ``ends_s``, shape (n,): the current or next spell; inf: none comes.
    ``matters_from_s``: pings that reach the client before this need not be looked at one by one.
    ``acknowledges``: the client's kernel takes the pings of a spell and keeps them (a frozen process).
    ``resets``: a middlebox answers them with RST. ``recurs``: spells come again and again.
    """

    acknowledges = False
    resets = False
    recurs = False

    def __init__(self, clients: int) -> None:
        self.begins_s: FloatArray = np.full(clients, np.inf)
        self.ends_s: FloatArray = np.full(clients, np.inf)

    @property
    def matters_from_s(self) -> FloatArray:
        """See the class."""
        return self.begins_s

    def advance(self, who: Index) -> None:
        """The spell is over: draw the next one."""
        self.begins_s[who] = np.inf
        self.ends_s[who] = np.inf

    def is_open(self, who: Index, at_s: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether a packet passes the client's end at these times, shape of ``who``; rising per client."""
        late = self.ends_s[who] <= at_s
        while late.any():
            self.advance(who[late])
            late = self.ends_s[who] <= at_s
        return np.asarray(self.begins_s[who] > at_s)

    def lets_in(self, who: Index, at_s: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether a client without a connection gets through, as `is_open`."""
        return self.is_open(who, at_s)

    def passed(self, who: Index, at_s: FloatArray) -> None:
        """Packets passed at these times."""

    def reconnected(self, who: Index, ended_s: FloatArray, at_s: FloatArray) -> None:
        """These clients have a new connection since ``at_s``, the one before was over at ``ended_s``."""


class OutageWay(Way):
    """Outages of healthy clients: a Poisson process, the next one counted from the end of the last."""

    recurs = True

    def __init__(self, clients: int, law: Outages, from_s: float, rng: np.random.Generator) -> None:
        super().__init__(clients)
        self._every_s = law.every
        self._lengths = Draws(law.length, rng)
        self._rng = rng
        self.ends_s[:] = from_s
        self.advance(np.arange(clients))

    def advance(self, who: Index) -> None:
        """Draw the next outage."""
        begins_s = self.ends_s[who] + self._rng.exponential(self._every_s, len(who))
        self.begins_s[who] = begins_s
        self.ends_s[who] = begins_s + self._lengths.take(len(who))


class OneFault(Way):
    """One spell: the way is cut or the client is frozen; ``lengths_s`` None: it never ends."""

    def __init__(
        self, at_s: FloatArray, lengths_s: FloatArray | None, *, acknowledges: bool
    ) -> None:
        super().__init__(len(at_s))
        self.acknowledges = acknowledges
        self._length_s = np.full(len(at_s), np.inf) if lengths_s is None else lengths_s
        self.begins_s = at_s.copy()
        self.ends_s = at_s + self._length_s

    def lets_in(self, who: Index, at_s: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """A client that is away has its fault when it is back."""
        return np.ones(len(who), dtype=bool)

    def reconnected(self, who: Index, ended_s: FloatArray, at_s: FloatArray) -> None:
        """A fault that came while its client was away comes now."""
        self.begins_s[who] = np.maximum(self.begins_s[who], at_s)
        self.ends_s[who] = self.begins_s[who] + self._length_s[who]

    def advance(self, who: Index) -> None:
        """Keep the only spell: what is asked about it later is when it was."""

    def is_open(self, who: Index, at_s: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """See `Way`."""
        return np.asarray((at_s < self.begins_s[who]) | (at_s >= self.ends_s[who]))


class ForgetfulNat(Way):
    """From ``armed_s`` on there is a NAT: the mapping expires ``idle_s`` after the last packet that passed.

    The first packet after ``armed_s`` makes the mapping. A connection made later has one that never expires.
    """

    def __init__(self, armed_s: FloatArray, idle_s: float, *, resets: bool) -> None:
        super().__init__(len(armed_s))
        self.resets = resets
        self._armed_s = armed_s.copy()
        self._idle_s = idle_s

    @property
    def matters_from_s(self) -> FloatArray:
        """Every packet from here on makes the mapping last longer."""
        return self._armed_s

    def passed(self, who: Index, at_s: FloatArray) -> None:
        """The mapping lasts from these packets on."""
        mapped = at_s > self._armed_s[who]
        self.begins_s[who[mapped]] = at_s[mapped] + self._idle_s

    def lets_in(self, who: Index, at_s: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """A NAT forgets connections, it does not refuse them."""
        return np.ones(len(who), dtype=bool)

    def reconnected(self, who: Index, ended_s: FloatArray, at_s: FloatArray) -> None:
        """A NAT that was there already has nothing to do with the new connection; a later one comes now."""
        before = self._armed_s[who] < ended_s
        self._armed_s[who] = np.where(before, np.inf, np.maximum(self._armed_s[who], at_s))
        self.begins_s[who] = np.inf
