"""The tuner: a full search of the default space, against theory's own formula called policy by policy."""

from __future__ import annotations

import sys
import time

import numpy as np

from harness.policy.tune import (
    Space,
    conditions_of_profile,
    explain,
    parse_wants,
    recommend,
    search,
)
from harness.theory import false_suspicions_per_client_day
from reference_server.liveness.heartbeat_policy import LivenessPolicy

PROFILE = "office-wifi-60s-lb"
ONE_BY_ONE = 60
MOST_S = 10.0


def main() -> int:
    where, wants = conditions_of_profile(PROFILE), parse_wants(budget="60/s")
    began = time.perf_counter()
    answer = recommend(where, wants)
    told = explain(answer)
    full_s = time.perf_counter() - began

    began = time.perf_counter()
    found = search(where, wants)
    search_s = time.perf_counter() - began

    policies = Space().policies()
    # Theory has no value where an outage can never be noticed, to floating point: leave the most patient out.
    policies = policies[policies["patience_s"] < 60]
    some = policies.iloc[np.linspace(0, len(policies) - 1, ONE_BY_ONE).astype(int)]
    began = time.perf_counter()
    for _, one in some.iterrows():
        policy = LivenessPolicy(
            heartbeat_interval=float(one["interval_s"]), heartbeat_timeout=float(one["timeout_s"]),
            max_failures=int(one["max_failures"]), retry_interval=float(one["retry_s"]),
            session_timeout=None,
        )  # fmt: skip
        false_suspicions_per_client_day(policy, where.network)
    each_s = (time.perf_counter() - began) / ONE_BY_ONE

    print(f"{len(found.candidates):,} policies, {int(answer.candidates['feasible'].sum()):,} feasible, "
          f"{len(answer.pareto):,} in the Pareto set, {len(told.splitlines())} lines of text")  # fmt: skip
    print(
        f"search {search_s:.2f} s · full tune with tables and text {full_s:.2f} s (at most {MOST_S:g} s)"
    )
    ratio = each_s * len(found.candidates) / search_s
    print(
        f"theory one by one: {each_s * 1e3:.1f} ms a policy; the search is {ratio:,.0f} × as fast"
    )
    return int(full_s > MOST_S)


if __name__ == "__main__":
    sys.exit(main())
