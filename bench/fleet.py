"""How fast is the fast fleet: against a plain SimPy model, against the SimPy engine, and on a million clients.

    python -m bench.fleet [--clients 4000] [--hours 2] [--million 1000000] [--jobs 2]

The first three rows simulate the same scenario, one after the other in this process: T = 30 s, k = 3, τ = 10 s, an
outage every 6 h of mean 30 s, TCP's ladder. Ratios are of CPU time, which other work on the machine disturbs least;
the million's time is by the wall clock, on `--jobs` processes. Figures of different runs or machines do not compare.

* plain: what one writes first in SimPy: a generator process a client that sleeps until the next ping and then
  until the answer or the deadline, and one for its outages. No event log, no store, no reconnects;
* simpy: this project's SimPy engine, with its log, store and sessions (its plan is drawn before);
* fleet: this project's vectorised engine, the median of nine runs.

The larger and longer a fleet, the larger the ratio: making it costs as much as hours of it. So the beats of each
second are compared too, those of a day of the same fleet with those of the plain model, whose beat costs what it costs.
"""

from __future__ import annotations

import argparse
import bisect
import statistics
import sys
import time
from collections.abc import Generator, Iterator

import numpy as np
import simpy

from bench.figures import Figure, add_save, keep
from harness.simulated import simulate
from harness.simulated.fleet import FleetResult, run_fleet
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.client_rules import Reconnect, Sessions
from scenarios.distributions import Distribution, Exponential, Lognormal
from scenarios.network import Network, Outages
from scenarios.plan import make_plan
from scenarios.schema import Scenario

POLICY = LivenessPolicy(heartbeat_interval=30.0, heartbeat_timeout=10.0, max_failures=3)
NETWORK = Network(
    round_trip=Distribution(lognormal=Lognormal(median=0.05, sigma=0.5)),
    outages=Outages(every=6 * 3600.0, length=Distribution(exponential=Exponential(mean=30.0))),
)
RAMP_S = 30.0
LEAST_RATIO, MOST_MILLION_S = 1000.0, 5.0


class PlainClient:
    """A client and the gateway's half of its connection, as generator processes."""

    def __init__(self, env: simpy.Environment, trips: Iterator[float], rng: np.random.Generator) -> None:
        self.env, self.trips, self.rng = env, trips, rng
        self.cut_until_s = 0.0
        self.beats = 0
        self.suspected = False

    def outages(self) -> Generator[simpy.Event, None, None]:
        law = NETWORK.outages
        assert law is not None
        mean_s = law.length.mean_s
        yield self.env.timeout(RAMP_S)
        while True:
            yield self.env.timeout(self.rng.exponential(law.every))
            length_s = self.rng.exponential(mean_s)
            self.cut_until_s = self.env.now + length_s
            yield self.env.timeout(length_s)

    def beat(self, first_s: float) -> Generator[simpy.Event, None, None]:
        interval_s, timeout_s = 30.0, POLICY.heartbeat_timeout
        failures = 0
        stuck_since_s: float | None = None
        yield self.env.timeout(first_s)
        while True:
            self.beats += 1
            sent_s = self.env.now
            if stuck_since_s is None and self.cut_until_s > sent_s:
                stuck_since_s = sent_s
            answer_s = next(self.trips)
            if stuck_since_s is not None:
                answer_s += self.delivered_s(stuck_since_s) - sent_s
            if answer_s < timeout_s:
                yield self.env.timeout(answer_s)
                failures, stuck_since_s = 0, None
            else:
                yield self.env.timeout(timeout_s)
                failures += 1
                if failures == POLICY.max_failures:
                    self.suspected = True
                    return
                if answer_s < interval_s:
                    yield self.env.timeout(answer_s - timeout_s)
                    failures, stuck_since_s = 0, None
            yield self.env.timeout(sent_s + interval_s - self.env.now)

    def delivered_s(self, since_s: float) -> float:
        """The first retransmission at or after the healing."""
        ladder = NETWORK.rto_ladder
        step = bisect.bisect_left(ladder, self.cut_until_s - since_s)
        return since_s + ladder[step] if step < len(ladder) else float("inf")


def _round_trips(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from NETWORK.round_trip.sample(rng, 4096).tolist()


def plain(clients: int, duration_s: float, seed: int) -> tuple[int, int]:
    env = simpy.Environment()
    rng = np.random.default_rng(seed)
    trips = _round_trips(rng)
    everybody = [PlainClient(env, trips, rng) for _ in range(clients)]
    for n, client in enumerate(everybody):
        env.process(client.outages())
        env.process(client.beat(RAMP_S * n / clients + rng.uniform(0, 30.0)))
    env.run(until=RAMP_S + duration_s)
    return sum(c.beats for c in everybody), sum(c.suspected for c in everybody)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=4000)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    add_save(parser)
    given = parser.parse_args(argv)
    clients, duration_s = given.clients, given.hours * 3600.0

    began = time.process_time()
    beats, suspected = plain(clients, duration_s, 1)
    plain_s = time.process_time() - began
    print(f"{clients:,} clients, {given.hours:g} h, {beats:,} beats; CPU seconds of one process")
    print(f"  plain  {plain_s:9.3f} s   {suspected} false suspicions")

    scenario = Scenario(
        name="bench",
        seed=1,
        clients=clients,
        ramp=RAMP_S,
        duration=duration_s,
        liveness=POLICY,
        network=NETWORK,
        sessions=Sessions(watchers_per_user=0),
    )
    plan = make_plan(scenario)
    began = time.process_time()
    events = simulate(scenario, plan)
    simpy_s = time.process_time() - began
    suspected = sum(event.kind == "suspected" for event in events)
    print(f"  simpy  {simpy_s:9.3f} s   {suspected} false suspicions, {len(events):,} events logged")
    del events

    rng = np.random.default_rng(1)
    run_fleet(POLICY, NETWORK, clients=10, duration_s=60.0, rng=rng)  # imports are not its work

    def fleet(duration_s: float) -> tuple[float, FleetResult]:
        took_s = []
        for _ in range(9):  # it is over so soon that one would be chance
            began = time.process_time()
            result = run_fleet(
                POLICY, NETWORK, clients=clients, duration_s=duration_s, rng=rng, ramp_s=RAMP_S
            )
            took_s.append(time.process_time() - began)
        return statistics.median(took_s), result

    fleet_s, result = fleet(duration_s)
    print(f"  fleet  {fleet_s:9.3f} s   {result.false_suspicions} false suspicions, {result.beats:,} beats")
    day_s, of_day = fleet(86400.0)
    print(f"  a day  {day_s:9.3f} s   {of_day.false_suspicions} false suspicions, {of_day.beats:,} beats")
    ratio = plain_s / fleet_s
    of_beats = (of_day.beats / day_s) / (beats / plain_s)
    print(
        f"fleet against plain: {ratio:.0f}x (wanted: {LEAST_RATIO:.0f}x), beats a second of a day: {of_beats:.0f}x; "
        f"simpy engine against plain: {plain_s / simpy_s:.2f}x (wanted: 1x)"
    )

    began = time.perf_counter()
    result = run_fleet(
        POLICY,
        NETWORK,
        clients=given.million,
        duration_s=86400.0,
        rng=rng,
        n_jobs=given.jobs,
        reconnect=Reconnect(idle_limit=120.0),
    )
    wall_s = time.perf_counter() - began
    print(
        f"{given.million:,} clients, 24 h, {result.beats:,} beats, {result.false_suspicions:,} false suspicions, "
        f"{result.healthy_client_s / 86400:,.0f} healthy client-days: {wall_s:.1f} s by the wall clock on "
        f"{given.jobs} processes (wanted: {MOST_MILLION_S:.0f} s for a million)"
    )
    within = keep(
        given.save,
        "fleet",
        [
            Figure(
                f"fleet, {clients:,} clients, {given.hours:g} h",
                ratio,
                against="plain SimPy",
                least=LEAST_RATIO,
            ),
            Figure(
                f"fleet, {clients:,} clients, 24 h, beats a processor second",
                of_beats,
                against="plain SimPy",
                least=LEAST_RATIO,
            ),
            Figure(
                "the SimPy engine, with log and store", plain_s / simpy_s, against="plain SimPy", least=1.0
            ),
            Figure(
                f"{given.million:,} clients, 24 h, {given.jobs} processes", wall_s, "s", most=MOST_MILLION_S
            ),
        ],
    )
    return int(not within)


if __name__ == "__main__":
    sys.exit(main())
