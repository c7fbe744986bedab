"""Does a claim hold? From a claim and what one engine saw of a cell to one of three verdicts, with the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from harness.studies.claims.claim import Claim
from reports.numbers import caption_seconds, time_span

__all__ = ["Seen", "Verdict", "judge"]


class Verdict(StrEnum):
    """Of one claim and one engine."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNKNOWN = "unknown"
    NO_CLAIM = "no claim"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one engine saw of one preset, fault and milestone. Seconds from the fault; NaN: none.

    ``epsilon_s``: how far a measured time may be off. ``sound``: whether that may be relied on. ``watched_s``: how
    long the fault that was watched for the shortest time without a detection was watched.
    """

    n: int = 0
    detected: int = 0
    recovered: int = 0
    lo_s: float = math.nan
    p50_s: float = math.nan
    hi_s: float = math.nan
    watched_s: float = math.nan
    epsilon_s: float = 0.0
    sound: bool = True
    unknown: str = ""  # why nothing is known

    @property
    def share(self) -> float:
        """Detected, of all."""
        return self.detected / self.n if self.n else math.nan


def judge(claim: Claim | None, seen: Seen) -> tuple[Verdict, str]:
    """Return the verdict, and the reason for one that is not `holds`."""
    if claim is None:
        return Verdict.NO_CLAIM, ""
    if seen.unknown:
        return Verdict.UNKNOWN, seen.unknown
    if not seen.n:
        return Verdict.UNKNOWN, "no such fault took effect"
    verdict, reason = _within(claim, seen, seen.epsilon_s)
    if not seen.sound and _within(claim, seen, 0.0)[0] is not verdict:
        return Verdict.UNKNOWN, f"a matter of ε = {seen.epsilon_s:.2f} s, and the run is unsound"
    return verdict, reason


def _within(claim: Claim, seen: Seen, epsilon_s: float) -> tuple[Verdict, str]:
    if claim.never:
        if seen.detected:
            return Verdict.FAILS, f"over after {time_span(seen.lo_s, seen.hi_s)}"
        return Verdict.HOLDS, ""
    reasons = []
    missing = seen.n - seen.detected - seen.recovered
    if seen.detected and seen.lo_s < claim.lo - epsilon_s:
        reasons.append(f"sooner: from {caption_seconds(seen.lo_s)} on")
    if seen.detected and seen.hi_s > claim.hi_s + epsilon_s:
        reasons.append(f"later: up to {caption_seconds(seen.hi_s)}")
    if missing and seen.watched_s > claim.hi_s + epsilon_s:
        within = f"within {caption_seconds(seen.watched_s)}" if math.isfinite(seen.watched_s) else "ever"
        reasons.append(f"{missing} of {seen.n} not {within}")
    if reasons:
        return Verdict.FAILS, "; ".join(reasons)
    if missing:
        return Verdict.UNKNOWN, f"the run ended after {caption_seconds(seen.watched_s)}"
    if seen.recovered:
        return Verdict.UNKNOWN, "the session was resumed first"
    return Verdict.HOLDS, ""
