"""A recommendation in words: Markdown that also reads well as plain text.

From a `Recommendation`, and what the fleet says of it, to a string: the policy, what it will do, one sentence for the
reason of each choice, and what else there is. It decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from harness.policy.tune.check import CONFIDENCE, FALSE_SUSPICIONS, SimulationCheck
from harness.policy.tune.recommend import Recommendation
from harness.policy.tune.units import format_number, format_rate
from harness.theory.costs import PER_CLIENTS
from reference_server.durations import format_duration
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reports.render import markdown_table

__all__ = ["explain", "idle_timer_reason", "in_words", "reasons"]

_PREFERENCES = {
    "balanced": "of those that cost at most half more than the cheapest, the one that throws out the fewest healthy "
    "clients; of those within a factor of two of it, the cheapest",
    "cost": "the cheapest policy that keeps them; of those the one with the fewest false suspicions, then the fastest",
    "latency": "the fastest policy that keeps them; of those the cheapest",
    "accuracy": "the policy with the fewest false suspicions that keeps them; of those the cheapest",
}


def reasons(recommendation: Recommendation) -> tuple[str, ...]:
    """Every choice with its reason."""
    return tuple(_reasons(recommendation))


def idle_timer_reason(recommendation: Recommendation) -> str:
    """Whether the heartbeat keeps the way's mappings alive, and what would happen otherwise."""
    r, nat = recommendation, recommendation.conditions.nat
    interval_s = r.policy.interval_s
    if nat is None:
        return "No idle timer on the way is known, so none limits T."
    timer = format_duration(nat.idle_timeout)
    match nat.expiry:
        case "reset":
            otherwise = "the next ping is answered with RST: every idle client is thrown out at every ping"
        case "close":
            otherwise = (
                f"both sides are closed: every idle client is thrown out {timer} after its last packet"
            )
        case "drop":
            otherwise = (
                "the next ping vanishes: every idle client is thrown out "
                f"{format_duration(round(r.policy.patience_s, 3))} after its first ping"
            )
    if nat.expiry != "drop":
        otherwise += ", and none of these losses is a suspicion"
    return (
        f"A ping every {format_duration(interval_s)} comes well before the idle timer of {timer} runs out "
        f"(T is at most {format_duration(round((1 - r.rules.nat_margin) * nat.idle_timeout, 3))}, which leaves room "
        "for a ping that TCP resends), so traffic keeps the mapping alive. "
        f"With T at or above {timer} it expires after each ping, and {otherwise}."
    )


def _reasons(r: Recommendation) -> Iterator[str]:
    p, patience = r.policy, r.policy.patience_s
    requirements = "the requirements" if r.feasible else "the relaxed requirements"
    yield f"Among the policies that keep {requirements}: {_PREFERENCES[r.requirements.prefer]}."
    if r.next_interval:
        yield f"T: a longer interval is cheaper, but {r.next_interval}."
    yield idle_timer_reason(r)
    yield _patience_reason(r, patience)
    if r.requirements.min_failures > 1:
        yield (
            f"k = {p.max_failures}: at least {r.requirements.min_failures} misses are required. Over TCP a second ping "
            "does not help against outages (it queues behind the first). With k = 1 a single stall of the gateway's "
            "loop can throw out every client whose answer waits to be read."
        )
    late = 1 - float(r.conditions.network.round_trip.cdf(p.heartbeat_timeout - r.rules.lag_s))
    yield (
        f"τ = {format_duration(p.heartbeat_timeout)}, less {format_duration(r.rules.lag_s)} for lag: "
        f"{'hardly any answer comes' if late < 1e-9 else f'{late:.2g} of the answers come'} later than that "
        f"(allowed: {r.rules.late_share:g}; with a later answer the probing begins, nothing worse)."
    )
    yield (
        f"Idle limit {_time(p.session_timeout)}, looked at every {_time(p.sweep_interval)}: a back-stop behind "
        f"the heartbeat, which is done after {_time(p.interval_s + patience)} at the latest."
    )
    yield (
        f"TTLs: the status record lives {_time(p.status_ttl)}, so it survives half of that, a beat and the "
        f"patience; a crashed node's clients are shown online no longer. The session record lives "
        f"{_time(p.session_ttl)}, which never ends before the status."
    )
    pages = float(r.rules.page_load.cdf(p.resume_window))
    yield (
        f"Resume window {_time(p.resume_window)}: {pages:.1%} of the page loads are back by then; it is within "
        "T + (k−1)R + τ, so it never delays the clean-up of a dead client."
    )


def _patience_reason(r: Recommendation, patience: float) -> str:
    ladder = sorted(r.conditions.network.rto_ladder)
    outages = r.conditions.network.outages
    words = f"(k−1)R + τ = {format_duration(round(patience, 3))}: "
    if outages is None:
        return (
            words
            + "no outages are known on this network; only an answer slower than this is a false suspicion."
        )
    trip_s = float(r.conditions.network.round_trip.quantile(0.5))
    last = max((step for step in ladder if step <= patience - trip_s), default=0.0)
    after = min((step for step in ladder if step > patience - trip_s), default=None)
    words += (
        f"a ping lost in an outage is sent again by TCP until {format_duration(round(last, 3))} after it, still in "
        f"time; outages that are over by then are survived. They last {outages.length.mean_s:.3g} s on average, every "
        f"{format_duration(round(outages.every))} of a client."
    )
    if after is not None:
        words += (
            " More patience would survive no more before the next retransmission, at "
            f"{format_duration(round(after, 3))}."
        )
    return words


_PARETO_ROWS = 12


def explain(recommendation: Recommendation, check: SimulationCheck | None = None) -> str:
    """Tell what is recommended, what it will do, why, and what else there is (Markdown).

    Args:
        recommendation: as `recommend` gives it.
        check: what the fleet shows beside the prediction; None: it was not simulated.
    """
    r = recommendation
    parts = [
        *_headline(r),
        *_choices(r),
        *_policy(r),
        *_prediction(r),
        *(() if check is None else _simulated(check)),
        "## Why",
        *(f"- {reason}" for reason in reasons(r)),
        *_probing(r),
        *_rejected(r),
        *_pareto(r),
        *_sensitivity(r),
        "## Network",
        *(f"- {note}" for note in (*r.conditions.notes, *(fit.sentence for fit in r.conditions.fits))),
    ]
    return "\n".join(parts) + "\n"


def _headline(r: Recommendation) -> Iterator[str]:
    yield f"# Policy for {r.conditions.name}"
    if not r.feasible:
        yield " ".join(("**No policy keeps every requirement.**", *r.moved, "The nearest that can be kept:"))
        yield from (f"- {way.sentence}" for way in r.relaxations)
        yield f"What follows is the policy for {'the first of these' if len(r.relaxations) > 1 else 'that'}."
        yield ""
    yield in_words(r.policy, r.figures)
    if r.feasible:
        yield from r.moved
    yield ""


def in_words(policy: LivenessPolicy, figures: Mapping[str, float]) -> str:
    """What to set and what it costs, for a reader who knows none of the symbols."""
    p = policy
    again = "" if p.max_failures == 1 else f", and ping again every {_time(p.retry_s)} while none comes"
    misses = {1: "first ping", 2: "second ping in a row"}.get(
        p.max_failures, f"{p.max_failures}th ping in a row" if p.max_failures > 3 else "third ping in a row"
    )
    return (
        f"**Ping every {_time(p.interval_s)}, wait {_time(p.heartbeat_timeout)} for the answer{again}; "
        f"the {misses} without an answer ends the connection.** A client that dies without a word is then noticed "
        f"after {_about(figures['detect_p50_s'])} on average and {_time(figures['detect_max_s'])} at the latest; "
        f"healthy clients are thrown out {_often(figures['false_per_client_day'])}; 1,000 idle clients cost "
        f"{format_number(figures['frames_per_s'])} frames and {format_number(figures['bytes_per_s'] / 1e3)} kB "
        "a second."
    )


def _about(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"


def _often(per_client_day: float) -> str:
    """False suspicions of ten thousand clients, in the period in which there are some."""
    a_day = 1e4 * per_client_day
    if a_day >= 1:
        return f"{format_number(a_day)} times a day among 10,000"
    if a_day >= 1 / 365:
        return f"once in {format_number(1 / a_day)} days among 10,000"
    return "less than once a year among 10,000"


def _choices(r: Recommendation) -> Iterator[str]:
    """Three settings beside each other, and what each step up buys."""
    if not r.choices:
        return
    yield "## Three settings to choose from"
    rows: list[tuple[str, ...]] = []
    seen: list[LivenessPolicy] = []
    for choice in r.choices:
        if choice.policy in seen:
            continue
        seen.append(choice.policy)
        same = [one.name for one in r.choices if one.policy == choice.policy]
        named = " = ".join(same) + (" (recommended)" if choice.policy == r.policy else "")
        p, f = choice.policy, choice.figures
        bounds = "your bounds" if r.feasible else "the relaxed bounds"
        buys = f"the least traffic that keeps {bounds}" if not rows else _buys(r.choices[0].figures, f)
        rows.append(
            (
                named,
                f"every {_time(p.interval_s)}",
                f"{p.max_failures} × {_time(p.retry_s)}, {_time(p.heartbeat_timeout)}",
                f"{_time(f['detect_p99_s'])}{f' ({choice.beyond})' if choice.beyond else ''}",
                format_rate(f["false_per_client_day"]),
                f"{format_number(f['frames_per_s'])}/s",
                buys,
            )
        )
    head = (
        "setting",
        "ping",
        "misses, deadline",
        "99 % of deaths noticed within",
        "a healthy client thrown out",
    )
    yield from _table((*head, "frames", "what it buys"), rows)
    if len(seen) == 1:
        yield "All three are the same: neither half as much traffic again nor half as much time makes it twice as safe."
        yield ""


def _buys(thrifty: Mapping[str, float], figures: Mapping[str, float]) -> str:
    money = figures["frames_per_s"] / thrifty["frames_per_s"] - 1
    slower_s = figures["detect_p99_s"] - thrifty["detect_p99_s"]
    rarer = thrifty["false_per_client_day"] / max(figures["false_per_client_day"], 1e-12)
    price = [f"{abs(money):.0%} {'more' if money > 0 else 'less'} traffic"] if abs(money) > 0.005 else []
    price += [f"{_about(slower_s)} slower detection"] if slower_s > 0.5 else []
    paid = " and ".join(price) or "the same price"
    times = f"{format_number(rarer)} times" if rarer < 1e6 else "more than a million times"
    return f"{paid} than thrifty: healthy clients are thrown out {times} more rarely"


def _policy(r: Recommendation) -> Iterator[str]:
    p = r.policy
    retry = "" if p.retry_interval is None else f", R = {_time(p.retry_interval)}"
    yield "## The recommended policy"
    yield (
        f"T = {_time(p.heartbeat_interval)}, τ = {_time(p.heartbeat_timeout)}, k = {p.max_failures}{retry}: "
        f"a silent death is noticed U + (k−1)R + τ after it, U uniform in [0, T), so within "
        f"{_time(r.figures['detect_max_s'])}; false suspicions: {format_rate(r.figures['false_per_client_day'])}."
    )
    yield ""
    told = r.policy.model_dump(mode="json")
    names = (
        *("heartbeat_interval", "heartbeat_timeout", "max_failures", "retry_interval", "session_timeout"),
        *("sweep_interval", "status_ttl", "session_ttl", "resume_window"),
    )
    shown = {name: told[name] if told[name] is not None else "= heartbeat_interval" for name in names}
    yield from _table(("parameter", "value"), shown.items())


def _prediction(r: Recommendation) -> Iterator[str]:
    limits = {limit.column: limit for limit in r.requirements.limits}
    labels = {
        "detect_p50_s": "detection p50",
        "detect_p95_s": "detection p95",
        "detect_p99_s": "detection p99",
        "detect_max_s": "detection, latest",
        "false_per_client_day": "false suspicions",
        "middle_per_client_day": "healthy clients lost to boxes on the way",
        "frames_per_s": f"frames ({PER_CLIENTS} clients)",
        "bytes_per_s": f"bytes ({PER_CLIENTS} clients)",
        "store_operations_per_s": f"store ({PER_CLIENTS} clients)",
        "radio_wakeups_per_hour": "radio wake-ups",
    }
    rows = []
    for column, label in labels.items():
        limit, figure = limits.get(column), r.figures[column]
        required = "" if limit is None else limit.written(limit.allowed)
        if limit is not None and limit.headroom > 1:
            required += f" ({limit.headroom:g} times what is predicted still keeps it)"
        if limit is not None and limit.key in r.requirements.assumed:
            required += " (default)"
        verdict = "" if limit is None else ("no" if limit.ratio(figure) > 1 else "yes")
        rows.append((label, _figure(column, figure), required, verdict))
    yield "## Prediction"
    yield from _table(("figure", "predicted", "required", "kept"), rows)


def _simulated(check: SimulationCheck) -> Iterator[str]:
    yield f"## Simulated: {format_number(check.client_days)} client-days of healthy clients, and deaths"
    if check.contradicted:
        yield f"**The simulation contradicts the prediction of: {', '.join(check.contradicted)}.**"
    rows = []
    for _, row in check.table.iterrows():
        rate = row["figure"] == FALSE_SUSPICIONS
        shown = [
            f"{row[name]:.3g}" if rate else _time(row[name])
            for name in ("predicted", "simulated", "lo", "hi")
        ]
        policy = (
            f"{row['policy']}: T {row['interval_s']:g}, k {row['max_failures']:.0f}, R {row['retry_s']:g}, "
            f"τ {row['timeout_s']:g}"
        )
        agrees = "yes" if row["agrees"] else "no"
        rows.append((policy, row["figure"], *shown[:2], f"{shown[2]} to {shown[3]}", row["n"], agrees))
    head = ("policy", "figure", "predicted", "simulated", f"{CONFIDENCE:.2%} interval", "of", "agrees")
    yield from _table(head, rows)
    yield "Predicted without the allowance for lag, which the simulated gateway has not."
    yield from check.notes
    yield ""


def _probing(r: Recommendation) -> Iterator[str]:
    names = {"one miss": "one miss (k = 1)", "regular": "R = T", "short": "short probing (R < T)"}
    yield "## What short probing gains"
    head = ("probing", "T", "k", "R", "τ", "detection p99", "false suspicions", "frames/s", _kept_column(r))
    rows = []
    for _, row in r.probing.iterrows():
        if math.isnan(row["interval_s"]):
            rows.append((names[row["kind"]], *[""] * 7, "no sound policy"))
            continue
        kept = "yes" if row["feasible"] else f"nearest: {row['breaks']}"
        rows.append((names[row["kind"]], *_row(row), kept))
    yield from _table(head, rows)


def _rejected(r: Recommendation) -> Iterator[str]:
    yield f"## Rejected, of {len(r.candidates)} policies"
    rows = []
    for _, row in r.rejected.iterrows():
        nearest = "every one breaks something else too"
        if not math.isnan(row["interval_s"]):
            over = "" if math.isnan(row["over"]) else f" ({row['over'] - 1:.2%} above its bound)"
            nearest = (
                f"T {row['interval_s']:g}, k {row['max_failures']:.0f}, R {row['retry_s']:g}, "
                f"τ {row['timeout_s']:g}{over}"
            )
        rows.append((row["reason"], str(row["policies"]), str(row["only_this"]), nearest))
    yield from _table(("breaks", "policies", "only this", "nearest of those"), rows)


def _pareto(r: Recommendation) -> Iterator[str]:
    """A few of the Pareto set: up to twice the recommended one's latency and cost, and the recommended one."""
    near = r.pareto[
        (r.pareto["detect_p99_s"] <= 2 * r.figures["detect_p99_s"])
        & (r.pareto["frames_per_s"] <= 2 * r.figures["frames_per_s"])
    ].reset_index(drop=True)
    step = max(1, -(-len(near) // _PARETO_ROWS))
    shown = near[(near.index % step == 0) | near["recommended"]]
    yield f"## Pareto set: {len(r.pareto)} policies; {len(shown)} of the {len(near)} near this one"
    yield from _table(
        (
            "T",
            "k",
            "R",
            "τ",
            "detection p99",
            "false suspicions",
            "frames/s",
            "keeps the requirements" if r.feasible else "keeps what you asked for",
        ),
        (
            (*_row(row), "recommended" if row["recommended"] else "yes" if row["feasible"] else "no")
            for _, row in shown.iterrows()
        ),
    )


def _sensitivity(r: Recommendation) -> Iterator[str]:
    yield "## If an assumption is wrong"
    rows = []
    for _, row in r.sensitivity.iterrows():
        times = "" if math.isnan(row["times_false"]) else f"× {format_number(row['times_false'])}"
        rows.append(
            (
                row["change"] or row["kind"],
                _time(row["detect_p99_s"]),
                format_rate(row["false_per_client_day"]),
                times,
                format_number(row["frames_per_s"]),
                "yes" if row["meets"] else f"no: {row['breaks']}",
            )
        )
    head = ("change", "detection p99", "false suspicions", "", "frames/s", _kept_column(r))
    yield from _table(head, rows)


def _kept_column(r: Recommendation) -> str:
    return "keeps the requirements" if r.feasible else "keeps the relaxed requirements"


def _row(row: pd.Series[float]) -> tuple[str, ...]:
    return (
        f"{row['interval_s']:g}",
        f"{row['max_failures']:.0f}",
        f"{row['retry_s']:g}",
        f"{row['timeout_s']:g}",
        _time(row["detect_p99_s"]),
        format_rate(row["false_per_client_day"]),
        format_number(row["frames_per_s"]),
    )


def _figure(column: str, value: float) -> str:
    if column.startswith("detect_"):
        return _time(value)
    return {
        "false_per_client_day": format_rate(value),
        "middle_per_client_day": format_rate(value) if value else "none",
        "frames_per_s": f"{format_number(value)}/s",
        "bytes_per_s": f"{format_number(value / 1e3)} kB/s",
        "store_operations_per_s": f"{format_number(value)} operations/s",
        "radio_wakeups_per_hour": f"{format_number(value)} an hour",
    }[column]


def _time(seconds: float | None) -> str:
    return "none" if seconds is None else format_duration(round(float(seconds), 3))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> tuple[str, str]:
    return markdown_table(head, [[str(cell) for cell in row] for row in rows], aligned=True), ""
