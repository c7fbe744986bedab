"""What if an assumption is wrong, or the policy is set a little differently? One table for one policy.

From a policy and its conditions to figures under each change. It changes one thing at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from harness.theory import textbook_ladder_s
from harness.tune.conditions import Conditions, Rules
from harness.tune.figures import policy_row, with_figures
from harness.tune.search import unsound
from harness.tune.wants import Wants
from reference_server.liveness import LivenessPolicy
from scenarios.distributions import Distribution, Lognormal

__all__ = ["sensitivity"]

_HEAVY_SIGMA = 1.5


def sensitivity(
    policy: LivenessPolicy, conditions: Conditions, wants: Wants, rules: Rules
) -> pd.DataFrame:
    """One row a change, the first without any.

    Columns: kind (`as assumed`, `network`, `policy`), change, interval_s, max_failures, detect_p50_s,
    detect_p99_s, detect_max_s, false_per_client_day, times_false (over the first row's), frames_per_s,
    meets (every want, its headroom used up, and every rule), breaks (which not).
    """
    rows = [
        _row("as assumed", "", policy, conditions, wants, rules),
        *(_row("network", change, policy, other, wants, rules)
          for change, other in _networks(conditions)),
        *(_row("policy", change, other, conditions, wants, rules)
          for change, other in _policies(policy)),
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    nominal = float(table["false_per_client_day"].iloc[0])
    times = table["false_per_client_day"] / nominal if nominal > 0 else np.nan
    table.insert(8, "times_false", times)
    return table


def _row(
    kind: str, change: str, policy: LivenessPolicy, conditions: Conditions, wants: Wants, rules: Rules
) -> dict[str, object]:  # fmt: skip
    table = with_figures(policy_row(policy), conditions, rules, wants.store_operations)
    figures = table.iloc[0]
    broken = [
        f"rule {name}"
        for name, mask in unsound(table, conditions, wants, rules).items()
        if mask.any()
    ]
    # The headroom is there for wrong assumptions: here it may be used up.
    broken += [
        f"want {limit.key}"
        for limit in wants.limits
        if limit.ratio(figures[limit.column]) / limit.headroom > 1
    ]
    columns = (
        "interval_s", "max_failures", "detect_p50_s", "detect_p99_s", "detect_max_s",
        "false_per_client_day", "frames_per_s",
    )  # fmt: skip
    return {
        "kind": kind,
        "change": change,
        **{column: figures[column] for column in columns},
        "meets": not broken,
        "breaks": ", ".join(broken),
    }


def _networks(conditions: Conditions) -> Iterator[tuple[str, Conditions]]:
    yield "round trips × 2", conditions.with_round_trip(2)
    outages = conditions.network.outages
    if outages is not None:
        yield "outages twice as often", conditions.with_outages(more_often=2)
        yield "outages twice as long", conditions.with_outages(longer=2)
        yield (
            f"outages of the same mean, heavy-tailed (log-normal, σ = {_HEAVY_SIGMA:g})",
            conditions.with_outages(length=_heavy(outages.length.mean_s)),
        )
        ladder = conditions.network.rto_ladder
        yield (
            "TCP retransmits 1.5 times as late",
            conditions.with_ladder(tuple(1.5 * step for step in ladder)),
        )
        yield "TCP retransmits as in the textbook", conditions.with_ladder(textbook_ladder_s(15))
    if conditions.nat is not None:
        yield "idle timer half as long", conditions.with_nat(0.5)


def _policies(policy: LivenessPolicy) -> Iterator[tuple[str, LivenessPolicy]]:
    interval_s = policy.heartbeat_interval
    assert interval_s is not None  # the figures of the first row were asked for
    k, retry_s, timeout_s = policy.max_failures, policy.retry_s, policy.heartbeat_timeout
    yield "one failure more", policy.model_copy(update={"max_failures": k + 1})
    if k > 1:
        yield "one failure less", policy.model_copy(update={"max_failures": k - 1})
    for factor in (0.8, 1.25):
        t = max(interval_s * factor, timeout_s)
        update = {"heartbeat_interval": t, "retry_interval": min(retry_s, t)}
        yield f"interval {t:g} s", policy.model_copy(update=update)
    yield (
        f"deadline {timeout_s / 2:g} s",
        policy.model_copy(update={"heartbeat_timeout": timeout_s / 2}),
    )
    if retry_s < interval_s:
        yield "no short probing: R = T", policy.model_copy(update={"retry_interval": None})


def _heavy(mean_s: float) -> Distribution:
    """Log-normal of this mean: its median is the mean × exp(−σ²/2)."""
    median_s = mean_s * math.exp(-(_HEAVY_SIGMA**2) / 2)
    return Distribution(lognormal=Lognormal(median=median_s, sigma=_HEAVY_SIGMA))
