"""How often does a run in which everything agrees turn red? Simulates, judges, counts; real engines are not started.

    python bench/agreement_false_alarms.py                  200 seeds of each kind of scenario below
    python bench/agreement_false_alarms.py --random 300     as many random scenarios: crashes, reds, laws withheld

A report promises at most one red comparison in a hundred. So of 200 seeds of a kind at most 6 may be red (a chance of
1.5 % for a judge that keeps its promise), and of all together at most 1.5 %. Exits with 1 where more are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.events.history import History
from harness.judge.agreement import compare
from harness.judge.observed import Slack
from harness.measure.one_engine import measure_history
from harness.simulated import simulate
from harness.theory.predict import predict, predict_healthy
from harness.theory.tables import curves_frame, laws_frame
from reports.run_tables import SCHEMAS, RunTables
from scenarios.plan import make_plan
from scenarios.schema import Scenario

MOST_RED_OF_200 = 6
MOST_RED_SHARE = 0.015

AT = {"uniform": {"low": "40s", "high": "160s"}}
SMALL = {"clients": 100, "ramp": "30s", "duration": "330s"}


def _fault(kind: str, **keys: Any) -> dict[str, Any]:
    return {"faults": [{"kind": kind, "share": "60%", "at": AT} | keys]}


KINDS: dict[str, dict[str, Any]] = {
    "host_crash": _fault("host_crash"),
    "short retries": {
        **_fault("frozen"),
        "liveness": {
            "heartbeat_interval": "20s",
            "heartbeat_timeout": "4s",
            "max_failures": 4,
            "retry_interval": "5s",
        },
    },
    "timeout above interval": {
        **_fault("host_crash"),
        "liveness": {"heartbeat_interval": "5s", "heartbeat_timeout": "12s", "max_failures": 2},
    },
    "first ping after T": {
        **_fault("host_crash"),
        "liveness": {"heartbeat_interval": "30s", "heartbeat_timeout": "10s", "first_ping": "interval"},
    },
    "cut that heals": _fault("network_cut", heal_after={"exponential": {"mean": "60s"}}),
    "idle limit races": {
        **_fault("host_crash"),
        "liveness": {"session_timeout": "95s", "sweep_interval": "5s"},
    },
    "idle limit swept rarely": {
        **_fault("frozen", at={"uniform": {"low": "40s", "high": "75s"}}),
        "liveness": {"session_timeout": "60s", "sweep_interval": "30s", "max_failures": 9},
    },
    "packet loss": {
        **_fault("packet_loss", rate="60%"),
        "liveness": {"heartbeat_interval": "2s", "heartbeat_timeout": "2s", "max_failures": 1},
    },
    "throttled timers": {
        **_fault("throttled_timers"),
        "liveness": {"heartbeat_interval": "25s", "heartbeat_timeout": "20s", "max_failures": 2},
    },
    "cut at the horizon": {
        **_fault("packet_loss", rate="60%", at={"uniform": {"low": "10s", "high": "262s"}}),
        "liveness": {"heartbeat_interval": "2s", "heartbeat_timeout": "2s", "max_failures": 1},
    },
    "clients beat": {
        **_fault("host_crash"),
        "detector": {"kind": "client_beats"},
        "liveness": {"heartbeat_interval": "15s", "session_timeout": "45s", "sweep_interval": "2s"},
    },
    "hidden tabs that beat": {
        **_fault("throttled_timers"),
        "detector": {"kind": "client_beats"},
        "liveness": {"heartbeat_interval": "15s", "session_timeout": "45s", "sweep_interval": "2s"},
    },
    "beats that get lost": {
        **_fault("packet_loss", rate="60%"),
        "detector": {"kind": "client_beats"},
        "liveness": {"heartbeat_interval": "15s", "session_timeout": "45s", "sweep_interval": "2s"},
    },
    "kernel probes alone": {
        **_fault("host_crash"),
        "liveness": {
            "heartbeat_interval": None,
            "session_timeout": None,
            "tcp_keepalive": {"idle": "30s", "interval": "5s", "count": 3},
        },
    },
    "TTL alone": {
        **_fault("host_crash"),
        "detector": {"kind": "client_beats"},
        "records": {"refreshed": "at_each_frame"},
        "liveness": {"heartbeat_interval": "15s", "session_timeout": None, "status_ttl": "45s"},
    },
    "phi": {
        **_fault("host_crash"),
        "detector": {"kind": "phi_akka"},
        "liveness": {"heartbeat_interval": "5s", "heartbeat_timeout": "5s"},
    },
    "locked out": {
        **_fault("host_crash"),
        "sessions": {"second_login": "refuse"},
        "reconnect": {"relogin": {"after": {"uniform": {"low": "0s", "high": "60s"}}, "retry": "7s"}},
    },
    "take-over": {
        **_fault("host_crash"),
        "reconnect": {"relogin": {"after": {"exponential": {"mean": "60s"}}, "retry": "5s"}},
    },
    "outages": {
        **_fault("process_crash"),
        "network": {"outages": {"every": "200s", "length": {"exponential": {"mean": "40s"}}}},
        "liveness": {"session_timeout": None, "max_failures": 1},
    },
    "box as long as the interval": {
        "duration": "600s",
        "liveness": {"heartbeat_interval": "60s", "heartbeat_timeout": "30s", "session_timeout": None},
        "network": {
            "round_trip": {"lognormal": {"median": "40ms", "sigma": 0.5}},
            "nat": {"idle_timeout": "60s", "expiry": "reset"},
        },
    },
    "box that closes idle connections": {
        "liveness": {"heartbeat_interval": None, "session_timeout": None},
        "network": {"nat": {"idle_timeout": "60s", "expiry": "close"}},
    },
    "box that drops": {
        "duration": "600s",
        "liveness": {"heartbeat_interval": "50s", "heartbeat_timeout": "10s", "session_timeout": None},
        "network": {"nat": {"idle_timeout": "40s"}},
    },
}


def judged(scenario: Scenario) -> tuple[RunTables, pd.DataFrame]:
    """Simulate a scenario and hold the model against theory; returns the tables and agreement.csv."""
    plan = make_plan(scenario)
    events = simulate(scenario, plan)
    history = History(events, plan, engine="simulated", clock=scenario.clock, horizon_s=plan.horizon_s)
    measured = measure_history(history)
    predictions = [*predict(scenario), *predict_healthy(scenario)]
    frames = {name: pd.DataFrame() for name in SCHEMAS} | dict(measured.tables)
    frames |= {"laws": laws_frame(predictions), "law_curves": curves_frame(predictions)}
    facts = {"engines": ["theory", "simulated"], "ramp_s": plan.ramp_s}
    tables = RunTables(Path(), facts, {}, frozenset(), frames)
    return tables, compare(tables, scenario.agreement.model_dump(), Slack.of(scenario, None, 0.0))


def of_kind(name: str, seed: int) -> Scenario:
    """One scenario of a kind."""
    return Scenario.model_validate({"name": "agrees", "seed": seed} | SMALL | KINDS[name])


def _reds(agreement: pd.DataFrame) -> list[str]:
    bad = agreement[agreement["verdict"] == "fail"]
    return [f"{r.fault} {r.milestone} {r.figure}: {r.reason}" for r in bad.itertuples()]


def _try(job: tuple[str, int]) -> tuple[str, int, list[str]]:
    name, seed = job
    return name, seed, _reds(judged(of_kind(name, seed))[1])


def _random(seed: int) -> tuple[int, str, list[str], int, int]:
    """One random scenario: its keys, what is red or crashed, laws withheld and laws in all."""
    tree = random_scenario(seed)
    try:
        tables, agreement = judged(Scenario.model_validate(tree))
    except Exception as error:
        return seed, str(tree), [f"CRASH {type(error).__name__}: {error}"], 0, 0
    laws = tables.table("laws")
    ours = laws[laws["milestone"].isin(["suspected", "lost"])]
    return seed, str(tree), _reds(agreement), int(ours["detected_share"].isna().sum()), len(ours)


def random_scenario(seed: int) -> dict[str, Any]:
    """Draw a scenario: policy, layers, middle, traffic, outages, reconnects and faults."""
    rng = np.random.default_rng(seed)

    def one_of(*choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    def often(share: float) -> bool:
        return bool(rng.random() < share)

    interval = one_of(3, 10, 15, 25, 30, 60)
    timeout = max(1, int(interval * one_of(0.2, 0.5, 1, 1, 2.3)))
    liveness: dict[str, Any] = {
        "heartbeat_interval": None if often(0.07) else f"{interval}s",
        "heartbeat_timeout": f"{timeout}s",
        "max_failures": one_of(1, 2, 3),
        "session_timeout": one_of(None, None, "300s", f"{int(interval * 2.5)}s"),
        "sweep_interval": one_of("1s", "10s", "30s"),
        "resume_window": one_of("0s", "10s"),
        "first_ping": one_of("random", "random", "interval"),
        "status_ttl": one_of("2h", "2h", "120s"),
    }
    if often(0.1):
        liveness["tcp_keepalive"] = {"idle": "40s", "interval": "5s", "count": 3}
    if often(0.1):
        liveness["tcp_user_timeout"] = f"{interval + 20}s"
    if timeout <= interval and often(0.15):
        liveness["retry_interval"] = f"{timeout + 1}s"
    network: dict[str, Any] = {
        "round_trip": one_of("1ms", "40ms", {"lognormal": {"median": "40ms", "sigma": 0.5}})
    }
    if often(0.25):
        network["nat"] = {
            "idle_timeout": one_of("20s", "60s", "350s", f"{interval}s"),
            "expiry": one_of("drop", "reset", "close"),
            "counts": one_of("any", "any", "data", "to_gateway", "to_client"),
            "at": one_of("client", "gateway"),
        }
    if often(0.08):
        network["max_age"] = one_of("150s", "900s")
    if often(0.2):
        network["outages"] = {"every": "300s", "length": one_of("20s", {"exponential": {"mean": "15s"}})}
    tree: dict[str, Any] = {
        "name": "random",
        "seed": seed,
        "clients": 80,
        "ramp": one_of("0s", "10s", "40s"),
        "duration": "400s",
        "liveness": liveness,
        "network": network,
        "detector": {
            "kind": one_of(
                "ping", "ping", "ping", "ping", "client_beats", "send_errors", "state_check", "phi_akka"
            )
        },
        "reconnect": {"jitter": one_of("none", "full", "equal", 0.3)},
        "records": {"refreshed": one_of("when_half_gone", "when_half_gone", "at_each_frame")},
    }
    if often(0.1):
        tree["reconnect"]["idle_limit"] = f"{interval * 2}s"
    if often(0.15):
        tree["reconnect"]["relogin"] = {
            "after": one_of("5s", {"exponential": {"mean": "40s"}}),
            "retry": "3s",
        }
        tree["sessions"] = {"second_login": one_of("refuse", "take_over")}
    if often(0.2):
        every = one_of("2s", {"exponential": {"mean": "9s"}})
        tree["traffic"] = {one_of("to_gateway", "to_client"): {"every": every}}
    faults = []
    kinds = (
        {"kind": "host_crash"},
        {"kind": "frozen"},
        {"kind": "network_cut"},
        {"kind": "network_cut", "heal_after": {"exponential": {"mean": "50s"}}},
        {"kind": "process_crash"},
        {"kind": "orderly_close"},
        {"kind": "throttled_timers"},
        {"kind": "delayed", "by": one_of("4s", "90s")},
        {"kind": "packet_loss", "rate": "50%"},
        {"kind": "refresh"},
        {"kind": "noop"},
    )
    for n in range(int(rng.integers(1, 3))):
        at = one_of({"uniform": {"low": "20s", "high": "200s"}}, {"uniform": {"low": "50s", "high": "70s"}})
        faults.append({"name": f"fault{n}", "share": "35%", "at": at} | one_of(*kinds))
    return tree | {"faults": faults}


def _of_kinds(names: list[str], seeds: int, jobs: int) -> bool:
    red: Counter[str] = Counter()
    reasons: dict[str, list[str]] = {name: [] for name in names}
    with ProcessPoolExecutor(jobs) as pool:
        todo = [(name, seed) for name in names for seed in range(1, seeds + 1)]
        for name, seed, reds in pool.map(_try, todo, chunksize=10):
            red[name] += bool(reds)
            reasons[name] += [f"seed {seed}: {reds[0]}"] if reds else []
    most = MOST_RED_OF_200 * max(1.0, seeds / 200)
    for name in names:
        print(f"{name:34} {red[name]:4} of {seeds} red" + ("   TOO MANY" if red[name] > most else ""))
        for reason in reasons[name][:3]:
            print(f"    {reason[:200]}")
    pooled = sum(red.values()) / (seeds * len(names))
    print(f"{'all':34} {sum(red.values()):4} of {seeds * len(names)} red: {pooled:.2%}")
    return pooled <= MOST_RED_SHARE and max(red.values(), default=0) <= most


def _at_random(count: int, first: int, jobs: int) -> bool:
    red = crashed = 0
    withheld = whole = scenarios_withheld = 0
    with ProcessPoolExecutor(jobs) as pool:
        for seed, tree, reds, none, all_ in pool.map(_random, range(first, first + count), chunksize=5):
            crashed += any(reason.startswith("CRASH") for reason in reds)
            red += bool(reds)
            withheld, whole = withheld + none, whole + all_
            scenarios_withheld += bool(all_) and none == all_
            if reds:
                print(f"seed {seed}: {tree}")
                for reason in reds[:3]:
                    print(f"    {reason[:220]}")
    print(f"{count} random scenarios: {red} red ({crashed} crashed), {withheld} of {whole} laws withheld")
    print(f"{scenarios_withheld} scenarios without any law")
    return red <= max(3, MOST_RED_SHARE * count) and not crashed


def main() -> None:
    """Run the experiment and print a line a kind."""
    words = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--seeds", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="some of the kinds only")
    parser.add_argument("--random", type=int, default=0, help="random scenarios instead")
    parser.add_argument("--first", type=int, default=1, help="seed of the first random scenario")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    began_s = time.perf_counter()
    good = (
        _at_random(asked.random, asked.first, asked.jobs)
        if asked.random
        else _of_kinds(asked.kinds, asked.seeds, asked.jobs)
    )
    print(f"{time.perf_counter() - began_s:.0f} s")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
