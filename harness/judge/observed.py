"""What an engine saw of one fault and milestone, cut to what its law can be held against.

From laws.csv and detections.csv to samples; judges nothing.

A fault that took effect too late to be watched through the law's range is left out, detected or not.
Exclude by the time of injection, never by the outcome: a sample of what was seen in time holds too many short
durations. Where that leaves nobody, the law is cut at the time for which all were watched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.judge.soundness import Soundness
from harness.statistics.incidence import CONFIDENCE
from harness.statistics.order_statistics import Sample
from reports.run_tables import LOST, PERCENTILES, RunTables
from scenarios.clock import SCENARIO_TIME
from scenarios.schema import Scenario

__all__ = ["CONFIDENCE", "LOOPS", "ROUNDING_S", "Curve", "Law", "Observed", "Slack", "laws", "observe"]

ROUNDING_S: Final = 1e-6  # times were logged, converted by the clock and read back


LOOPS: Final[Mapping[str, int]] = {
    "suspected": 1,  # the gateway's
    "socket_closed": 1,
    "store_cleared": 2,  # the gateway's again, when the resume window is over
    "peers_notified": 3,  # that, the gateway's subscription, the watching client's
    "locked_out": 2,  # the gateway's again, for the login
}
"""Event loops that a real milestone passes, one after the other."""


class Slack(NamedTuple):
    """How far off an engine's times may be, scenario seconds; NaN: not known.

    ``store_grain_s`` is the time between two looks of the store watch: by so much more may the real
    engine's ``store_cleared`` be late; ``socket_grain_s`` is the observer's, for ``socket_closed``.
    ``retry_s`` is the wait between two tries to log in again: a clean-up
    that is late by next to nothing misses a try, and ``locked_out`` ends with the one after it.

    ε holds one passage through a loop. A later milestone takes more of them, and each may lag: `LOOPS`.
    """

    real_s: float
    simulated_s: float
    store_grain_s: float = 0.0
    retry_s: float = 0.0
    socket_grain_s: float = 0.0

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        soundness: Soundness | None,
        store_grain_s: float,
        socket_grain_s: float = 0.0,
    ) -> Slack:
        """ε of the run for the real engine, one long round trip for the simulated one.

        Args:
            scenario: its network and its clients' retries.
            soundness: of the real run; None: there was none.
            store_grain_s: the longest time between two looks of the store watch, scenario seconds.
            socket_grain_s: between two looks of the observer at a server's socket; 0 where the gateway says it.
        """
        network = scenario.network.seen_at(scenario.clock if soundness else SCENARIO_TIME)
        relogin = scenario.reconnect.relogin
        return cls(
            real_s=soundness.epsilon_s if soundness else math.nan,
            simulated_s=network.round_trip.quantile(0.999).item(),
            store_grain_s=store_grain_s,
            retry_s=relogin.retry if relogin else 0.0,
            socket_grain_s=socket_grain_s,
        )

    def of_times(self, engine: str, milestone: str) -> float:
        """Slack of one engine's times of one milestone."""
        slack_s = self.real_s * LOOPS[milestone] if engine == "real" else self.simulated_s
        if milestone == "locked_out":
            slack_s += self.retry_s
        if milestone == "store_cleared" and engine == "real":
            slack_s += self.store_grain_s
        if milestone == "socket_closed" and engine == "real":
            slack_s += self.socket_grain_s
        return slack_s


@dataclass(frozen=True)
class Curve:
    """A law's distribution function on knots, shapes (n,): linear between them, a jump where two share a time."""

    times_s: NDArray[np.float64]
    probabilities: NDArray[np.float64]

    def at(self, time_s: float, *, before: bool = False) -> float:
        """P(T ≤ time), or P(T < time)."""
        n = int(np.searchsorted(self.times_s, time_s, side="left" if before else "right"))
        if n == 0 or n == len(self.times_s):
            return float(self.probabilities[-1]) if n else 0.0
        (start_s, stop_s), (low, high) = (self.times_s[n - 1 : n + 1], self.probabilities[n - 1 : n + 1])
        passed = (time_s - start_s) / (stop_s - start_s) if stop_s > start_s else 0.0
        return float(low + passed * (high - low))

    def cut(self, until_s: float) -> Curve:
        """The same curve up to a time: what would come later never comes."""
        kept = self.times_s < until_s
        return Curve(
            np.append(self.times_s[kept], until_s), np.append(self.probabilities[kept], self.at(until_s))
        )

    def farthest(self, sample: Sample, slack_s: float) -> float:
        """Return how far the sample's distribution is from this one: sup |F_n(t) − F(t)|, Kolmogorov's distance.

        Each time may be off by ``slack_s`` either way, which only brings the two nearer.
        """
        n = sample.n
        seen_s = sample.ordered_s[np.isfinite(sample.ordered_s)]
        rank = np.arange(1, len(seen_s) + 1)
        mass = float(self.probabilities[-1]) if len(self.probabilities) else 0.0
        above = rank / n - np.array([self.at(t + slack_s) for t in seen_s])
        below = np.array([self.at(t - slack_s, before=True) for t in seen_s]) - (rank - 1) / n
        return float(max(0.0, mass - len(seen_s) / n, *above, *below))

    def chance(self, sample: Sample, q: float, slack_s: float) -> float:
        """Return how likely a sample of this law has a q-quantile as far off as this one or farther (two-sided).

        Exact for independent times: the r-th of n is at most t where r or more of n are, a binomial
        probability. ``slack_s`` is taken off the distance first.
        """
        rank = sample.rank(q)
        value_s = float(sample.ordered_s[rank - 1])
        early = float(stats.binom.sf(rank - 1, sample.n, self.at(value_s + slack_s)))
        late = float(stats.binom.cdf(rank - 1, sample.n, self.at(value_s - slack_s, before=True)))
        return min(1.0, 2 * min(early, late))


@dataclass(frozen=True)
class Law:
    """One row of laws.csv. ``mass`` is the share that is detected at all, or by ``until_s``.

    The range is of all that are detected at all, the percentiles are of all faults: NaN above ``mass``.
    """

    fault: str
    milestone: str
    lo_s: float
    hi_s: float
    mass: float
    percentiles: Mapping[str, float]
    curve: Curve | None  # None: the run has laws.csv without law_curves.csv
    mean_s: float = math.nan
    shared: str = ""  # why the faults are no independent draws of the law; empty: they are
    note: str = ""
    until_s: float = math.inf  # cut there: nobody was watched for longer

    @property
    def known(self) -> bool:
        """Whether theory has a law at all; else the engines are held against each other only."""
        return not math.isnan(self.mass)

    @property
    def reach_s(self) -> float:
        """How long a fault has to be watched to be held against the law; NaN for one that never happens."""
        return min(self.hi_s, self.until_s) if math.isfinite(self.until_s) else self.hi_s

    def cut(self, until_s: float) -> Law:
        """The same law, held against what happens by then; its curve has to be known."""
        assert self.curve is not None
        mass = self.curve.at(until_s)
        kept = {name: s if PERCENTILES[name] <= mass else math.nan for name, s in self.percentiles.items()}
        return replace(self, mass=mass, percentiles=kept, curve=self.curve.cut(until_s), until_s=until_s)


@dataclass(frozen=True)
class Observed:
    """One engine's durations for one law, seconds.

    ``latencies`` is what the law's percentiles are held against: of every fault that could be watched through
    the law's range, infinite where it was not detected (it recovered, or it was missed).
    """

    engine: str
    detected_s: pd.Series[float]  # every detection, left out or not
    outlasted_s: float  # the longest that a fault was watched without an outcome; NaN: none was
    latencies: Sample
    detected: int  # of n
    left_out: int
    not_applicable: int
    slack_s: float

    @property
    def known_slack_s(self) -> float:
        """The slack, 0 where it is not known."""
        return 0.0 if math.isnan(self.slack_s) else self.slack_s

    @property
    def n(self) -> int:
        """How many faults could be watched through the law's range."""
        return self.latencies.n

    def nothing_seen(self) -> str:
        """Why there is nothing to compare."""
        if self.left_out:
            return f"{self.engine}: no fault could be watched for as long as the law's range"
        if self.not_applicable:
            return f"{self.engine}: not applicable to any of {self.not_applicable} faults"
        if self.n:
            return f"{self.engine}: none was detected"
        return f"{self.engine}: no such fault was run"


def laws(tables: RunTables) -> Iterator[Law]:
    """Read laws.csv and law_curves.csv; where theory knows no exact law, the numbers are NaN."""
    table = tables.table("laws")
    curves = {
        tuple(map(str, key)): Curve(rows["duration_s"].to_numpy(), rows["probability"].to_numpy())
        for key, rows in tables.table("law_curves").groupby(["fault", "milestone"], sort=False)
    }
    for row in table.to_dict("records"):
        yield Law(
            row["fault"],
            row["milestone"],
            row["lo_s"],
            row["hi_s"],
            row["detected_share"],
            {name: row[f"{name}_s"] for name in PERCENTILES},
            curves.get((row["fault"], row["milestone"])),
            row["mean_s"],
            row["shared"] if isinstance(row.get("shared"), str) else "",
            row["note"] if isinstance(row.get("note"), str) else "",
        )


def observe(tables: RunTables, slack: Slack) -> Iterator[tuple[Law, list[Observed]]]:
    """Yield each law with what each engine that measures saw of it."""
    detections = tables.table("detections")
    groups = {
        tuple(map(str, key)): rows
        for key, rows in detections.groupby(["engine", "fault", "milestone"], sort=False)
    }
    nothing = detections.iloc[:0]
    # A censored fault was watched until the run's end, so it tells when that was.
    censored = detections[detections["outcome"] == "censored"]
    ends_s = (censored["injected_at_s"] + censored["duration_s"]).groupby(censored["engine"]).max()
    for law in laws(tables):
        if law.milestone.startswith(LOST):
            continue  # `healthy_agreement` holds connections against it
        measured = [
            (
                groups.get((engine, law.fault, law.milestone), nothing),
                engine,
                slack.of_times(engine, law.milestone),
                float(ends_s.get(engine, math.inf)),
            )
            for engine in tables.measured_engines
        ]
        seen = [_observe(rows, engine, law, *rest) for rows, engine, *rest in measured]
        until_s = min(
            (
                end_s - rows["injected_at_s"].max() - (0.0 if math.isnan(slack_s) else slack_s)
                for rows, _, slack_s, end_s in measured
                if len(rows)
            ),
            default=math.inf,
        )
        unseen = any(one.left_out and not one.n for one in seen)
        if not law.known and math.isfinite(until_s):
            law = replace(law, until_s=until_s)
        elif unseen and law.curve is not None and law.curve.at(until_s) > 0:
            law = law.cut(until_s)
        else:
            yield law, seen
            continue
        yield law, [_observe(rows, engine, law, *rest) for rows, engine, *rest in measured]


def _observe(rows: pd.DataFrame, engine: str, law: Law, slack_s: float, end_s: float) -> Observed:
    seen = rows[rows["outcome"] != "not_applicable"]
    reach_s = law.reach_s + (0.0 if math.isnan(slack_s) else slack_s)
    # A law that never happens has no range (NaN): everybody was watched for long enough.
    in_time = seen["injected_at_s"] + reach_s <= end_s + ROUNDING_S
    used = seen if math.isnan(reach_s) else seen[in_time]
    found = (used["outcome"] == "detected") & (used["duration_s"] <= law.until_s)
    return Observed(
        engine=engine,
        detected_s=seen.loc[seen["outcome"] == "detected", "duration_s"],
        outlasted_s=float(seen.loc[seen["outcome"] == "censored", "duration_s"].max()),
        latencies=Sample.of(used["duration_s"].where(found, np.inf)),
        detected=int(found.sum()),
        left_out=len(seen) - len(used),
        not_applicable=len(rows) - len(seen),
        slack_s=slack_s,
    )
