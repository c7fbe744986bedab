"""How long a witness rests between two looks, so that its looks take no more than a share of somebody's time."""

from __future__ import annotations

__all__ = ["Rest"]


class Rest:
    """Says after each look how long to rest.

    The shorter of the last two looks counts. One look that was held up says nothing of what looks cost, and a rest as
    long as that, some times over, would miss what happens meanwhile.

    Args:
        lengths: of a look; with n of them the looks take 1/(1 + n) of the time.
    """

    __slots__ = ("_lengths", "_took_s")

    def __init__(self, lengths: float) -> None:
        self._lengths = lengths
        self._took_s = 0.0

    def after(self, took_s: float) -> float:
        """Return how long to rest after a look that took so long; seconds."""
        usual_s, self._took_s = min(took_s, self._took_s), took_s
        return self._lengths * usual_s
