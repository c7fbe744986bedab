"""The run that puts one preset to the test: all faults in one mix, long enough, as fast as its clocks allow.

From a preset's name to a scenario. Faults come over a whole sweep, so that the sweep's phase, one a run, is uniform
over them; the run outlasts what theory says, and TCP's give-up where theory says never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.theory import predict
from reference_server.presets import find_preset
from scenarios.schema import Scenario

__all__ = ["experiment"]

_RAMP_S = 30.0
_FIRST_S, _SPAN_S = 40.0, 60.0  # of the faults, after the ramp
_HEALTHY = 0.1  # of the clients: the control
_LONGER_THAN_TCP_S = 1040.0
_SPARE_S = 20.0
_MAY_LAG_S = 0.047  # loops may lag 30 ms; one way, and the schedulers' grain, take the rest
_MOST_EPSILON_S, _MOST_SHARE = 1.0, 0.02  # of `soundness.py`


def experiment(
    preset: str,
    faults: Sequence[str],
    *,
    clients: int = 100,
    fastest: float = 20.0,
    seed: int = 1,
) -> Scenario:
    """Return the scenario of a preset and some kinds of fault.

    Args:
        preset: its name.
        faults: kinds.
        clients: nine of ten suffer a fault, as many of each kind.
        fastest: the speedup at most; a preset that decides soon goes slower, so that its times can be told.
        seed: of the plan.

    Raises:
        UnknownPresetError: no such preset.
    """
    policy = find_preset(preset).policy
    span_s = max(_SPAN_S, policy.sweep_interval)
    at = {"uniform": {"low": _FIRST_S, "high": _FIRST_S + span_s}}
    share = (1 - _HEALTHY) / len(faults)
    given: dict[str, Any] = {
        "name": preset,
        "description": f"{find_preset(preset).title}, put to the test.",
        "preset": preset,
        "seed": seed,
        "clients": clients,
        "ramp": _RAMP_S,
        "duration": 1.0,
        "faults": [{"kind": kind, "share": share, "at": at} for kind in faults],
    }
    if find_preset(preset).second_login == "refuse":
        # After the clean-up of an orderly close, so that the first try does not race with it.
        given["reconnect"] = {"relogin": {"after": 3.0, "retry": 7.0}}
    draft = Scenario.model_validate(given)
    speedup = _speedup(draft, fastest)
    # A refresh that finds its session again is cleared never, and that needs no waiting for. At a speedup TCP is
    # later, for its timers do not shrink.
    laws = [
        p.law
        for at_speed in (1.0, speedup)
        for p in predict(draft, at_speed)
        if p.law is not None and p.fault != "refresh"
    ]
    longest_s = max(
        (law.hi_s if law.mass > 1 - 1e-9 else _LONGER_THAN_TCP_S for law in laws), default=0.0
    )
    given["duration"] = _FIRST_S + span_s + longest_s + _SPARE_S
    given["speedup"] = speedup
    return Scenario.model_validate(given)


def _speedup(scenario: Scenario, fastest: float) -> float:
    """As fast as a run can be that is still sound when its loops lag 30 ms."""
    silent = [
        float(p.law.quantile(0.5))
        for p in predict(scenario)
        if p.milestone == "suspected"
        and p.fault in ("network_cut", "frozen")
        and p.law is not None
        and p.law.mass > 0.5
    ]
    bound_s = min([_MOST_EPSILON_S, *(_MOST_SHARE * median_s for median_s in silent)])
    return float(max(1, min(fastest, math.floor(bound_s / _MAY_LAG_S))))
