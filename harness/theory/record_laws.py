"""How long the status record of a client lives: while it is silent, and while it is well.

From the rules of records and the policy to laws in scenario seconds. Status is what presence is; a session record may
live longer.

    last refresh ── age ── fault ───── status_ttl ─────► the record is gone, whoever else knows
"""

from __future__ import annotations

import math

from harness.theory.fault_laws import age_of
from harness.theory.law import Law
from harness.theory.layer_laws import round_trip_of
from reference_server.liveness.kinds import Probing
from reference_server.record_rules import refresh_after_s
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.faults import Fault
from scenarios.schema import Scenario

__all__ = ["exact_refreshes_per_s", "least_left_s", "predict_presence", "record_expires", "refreshes_per_s"]


def least_left_s(scenario: Scenario) -> float:
    """The least that is left of a live client's status record at any moment; infinite where none expires."""
    rules, policy = scenario.records, scenario.liveness
    if not rules.expire:
        return math.inf
    match rules.refreshed:
        case "when_half_gone":
            return policy.status_ttl / 2
        case "at_each_frame" | "by_the_keepalive":
            return policy.status_ttl - (policy.heartbeat_interval or policy.status_ttl)
        case _:
            return 0.0


def record_expires(fault: Fault, scenario: Scenario, clock: RunClock) -> tuple[Law | None, str]:
    """From a silent fault to the end of the status record by its TTL alone, and why that is not known (None).

    Refreshed at each frame: TTL − V, V the age of the last frame, uniform in (0, T). When half is gone: the first frame
    then, so the age is uniform over as many T. Never: TTL − the connection's age.
    """
    rules, policy = scenario.records, scenario.liveness
    if not rules.expire:
        return Law.never(), ""
    ttl_s, interval_s = policy.status_ttl, policy.heartbeat_interval
    age = age_of(fault, scenario)
    if rules.refreshed == "by_the_keepalive":
        return None, "the keepalive goes on refreshing the record"
    if scenario.traffic.to_gateway is not None and rules.refreshed != "never":
        return None, "application frames refresh the record, too"
    if rules.refreshed == "never" or interval_s is None:
        if age.hi_s >= ttl_s or rules.status_written == "at_login":
            return None, "some records expire before the fault"
        return age.scaled(-1.0).shifted(ttl_s), ""
    period_s = interval_s
    if rules.refreshed == "when_half_gone":
        beats = ttl_s / 2 / interval_s
        if abs(beats - round(beats)) * interval_s <= round_trip_of(scenario, clock).hi_s:
            return None, "a frame comes at the very moment at which half of the TTL is gone"
        period_s *= max(1, math.ceil(beats))
    if period_s + round_trip_of(scenario, clock).hi_s >= ttl_s:
        return None, "some records expire between two frames"
    if period_s > interval_s and age.lo_s < period_s:
        return None, "the record may not have been refreshed yet"
    half_trip = round_trip_of(scenario, clock).scaled(0.5)
    return Law.uniform(ttl_s - period_s, ttl_s).plus(half_trip), ""


def predict_presence(scenario: Scenario, clock: RunClock = SCENARIO_TIME) -> Law | None:
    """From connecting to the first moment at which the status record is gone though the client lives; None: not known.

    Frames refresh it; where none comes in time, it lasts a TTL.
    """
    rules, policy = scenario.records, scenario.liveness
    if not rules.expire:
        return Law.never()
    gone = Law.constant(policy.status_ttl)
    if rules.refreshed == "never":
        return gone
    trip, data = round_trip_of(scenario, clock), scenario.traffic.to_gateway
    gaps_s = [] if policy.heartbeat_interval is None else [policy.heartbeat_interval + trip.hi_s]
    if data is not None and rules.refreshed != "by_the_keepalive":
        gaps_s.append(Law.of(data.every).hi_s + trip.hi_s)
    if not gaps_s:
        return gone
    # Half a TTL may be gone before a frame counts; it then lasts until the next one.
    within_s = policy.status_ttl / 2 if rules.refreshed == "when_half_gone" else policy.status_ttl
    if min(gaps_s) < within_s:
        return Law.never()
    if (
        data is None
        and rules.refreshed == "at_each_frame"
        and gaps_s[0] - trip.hi_s > policy.status_ttl + trip.hi_s
    ):
        first = Law.uniform(0.0, gaps_s[0])
        return first.at_least(0.0).within(-1.0, policy.status_ttl).shifted(policy.status_ttl)
    return None


def refreshes_per_s(scenario: Scenario) -> float | None:
    """How often a connected client has its records refreshed in the long run; None: not known."""
    policy, after_s = scenario.liveness, refresh_after_s(scenario.liveness, scenario.records)
    if scenario.records.refreshed == "by_the_keepalive" or isinstance(scenario.detector, Probing):
        return None
    if math.isinf(after_s) or policy.heartbeat_interval is None:
        return 0.0 if math.isinf(after_s) or scenario.traffic.to_gateway is None else None
    if scenario.traffic.to_gateway is not None and policy.data_counts:
        return None
    interval_s = policy.heartbeat_interval
    return 1 / (max(1, math.ceil(after_s / interval_s)) * interval_s)


def exact_refreshes_per_s(scenario: Scenario) -> float | None:
    """The same, where it holds in any stretch of the run, however short; None: it does not, or is not known.

    At each frame, at random phases: as often in each second. With half a TTL gone: all at about the same time after
    the connects, so within the run none is due, or theory does not follow when.
    """
    often = refreshes_per_s(scenario)
    if not often:
        return often
    after_s = refresh_after_s(scenario.liveness, scenario.records)
    if after_s == 0:
        return often if scenario.liveness.first_ping == "random" else None
    return 0.0 if scenario.horizon_s < after_s else None
