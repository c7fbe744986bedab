"""Do the engines agree on what healthy clients lose? From healthy_connections.csv and theory's laws to comparisons.

Theory has the law F of a connection's life, outages of its client's network apart, and the rate of losses in these. In
agreement.csv the fault is ``healthy``, the milestone ``lost`` or ``lost_in_outage``:

``count``  connections lost, against the sum of F over what each could have been watched (exact: Poisson-binomial);
           losses in outages against rate times client-days; two engines: their rates (exact, conditional binomial)
``range``  every life against the law's range
``shape``  F(life) / F(what it could have been watched) of those lost, against the uniform law (Kolmogorov–Smirnov)

The rule is that of `agreement`: a difference must exceed its tolerance, and chance must not explain it. Where theory
says that none is lost, one is a fail. Numbers of ``count`` are connections, not seconds. Not compared: clients that a
fault has hit, and losses laid to an incident.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.judge.observed import ROUNDING_S, Law, Slack
from harness.statistics.incidence import CONFIDENCE
from reference_server.durations import DAY_S
from reports.numbers import caption_seconds as in_seconds
from reports.numbers import share
from reports.run_tables import HEALTHY, LOST, LOST_IN_OUTAGE, RunTables

__all__ = ["HealthyCases", "healthy_cases"]

COUNT_TOLERANCE: Final = 0.05  # of the connections
RATE_TOLERANCE: Final = 0.10  # of the rate
SHAPE_TOLERANCE: Final = 0.05
_EXACT_UP_TO = 2000
Row = dict[str, Any]


@dataclass(frozen=True)
class _Held:
    """One engine's connections of healthy clients, seconds; arrays with one entry a connection.

    ``could_s`` is how long each could have been watched: to the run's end, or to its client's fault.
    """

    engine: str
    lasted_s: NDArray[np.float64]
    could_s: NDArray[np.float64]
    lost: NDArray[np.bool_]  # outages and incidents apart
    gone: NDArray[np.bool_]  # lost in any way
    in_outage: int
    client_days: float
    outages_s: NDArray[np.float64]  # in which outages could begin, of each connection
    slack_s: float


@dataclass(frozen=True)
class HealthyCases:
    """What there is to compare."""

    held: list[_Held]
    lost: Law | None
    in_outage: Law | None

    @property
    def left_to_chance(self) -> int:
        """How many comparisons can come out wrong by chance."""
        by_law = 2 if self.lost is not None and self.lost.known and self.lost.mass > 0 else 0
        return len(self.held) * (by_law + 1) + int(len(self.held) == 2)

    def rows(self, family: float) -> Iterator[Row]:
        """Yield rows of agreement.csv; ``family``: the confidence of each, so that they share one level."""
        for held in self.held:
            if self.lost is not None and self.lost.known:
                for row in _by_law(held, self.lost, 1 - family, self.in_outage):
                    yield {"fault": HEALTHY, "milestone": LOST, "left": held.engine, "right": "theory"} | row
            if self.in_outage is not None and self.in_outage.known:
                row = _by_rate(held, self.in_outage, 1 - family)
                yield {
                    "fault": HEALTHY,
                    "milestone": LOST_IN_OUTAGE,
                    "left": held.engine,
                    "right": "theory",
                } | row
        by_engine = {held.engine: held for held in self.held}
        if by_engine.keys() == {"real", "simulated"}:
            row = _of_two(by_engine["real"], by_engine["simulated"], 1 - family)
            yield {"fault": HEALTHY, "milestone": LOST, "left": "real", "right": "simulated"} | row


def healthy_cases(tables: RunTables, laws: list[Law], slack: Slack) -> HealthyCases:
    """Collect each engine's healthy connections, and the laws that they are held against.

    Args:
        tables: the run; ``healthy_connections`` is used.
        laws: of laws.csv; those of healthy clients are picked.
        slack: how far off the engines' times may be.
    """
    rows = tables.table("healthy_connections")
    if rows.empty:
        return HealthyCases([], None, None)
    # The plan has outages of the clients alone that no fault is to hit.
    hit = set(rows.loc[(rows["outcome"] == "ended") | (rows["hampered_by"] != ""), "client"])
    rows = rows[rows["hampered_by"] == ""]
    from_s = tables.number("ramp_s") or 0.0
    held = [
        _held(engine, mine, slack.of_times(engine, "suspected"), from_s, hit)
        for engine in tables.measured_engines
        if len(mine := rows[rows["engine"] == engine])
    ]
    ours = {law.milestone: law for law in laws}
    return HealthyCases(held, ours.get(LOST), ours.get(LOST_IN_OUTAGE))


def _held(engine: str, rows: pd.DataFrame, slack_s: float, from_s: float, hit: set[str]) -> _Held:
    begun_s, lasted_s = rows["connected_s"].to_numpy(float), rows["watched_s"].to_numpy(float)
    gone = (rows["outcome"] == "lost").to_numpy()
    over_s = pd.Series(begun_s + lasted_s + np.where(gone, rows["offline_s"].to_numpy(float), 0.0))
    end_s = over_s.groupby(rows["client"].to_numpy()).transform("max").to_numpy(float)
    outage = gone & rows["in_outage"].to_numpy(bool)
    counted = gone & ~outage & (rows["incident"] == "").to_numpy()
    could_s = np.where(gone & ~counted, lasted_s, end_s - begun_s)  # another cause ended it first
    after_s = np.clip(begun_s + lasted_s - np.maximum(begun_s, from_s), 0.0, None)
    after_s[rows["client"].isin(hit).to_numpy()] = 0.0
    return _Held(
        engine,
        lasted_s,
        could_s,
        counted,
        gone,
        int(outage.sum()),
        float(lasted_s.sum()) / DAY_S,
        after_s,
        0.0 if math.isnan(slack_s) else slack_s,
    )


def _by_law(held: _Held, law: Law, level: float, in_outage: Law | None) -> Iterator[Row]:
    n, lost = len(held.lost), int(held.lost.sum())
    count: Row = {"figure": "count", "left_s": float(lost), "n": n, "tolerance_s": 0.0}
    if law.mass <= 0:
        verdict = "fail" if lost else "pass"
        reason = f"{lost} of {n} healthy connections were lost, the law says that none is"
        stray = in_outage is not None and lost <= 1 + COUNT_TOLERANCE * held.in_outage
        if lost and in_outage is not None and (stray or not in_outage.known):
            verdict, reason = "unknown", f"{reason}, but for what follows from outages"
        yield count | {"right_s": 0.0, "difference_s": float(lost), "verdict": verdict, "reason": reason}
        return
    yield _range(held, law)
    if law.curve is None:
        return
    at = np.vectorize(law.curve.at, otypes=[float])
    expected = float(at(held.could_s).sum())
    least = np.array([law.curve.at(s - held.slack_s, before=True) for s in held.could_s])
    most = at(held.could_s + held.slack_s)
    apart = lost - expected
    count |= {"right_s": expected, "difference_s": apart, "tolerance_s": max(1.0, COUNT_TOLERANCE * n)}
    of_n = f"{lost} of {n} healthy connections were lost, the law says {expected:.1f}"
    why_not = law.shared or ("outages end connections before their time" if in_outage else "")
    chance = float(np.minimum(most, 1 - least).max(initial=0.0)) > 0
    if why_not and chance:
        yield count | {"verdict": "unknown", "reason": f"{of_n}; not judged: {why_not}"}
        return
    p = min(1.0, 2 * min(_at_least(lost, most), 1 - _at_least(lost + 1, least)))
    reach = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * math.sqrt(float((most * (1 - least)).sum()))
    count |= {"lo_s": apart - reach, "hi_s": apart + reach}
    if abs(apart) > count["tolerance_s"] and p < level:
        yield count | {"verdict": "fail", "reason": f"{of_n}; exact p = {p:.2g}"}
    elif abs(apart) <= count["tolerance_s"] and reach <= count["tolerance_s"]:
        yield count | {"verdict": "pass", "reason": of_n}
    else:
        yield count | {
            "verdict": "unknown",
            "reason": f"{of_n}; too few to tell within {share(COUNT_TOLERANCE)}",
        }
    if lost and law.hi_s > law.lo_s and not why_not:
        yield _shape(held, law, level)


def _range(held: _Held, law: Law) -> Row:
    lives_s = held.lasted_s[held.lost]
    allowed_s = held.slack_s + ROUNDING_S
    outside = int(((lives_s < law.lo_s - allowed_s) | (lives_s > law.hi_s + allowed_s)).sum())
    row: Row = {"figure": "range", "n": len(lives_s), "tolerance_s": held.slack_s}
    around = f"[{in_seconds(law.lo_s)}, {in_seconds(law.hi_s)}] ± {in_seconds(held.slack_s)}"
    if not len(lives_s):
        return row | {"verdict": "unknown", "reason": f"{held.engine}: none was lost"}
    took = f"they lasted {in_seconds(float(lives_s.min()))} to {in_seconds(float(lives_s.max()))}"
    if outside:
        return row | {
            "verdict": "fail",
            "reason": f"{outside} of {len(lives_s)} lie outside {around}: {took}",
        }
    return row | {"verdict": "pass", "reason": f"all {len(lives_s)} lie in {around}: {took}"}


def _shape(held: _Held, law: Law, level: float) -> Row:
    assert law.curve is not None
    lives_s, could_s = held.lasted_s[held.lost], held.could_s[held.lost]
    n = len(lives_s)
    whole = np.array([law.curve.at(s + held.slack_s) for s in could_s])
    late = np.sort([law.curve.at(s + held.slack_s) for s in lives_s] / np.maximum(whole, 1e-300))
    soon = np.sort([law.curve.at(s - held.slack_s, before=True) for s in lives_s] / np.maximum(whole, 1e-300))
    rank = np.arange(1, n + 1)
    distance = float(max(0.0, (rank / n - late).max(), (soon - (rank - 1) / n).max()))
    p, reach = float(stats.kstwo.sf(distance, n)), float(stats.kstwo.isf(1 - CONFIDENCE, n))
    row: Row = {"figure": "shape", "n": n, "tolerance_s": SHAPE_TOLERANCE, "difference_s": distance}
    size = f"{share(distance)} apart"
    if distance > SHAPE_TOLERANCE and p < level:
        return row | {"verdict": "fail", "reason": f"{size}; exact p = {p:.2g}"}
    if max(distance, reach) <= SHAPE_TOLERANCE:
        return row | {"verdict": "pass", "reason": size}
    return row | {"verdict": "unknown", "reason": f"{size}; too few lost to tell"}


def _by_rate(held: _Held, law: Law, level: float) -> Row:
    """Losses in outages: Poisson; the law's mean is the time from one to the next, of one client."""
    # What begins late in a connection that was not lost has not come to its loss.
    over_s = np.where(
        held.gone, held.outages_s, np.maximum(held.outages_s - (law.lo_s if law.mass else 0.0), 0.0)
    )
    days = float(over_s.sum()) / DAY_S
    expected = days * DAY_S / (law.mean_s - law.lo_s) if law.mass > 0 else 0.0
    return _poisson(held.in_outage, expected, days, level)


def _poisson(seen: int, expected: float, days: float, level: float) -> Row:
    row: Row = {"figure": "count", "left_s": float(seen), "right_s": expected, "n": seen}
    apart = seen - expected
    tolerance = max(1.0, RATE_TOLERANCE * expected)
    reach = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * math.sqrt(max(expected, 1.0))
    row |= {"difference_s": apart, "tolerance_s": tolerance, "lo_s": apart - reach, "hi_s": apart + reach}
    of = f"{seen} losses in outages of {days:.3g} client-days, the rate says {expected:.1f}"
    p = min(
        1.0, 2 * min(float(stats.poisson.cdf(seen, expected)), float(stats.poisson.sf(seen - 1, expected)))
    )
    if abs(apart) > tolerance and p < level:
        return row | {"verdict": "fail", "reason": f"{of}; exact p = {p:.2g}"}
    if abs(apart) <= tolerance and reach <= tolerance:
        return row | {"verdict": "pass", "reason": of}
    return row | {"verdict": "unknown", "reason": f"{of}; too few to tell"}


def _of_two(left: _Held, right: _Held, level: float) -> Row:
    """Two engines' losses of any kind a client-day."""
    lost = [int(held.lost.sum()) + held.in_outage for held in (left, right)]
    days = [held.client_days for held in (left, right)]
    rates = [count / max(day, 1e-12) for count, day in zip(lost, days, strict=True)]
    row: Row = {"figure": "count", "left_s": rates[0], "right_s": rates[1], "n": sum(lost)}
    apart, tolerance = rates[0] - rates[1], RATE_TOLERANCE * rates[1]
    row |= {"difference_s": apart, "tolerance_s": tolerance}
    of = f"{lost[0]} losses in {days[0]:.3g} client-days against {lost[1]} in {days[1]:.3g}"
    if not sum(lost):
        return row | {"verdict": "pass", "reason": of}
    p = float(stats.binomtest(lost[0], sum(lost), days[0] / sum(days)).pvalue)
    if abs(apart) > tolerance and p < level:
        return row | {"verdict": "fail", "reason": f"{of}; exact p = {p:.2g}"}
    variance = sum(count / day**2 for count, day in zip(lost, days, strict=True))
    reach = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * math.sqrt(variance)
    if abs(apart) <= tolerance and reach <= tolerance:
        return row | {"verdict": "pass", "reason": of}
    return row | {"verdict": "unknown", "reason": f"{of}; too few to tell within {share(RATE_TOLERANCE)}"}


def _at_least(count: int, probabilities: NDArray[np.float64]) -> float:
    """P(at least so many of independent events happen)."""
    sure = int((probabilities >= 1).sum())
    open_ = probabilities[(probabilities > 0) & (probabilities < 1)]
    if count <= sure:
        return 1.0
    if count > sure + len(open_):
        return 0.0
    if len(open_) <= _EXACT_UP_TO:
        return float(stats.poisson_binom(open_).sf(count - sure - 1))
    spread = math.sqrt(float((open_ * (1 - open_)).sum()))
    return float(stats.norm.sf((count - sure - 0.5 - open_.sum()) / spread))
