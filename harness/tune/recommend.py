"""Recommend a policy for a network and wants: search, choose, look at what is wrong with the rest.

From `Conditions` and `Wants` to a `Recommendation` with everything that `explain` tells. Pure; it runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.tune.conditions import Conditions, Rules
from harness.tune.heat import heat_map
from harness.tune.records import (
    idle_limit_s,
    resume_window_s,
    session_ttl_s,
    status_ttl_s,
    sweep_s,
)
from harness.tune.rejected import probing, rejected
from harness.tune.relax import Relaxation, relaxations
from harness.tune.search import Search, search
from harness.tune.sensitivity import sensitivity
from harness.tune.space import Space
from harness.tune.wants import Wants
from reference_server.liveness import LivenessPolicy

__all__ = ["Recommendation", "recommend"]

_FIGURES = (
    "detect_p50_s", "detect_p95_s", "detect_p99_s", "detect_max_s", "false_per_client_day",
    "frames_per_s", "bytes_per_s", "store_operations_per_s", "radio_wakeups_per_hour", "patience_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """A policy, and why this one.

    Attributes:
        conditions, wants, rules: what was asked.
        feasible: some policy keeps every want. If not, ``policy`` is the nearest, the best under
            ``relaxations[0].wants``.
        relaxations: ways to feasible wants, the smallest move first; empty if feasible.
        policy: every parameter, TTLs and resume window too.
        figures: its predicted figures, as `harness.tune.with_figures` names them.
        next_interval: what the nearest policy with the next longer (cheaper) interval breaks; empty if there is none.
        candidates: every policy looked at, columns of `with_figures` and feasible, pareto, recommended.
        pareto: those that no sound one beats in latency, false suspicions and cost, the cheapest first.
        heat: `harness.tune.heat_map` around the policy.
        rejected: reasons with counts and the nearest alternative (`harness.tune.rejected`).
        probing: the best with one miss, with regular and with short probing.
        sensitivity: figures under wrong assumptions (`harness.tune.sensitivity`).
    """

    conditions: Conditions
    wants: Wants
    rules: Rules
    feasible: bool
    relaxations: tuple[Relaxation, ...]
    policy: LivenessPolicy
    figures: Mapping[str, float]
    next_interval: str
    candidates: pd.DataFrame
    pareto: pd.DataFrame
    heat: pd.DataFrame
    rejected: pd.DataFrame
    probing: pd.DataFrame
    sensitivity: pd.DataFrame

    @property
    def kept_wants(self) -> Wants:
        """What the policy keeps: the wants as asked, or the nearest feasible ones."""
        return self.wants if self.feasible else self.relaxations[0].wants


def recommend(
    conditions: Conditions,
    wants: Wants,
    *,
    space: Space | None = None,
    rules: Rules | None = None,
) -> Recommendation:
    """Recommend a policy.

    1. Evaluate every policy of the space (closed forms, vectorised).
    2. Take the preferred one of those that keep every rule and want; if there is none, relax the wants least.
    3. Add the records' lives and the other timers; see `harness.tune.records`.
    4. Tables: rejected, kinds of probing, heat map, sensitivity.

    Raises:
        NotTunable: no policy of the space is sound on this network.
    """
    asked = search(conditions, wants, space, rules)
    row = asked.best(asked.candidates["feasible"].to_numpy())
    ways: tuple[Relaxation, ...] = ()
    if row is None:
        ways = relaxations(asked)
        row = ways[0].candidate
    kept = wants if not ways else ways[0].wants
    policy = _policy(asked, row)
    candidates = asked.candidates.assign(recommended=np.arange(len(asked.candidates)) == row)
    pareto = candidates[candidates["pareto"]].sort_values(
        ["frames_per_s", "detect_p99_s"], ignore_index=True
    )
    return Recommendation(
        conditions=conditions,
        wants=wants,
        rules=asked.rules,
        feasible=not ways,
        relaxations=ways,
        policy=policy,
        figures={name: float(candidates[name].iloc[row]) for name in _FIGURES},
        next_interval=_next_interval(asked if not ways else _under(asked, kept), row),
        candidates=candidates,
        pareto=pareto,
        heat=heat_map(asked, row),
        rejected=rejected(asked),
        probing=probing(asked if not ways else _under(asked, kept)),
        sensitivity=sensitivity(policy, conditions, kept, asked.rules),
    )


def _policy(found: Search, row: int) -> LivenessPolicy:
    one = found.candidates.iloc[row]
    t, patience = float(one["interval_s"]), float(one["patience_s"])
    status = status_ttl_s(t, patience, found.wants.store_operations)
    retry = float(one["retry_s"])
    return LivenessPolicy(
        heartbeat_interval=t,
        heartbeat_timeout=float(one["timeout_s"]),
        max_failures=int(one["max_failures"]),
        retry_interval=retry if retry < t else None,
        session_timeout=float(idle_limit_s(t, patience)),
        sweep_interval=float(sweep_s(t, patience)),
        session_ttl=float(session_ttl_s(status)),
        status_ttl=float(status),
        resume_window=float(resume_window_s(t, patience, found.rules.page_load)),
        code_ttl=found.rules.code_ttl_s,
    )


def _under(found: Search, wants: Wants) -> Search:
    """The same candidates judged by other wants."""
    ratios = np.column_stack(
        [limit.ratio(found.candidates[limit.column]) for limit in wants.limits]
    )
    return Search(found.conditions, wants, found.rules, found.candidates, found.unsound, ratios)


def _next_interval(found: Search, row: int) -> str:
    """What stands in the way of the next longer interval: what its nearest policy breaks."""
    intervals = found.candidates["interval_s"].to_numpy()
    longer = intervals[intervals > intervals[row]]
    if not len(longer):
        return ""
    here = intervals == longer.min()
    # Rules first: of the policies that break fewest, the one closest to its wants.
    rules = np.sum(list(found.unsound.values()), axis=0)
    rows = np.flatnonzero(here & (rules == rules[here].min()))
    nearest = int(rows[np.argmin(found.ratios[rows].max(axis=1))])
    broken = [reason for reason, mask in found.broken.items() if mask[nearest]]
    return f"T = {longer.min():g} s breaks {' and '.join(broken)}" if broken else ""
