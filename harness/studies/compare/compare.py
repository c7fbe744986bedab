"""Compare runs: the first is the baseline, each of the others is held against it.

Open this file first: `compare` numbers the steps. From run directories to tables and one verdict for CI;
`page.py` writes it down. Re-measures nothing: it reads what `flatline report` left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from harness.studies.compare.inputs import CannotCompare, Input, SettingDifference, differences, read_inputs
from harness.studies.compare.statistical_tests import (
    NONE_IN_EITHER,
    TOO_FEW,
    adjusted,
    compare_curves,
    compare_rates,
    compare_shares,
    judge_curve,
    judge_rate,
    judge_share,
)
from reference_server.errors import Exit
from reports.run_tables import ENGINES
from reports.sections.cost import COST_FIGURES, COST_RATES

__all__ = ["MARGIN", "CannotCompare", "Comparison", "compare"]

COST_COLUMNS = [*("baseline", "candidate", "engine", "figure", "before", "after", "change", "change_share")]

MARGIN = 0.03
"""A median that moved by less than this share of itself has not regressed; as far as engines may disagree."""


@dataclass(frozen=True)
class Comparison:
    """What came of it. The tables' last columns are ``p_value``, ``p_holm``, ``verdict``, ``reason``.

    ``verdict`` is `fail` where any row fails; `unknown` where a regression can neither be shown nor ruled
    out in some row, or a real run is unsound; else `pass`. Rows with too few faults to test are unknown
    and listed, but a handful of faults does not hold up the verdict of hundreds.
    """

    inputs: tuple[Input, ...] = field(repr=False)
    differences: tuple[SettingDifference, ...]
    curves: pd.DataFrame = field(repr=False)  # log-rank, medians, 99th percentiles
    rates: pd.DataFrame = field(repr=False)  # false suspicions
    shares: pd.DataFrame = field(repr=False)  # faults detected
    costs: pd.DataFrame = field(repr=False)  # of cost.csv; not judged
    tests: int
    margin: float
    seed: int
    unsound: tuple[str, ...]
    verdict: str
    headline: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The runs, the baseline first."""
        return tuple(one.label for one in self.inputs)

    def rows(self, verdict: str) -> list[str]:
        """Return every row with this verdict as a sentence."""
        found = []
        for table in (self.curves, self.rates, self.shares):
            for row in table[table["verdict"] == verdict].to_dict("records"):
                where = [row["engine"], *(row[k] for k in ("fault", "milestone") if k in row)]
                what = "false suspicions" if "ratio" in row else ""
                after = f"{row['candidate']}: " if len(self.inputs) > 2 else ""
                found.append(f"{after}{' · '.join(map(str, filter(None, [*where, what])))}: {row['reason']}")
        return found

    def exit_code(self, *, strict: bool = False) -> Exit:
        """For CI: 99 on a regression, 3 where a run is unsound, else 0; strict: 99 unless it passes."""
        if self.verdict == "fail":
            return Exit.MISSED
        if self.unsound:
            return Exit.UNSOUND
        return Exit.MISSED if strict and self.verdict != "pass" else Exit.GOOD


def compare(
    runs: Sequence[Path],
    *,
    labels: Sequence[str] = (),
    allow_different: bool = False,
    allow_partial: bool = False,
    margin: float = MARGIN,
    seed: int = 1,
) -> Comparison:
    """Compare runs with the first of them.

    1. Read them; find what differs between their scenarios. Other seeds, names and thresholds are no other
       experiment. Another policy is what is to be compared; anything else is refused unless allowed.
    2. Curves: log-rank test per engine, fault and milestone; differences of p50 and p99 by bootstrap, fault
       by fault where both ran the same plan.
    3. Rates of false suspicion: exact conditional test, rate ratio.
    4. Detected shares: Fisher's exact test, difference.
    5. Costs: what each run took, beside each other; one run has one value of it, so nothing is tested.
    6. Correct all p-values of the comparison together (Holm), judge each row, and weigh them.

    Args:
        runs: run directories, the baseline first.
        labels: what to call them, one a run; none: the settings that differ.
        allow_different: compare runs whose scenarios differ by more than the policy.
        allow_partial: compare what interrupted runs have measured.
        margin: how much slower, as a share of the baseline's median, is still no regression.
        seed: of the bootstrap.

    Raises:
        CannotCompare: too few runs, nothing measured, other scenarios than their policy makes, or nothing in common.
        TablesError: a run cannot be read.
    """
    inputs = read_inputs(runs, labels=labels, allow_partial=allow_partial)
    apart = differences(inputs)
    if not allow_different and any(d.experiment and not d.policy for d in apart):
        listed = "".join(f"\n  {difference}" for difference in apart if difference.experiment)
        raise CannotCompare(
            "more than the policy of these runs' scenarios differs; --ignore-scenario-difference compares them all the "
            f"same:{listed}"
        )

    baseline, candidates = inputs[0], inputs[1:]
    rng = np.random.default_rng(seed)
    curves = _stacked([compare_curves(baseline, c, rng, margin=margin) for c in candidates])
    rates = _stacked([compare_rates(baseline, c) for c in candidates])
    shares = _stacked([compare_shares(baseline, c) for c in candidates])
    tests = len(curves) + len(rates) + len(shares)
    if not tests:
        raise CannotCompare("these runs have no engine and fault in common")

    p_holm = adjusted([*curves["p_value"], *rates["p_value"], *shares["p_value"]])
    unsound = tuple(f"{one.label}: {reason}" for one in inputs for reason in one.tables.unsound_reasons)
    doubted = {one.label for one in inputs if one.tables.sound is False}
    cuts = np.cumsum([len(curves), len(rates)])
    curves, rates, shares = (
        _judged(table, part, judge, doubted)
        for table, part, judge in zip(
            (curves, rates, shares),
            np.split(p_holm, cuts),
            (judge_curve, judge_rate, lambda row: judge_share(row, margin)),
            strict=True,
        )
    )
    judged = pd.concat([t[["verdict", "reason"]] for t in (curves, rates, shares)])
    verdict, headline = _weigh(judged)
    costs = pd.concat([_costs(baseline, c) for c in candidates], ignore_index=True)
    return Comparison(
        tuple(inputs),
        tuple(apart),
        curves,
        rates,
        shares,
        costs,
        tests,
        margin,
        seed,
        unsound,
        verdict,
        headline,
    )


def _costs(baseline: Input, candidate: Input) -> pd.DataFrame:
    """One row an engine and figure of cost that both runs have: before, after, the change, and that as a share.

    Rates are per 1,000 connections: what a run leaves connected longer is no traffic that its policy asks for.
    """
    before, after = (one.tables.table("cost").set_index("engine") for one in (baseline, candidate))
    rows = []
    for engine in (
        engine for engine in reversed(ENGINES) if engine in before.index and engine in after.index
    ):
        for name in COST_FIGURES:
            old, new = (_cost(table, engine, name) for table in (before, after))
            if np.isfinite(old) and np.isfinite(new):
                share = (new - old) / old if old else float("nan")
                rows.append((baseline.label, candidate.label, engine, name, old, new, new - old, share))
    return pd.DataFrame(rows, columns=COST_COLUMNS)


def _cost(table: pd.DataFrame, engine: str, name: str) -> float:
    value, clients = (float(table[column].to_dict()[engine]) for column in (name, "clients"))
    if name not in COST_RATES:
        return value
    return 1000 * value / clients if clients else float("nan")


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _judged(
    table: pd.DataFrame,
    p_holm: np.ndarray,
    judge: Callable[[pd.Series[float]], tuple[str, str]],
    doubted: set[str],
) -> pd.DataFrame:
    """Add the columns p_holm, verdict, reason. What rests on an unsound real run is unknown."""
    table = table.assign(p_holm=p_holm)
    found = []
    for _, row in table.iterrows():
        if row["engine"] == "real" and doubted & {row["baseline"], row["candidate"]}:
            found.append(("unknown", "a run is unsound"))
        else:
            found.append(judge(row))
    return table.assign(verdict=[v for v, _ in found], reason=[r for _, r in found])


def _weigh(judged: pd.DataFrame) -> tuple[str, str]:
    small, none = judged["reason"] == TOO_FEW, judged["reason"] == NONE_IN_EITHER
    verdicts = judged.loc[~small & ~none, "verdict"]
    n, failed = len(verdicts), int((verdicts == "fail").sum())
    open_ = int((verdicts == "unknown").sum())
    left_out = [f"{small.sum()} more have too few faults to say"] if small.any() else []
    left_out += [f"{none.sum()} nothing to compare"] if none.any() else []
    aside = f" ({'; '.join(left_out)})" if left_out else ""
    if failed:
        return "fail", f"Regression: {failed} of {n} comparisons are worse{aside}"
    if open_ or not n:
        return "unknown", (f"No regression shown; {open_} of {n} comparisons could not rule one out{aside}")
    return "pass", f"No regression in {n} comparisons{aside}"
