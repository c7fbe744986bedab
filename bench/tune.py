"""How long the tuner takes: a full search of the default space with its tables and text.

    python -m bench.tune

Exits with 1 if it takes longer than 10 s. What `flatline tune` simulates afterwards is not counted.
"""

from __future__ import annotations

import argparse
import sys
import time

from bench.figures import Figure, add_save, keep
from harness.policy.tune.conditions import conditions_of_profile
from harness.policy.tune.explain import explain
from harness.policy.tune.recommend import recommend
from harness.policy.tune.requirements import parse_requirements
from harness.policy.tune.search import search

PROFILE = "office-wifi-60s-lb"
MOST_S = 10.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_save(parser)
    given = parser.parse_args(argv)
    where, requirements = conditions_of_profile(PROFILE), parse_requirements(budget="60/s")
    began = time.perf_counter()
    answer = recommend(where, requirements)
    told = explain(answer)
    full_s = time.perf_counter() - began

    began = time.perf_counter()
    search(where, requirements)
    search_s = time.perf_counter() - began

    print(
        f"{len(answer.candidates):,} policies, {int(answer.candidates['feasible'].sum()):,} feasible, "
        f"{len(answer.pareto):,} in the Pareto set, {len(told.splitlines())} lines of text"
    )
    print(f"search {search_s:.2f} s, with tables and text {full_s:.2f} s (at most {MOST_S:g} s)")
    figures = [
        Figure("a recommendation, with tables and text", full_s, "s", most=MOST_S),
        Figure("of it the search", search_s / full_s, against="the whole"),
    ]
    return int(not keep(given.save, "tune", figures))


if __name__ == "__main__":
    sys.exit(main())
