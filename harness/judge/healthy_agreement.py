"""Do the engines agree on what healthy clients lose? From healthy_connections.csv and theory's laws to comparisons.

Theory has the law F of a connection's life, outages of its client's network apart, and the rate of losses in these. In
agreement.csv the fault is ``healthy``, the milestone ``lost`` or ``lost_in_outage``, or ``lost_by_`` with an author
(``middle``, ``client``, …) or a cause of the gateway's (``heartbeat``, ``session_timeout``, …): what has the right sum
may have the wrong parts.

``count``  connections lost, against the sum of F over what each could have been watched (exact: Poisson-binomial);
           losses in outages against rate times client-days; two engines: their rates (exact, conditional binomial)
           records that refreshes wrote (milestone ``refreshed``) against what theory says of as much time (Poisson)
``range``  every life against the law's range
``shape``  F(life) / F(what it could have been watched) of those lost, against the uniform law (Kolmogorov–Smirnov)

The rule is that of `agreement`: a difference must exceed its tolerance, and chance must not explain it. Where theory
says that none is lost, one is a fail. Numbers of ``count`` are connections, not seconds. Not compared: clients that a
fault has hit, and losses laid to an incident.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from reports.run_tables import HEALTHY, LOST, LOST_BY, LOST_IN_OUTAGE, REFRESHED, RunTables

__all__ = ["HealthyCases", "healthy_cases"]

COUNT_TOLERANCE: Final = 0.05  # of the connections
RATE_TOLERANCE: Final = 0.10  # of the rate
REFRESH_TOLERANCE: Final = 0.05  # of the records
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
    counted: NDArray[np.bool_]  # lost, incidents apart
    in_outage: int
    client_days: float
    outages_s: NDArray[np.float64]  # in which outages could begin, of each connection
    slack_s: float
    by: NDArray[np.str_]  # who ended it: an author, or a cause of the gateway's

    def lost_by(self, by: str) -> _Held:
        """The same connections, but only these losses count, outages apart."""
        return replace(self, lost=self.lost & (self.by == by))

    def count_by(self) -> Counter[str]:
        """Losses of each, those in outages with them."""
        return Counter(self.by[self.counted].tolist())


@dataclass(frozen=True)
class HealthyCases:
    """What there is to compare."""

    held: list[_Held]
    lost: Law | None
    in_outage: Law | None
    parts: Mapping[str, Law]  # of ``lost``, by who ends it; empty: theory does not know
    refreshes: list[tuple[str, float, float]]  # engine, records that refreshes wrote, by theory
    tied: str  # why it is a matter of lag who ends a connection; empty: it is not

    @property
    def left_to_chance(self) -> int:
        """How many comparisons can come out wrong by chance."""
        by_law = 2 if self.lost is not None and self.lost.known and self.lost.mass > 0 else 0
        by_law += sum(law.mass > 0 for law in self.parts.values()) if len(self.parts) > 1 else 0
        between = 1 + len(self._parts_seen()) if len(self.held) == 2 else 0
        written = sum(expected > 0 for _, _, expected in self.refreshes)
        return len(self.held) * (by_law + 1) + between + written

    def _parts_seen(self) -> list[str]:
        """Who ended any, in any engine."""
        return sorted({by for held in self.held for by in held.count_by()})

    def rows(self, family: float) -> Iterator[Row]:
        """Yield rows of agreement.csv; ``family``: the confidence of each, so that they share one level."""
        level = 1 - family
        for held in self.held:
            found: list[tuple[str, Row]] = []
            if self.lost is not None and self.lost.known:
                found += [(LOST, row) for row in _by_law(held, self.lost, level, self.in_outage)]
                found += list(self._by_parts(held, level))
            if self.in_outage is not None and self.in_outage.known:
                found.append((LOST_IN_OUTAGE, _by_rate(held, self.in_outage, level)))
            for milestone, row in found:
                yield {"fault": HEALTHY, "milestone": milestone, "left": held.engine, "right": "theory"} | row
        for engine, wrote, expected in self.refreshes:
            row = _written(wrote, expected, level)
            yield {"fault": HEALTHY, "milestone": REFRESHED, "left": engine, "right": "theory"} | row
        by_engine = {held.engine: held for held in self.held}
        if by_engine.keys() == {"real", "simulated"}:
            pair = by_engine["real"], by_engine["simulated"]
            of: Row = {"fault": HEALTHY, "left": "real", "right": "simulated"}
            yield of | {"milestone": LOST} | _of_two(*pair, level)
            for by in self._parts_seen():
                yield of | {"milestone": LOST_BY + by} | _of_two(*pair, level, by, self.tied)

    def _by_parts(self, held: _Held, level: float) -> Iterator[tuple[str, Row]]:
        """Each author's losses against the law of these; whoever theory does not name ends none."""
        assert self.lost is not None
        if not self.parts or not self.lost.mass:
            return
        for by in sorted({*self.parts, *held.by[held.lost].tolist()}):
            law, mine = self.parts.get(by), held.lost_by(by)
            if law is None:
                yield LOST_BY + by, _stray(mine, int(held.lost.sum()))
            else:
                for row in _by_law(mine, law, level, self.in_outage):
                    if row["figure"] == "count":
                        yield LOST_BY + by, row


def healthy_cases(tables: RunTables, laws: list[Law], slack: Slack) -> HealthyCases:
    """Collect each engine's healthy connections, and the laws that they are held against.

    Args:
        tables: the run; ``healthy_connections`` is used.
        laws: of laws.csv; those of healthy clients are picked.
        slack: how far off the engines' times may be.
    """
    refreshes = [
        (str(row["engine"]), float(row["redis_operations"]), float(row["redis_operations_expected"]))
        for row in tables.table("cost").to_dict("records")
        if math.isfinite(row.get("redis_operations_expected", math.nan))
    ]
    rows = tables.table("healthy_connections")
    if rows.empty:
        return HealthyCases([], None, None, {}, refreshes, "")
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
    parts = {name.removeprefix(LOST_BY): law for name, law in ours.items() if name.startswith(LOST_BY)}
    tied = parts.pop("").note if "" in parts else ""
    return HealthyCases(held, ours.get(LOST), ours.get(LOST_IN_OUTAGE), parts, refreshes, tied)


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
        counted | outage,
        int(outage.sum()),
        float(lasted_s.sum()) / DAY_S,
        after_s,
        0.0 if math.isnan(slack_s) else slack_s,
        rows["cause"].where(rows["author"] == "gateway", rows["author"]).to_numpy(str),
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


def _written(wrote: float, expected: float, level: float) -> Row:
    """Two records a refresh; refreshes at independent phases spread less than Poisson's, so its test is a bound."""
    row: Row = {"figure": "count", "left_s": wrote, "right_s": expected, "n": int(wrote)}
    apart, tolerance = wrote - expected, max(2.0, REFRESH_TOLERANCE * expected)
    row |= {"difference_s": apart, "tolerance_s": tolerance}
    of = f"refreshes wrote {wrote:.0f} records, the rate says {expected:.1f}"
    times, mean = wrote / 2, expected / 2
    p = min(1.0, 2 * min(float(stats.poisson.cdf(times, mean)), float(stats.poisson.sf(times - 1, mean))))
    reach = 2 * float(stats.norm.isf((1 - CONFIDENCE) / 2)) * math.sqrt(mean)
    row |= {"lo_s": apart - reach, "hi_s": apart + reach}
    if abs(apart) > tolerance and (p < level or not expected):
        return row | {"verdict": "fail", "reason": f"{of}; exact p = {p:.2g}"}
    if abs(apart) <= tolerance and reach <= tolerance:
        return row | {"verdict": "pass", "reason": of}
    return row | {"verdict": "unknown", "reason": f"{of}; too few to tell"}


def _stray(held: _Held, of: int) -> Row:
    """Losses by somebody whom theory does not name: a few may be a matter of who was told first."""
    lost, most = int(held.lost.sum()), max(1.0, COUNT_TOLERANCE * of)
    row: Row = {
        "figure": "count",
        "left_s": float(lost),
        "right_s": 0.0,
        "difference_s": float(lost),
        "n": of,
    }
    verdict = "fail" if lost > most else "unknown"
    reason = f"{lost} of {of} losses, the law says that none is by that"
    return row | {"tolerance_s": most, "verdict": verdict, "reason": reason}


def _of_two(left: _Held, right: _Held, level: float, by: str = "", tied: str = "") -> Row:
    """Two engines' losses a client-day: of any kind, or those by one; ``tied``: why that is not judged."""
    sides = (left, right)
    lost = [held.count_by()[by] if by else int(held.lost.sum()) + held.in_outage for held in sides]
    days = [held.client_days for held in (left, right)]
    rates = [count / max(day, 1e-12) for count, day in zip(lost, days, strict=True)]
    row: Row = {"figure": "count", "left_s": rates[0], "right_s": rates[1], "n": sum(lost)}
    apart, tolerance = rates[0] - rates[1], RATE_TOLERANCE * rates[1]
    row |= {"difference_s": apart, "tolerance_s": tolerance}
    of = f"{lost[0]} losses in {days[0]:.3g} client-days against {lost[1]} in {days[1]:.3g}"
    if not sum(lost):
        return row | {"verdict": "pass", "reason": of}
    if tied:
        return row | {"verdict": "unknown", "reason": f"{of}; not judged: {tied}"}
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
