"""Why a policy is as it is, one sentence a choice. From a `Recommendation` to sentences."""

from __future__ import annotations

from collections.abc import Iterator

from harness.theory import patience_s
from harness.tune.recommend import Recommendation
from reference_server.durations import format_duration

__all__ = ["idle_timer_reason", "reasons"]

_PREFERENCES = {
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
    interval_s = r.policy.heartbeat_interval
    assert interval_s is not None  # a recommendation has a heartbeat
    if nat is None:
        return "No idle timer on the way is known, so none limits T."
    timer = format_duration(nat.idle_timeout)
    otherwise = (
        "the next ping is answered with RST: every idle client is thrown out at every beat"
        if nat.expiry == "reset"
        else "the next ping vanishes: every idle client is thrown out "
        f"{format_duration(round(patience_s(r.policy), 3))} after its first beat"
    )
    return (
        f"T = {format_duration(interval_s)} is {1 - interval_s / nat.idle_timeout:.0%} below the idle timer of {timer} "
        f"(asked: {r.rules.nat_margin:.0%}, room for a ping that TCP sends again), so traffic keeps the mapping alive. "
        f"With T at or above {timer} it expires after each beat, and {otherwise}."
    )


def _reasons(r: Recommendation) -> Iterator[str]:
    p, patience = r.policy, patience_s(r.policy)
    assert p.heartbeat_interval is not None  # a recommendation has a heartbeat
    wants = "the wants" if r.feasible else "the relaxed wants"
    yield f"Among the policies that keep {wants}: {_PREFERENCES[r.wants.prefer]}."
    if r.next_interval:
        yield f"T: a longer interval is cheaper, but {r.next_interval}."
    yield idle_timer_reason(r)
    yield _patience_reason(r, patience)
    if r.wants.min_failures > 1:
        yield (
            f"k = {p.max_failures}: at least {r.wants.min_failures} misses were asked for. Over TCP a second ping adds "
            "nothing against outages (it queues behind the first), but with k = 1 a single stall of the gateway's "
            "loop can throw out every client whose answer waits to be read."
        )
    late = 1 - float(r.conditions.network.round_trip.cdf(p.heartbeat_timeout - r.rules.lag_s))
    yield (
        f"τ = {format_duration(p.heartbeat_timeout)}, less {format_duration(r.rules.lag_s)} for lag: "
        f"{'hardly any answer comes' if late < 1e-9 else f'{late:.2g} of the answers come'} later than that "
        f"(allowed: {r.rules.late_share:g}; with a later answer the probing begins, nothing worse)."
    )
    yield (
        f"Idle limit {_written(p.session_timeout)}, looked at every {_written(p.sweep_interval)}: a back-stop behind "
        f"the heartbeat, which is done after {_written(p.heartbeat_interval + patience)} at the latest."
    )
    yield (
        f"TTLs: the status record lives {_written(p.status_ttl)}, so it survives half of that, a beat and the "
        f"patience; a crashed node's clients are shown online no longer. The session record lives "
        f"{_written(p.session_ttl)}, which never ends before the status."
    )
    pages = float(r.rules.page_load.cdf(p.resume_window))
    yield (
        f"Resume window {_written(p.resume_window)}: {pages:.1%} of the page loads are back by then; it is within "
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


def _written(seconds: float | None) -> str:
    return "none" if seconds is None else format_duration(round(seconds, 3))
