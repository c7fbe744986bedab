"""How fast the simulated engine is beside a plain SimPy model, and beside itself with an event loop of finite speed.

    python -m bench.simulated [--clients 1000] [--hours 2] [--rounds 3]

The plain model is what one writes first: a generator process a client that waits for its phase, sends a ping, and
waits for the answer or the deadline (SimPy's `any_of`), three misses to a suspicion; one client in a hundred dies
silently. It keeps no store, no log, no network, no layers. For a loop of finite speed it has a
`simpy.Resource` that each ping and each answer asks for. Engine and plain model run the same clients, policy,
hours and deaths in turn, in one process; printed are ratios of the best rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import simpy

from bench.figures import Figure, add_save, keep
from harness.simulated import simulate
from reference_server.events import EventKind
from scenarios.plan import make_plan
from scenarios.schema import Scenario

LEAST_RATIOS = {"": 1.0, ", finite loop": 2.0}
T_S, TAU_S, K, ROUND_TRIP_S, RAMP_S = 30.0, 10.0, 3, 0.05, 60.0


def scenario(clients: int, hours: float, **changes: Any) -> Scenario:
    given: dict[str, Any] = {
        "name": "bench",
        "clients": clients,
        "ramp": RAMP_S,
        "duration": hours * 3600.0,
        "liveness": {"heartbeat_interval": T_S, "heartbeat_timeout": TAU_S, "max_failures": K},
        "network": {"round_trip": ROUND_TRIP_S},
        "faults": [
            {
                "kind": "host_crash",
                "share": "1%",
                "at": {"uniform": {"low": 60.0, "high": hours * 3600.0 - 200.0}},
            }
        ],
    }
    return Scenario.model_validate(given | changes)


def plain(what: Scenario) -> int:
    """One process a client; returns the suspicions."""
    env = simpy.Environment()
    rng = np.random.default_rng(what.seed)
    dies_s = {fault.client: fault.at_s for fault in make_plan(what).faults}
    suspected: list[float] = []
    frame_s = what.gateway.heartbeat_service.mean_s / 2
    loop = simpy.Resource(env) if frame_s else None

    def turn() -> Generator[simpy.Event, Any, None]:
        assert loop is not None
        with loop.request() as request:
            yield request
            yield env.timeout(frame_s)

    def client(index: int) -> Generator[simpy.Event, Any, None]:
        dead_s = dies_s.get(index, np.inf)
        yield env.timeout(RAMP_S * index / what.clients + float(rng.uniform(0.0, T_S)))
        failures = 0
        while failures < K:
            if loop is not None:
                yield from turn()
            sent_s = env.now
            answer = env.timeout(ROUND_TRIP_S) if sent_s < dead_s else env.event()
            deadline = env.timeout(TAU_S)
            yield answer | deadline
            if loop is not None and answer.processed:
                yield from turn()
            failures = 0 if answer.processed else failures + 1
            if failures < K:
                yield env.timeout(T_S - (env.now - sent_s))
        suspected.append(env.now)

    for index in range(what.clients):
        env.process(client(index))
    env.run(until=what.horizon_s)
    return len(suspected)


def ours(what: Scenario) -> int:
    """The engine; returns the suspicions."""
    events = simulate(what, make_plan(what))
    return sum(event.kind is EventKind.SUSPECTED for event in events)


def best_s(run: Callable[[Scenario], int], what: Scenario, times: list[float]) -> int:
    began_s = time.perf_counter()
    count = run(what)
    times.append(time.perf_counter() - began_s)
    return count


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    add_save(parser)
    asked = parser.parse_args(argv)
    what = scenario(asked.clients, asked.hours)
    looped = scenario(asked.clients, asked.hours, gateway={"heartbeat_service": 60e-6})
    runs: dict[str, tuple[Callable[[Scenario], int], Scenario, list[float]]] = {
        "plain SimPy": (plain, what, []),
        "engine": (ours, what, []),
        "plain SimPy, finite loop": (plain, looped, []),
        "engine, finite loop": (ours, looped, []),
    }
    counts = set()
    for _ in range(asked.rounds):
        for run, which, times in runs.values():
            counts.add(best_s(run, which, times))
    beats = asked.clients * asked.hours * 3600.0 / T_S
    for name, (_, _, times) in runs.items():
        print(f"{name:<25} {min(times):7.2f} s  {min(times) / beats * 1e6:6.1f} µs a beat")
    if len(counts) != 1:
        print(f"they do not find the same number of dead clients: {sorted(counts)}")
        return 1
    figures = []
    for kind, wanted in LEAST_RATIOS.items():
        ratio = min(runs["plain SimPy" + kind][2]) / min(runs["engine" + kind][2])
        print(f"engine against plain model{kind}: {ratio:.2f} × (at least {wanted:g} wanted)")
        figures.append(
            Figure(f"the SimPy engine{kind}", ratio, against=f"a plain SimPy model{kind}", least=wanted)
        )
    keep(asked.save, "simulated", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
