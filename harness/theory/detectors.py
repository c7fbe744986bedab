"""Detection latency of a silent death, one constructor a detector: the law of T_D in seconds from the fault.

The fault comes at a uniformly random phase of the heartbeat, U ~ Uniform(0, T): the time from the fault to
the next ping. Round trips are taken as zero; `silence.py` adds them for a scenario.
"""

from __future__ import annotations

from harness.theory.law import Law
from harness.theory.tcp import tcp_give_up_s
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution

__all__ = [
    "close_seen",
    "connection_check",
    "idle_limit",
    "miss_at_next_tick",
    "nat_drop",
    "nat_prevented",
    "nat_reset",
    "patience_s",
    "ping_deadline",
    "send_fails",
    "ttl_only",
]


def patience_s(policy: LivenessPolicy) -> float:
    """(k−1)R + τ: from the first unanswered ping to the suspicion, seconds."""
    return (policy.max_failures - 1) * policy.retry_s + policy.heartbeat_timeout


def ping_deadline(policy: LivenessPolicy) -> Law:
    """Ping and deadline: U + (k−1)R + τ, so in [(k−1)R + τ, T + (k−1)R + τ).

    Source: the rules of `reference_server.liveness.PingDetector`; T=30, k=3, R=30, τ=10 gives [70, 100).

    Raises:
        ValueError: the policy has no heartbeat.
    """
    interval_s = _interval_s(policy)
    return Law.uniform(patience_s(policy), interval_s + patience_s(policy))


def miss_at_next_tick(interval_s: float, max_failures: int = 1) -> Law:
    """A miss is counted when the next ping is due (no deadline of its own): U + kT, in [kT, (k+1)T).

    Source: the heartbeat in the README of Node's `ws` (30 s tick, one miss).
    """
    return Law.uniform(max_failures * interval_s, (max_failures + 1) * interval_s)


def idle_limit(beat_s: float, limit_s: float, sweep_s: float = 0.0) -> Law:
    """The client beats every T, the server looks every S for who is silent too long: TO − U + Uniform(0, S).

    In (TO − T, TO + S]. U is the age of the last beat. ``sweep_s`` 0: a timer of its own, no sweep.
    Source: Phoenix channels (30 s, 60 s), MQTT 3.1.1 section 3.1.2.10 (TO = 1.5 T), ASP.NET SignalR.
    """
    return Law.uniform(limit_s - beat_s, limit_s).plus(Law.uniform(0.0, sweep_s))


def send_fails(interval_s: float, give_up_s: float | None = None) -> Law:
    """Only a failing `send` tells: U + TCP's give-up, however many failures the policy counts.

    `send` on a dead peer succeeds until the kernel gives up; ``give_up_s`` None is Linux's default,
    924.6 s after the first unacknowledged ping; a TCP_USER_TIMEOUT replaces it.
    Source: Linux `tcp_retries2`; tcp(7) TCP_USER_TIMEOUT.
    """
    give_up = tcp_give_up_s() if give_up_s is None else give_up_s
    return Law.uniform(give_up, give_up + interval_s)


def connection_check(interval_s: float, check_s: float, give_up_s: float | None = None) -> Law:
    """The connection's state is looked at every S: as `send_fails`, + Uniform(0, S). Source: as there."""
    return send_fails(interval_s, give_up_s).plus(Law.uniform(0.0, check_s))


def ttl_only(ttl_s: float, refresh_s: float, expiry_lag_s: float = 0.0) -> Law:
    """Nothing but the store's TTL: TTL − age of the last refresh, the age uniform on (0, refresh_s).

    ``expiry_lag_s``: Redis deletes late; uniform on (0, lag), for who waits for its notification instead of
    polling. Source: Redis documentation, EXPIRE ("How Redis expires keys") and keyspace notifications.

    Raises:
        ValueError: refreshed less often than it expires.
    """
    if refresh_s > ttl_s:
        raise ValueError(f"a TTL of {ttl_s:g} s refreshed every {refresh_s:g} s expires in between")
    return Law.uniform(ttl_s - refresh_s, ttl_s).plus(Law.uniform(0.0, expiry_lag_s))


def close_seen(round_trip: Distribution) -> Law:
    """Close frame, FIN or RST: the one-way delay, half a round trip. Source: RFC 6455 section 7, RFC 9293."""
    return Law.of(round_trip).scaled(0.5)


def nat_prevented(interval_s: float, nat_idle_s: float) -> bool:
    """Whether traffic every T keeps a NAT with idle timeout N from forgetting the mapping: T < N.

    Source: RFC 5382 section 5 (idle timers are restarted by traffic).
    """
    return interval_s < nat_idle_s


def nat_drop(policy: LivenessPolicy, nat_idle_s: float) -> Law:
    """A NAT that forgets and drops: T_D = (T − N) + (k−1)R + τ from the expiry, not random; T < N: never.

    The mapping goes N after the last packet; the next ping, T after it, vanishes. Source: RFC 5382.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    interval_s = _interval_s(policy)
    if nat_prevented(interval_s, nat_idle_s):
        return Law.never()
    return Law.constant(interval_s - nat_idle_s + patience_s(policy))


def nat_reset(policy: LivenessPolicy, nat_idle_s: float) -> Law:
    """A NAT that answers the next packet with RST: T_D = T − N from the expiry; T < N: never.

    Source: RFC 5382 REQ-5; AWS NAT gateways do so.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    interval_s = _interval_s(policy)
    if nat_prevented(interval_s, nat_idle_s):
        return Law.never()
    return Law.constant(interval_s - nat_idle_s)


def _interval_s(policy: LivenessPolicy) -> float:
    if policy.heartbeat_interval is None:
        raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
    return policy.heartbeat_interval
