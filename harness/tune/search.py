"""Look at every policy of a space: its figures, what each one breaks, and which of the rest is preferred.

From conditions, wants and a space to a `Search`. It recommends nothing yet: `recommend.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.tune.conditions import Conditions, Rules
from harness.tune.figures import with_figures
from harness.tune.pareto import indistinct, pareto_mask
from harness.tune.space import Space
from harness.tune.wants import Limit, Wants

__all__ = ["Mask", "Search", "search", "unsound"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What became of every policy.

    Attributes:
        candidates: one row a policy: its parameters and figures, and the flags ``feasible`` and ``pareto``
            (among the sound ones).
        unsound: rule -> which candidates break it, whatever is wanted.
        ratios: shape (candidates, limits): how far each figure is up to its bound; above 1 breaks it.
    """

    conditions: Conditions
    wants: Wants
    rules: Rules
    candidates: pd.DataFrame
    unsound: dict[str, Mask]
    ratios: npt.NDArray[np.float64]

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The wants, in the order of the columns of ``ratios``."""
        return self.wants.limits

    @property
    def sound(self) -> Mask:
        """Policies that break no rule."""
        return np.asarray(~np.any(list(self.unsound.values()), axis=0))

    @property
    def broken(self) -> dict[str, Mask]:
        """Rule or want -> which candidates break it."""
        wants = {f"want {limit.key}": self.ratios[:, i] > 1 for i, limit in enumerate(self.limits)}
        return {**{f"rule {name}": mask for name, mask in self.unsound.items()}, **wants}

    def best(self, among: Mask) -> int | None:
        """The preferred policy of some, None if there is none.

        `cost`: fewest frames, then fewest false suspicions, then the lowest p99; `latency` and `accuracy` put
        theirs first, then the cost. Of policies with equal figures: the longest deadline, the fewest failures.
        """
        rows = np.flatnonzero(among)
        if not len(rows):
            return None
        table = self.candidates.iloc[rows]
        cost, latency = table["frames_per_s"].to_numpy(), table["detect_p99_s"].to_numpy()
        mistakes = indistinct(table["false_per_client_day"])
        orders = {
            "cost": (cost, mistakes, latency),
            "latency": (latency, cost, mistakes),
            "accuracy": (mistakes, cost, latency),
        }
        ties = (-table["timeout_s"].to_numpy(), table["max_failures"].to_numpy())
        keys = (*orders[self.wants.prefer], *ties)
        return int(rows[np.lexsort(keys[::-1])[0]])


def search(
    conditions: Conditions, wants: Wants, space: Space | None = None, rules: Rules | None = None
) -> Search:
    """Evaluate every policy of the space under the conditions; see `Search`."""
    rules = rules or Rules()
    policies = (space or Space()).policies()
    table = with_figures(policies, conditions, rules, wants.store_operations)
    broken = unsound(table, conditions, wants, rules)
    ratios = np.column_stack([limit.ratio(table[limit.column]) for limit in wants.limits])
    sound = ~np.any(list(broken.values()), axis=0)
    pareto = np.zeros(len(table), dtype=bool)
    cost, latency, mistakes = (
        table[column].to_numpy()[sound]
        for column in ("frames_per_s", "detect_p99_s", "false_per_client_day")
    )
    pareto[sound] = pareto_mask(cost, latency, indistinct(mistakes))
    table = table.assign(feasible=sound & np.all(ratios <= 1, axis=1), pareto=pareto)
    return Search(conditions, wants, rules, table, broken, ratios)


def unsound(
    table: pd.DataFrame, conditions: Conditions, wants: Wants, rules: Rules
) -> dict[str, Mask]:
    """Which policies break which rule: `idle-timer`, `few-misses`, `slow-answers`."""
    late = 1 - conditions.network.round_trip.cdf(table["timeout_s"] - rules.lag_s)
    nat = conditions.nat
    longest_s = np.inf if nat is None else nat.idle_timeout * (1 - rules.nat_margin)
    return {
        "idle-timer": (table["interval_s"] > longest_s).to_numpy(),
        "few-misses": (table["max_failures"] < wants.min_failures).to_numpy(),
        "slow-answers": np.asarray(late > rules.late_share),
    }
