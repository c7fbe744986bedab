"""Recommend a policy for a network and requirements, and say what is wrong with the others.

From `Conditions` and `Requirements` to a `Recommendation`: the preferred policy, or the smallest relaxation that makes
one possible. Its tables say what was rejected, what short probing gains, which policies are near, and what changes
where an assumption is wrong. Closed forms only; `check.py` simulates the result and `verify.py` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.policy.tune.conditions import Conditions, Rules
from harness.policy.tune.requirements import DETECTION, Limit, Requirements
from harness.policy.tune.search import Mask, Search, Space, policies_table, policy_row, search
from harness.theory.costs import idle_limit_s, resume_window_s, session_ttl_s, status_ttl_s, sweep_s
from harness.theory.tcp import textbook_ladder_s
from reference_server.durations import format_duration
from reference_server.errors import FlatlineError
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution, Lognormal

__all__ = [
    "PLOT_COLUMNS",
    "Choice",
    "NotTunable",
    "Recommendation",
    "Relaxation",
    "heat_map",
    "policy_of",
    "probing",
    "recommend",
    "rejected",
    "relax_requirements",
    "sensitivity",
]

_FIGURE_COLUMNS = ("detect_p99_s", "false_per_client_day", "frames_per_s")
_VERDICT_COLUMNS = ("feasible", "pareto", "recommended")
PLOT_COLUMNS = ("interval_s", "max_failures", "timeout_s", "retry_s", *_FIGURE_COLUMNS, *_VERDICT_COLUMNS)
"""Columns that figures take, of the heat map and of the candidates alike."""

_MOST_FAILURES = 6


def heat_map(found: Search, recommended: int) -> pd.DataFrame:
    """One row per interval of the space and number of failures, with columns `PLOT_COLUMNS`.

    Deadline and retry are the recommended policy's, cut to the interval where that is shorter. ``pareto`` is
    among the sound cells of this map.
    """
    policy = found.candidates.iloc[recommended]
    intervals = np.unique(found.candidates["interval_s"])
    grid = np.meshgrid(intervals, np.arange(1, _MOST_FAILURES + 1), indexing="ij")
    interval, failures = (axis.ravel() for axis in grid)
    timeout = np.minimum(policy["timeout_s"], interval)
    retry = np.minimum(policy["retry_s"], interval)
    if policy["retry_s"] == policy["interval_s"]:
        retry = interval
    policies = policies_table(interval, failures, timeout, retry)
    cells = search(found.conditions, found.requirements, rules=found.rules, policies=policies).candidates
    same = (cells["interval_s"] == policy["interval_s"]) & (cells["max_failures"] == policy["max_failures"])
    return cells.assign(recommended=same)[list(PLOT_COLUMNS)]


_PARAMETERS = ["interval_s", "max_failures", "retry_s", "timeout_s"]


def rejected(found: Search) -> pd.DataFrame:
    """One row per rule and requirement that rejects anything, the most frequent first.

    Columns: reason, policies (that break it), only_this (that break nothing else), then the nearest of those:
    its parameters and `over`, its figure over the bound (NaN for a rule); NaN where none breaks only this. The
    nearest to a requirement has the smallest figure over the bound; to a rule it is the preferred one.
    """
    broken = found.broken
    count = np.sum(list(broken.values()), axis=0)
    first_want = len(found.unsound)
    rows = []
    for n, (reason, mask) in enumerate(broken.items()):
        if not mask.any():
            continue
        only = mask & (count == 1)
        nearest, over = None, float("nan")
        if only.any() and n < first_want:
            nearest = found.best(only)
        elif only.any():
            candidates = np.flatnonzero(only)
            column = found.ratios[:, n - first_want]
            closest = column[candidates].min()
            nearest = found.best(only & (column <= closest))
            over = float(closest)
        parameters = [float("nan")] * len(_PARAMETERS)
        if nearest is not None:
            parameters = [float(found.candidates[name].iloc[nearest]) for name in _PARAMETERS]
        rows.append((reason, int(mask.sum()), int(only.sum()), *parameters, over))
    columns = ["reason", "policies", "only_this", *_PARAMETERS, "over"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("policies", ascending=False, ignore_index=True, kind="stable")


def probing(found: Search) -> pd.DataFrame:
    """The best policy of each kind of probing, so that one sees what a short retry gains.

    Rows: `one miss` (k = 1, even where more are required), `regular` (R = T), `short` (R < T). Columns: kind,
    feasible, parameters, detect_p99_s, false_per_client_day, frames_per_s, breaks. Where no policy of the kind
    keeps every requirement, the nearest: the smallest largest figure over its bound; NaN where none is sound.
    """
    table = found.candidates
    other_rules = ~np.any([mask for name, mask in found.unsound.items() if name != "few-misses"], axis=0)
    worst = found.ratios.max(axis=1)
    short = (table["retry_s"] < table["interval_s"]).to_numpy()
    one = (table["max_failures"] == 1).to_numpy()
    enough = ~found.unsound["few-misses"]
    kinds: dict[str, Mask] = {"one miss": one, "regular": ~one & ~short & enough, "short": short & enough}
    columns = [*_PARAMETERS, *_FIGURE_COLUMNS]
    rows = []
    for kind, mask in kinds.items():
        sound = other_rules & mask
        best = found.best(sound & (worst <= 1))
        feasible = best is not None
        if best is None and sound.any():
            best = found.best(sound & (worst <= worst[sound].min()))
        figures: dict[str, float] = dict.fromkeys(columns, float("nan"))
        broken: list[str] = []
        if best is not None:
            figures = {column: float(table[column].iloc[best]) for column in columns}
            over = zip(found.limits, found.ratios[best].tolist(), strict=True)
            broken = [f"{limit.key} {ratio:.3g} times" for limit, ratio in over if ratio > 1]
        rows.append({"kind": kind, "feasible": feasible, **figures, "breaks": ", ".join(broken)})
    return pd.DataFrame(rows)


class NotTunable(FlatlineError):
    """No policy of the space is sound on this network, whatever is required; the message says why."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Requirements that can be kept: the limits that moved, each with what it is now.

    ``factor``: the largest move, allowed now over allowed before. ``candidate``: row of the preferred policy.
    """

    moved: tuple[tuple[Limit, float], ...]
    requirements: Requirements
    factor: float
    candidate: int

    @property
    def sentence(self) -> str:
        """`relax detect-p99 from 60s to 71.4s (1.2 times)`; with headroom also what may be predicted."""
        moves = ", ".join(
            f"{limit.key} from {limit.written(limit.allowed)} to {limit.written(now)}"
            for limit, now in self.moved
        )
        room = "".join(
            f"; it is for {limit.written(now / limit.headroom)} as predicted: {limit.headroom:g} times that still "
            f"keep {limit.key}"
            for limit, now in self.moved
            if limit.headroom > 1
        )
        return f"relax {moves} ({self.factor:.3g} times{' at most' if len(self.moved) > 1 else ''}){room}"


def relax_requirements(found: Search) -> tuple[Relaxation, ...]:
    """The ways to feasible requirements: those first that leave every stated bound where it is, then the smallest move.

    Each requirement on its own, the others kept; where no single one is enough, all of them together by the smallest
    largest factor.

    Raises:
        NotTunable: no policy is sound.
    """
    sound = found.sound
    if not sound.any():
        counts = ", ".join(f"{name} {int(mask.sum())}" for name, mask in found.unsound.items())
        raise NotTunable(
            f"{found.conditions.name}: none of {len(sound)} policies is sound on this network; broken rules: {counts}"
        )
    ways = []
    for i in range(len(found.limits)):
        others = np.all(np.delete(found.ratios, i, axis=1) <= 1, axis=1)
        rows = np.flatnonzero(sound & others)
        if len(rows):
            ways.append(_moved(found, int(rows[np.argmin(found.ratios[rows, i])])))
    if not ways:
        rows = np.flatnonzero(sound)
        ways.append(_moved(found, int(rows[np.argmin(found.ratios[rows].max(axis=1))])))
    assumed = found.requirements.assumed

    def in_order(way: Relaxation) -> tuple[bool, float]:
        return any(limit.key not in assumed for limit, _ in way.moved), way.factor

    return tuple(sorted(ways, key=in_order))


def _moved(found: Search, row: int) -> Relaxation:
    """The requirements that just allow one policy, and the preferred policy under them."""
    requirements, moved, factor = found.requirements, [], 1.0
    allowed = np.ones(len(found.limits))
    for i, limit in enumerate(found.limits):
        if found.ratios[row, i] > 1:
            now = _rounded_up(float(found.candidates[limit.column].iloc[row]) * limit.headroom)
            requirements = requirements.relaxed(limit, now)
            moved.append((limit, now))
            allowed[i] = now / limit.allowed
            factor = max(factor, allowed[i])
    best = found.best(found.sound & np.all(found.ratios <= allowed, axis=1))
    assert best is not None  # the policy of this row, at least
    return Relaxation(tuple(moved), requirements, float(factor), best)


def _rounded_up(value: float) -> float:
    """Three significant digits, never below."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step * (1 - 1e-12)) * step


_HEAVY_SIGMA = 1.5


def sensitivity(
    policy: LivenessPolicy, conditions: Conditions, requirements: Requirements, rules: Rules
) -> pd.DataFrame:
    """One row a change, the first without any.

    Columns: kind (`as assumed`, `network`, `policy`), change, interval_s, max_failures, detect_p50_s,
    detect_p99_s, detect_max_s, false_per_client_day, times_false (over the first row's), frames_per_s,
    meets (every requirement, its headroom used up, and every rule), breaks (which not).
    """
    rows = [
        _row("as assumed", "", policy, conditions, requirements, rules),
        *(
            _row("network", change, policy, other, requirements, rules)
            for change, other in _networks(conditions)
        ),
        *(
            _row("policy", change, other, conditions, requirements, rules)
            for change, other in _policies(policy)
        ),
    ]
    table = pd.DataFrame(rows)
    nominal = float(table["false_per_client_day"].iloc[0])
    times = table["false_per_client_day"] / nominal if nominal > 0 else np.nan
    table.insert(8, "times_false", times)
    return table


def _row(
    kind: str,
    change: str,
    policy: LivenessPolicy,
    conditions: Conditions,
    requirements: Requirements,
    rules: Rules,
) -> dict[str, object]:
    # The headroom is there for wrong assumptions: here it may be used up.
    requirements = requirements.model_copy(update={"headroom": 1.0})
    found = search(conditions, requirements, rules=rules, policies=policy_row(policy))
    figures = found.candidates.iloc[0]
    broken = [reason for reason, mask in found.broken.items() if mask.any()]
    detection = ("detect_p50_s", "detect_p99_s", "detect_max_s")
    columns = ("interval_s", "max_failures", *detection, "false_per_client_day", "frames_per_s")
    shown = {column: figures[column] for column in columns}
    return {"kind": kind, "change": change, **shown, "meets": not broken, "breaks": ", ".join(broken)}


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
    interval_s = policy.interval_s
    k, retry_s, timeout_s = policy.max_failures, policy.retry_s, policy.heartbeat_timeout
    yield "one failure more", policy.model_copy(update={"max_failures": k + 1})
    if k > 1:
        yield "one failure less", policy.model_copy(update={"max_failures": k - 1})
    for factor in (0.8, 1.25):
        t = max(interval_s * factor, timeout_s)
        update = {"heartbeat_interval": t, "retry_interval": min(retry_s, t)}
        yield f"interval {t:g} s", policy.model_copy(update=update)
    yield (f"deadline {timeout_s / 2:g} s", policy.model_copy(update={"heartbeat_timeout": timeout_s / 2}))
    if retry_s < interval_s:
        yield "no short probing: R = T", policy.model_copy(update={"retry_interval": None})


def _heavy(mean_s: float) -> Distribution:
    """Log-normal of this mean: its median is the mean × exp(−σ²/2)."""
    median_s = mean_s * math.exp(-(_HEAVY_SIGMA**2) / 2)
    return Distribution(lognormal=Lognormal(median=median_s, sigma=_HEAVY_SIGMA))


_FIGURES = (
    *("detect_p50_s", "detect_p95_s", "detect_p99_s", "detect_max_s", "false_per_client_day", "frames_per_s"),
    *(
        "middle_per_client_day",
        "bytes_per_s",
        "store_operations_per_s",
        "radio_wakeups_per_hour",
        "patience_s",
    ),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the settings to choose from: its policy, its figures, and what it does that was not asked for."""

    name: str
    policy: LivenessPolicy
    figures: Mapping[str, float]
    beyond: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """A policy, and why this one.

    Attributes:
        conditions, requirements, rules: what was asked.
        feasible: some policy keeps every requirement. If not, ``policy`` is the nearest, the best under
            ``relaxations[0].requirements``.
        relaxations: ways to feasible requirements, defaults before stated bounds, the smallest move first; empty if
            feasible.
        policy: every parameter, TTLs and resume window too.
        figures: its predicted figures, as `with_figures` names them.
        next_interval: what the nearest policy with the next longer (cheaper) interval breaks; empty if there is none.
        candidates: every policy looked at, columns of `with_figures` and feasible, pareto, recommended.
        pareto: those that no sound one beats in latency, false suspicions and cost, the cheapest first.
        heat: `heat_map` around the policy.
        rejected: reasons with counts and the nearest alternative (`rejected`).
        probing: the best with one miss, with regular and with short probing.
        sensitivity: figures under wrong assumptions (`sensitivity`).
        choices: `thrifty`, `balanced`, `safest`; the same policy may stand there more than once.
        moved: why a bound that nobody stated is not the default, and which stated one nothing can keep; a sentence
            each.
    """

    conditions: Conditions
    requirements: Requirements
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
    choices: tuple[Choice, ...]
    moved: tuple[str, ...]


def recommend(
    conditions: Conditions,
    requirements: Requirements,
    *,
    space: Space | None = None,
    rules: Rules | None = None,
) -> Recommendation:
    """Recommend a policy.

    1. Evaluate every policy of the space (closed forms, vectorised).
    2. Move the defaults that this network cannot keep.
    3. Take the preferred one of those that keep every rule and requirement; if there is none, relax as little as
       possible.
    4. Add the records' lives and the other timers; see `harness.theory.costs`.
    5. Tables: rejected, kinds of probing, heat map, sensitivity.

    Raises:
        NotTunable: no policy of the space is sound on this network.
    """
    asked = search(conditions, requirements, space, rules)
    asked, moved = _defaults_moved(asked)
    requirements = asked.requirements
    row = asked.best(asked.candidates["feasible"].to_numpy())
    ways: tuple[Relaxation, ...] = ()
    if row is None:
        ways = relax_requirements(asked)
        row = ways[0].candidate
    kept = requirements if not ways else ways[0].requirements
    policy = policy_of(asked.candidates.iloc[row], requirements, asked.rules)
    candidates = asked.candidates.assign(recommended=np.arange(len(asked.candidates)) == row)
    pareto = candidates[candidates["pareto"]].sort_values(["frames_per_s", "detect_p99_s"], ignore_index=True)
    return Recommendation(
        conditions=conditions,
        requirements=requirements,
        rules=asked.rules,
        feasible=not ways,
        relaxations=ways,
        policy=policy,
        figures={name: float(candidates[name].iloc[row]) for name in _FIGURES},
        next_interval=_next_interval(asked if not ways else asked.under(kept), row),
        candidates=candidates,
        pareto=pareto,
        heat=heat_map(asked, row),
        rejected=rejected(asked),
        probing=probing(asked if not ways else asked.under(kept)),
        sensitivity=sensitivity(policy, conditions, kept, asked.rules),
        choices=_choices(asked.under(kept)),
        moved=moved,
    )


_LADDER_S = (60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 480.0, *(60.0 * n for n in (10, 15, 20, 30, 45, 60)))
_ROOM = 1.25  # what a default may be above the least that a network allows


def _defaults_moved(found: Search) -> tuple[Search, tuple[str, ...]]:
    """The search with longer defaults where this network cannot keep them; each is told in a sentence.

    A bound that somebody stated never moves here; where no setting whatever keeps it, a sentence says why. False
    suspicions move only where no setting whatever could keep them: the network throws its clients out, not the policy.
    The detection takes the first step of a ladder that keeps the rest; where none does, the first with which it is no
    longer the detection that stands in the way.
    """
    told = list(_beyond_reach(found))
    of = {limit.key: i for i, limit in enumerate(found.limits)}
    assumed = found.requirements.assumed
    if "false-suspicions" in assumed:
        i = of["false-suspicions"]
        paid_for = [n for key, n in of.items() if n != i and not key.startswith("detect")]
        rows = np.flatnonzero(found.sound & np.all(found.ratios[:, paid_for] <= 1, axis=1))
        limit = found.limits[i]
        if len(rows) and found.ratios[rows, i].min() > 1:
            least = float(found.candidates[limit.column].iloc[rows].min())
            now = _rounded_up(_ROOM * limit.headroom * least)
            told.append(_taken_by_the_network(found, limit, least, "the default"))
            found = found.under(found.requirements.relaxed(limit, now))
    if "detect-p99" in assumed and not found.candidates["feasible"].any():
        limit = found.limits[of["detect-p99"]]
        for step in _LADDER_S:
            slower = found.under(found.requirements.relaxed(limit, step))
            if slower.candidates["feasible"].any():
                told.append(
                    "Nobody said how fast a death must be noticed, and the default of "
                    f"{limit.written(limit.allowed)} would throw out more healthy clients than the bound allows: this "
                    f"is for {limit.written(step)}."
                )
                return slower, tuple(told)
        others = np.delete(found.ratios, of["detect-p99"], axis=1)[found.sound]
        at_best = float(others.max(axis=1).min()) if len(others) else math.inf
        for step in _LADDER_S:
            slower = found.under(found.requirements.relaxed(limit, step))
            within = slower.sound & (slower.ratios[:, of["detect-p99"]] <= 1)
            rest = np.delete(slower.ratios, of["detect-p99"], axis=1)[within]
            if len(rest) and rest.max(axis=1).min() <= _ROOM * at_best:
                way = f"gives way to {limit.written(step)}, so that what you stated moves as little as it can"
                told.append(
                    "Nobody said how fast a death must be noticed: the default of "
                    f"{limit.written(limit.allowed)} "
                    f"{way if step > limit.allowed else 'stays, as more time would hardly help'}."
                )
                return slower, tuple(told)
    return found, tuple(told)


def _beyond_reach(found: Search) -> Iterator[str]:
    """Each stated bound that no sound policy keeps, whatever else it gives up."""
    for i, limit in enumerate(found.limits):
        rows = np.flatnonzero(found.sound)
        if limit.key in found.requirements.assumed or not len(rows) or found.ratios[rows, i].min() <= 1:
            continue
        least = float(found.candidates[limit.column].iloc[rows].min())
        if limit.key == "false-suspicions":
            yield _taken_by_the_network(found, limit, least, "your bound")
        else:
            yield (
                f"No setting keeps {limit.key} {limit.written(limit.allowed)}, whatever else is given up: on this "
                f"network it is {limit.written(least)} at the least."
            )


def _taken_by_the_network(found: Search, limit: Limit, least: float, whose: str) -> str:
    nat = found.conditions.nat
    room = f", and {limit.headroom:g} times that would have to keep it" if least <= limit.allowed else ""
    remedy = (
        ""
        if nat is None
        else f" No setting of the gateway helps; an idle timer on the way that is longer than "
        f"{format_duration(nat.idle_timeout)} would."
    )
    return (
        f"No setting keeps {whose} for healthy clients thrown out, {limit.written(limit.allowed)}: on this network "
        f"it is at least {limit.written(least)}{room}.{remedy}"
    )


_SLOWER_FACTOR = 1.5


def _choices(found: Search) -> tuple[Choice, ...]:
    """Three settings: the cheapest, the balanced one and the safest within the bounds.

    Where the last two are the same, the safest is looked for with every bound of the detection 1.5 times as long:
    slower detection is then all that buys more safety.
    """
    feasible = found.candidates["feasible"].to_numpy()
    if not feasible.any():
        return ()
    best = {name: found.best(feasible, prefer) for name, prefer in _PREFERS.items()}
    rows = {name: row for name, row in best.items() if row is not None}
    beyond = ""
    if rows["safest"] == rows["balanced"]:
        r = found.requirements
        bounds = {name: getattr(r, name) for name in DETECTION if getattr(r, name) is not None}
        longer = {name: _SLOWER_FACTOR * bound for name, bound in bounds.items()}
        patient = found.under(r.model_copy(update=longer))
        slow = patient.best(patient.candidates["feasible"].to_numpy(), "safest")
        rates = found.candidates["false_per_client_day"]
        if slow is not None and rates.iloc[slow] < rates.iloc[rows["balanced"]] / 2:
            rows["safest"], beyond = slow, "slower than you asked for"
    return tuple(
        Choice(
            name,
            policy_of(found.candidates.iloc[row], found.requirements, found.rules),
            {column: float(found.candidates[column].iloc[row]) for column in _FIGURES},
            beyond if name == "safest" else "",
        )
        for name, row in rows.items()
    )


_PREFERS = {"thrifty": "cost", "balanced": "balanced", "safest": "safest"}


def policy_of(candidate: pd.Series[float], requirements: Requirements, rules: Rules) -> LivenessPolicy:
    """The whole policy of a row of `Search.candidates`: its heartbeat, and the TTLs and timers that go with it."""
    t, patience = float(candidate["interval_s"]), float(candidate["patience_s"])
    status = status_ttl_s(t, patience, requirements.store_operations)
    retry = float(candidate["retry_s"])
    return LivenessPolicy(
        heartbeat_interval=t,
        heartbeat_timeout=float(candidate["timeout_s"]),
        max_failures=int(candidate["max_failures"]),
        retry_interval=retry if retry < t else None,
        session_timeout=float(idle_limit_s(t, patience)),
        sweep_interval=float(sweep_s(t, patience)),
        session_ttl=float(session_ttl_s(status)),
        status_ttl=float(status),
        resume_window=float(resume_window_s(t, patience, rules.page_load)),
        code_ttl=rules.code_ttl_s,
    )


def _next_interval(found: Search, row: int) -> str:
    """What stands in the way of the next longer interval: what its nearest policy breaks."""
    intervals = found.candidates["interval_s"].to_numpy()
    longer = intervals[intervals > intervals[row]]
    if not len(longer):
        return ""
    here = intervals == longer.min()
    # Rules first: of the policies that break fewest, the one closest to its requirements.
    rules = np.sum(list(found.unsound.values()), axis=0)
    rows = np.flatnonzero(here & (rules == rules[here].min()))
    nearest = int(rows[np.argmin(found.ratios[rows].max(axis=1))])
    broken = [reason for reason, mask in found.broken.items() if mask[nearest]]
    return f"T = {longer.min():g} s breaks {' and '.join(broken)}" if broken else ""
