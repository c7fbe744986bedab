"""The tuner: from a network and wants to a recommended liveness policy, with reasons and alternatives.

Closed forms of `harness.theory` over a grid of policies. Two tests of the result: `check_by_simulation` (the vectorised
fleet, seconds) and `verify` (a real run).
"""

from harness.policy.tune.check import SimulationCheck, check_by_simulation, neighbours
from harness.policy.tune.conditions import Conditions, Rules, conditions_of_profile
from harness.policy.tune.explain import explain, idle_timer_reason, reasons
from harness.policy.tune.fit import Fit, fit_law
from harness.policy.tune.measured_conditions import NetworkDataError, network_from_csv, network_from_run
from harness.policy.tune.recommend import (
    PLOT_COLUMNS,
    NotTunable,
    Recommendation,
    Relaxation,
    heat_map,
    probing,
    recommend,
    rejected,
    relaxations,
    sensitivity,
)
from harness.policy.tune.search import (
    Search,
    Space,
    indistinct,
    pareto_mask,
    policy_row,
    search,
    with_figures,
)
from harness.policy.tune.units import Budget, format_number, format_rate, parse_budget, parse_rate
from harness.policy.tune.verify import Verification, compare_with_prediction, verification_scenario, verify
from harness.policy.tune.wants import Limit, Wants, WantsError, parse_wants

__all__ = [
    "PLOT_COLUMNS",
    "Budget",
    "Conditions",
    "Fit",
    "Limit",
    "NetworkDataError",
    "NotTunable",
    "Recommendation",
    "Relaxation",
    "Rules",
    "Search",
    "SimulationCheck",
    "Space",
    "Verification",
    "Wants",
    "WantsError",
    "check_by_simulation",
    "compare_with_prediction",
    "conditions_of_profile",
    "explain",
    "fit_law",
    "format_number",
    "format_rate",
    "heat_map",
    "idle_timer_reason",
    "indistinct",
    "neighbours",
    "network_from_csv",
    "network_from_run",
    "pareto_mask",
    "parse_budget",
    "parse_rate",
    "parse_wants",
    "policy_row",
    "probing",
    "reasons",
    "recommend",
    "rejected",
    "relaxations",
    "search",
    "sensitivity",
    "verification_scenario",
    "verify",
    "with_figures",
]
