"""The tuner: from a network and wants to a recommended liveness policy, with reasons and alternatives.

Closed forms of `harness.theory` over a grid of policies; `verification_scenario` puts the result to the test.
"""

from harness.tune.accuracy import (
    dropped_by_idle_timer,
    false_suspicions_by_outages,
    late_answers,
    mean_excess_s,
    noticed_share,
)
from harness.tune.compare import compare_with_prediction
from harness.tune.conditions import Conditions, Rules, conditions_of_profile
from harness.tune.explain import explain
from harness.tune.figures import policy_row, with_figures
from harness.tune.fit import Fit, fit_law
from harness.tune.heat import PLOT_COLUMNS, heat_map
from harness.tune.network_data import NetworkDataError, network_from_csv
from harness.tune.pareto import indistinct, pareto_mask
from harness.tune.reasons import idle_timer_reason, reasons
from harness.tune.recommend import Recommendation, recommend
from harness.tune.rejected import probing, rejected
from harness.tune.relax import NotTunable, Relaxation, relaxations
from harness.tune.run_data import network_from_run
from harness.tune.search import Search, search
from harness.tune.sensitivity import sensitivity
from harness.tune.space import Space
from harness.tune.verify import Verification, verification_scenario, verify
from harness.tune.wants import Limit, Wants, WantsError, parse_wants
from harness.tune.written import Budget, format_number, format_rate, parse_budget, parse_rate

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
    "Space",
    "Verification",
    "Wants",
    "WantsError",
    "compare_with_prediction",
    "conditions_of_profile",
    "dropped_by_idle_timer",
    "explain",
    "false_suspicions_by_outages",
    "fit_law",
    "format_number",
    "format_rate",
    "heat_map",
    "idle_timer_reason",
    "indistinct",
    "late_answers",
    "mean_excess_s",
    "network_from_csv",
    "network_from_run",
    "noticed_share",
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
