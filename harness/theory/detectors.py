"""Detection latency of a silent death, one constructor a detector: the law of T_D in seconds from the fault.

The fault comes at a uniformly random phase of the heartbeat, U ~ Uniform(0, T): the time from the fault to
the next ping. Round trips are taken as zero; `silence.py` adds them for a scenario.
"""

from __future__ import annotations

from harness.theory.law import Law
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["idle_limit", "miss_at_next_tick", "nat_prevented", "nat_reset", "ping_deadline"]


def ping_deadline(policy: LivenessPolicy) -> Law:
    """Ping and deadline: U + (k−1)R + τ, so in [(k−1)R + τ, T + (k−1)R + τ).

    Source: the rules of `reference_server.liveness.PingDetector`; T=30, k=3, R=30, τ=10 gives [70, 100).

    Raises:
        ValueError: the policy has no heartbeat.
    """
    interval_s = policy.interval_s
    return Law.uniform(policy.patience_s, interval_s + policy.patience_s)


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


def nat_prevented(interval_s: float, nat_idle_s: float) -> bool:
    """Whether traffic every T keeps a NAT with idle timeout N from forgetting the mapping: T < N.

    Source: RFC 5382 section 5 (idle timers are restarted by traffic).
    """
    return interval_s < nat_idle_s


def nat_reset(policy: LivenessPolicy, nat_idle_s: float) -> Law:
    """A NAT that answers the next packet with RST: T_D = T − N from the expiry; T < N: never.

    Source: RFC 5382 REQ-5; AWS NAT gateways do so.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    interval_s = policy.interval_s
    if nat_prevented(interval_s, nat_idle_s):
        return Law.never()
    return Law.constant(interval_s - nat_idle_s)
