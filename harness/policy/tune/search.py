"""Look at every policy of a space: its figures, what each one breaks, and which of the rest is preferred.

From conditions, requirements and a space to a `Search`; `recommend.py` recommends. The space is a grid of all sound
combinations of interval, retry, deadline and failures. It does not depend on the requirements, so looser ones keep
every policy of the stricter ones, and the cheapest one can only become cheaper.

Figures are closed forms of `harness.theory` on columns. Detection latency is that of a silent death: U + (k−1)R + τ
with U ~ Uniform(0, T), without the half round trip that a ping in flight may save. Seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.policy.tune.conditions import Conditions, Rules
from harness.policy.tune.requirements import DETECTION, Limit, Requirements
from harness.theory.costs import PER_CLIENTS, costs, session_ttl_s, status_ttl_s, tls_bytes_per_beat
from harness.theory.false_suspicions import (
    dropped_by_idle_timer,
    false_suspicions_by_late_answers,
    false_suspicions_by_outages,
)
from harness.theory.law import FloatArray
from reference_server.durations import DAY_S
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = [
    "Mask",
    "Search",
    "Space",
    "indistinct",
    "pareto_mask",
    "policies_table",
    "policy_row",
    "search",
    "with_figures",
]


def with_figures(
    policies: pd.DataFrame, conditions: Conditions, rules: Rules, operations_per_s: float | None = None
) -> pd.DataFrame:
    """The policies (columns of `Space.policies`) with their figures.

    Adds detect_p50_s, detect_p95_s, detect_p99_s, detect_max_s; false_per_client_day (outages, slow answers, an
    idle timer that is not above T; every answer `Rules.lag_s` later than its round trip); middle_per_client_day
    (connections that boxes on the way end, by their idle timer or a maximum age: no suspicions); of 1000 clients
    frames_per_s, bytes_per_s and store_operations_per_s; radio_wakeups_per_hour of one client: beats, as each
    wakes the radio or keeps it awake.
    """
    t = policies["interval_s"].to_numpy(dtype=float)
    patience = policies["patience_s"].to_numpy(dtype=float)
    # Answers come this much later than their round trip: a patience that just fits a retransmission is none.
    waits = np.maximum(patience - rules.lag_s, 0.0)
    network = conditions.network.model_copy(update={"nat": conditions.nat})
    lost = dropped_by_idle_timer(t, patience, conditions.nat)
    status = status_ttl_s(t, patience, operations_per_s)
    records_s = (status, session_ttl_s(status))
    cost = costs(t, records_s, PER_CLIENTS, beat_bytes=rules.beat_bytes + tls_bytes_per_beat() * network.tls)
    return policies.assign(
        **{f"{name}_s": quantile * t + patience for name, quantile in DETECTION.items()},
        false_per_client_day=false_suspicions_by_outages(t, waits, network)
        + false_suspicions_by_late_answers(t, waits, network)
        + lost,
        middle_per_client_day=lost + (0.0 if conditions.max_age_s is None else DAY_S / conditions.max_age_s),
        frames_per_s=cost.frames_per_s,
        bytes_per_s=cost.bytes_per_s,
        store_operations_per_s=cost.store_operations_per_s,
        radio_wakeups_per_hour=3600 / t,
    )


def policy_row(policy: LivenessPolicy) -> pd.DataFrame:
    """One policy as a table of one row, with the columns of `Space.policies`.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    return policies_table(
        [policy.interval_s], [policy.max_failures], [policy.heartbeat_timeout], [policy.retry_s]
    )


def policies_table(
    interval_s: npt.ArrayLike, max_failures: npt.ArrayLike, timeout_s: npt.ArrayLike, retry_s: npt.ArrayLike
) -> pd.DataFrame:
    """One row a policy from arrays of shape (n,), with patience_s = (k−1)R + τ."""
    table = pd.DataFrame(
        {"interval_s": interval_s, "max_failures": max_failures, "timeout_s": timeout_s, "retry_s": retry_s}
    )
    return table.assign(patience_s=(table["max_failures"] - 1) * table["retry_s"] + table["timeout_s"])


_NEVER = 1e-9  # a client-day: one in 2.7 million client-years
_DECIMALS = 2  # of the logarithm: 2.3 %
_MORE_MONEY = 1.5  # what a balanced policy may cost, over the cheapest


def indistinct(false_per_client_day: npt.ArrayLike) -> FloatArray:
    """log10 of rates, rounded so that 2 % apart are the same, and all below 1e-9 a client-day too.

    No outage law is known better than that; without it policies would be told apart by noise.
    """
    rates = np.maximum(np.asarray(false_per_client_day, dtype=float), _NEVER)
    return np.asarray(np.round(np.log10(rates), _DECIMALS), dtype=float)


def pareto_mask(cost: FloatArray, latency: FloatArray, mistakes: FloatArray) -> npt.NDArray[np.bool_]:
    """Which points no other point beats: at most as much in all three, less in one. Of equal points the first.

    Args:
        cost, latency, mistakes: less is better; shape (n,).

    Returns:
        A mask of shape (n,). Source: Kung, Luccio, Preparata, "On finding the maxima of a set of vectors",
        J. ACM 22(4), 1975: a sweep in one dimension over a staircase in the other two, O(n log n).
    """
    order = np.lexsort((np.arange(len(cost)), mistakes, latency, cost))
    mask = np.zeros(len(cost), dtype=bool)
    stairs_latency: list[float] = []  # rising, and mistakes falling
    stairs_mistakes: list[float] = []
    points = zip(order.tolist(), latency[order].tolist(), mistakes[order].tolist(), strict=True)
    for index, late, wrong in points:
        below = bisect_right(stairs_latency, late)
        if below and stairs_mistakes[below - 1] <= wrong:
            continue
        mask[index] = True
        first = bisect_left(stairs_latency, late)
        last = first
        while last < len(stairs_mistakes) and stairs_mistakes[last] >= wrong:
            last += 1
        stairs_latency[first:last] = [late]
        stairs_mistakes[first:last] = [wrong]
    return mask


def _intervals() -> tuple[float, ...]:
    steps = (np.arange(1, 60, 1.0), np.arange(60, 300, 5.0), np.arange(300, 901, 15.0))
    return (0.2, 0.3, 0.5, 0.75, *(float(t) for t in np.concatenate(steps)))


@dataclass(frozen=True, slots=True)
class Space:
    """What each parameter may be. R = T is always among the retries; R > T never is."""

    intervals_s: tuple[float, ...] = field(default_factory=_intervals)
    retries_s: tuple[float, ...] = (
        *(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
        *(10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 45.0, 60.0),
    )
    timeouts_s: tuple[float, ...] = (
        *(0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
        *(10.0, 12.0, 15.0, 20.0, 25.0, 30.0),
    )
    max_failures: tuple[int, ...] = (1, 2, 3, 4, 5)

    def policies(self) -> pd.DataFrame:
        """One row a policy: interval_s, max_failures, timeout_s, retry_s, patience_s = (k−1)R + τ.

        0 < τ ≤ R ≤ T; with one failure there is no retry, and R = T.
        """
        t = np.array(self.intervals_s)
        # R = 0 stands for R = T, so that it is there once for every interval.
        retries = np.unique([0.0, *self.retries_s])
        grid = np.meshgrid(t, np.array(self.max_failures), np.array(self.timeouts_s), retries, indexing="ij")
        interval, failures, timeout, short = (axis.ravel() for axis in grid)
        keep = (timeout <= np.where(short > 0, short, interval)) & (short < interval)
        keep &= (failures > 1) | (short == 0)
        interval, failures, timeout, short = (axis[keep] for axis in (interval, failures, timeout, short))
        table = policies_table(interval, failures, timeout, np.where(short > 0, short, interval))
        # Of policies with equal figures the first stands for them: the longest deadline, the fewest failures.
        order = np.lexsort((failures, -timeout, table["patience_s"], interval))
        return table.iloc[order].reset_index(drop=True)


Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What became of every policy.

    Attributes:
        candidates: one row a policy: its parameters and figures, and the flags ``feasible`` and ``pareto``
            (among the sound ones).
        unsound: rule -> which candidates break it, whatever is required.
        ratios: shape (candidates, limits): how far each figure is up to its bound; above 1 breaks it.
    """

    conditions: Conditions
    requirements: Requirements
    rules: Rules
    candidates: pd.DataFrame
    unsound: dict[str, Mask]
    ratios: npt.NDArray[np.float64]

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The requirements, in the order of the columns of ``ratios``."""
        return self.requirements.limits

    @property
    def sound(self) -> Mask:
        """Policies that break no rule."""
        return np.asarray(~np.any(list(self.unsound.values()), axis=0))

    @property
    def broken(self) -> dict[str, Mask]:
        """Rule or requirement -> which candidates break it."""
        requirements = {
            f"requirement {limit.key}": self.ratios[:, i] > 1 for i, limit in enumerate(self.limits)
        }
        return {**{f"rule {name}": mask for name, mask in self.unsound.items()}, **requirements}

    def best(self, among: Mask, prefer: str | None = None) -> int | None:
        """The preferred policy of some, None if there is none.

        `balanced`: of those that cost at most half more than the cheapest, the one with the fewest false suspicions;
        `safest`: of all, that one. For both a rate within a factor of two is the same, and of the same the cheapest
        is taken. `cost`: fewest frames, then fewest false suspicions, then the lowest p99; `latency` and `accuracy`
        put theirs first, then the cost. Of policies with equal figures: the longest deadline, the fewest failures.
        """
        rows = np.flatnonzero(among)
        if not len(rows):
            return None
        prefer = prefer or self.requirements.prefer
        if prefer == "balanced":
            frames = self.candidates["frames_per_s"].to_numpy()[rows]
            rows = rows[frames <= _MORE_MONEY * frames.min()]
        if prefer in ("balanced", "safest"):
            rates = indistinct(self.candidates["false_per_client_day"].to_numpy()[rows])
            rows = rows[rates <= rates.min() + np.log10(2)]
        table = self.candidates.iloc[rows]
        cost, latency = table["frames_per_s"].to_numpy(), table["detect_p99_s"].to_numpy()
        mistakes = indistinct(table["false_per_client_day"])
        orders = {"latency": (latency, cost, mistakes), "accuracy": (mistakes, cost, latency)}
        ties = (-table["timeout_s"].to_numpy(), table["max_failures"].to_numpy())
        keys = (*orders.get(prefer, (cost, mistakes, latency)), *ties)
        return int(rows[np.lexsort(keys[::-1])[0]])

    def under(self, requirements: Requirements) -> Search:
        """The same candidates judged by other requirements."""
        ratios = np.column_stack(
            [limit.ratio(self.candidates[limit.column]) for limit in requirements.limits]
        )
        candidates = self.candidates.assign(feasible=self.sound & np.all(ratios <= 1, axis=1))
        return replace(self, requirements=requirements, candidates=candidates, ratios=ratios)


def search(
    conditions: Conditions,
    requirements: Requirements,
    space: Space | None = None,
    rules: Rules | None = None,
    policies: pd.DataFrame | None = None,
) -> Search:
    """Evaluate every policy of the space, or these (columns of `policies_table`), under the conditions."""
    rules = rules or Rules()
    policies = (space or Space()).policies() if policies is None else policies
    table = with_figures(policies, conditions, rules, requirements.store_operations)
    broken = _unsound(table, conditions, requirements, rules)
    ratios = np.column_stack([limit.ratio(table[limit.column]) for limit in requirements.limits])
    sound = ~np.any(list(broken.values()), axis=0)
    pareto = np.zeros(len(table), dtype=bool)
    cost, latency, mistakes = (
        table[column].to_numpy()[sound] for column in ("frames_per_s", "detect_p99_s", "false_per_client_day")
    )
    pareto[sound] = pareto_mask(cost, latency, indistinct(mistakes))
    table = table.assign(feasible=sound & np.all(ratios <= 1, axis=1), pareto=pareto)
    return Search(conditions, requirements, rules, table, broken, ratios)


def _unsound(
    table: pd.DataFrame, conditions: Conditions, requirements: Requirements, rules: Rules
) -> dict[str, Mask]:
    """Which policies break which rule: `idle-timer`, `few-misses`, `slow-answers`."""
    late = 1 - conditions.network.round_trip.cdf(table["timeout_s"] - rules.lag_s)
    nat = conditions.nat
    longest_s = np.inf if nat is None else nat.idle_timeout * (1 - rules.nat_margin)
    return {
        "idle-timer": (table["interval_s"] > longest_s).to_numpy(),
        "few-misses": (table["max_failures"] < requirements.min_failures).to_numpy(),
        "slow-answers": np.asarray(late > rules.late_share),
    }
