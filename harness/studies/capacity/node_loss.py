"""A node dies under the load that the others are known to carry: how its clients come back.

From a scenario and a load to one more run, in which one node more than carries that load has it, and is then lost.
Real runs go at the pace of life: a back-off that is sped up would be another storm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.conclude import measure_run
from harness.judge.thresholds import check_thresholds
from harness.runs.directory import RunDir
from harness.studies.capacity.steps import Step, run_step
from scenarios.distributions import Distribution
from scenarios.faults.incidents import NodeCrash
from scenarios.schema import Scenario

__all__ = ["NodeLoss", "lose_a_node"]

_SETTLES_S, _WATCHED_S = 10.0, 40.0
_SHORTEST_RAMP_S = 5.0
# Of those who stay; the loss itself breaks others (healthy.losses).
_OF_SURVIVORS = frozenset({"false_suspicions", "heartbeat_lateness", "handshake"})


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """What became of it. ``back_s`` None: not all were back when the run ended, ``watched_s`` after the loss.

    ``came_back_per_s``: the most in one second. ``busiest_percent``: of a core, the busiest second of a survivor; None:
    a model. ``missed``: thresholds about those who stay, that broke.
    """

    nodes: int
    clients: int
    lost: int
    away: int
    back_p50_s: float | None
    back_s: float | None
    watched_s: float
    came_back_per_s: float
    busiest_percent: float | None
    refused: int
    missed: str
    sound: bool
    run: str
    reconnects: pd.DataFrame
    at_s: float

    def in_words(self) -> str:
        """One sentence, with what the survivors had to take on."""
        others = f"the other {self.nodes - 1}" if self.nodes > 2 else "the other one"
        if self.back_s is None:
            back = f"{self.away:,} of them were not back {self.watched_s:.0f} s later"
        else:
            back = f"half of them were back after {self.back_p50_s:.1f} s, all after {self.back_s:.1f} s"
        busy = "" if self.busiest_percent is None else f", at {self.busiest_percent:.0f} % of a core"
        refused = f"; {self.refused:,} logins were refused for the time being" if self.refused else ""
        held = (
            f"; meanwhile missed: {self.missed}"
            if self.missed
            else "; no threshold about those who stayed was missed"
        )
        return (
            f"1 of {self.nodes} nodes with {self.clients:,} clients died: {self.lost:,} had to come back to {others}, "
            f"up to {self.came_back_per_s:,.0f} in one second{busy}; {back}{refused}{held}"
            + ("" if self.sound else "; unsound: the machine was too late for these times to say much")
        )

    def record(self) -> dict[str, Any]:
        """For capacity.json: without the table."""
        return {name: value for name, value in asdict(self).items() if name != "reconnects"}


def lose_a_node(
    scenario: Scenario,
    *,
    carried: int,
    nodes: int,
    real: bool,
    root: Path,
    redis_url: str | None = None,
    connects_per_s: float,
) -> NodeLoss | Step:
    """Run it; the step itself where it did not run, or nobody was on the node.

    Args:
        scenario: whose clients come back by its `reconnect`; it loses its faults.
        carried: clients that ``nodes`` nodes are known to carry; one node more gets them.
        nodes: that survive.
        real: which engine.
        root: folder of run directories.
        redis_url: the user's Redis; None: a private one.
        connects_per_s: real seconds.
    """
    kept = tuple(t.expression for t in check_thresholds(scenario) if t.metric in _OF_SURVIVORS)
    crash = NodeCrash(kind="node_crash", node=1, at=Distribution(constant=_SETTLES_S))
    calm = scenario.model_copy(
        update={
            "name": f"{scenario.name}-node-loss",
            "faults": (),
            "incidents": (crash,),
            "thresholds": kept,
            "abort_on_fail": (),
            "speedup": 1.0,
            "ramp": max(_SHORTEST_RAMP_S, carried / connects_per_s),
            "duration": _SETTLES_S + _WATCHED_S,
        }
    )
    step = run_step(calm, clients=carried, nodes=nodes + 1, real=real, root=root, redis_url=redis_url)
    if not step.ran:
        return step
    tables = measure_run(RunDir(root / step.run)).tables
    incidents, reconnects, used = (tables.table(n) for n in ("incidents", "reconnects", "resources"))
    if incidents.empty or not incidents["clients_lost"].iloc[0]:
        return step
    row = incidents.iloc[0]
    at_s = float(row["at_s"])
    later = reconnects[reconnects["time_s"] + reconnects["width_s"] > at_s]
    storm = used[(used["role"] == "gateway") & (used["time_s"] > at_s)]
    return NodeLoss(
        nodes=nodes + 1,
        clients=carried,
        lost=int(row["clients_lost"]),
        away=int(row["clients_away"]),
        back_p50_s=None if row["clients_away"] else float(row["back_p50_s"]),
        back_s=None if row["clients_away"] else float(row["back_max_s"]),
        watched_s=float(row["watched_s"]),
        came_back_per_s=float((later["connected"] / later["width_s"]).max()),
        busiest_percent=float(storm["cpu_percent"].max()) if len(storm) else None,
        refused=int(later["login_refused"].sum()),
        missed=step.missed,
        sound=step.sound,
        run=step.run,
        reconnects=reconnects,
        at_s=at_s,
    )
