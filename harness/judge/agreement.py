"""Do theory, simulation and reality agree? From the tables of a run to one verdict a comparison.

Every fault and milestone gets these comparisons, an engine against the law, and real against simulated:

``p50``, ``p95``, ``p99``  an engine's percentile against the law's
``range``                  every single detection of an engine against the law's range
``share``                  the share of faults that were detected against the law's mass; here the columns ``left_s``,
                           ``right_s``, ``difference_s``, ``tolerance_s``, ``lo_s``, ``hi_s`` hold shares, not seconds
``count``                  connections that healthy clients lost: `healthy_agreement`
``shape``                  the whole distribution: ``difference_s`` is Kolmogorov's distance, a share as well. It sees
                           pings that bunch and phases that are shifted, inside the right range

The rule, for a difference d = left − right with tolerance t:

* **pass**: |d| ≤ t, and the sample is large enough to tell: the 95 % interval of d reaches no further
  than t from d. A sample too small to notice a difference of t proves nothing by not noticing one.
* **fail**: |d| > t, and chance does not explain it. Against a law: a sample of that very law would hardly
  have a percentile so far off (exact, from the binomial law of order statistics), or be so far from it (exact, from
  Kolmogorov's law). Between two engines: the interval of d leaves 0 out, or the exact two-sample test says so. All at
  a level that is shared by all comparisons of the report (Bonferroni), so that if the engines agree, any red
  comparison of this kind at all comes up at most once in a hundred reports.
* **unknown**: neither; or it would be a pass, and the run is unsound: numbers that agree by luck are no proof.

These tests take the faults for independent draws. Where they share something random, as the phase of one sweep, only
the range is judged; the others are unknown and say why.

A range has no chance in it: one detection outside it by more than the tolerance, or one fault watched
beyond its end and not detected although the law says that all are, is a fail however small the sample.
That is what catches a gateway with max_failures 2 under a law for 3. A law's mass of exactly 0 or 1 is
judged likewise.

t is the larger of the percentile's tolerance (a share of the law's value) and what the engine's times
may be off by (`observed.Slack`): ε for the real engine, one round trip for the simulated one. For a range
it is the latter alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from harness.judge.healthy_agreement import healthy_cases
from harness.judge.observed import ROUNDING_S, Law, Observed, Slack, laws, observe
from harness.statistics.incidence import CONFIDENCE
from harness.statistics.order_statistics import Estimate, Sample, difference, smallest_sample
from reports.numbers import caption_seconds as in_seconds
from reports.numbers import share, signed_seconds
from reports.page import Headline
from reports.run_tables import PERCENTILES, SCHEMAS, RunTables

__all__ = ["NO_PROOF", "AgreementVerdict", "compare", "judge"]

FALSE_ALARM: Final = 0.01  # of a whole report in which everything agrees
SHARE_TOLERANCE: Final = 0.05  # where the law leaves it to chance who is detected
SHAPE_TOLERANCE: Final = 0.05  # Kolmogorov's distance, in probability
NO_PROOF: Final = "within its tolerance, but the run is unsound"
Row = dict[str, object]


class AgreementVerdict(NamedTuple):
    """The verdict over all comparisons, in a sentence, and how many there were of each."""

    verdict: str
    reason: str
    passed: int
    failed: int
    unknown: int

    @property
    def headline(self) -> Headline:
        """For a report."""
        return Headline(self.verdict, self.reason)


def compare(
    tables: RunTables, tolerances: Mapping[str, float], slack: Slack, *, unsound: bool = False
) -> pd.DataFrame:
    """Return agreement.csv: one row a comparison.

    ``lo_s`` and ``hi_s`` are the 95 % interval of the difference, empty where n sets no such bound.

    Args:
        tables: the run; ``laws`` and ``detections`` are used.
        tolerances: of ``p50``, ``p95``, ``p99`` as shares of the law's value.
        slack: how far off the engines' times may be.
        unsound: the run is not to be believed, and no comparison of it passes.

    Raises:
        ValueError: a percentile has no tolerance, or a negative one.
    """
    for name in PERCENTILES:
        if not tolerances.get(name, -1.0) >= 0:
            raise ValueError(f"tolerances: {name} must be a share of 0 or more, in {dict(tolerances)}")
    cases = list(observe(tables, slack))
    healthy = healthy_cases(tables, list(laws(tables)), slack)
    # Wide enough that all comparisons together give a false alarm only so often.
    chances = healthy.left_to_chance + sum(_left_to_chance(law, seen) for law, seen in cases)
    family = 1 - FALSE_ALARM / max(1, chances)
    rows = [
        {"fault": law.fault, "milestone": law.milestone, **row}
        for law, seen in cases
        for row in _rows(law, seen, tolerances, family)
    ]
    rows += healthy.rows(family)
    table = pd.DataFrame(rows, columns=list(SCHEMAS["agreement"]))
    if unsound:
        table.loc[table["verdict"] == "pass", ["verdict", "reason"]] = ["unknown", NO_PROOF]
    numbers = ["left_s", "right_s", "difference_s", "tolerance_s", "lo_s", "hi_s"]
    table[numbers] = table[numbers].astype("float64").replace([np.inf, -np.inf], np.nan)
    return table.astype(dict(SCHEMAS["agreement"]))


def judge(table: pd.DataFrame, *, sound: bool | None) -> AgreementVerdict:
    """Judge the whole table: fail if any row fails; unknown if the run is unsound or nothing passed; else pass."""
    tally = table["verdict"].value_counts()
    counts = tuple(int(tally.get(name, 0)) for name in ("pass", "fail", "unknown"))
    passed, failed, unknown = counts
    if failed:
        faults = ", ".join(dict.fromkeys(table.loc[table["verdict"] == "fail", "fault"]))
        doubt = "; the run is unsound as well, so mend that first" if sound is False else ""
        verdict, reason = "fail", f"{failed} of {len(table)} comparisons disagree ({faults}){doubt}"
    elif sound is False:
        verdict, reason = "unknown", "the run is unsound, its times prove nothing"
    elif not passed:
        verdict = "unknown"
        reason = (
            "every sample is too small: more clients decide it"
            if unknown
            else "no two engines saw the same fault"
        )
    else:
        rest = f", {unknown} could not be decided" if unknown else ""
        verdict = "pass"
        reason = f"{passed} of {len(table)} comparisons are within their tolerance, none is outside{rest}"
    return AgreementVerdict(verdict, reason, passed, failed, unknown)


def _left_to_chance(law: Law, seen: list[Observed]) -> int:
    """How many comparisons of a case can come out wrong by chance."""
    if law.shared:
        return 0
    samples = sum(one.latencies.n > 0 for one in seen)
    pairs = int(samples == 2)
    if not law.known:
        return pairs * (len(PERCENTILES) + 2)
    percentiles = sum(math.isfinite(value) for value in law.percentiles.values())
    shares = samples if 0 < law.mass < 1 else 0
    shapes = samples if _has_shape(law) else 0
    return percentiles * (samples + pairs) + shares + shapes


def _has_shape(law: Law) -> bool:
    return law.known and law.mass > 0 and law.curve is not None and law.hi_s > law.lo_s


def _rows(law: Law, seen: list[Observed], tolerances: Mapping[str, float], family: float) -> Iterator[Row]:
    for one in seen if law.known else []:
        yield from _percentile_rows(law, one, None, tolerances, family)
        yield _range_row(law, one)
        yield _share_row(law, one, family)
        if _has_shape(law):
            yield _shape_row(law, one, family)
    by_engine = {one.engine: one for one in seen}
    if by_engine.keys() == {"real", "simulated"}:
        real, simulated = by_engine["real"], by_engine["simulated"]
        yield from _percentile_rows(law, real, simulated, tolerances, family)
        if not law.known:
            yield from _pair_rows(law, real, simulated, family)


def _percentile_rows(
    law: Law, left: Observed, right: Observed | None, tolerances: Mapping[str, float], family: float
) -> Iterator[Row]:
    sides = [left] if right is None else [left, right]
    n = min(side.latencies.n for side in sides)
    omitted = sum(side.left_out for side in sides)
    for name, q in PERCENTILES.items():
        law_s = law.percentiles[name]
        if right is not None and not law.known and n:
            law_s = right.latencies.quantile(q, CONFIDENCE).value
        if not math.isfinite(law_s):
            continue  # the law never gets there; its range and its mass are judged
        tolerance_s = max(tolerances[name] * abs(law_s), sum(side.known_slack_s for side in sides))
        row: Row = {
            "figure": name,
            "left": left.engine,
            "right": right.engine if right else "theory",
            "tolerance_s": tolerance_s,
            "n": n,
        }
        if not n:
            empty = next(side for side in sides if not side.latencies.n)
            known = {} if right else {"right_s": law_s}
            yield row | known | {"verdict": "unknown", "reason": empty.nothing_seen()}
            continue
        if law.shared:
            yield row | {"verdict": "unknown", "reason": f"not judged: {law.shared}"}
            continue
        usual, wide = (_quantiles(left.latencies, right, law_s, q, c) for c in (CONFIDENCE, family))
        apart, widest = difference(*usual), difference(*wide)
        by_chance = widest.lo <= 0 <= widest.hi
        if right is None and law.curve is not None:
            by_chance = law.curve.chance(left.latencies, q, left.known_slack_s) >= 1 - family
        verdict, reason = _decide(apart, tolerance_s, by_chance)
        few = verdict == "unknown" and n < smallest_sample(q, CONFIDENCE)
        reason += f"; n = {n}" + (f", {name} needs {smallest_sample(q, CONFIDENCE)}" if few else "")
        if omitted:
            reason += f"; {omitted} left out that came too late to be watched through the law's range"
        numbers = {"left_s": usual[0].value, "right_s": usual[1].value, "difference_s": apart.value}
        yield row | numbers | {"lo_s": apart.lo, "hi_s": apart.hi, "verdict": verdict, "reason": reason}


def _quantiles(
    left: Sample, right: Observed | None, law_s: float, q: float, confidence: float
) -> tuple[Estimate, Estimate]:
    law = Estimate(law_s, law_s, law_s)
    return left.quantile(q, confidence), right.latencies.quantile(q, confidence) if right else law


def _decide(apart: Estimate, tolerance_s: float, by_chance: bool) -> tuple[str, str]:
    """Apply the rule to a difference in seconds with its 95 % interval."""
    limit, reach = in_seconds(tolerance_s), _reach(apart)
    finite = math.isfinite(apart.value)
    size = f"{signed_seconds(apart.value)} s" if finite else "what only one side ever reaches"
    if abs(apart.value) <= tolerance_s:
        if apart.half_width <= tolerance_s:
            return "pass", f"{size} is within {limit} ({reach})"
        return "unknown", f"{size} is within {limit}, but too few faults to tell ({reach})"
    if not by_chance:
        return "fail", f"{size} is more than {limit}, and chance does not explain it ({reach})"
    return (
        "unknown",
        f"{size} is more than {limit}, but among so many comparisons chance may do that ({reach})",
    )


def _reach(apart: Estimate) -> str:
    lo, hi = (signed_seconds(bound) if math.isfinite(bound) else "" for bound in (apart.lo, apart.hi))
    if lo and hi:
        return f"95 %: {lo} to {hi} s"
    return f"95 %: above {lo} s" if lo else f"95 %: below {hi} s" if hi else "no 95 % interval"


def _range_row(law: Law, seen: Observed) -> Row:
    """Every detection lies in the law's range, give or take the engine's slack."""
    n = len(seen.detected_s)

    def row(
        verdict: str,
        reason: str,
        left_s: float = math.nan,
        right_s: float = math.nan,
        apart_s: float = math.nan,
    ) -> Row:
        engines: Row = {"figure": "range", "left": seen.engine, "right": "theory"}
        numbers: Row = {
            "left_s": left_s,
            "right_s": right_s,
            "difference_s": apart_s,
            "tolerance_s": seen.slack_s,
        }
        return engines | numbers | {"verdict": verdict, "reason": reason, "n": n}

    if law.mass <= 0:
        if n:
            return row("fail", f"{n} were detected, the law says that none is")
        return row("pass", "no detection, as the law says")
    if math.isnan(seen.slack_s):
        return row("unknown", "ε of this run is not known")
    allowed_s = seen.slack_s + ROUNDING_S
    around = f"[{in_seconds(law.lo_s)}, {in_seconds(law.hi_s)}] ± {in_seconds(seen.slack_s)}"
    low_s = float(seen.detected_s.min()) if n else math.inf
    high_s = float(seen.detected_s.max()) if n else -math.inf
    took = (
        f"they took {in_seconds(low_s)} to {in_seconds(high_s)}" if n > 1 else f"it took {in_seconds(low_s)}"
    )
    early_s, late_s = law.lo_s - low_s, high_s - law.hi_s
    extreme_s, bound_s = (low_s, law.lo_s) if early_s >= late_s else (high_s, law.hi_s)
    outside = int(((seen.detected_s < law.lo_s - allowed_s) | (seen.detected_s > law.hi_s + allowed_s)).sum())
    if outside:
        reason = f"{outside} of {n} detections lie outside {around}: {took}"
        return row("fail", reason, extreme_s, bound_s, extreme_s - bound_s)
    if law.mass >= 1 and seen.outlasted_s > law.hi_s + allowed_s:
        watched_s, hi_s = seen.outlasted_s, law.hi_s
        law_says = f"the law says that all are detected by {in_seconds(hi_s)}"
        reason = f"watched for {in_seconds(watched_s)} and not detected; {law_says}"
        return row("fail", reason, watched_s, hi_s, watched_s - hi_s)
    if not n:
        return row("unknown", seen.nothing_seen())
    # 0 inside the range: only what lies outside is a difference.
    beyond_s = extreme_s - bound_s if max(early_s, late_s) > 0 else 0.0
    all_lie = f"all {n} detections lie" if n > 1 else "the one detection lies"
    return row("pass", f"{all_lie} in {around}: {took}", extreme_s, bound_s, beyond_s)


def _share_row(law: Law, seen: Observed, confidence: float) -> Row:
    """As many are detected as the law says (exact binomial test). The row's numbers are shares, not seconds."""
    by_chance = 0 < law.mass < 1
    n, k = seen.n, seen.detected
    row: Row = {
        "figure": "share",
        "left": seen.engine,
        "right": "theory",
        "right_s": law.mass,
        "n": n,
        "tolerance_s": SHARE_TOLERANCE if by_chance else 0.0,
    }
    if not n:
        if law.mass <= 0 and not len(seen.detected_s):
            return {**row, "verdict": "pass", "reason": "no such fault took effect, as the law says"}
        return {**row, "verdict": "unknown", "reason": seen.nothing_seen()}
    mass = min(1.0, max(0.0, law.mass))
    test = stats.binomtest(k, n, mass)
    bounds = test.proportion_ci(CONFIDENCE)
    apart = k / n - mass
    lo, hi = float(bounds.low) - mass, float(bounds.high) - mass
    row |= {"left_s": k / n, "difference_s": apart, "lo_s": lo, "hi_s": hi}
    by = f" by {in_seconds(law.until_s)}" if math.isfinite(law.until_s) else ""
    of_n = f"{k} of {n} were detected{by}, the law says {share(mass)}"
    if not by_chance:
        return {**row, "verdict": "pass" if apart == 0 else "fail", "reason": of_n}
    if law.shared:
        return {**row, "verdict": "unknown", "reason": f"{of_n}; not judged: {law.shared}"}
    if abs(apart) > SHARE_TOLERANCE and test.pvalue < 1 - confidence:
        return {**row, "verdict": "fail", "reason": f"{of_n}; exact p = {test.pvalue:.2g}"}
    if max(abs(apart), apart - lo, hi - apart) <= SHARE_TOLERANCE:
        return {**row, "verdict": "pass", "reason": of_n}
    why = f"too few faults to tell within {share(SHARE_TOLERANCE)}"
    return {**row, "verdict": "unknown", "reason": f"{of_n}; {why}"}


def _shape_row(law: Law, seen: Observed, confidence: float) -> Row:
    """The whole distribution (Kolmogorov–Smirnov, exact; conservative where the law has jumps)."""
    row: Row = {
        "figure": "shape",
        "left": seen.engine,
        "right": "theory",
        "n": seen.n,
        "tolerance_s": SHAPE_TOLERANCE,
    }
    if not seen.n:
        return {**row, "verdict": "unknown", "reason": seen.nothing_seen()}
    if law.shared:
        return {**row, "verdict": "unknown", "reason": f"not judged: {law.shared}"}
    assert law.curve is not None
    distance = law.curve.farthest(seen.latencies, seen.known_slack_s)
    p = float(stats.kstwo.sf(distance, seen.n))
    return row | _by_distance(distance, p, _farthest_by_chance(seen.n), 1 - confidence)


@lru_cache(maxsize=1024)  # SciPy searches for it, which takes most of a comparison, and engines share their n
def _farthest_by_chance(n: int) -> float:
    """How far the shares of n draws may be from their law by chance."""
    return float(stats.kstwo.isf(1 - CONFIDENCE, n))


def _pair_rows(law: Law, left: Observed, right: Observed, confidence: float) -> Iterator[Row]:
    """Two engines where theory has no law: as many detected (Fisher), distributed alike (Kolmogorov–Smirnov)."""
    n = min(left.n, right.n)
    row: Row = {"left": left.engine, "right": right.engine, "n": n}
    if not n:
        empty = left if not left.n else right
        yield row | {"figure": "share", "verdict": "unknown", "reason": empty.nothing_seen()}
        return
    shares = left.detected / left.n, right.detected / right.n
    apart = shares[0] - shares[1]
    counts = np.array([[one.detected, one.n - one.detected] for one in (left, right)])
    p = float(stats.fisher_exact(counts).pvalue)
    z = float(stats.norm.isf((1 - CONFIDENCE) / 2))
    reach = z * math.sqrt(sum(s * (1 - s) / one.n for s, one in zip(shares, (left, right), strict=True)))
    found = _by_distance(abs(apart), p, reach, 1 - confidence)
    why = f"{left.detected} of {left.n} against {right.detected} of {right.n}; {found['reason']}"
    numbers = {"left_s": shares[0], "right_s": shares[1], "difference_s": apart}
    yield row | {"figure": "share", "tolerance_s": SHARE_TOLERANCE} | found | numbers | {"reason": why}
    slack_s = left.known_slack_s + right.known_slack_s
    times = left.latencies.ordered_s, right.latencies.ordered_s
    # Left is moved towards right before either is called the earlier one.
    later = stats.ks_2samp(times[0] - slack_s, times[1], alternative="less")
    earlier = stats.ks_2samp(times[0] + slack_s, times[1], alternative="greater")
    tests = (later, earlier)
    distance = max(float(test.statistic) for test in tests)
    p = min(1.0, 2 * min(float(test.pvalue) for test in tests))
    reach = float(stats.kstwobign.isf(1 - CONFIDENCE)) * math.sqrt(1 / left.n + 1 / right.n)
    shape: Row = {"figure": "shape", "tolerance_s": SHAPE_TOLERANCE}
    yield row | shape | _by_distance(distance, p, reach, 1 - confidence)


def _by_distance(distance: float, p: float, reach: float, level: float) -> Row:
    """The rule for a distance in probability; ``reach``: how far chance takes one, 19 times of 20."""
    row: Row = {"difference_s": distance, "lo_s": max(0.0, distance - reach), "hi_s": distance + reach}
    size, limit = f"{share(distance)} apart", share(SHAPE_TOLERANCE)
    if distance > SHAPE_TOLERANCE and p < level:
        return {**row, "verdict": "fail", "reason": f"{size}, more than {limit}; exact p = {p:.2g}"}
    if distance <= SHAPE_TOLERANCE and reach <= SHAPE_TOLERANCE:
        return {**row, "verdict": "pass", "reason": f"{size}, within {limit}"}
    return {**row, "verdict": "unknown", "reason": f"{size}; too few faults to tell within {limit}"}
