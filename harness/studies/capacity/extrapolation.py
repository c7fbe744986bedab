"""From measured steps to unit costs, and from unit costs to nodes, Redis, bandwidth and login storms for N users.

Unit costs are slopes over the steps (least squares, 95 % intervals), so what a process takes anyway is left
out of them. Everything that was not measured is an `Assumptions` field, and is printed. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.theory.costs import (
    TLS_BEAT_CPU_S,
    TLS_CONNECTION_BYTES,
    bytes_per_beat,
    bytes_per_frame,
    tls_handshakes,
)
from harness.theory.record_laws import refreshes_per_s
from reference_server.record_rules import refresh_after_s
from scenarios.client_rules import Reconnect
from scenarios.schema import Scenario

__all__ = [
    "Assumptions",
    "UnitCost",
    "UnitCosts",
    "in_words",
    "plan",
    "plan_rows",
    "slope",
    "unit_costs",
    "with_tls_cost",
]

_GIB = 2.0**30
_RECORDS = 2  # that a refresh writes: the session's and the status
_PING, _PONG = len(b'{"type":"heartbeat"}'), len(b'{"type":"pong"}')


@dataclass(frozen=True, slots=True)
class UnitCost:
    """What one client or one login costs: value and half the width of its 95 % interval (inf: it has none)."""

    value: float
    half: float
    n: int

    @property
    def lo(self) -> float:
        """Not below zero."""
        return max(0.0, self.value - self.half)

    @property
    def hi(self) -> float:
        """Upper end; inf where there are too few points."""
        return self.value + self.half

    @property
    def ends(self) -> tuple[float, float, float]:
        """(value, lo, hi)."""
        return self.value, self.lo, self.hi


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a plan takes for granted. Change it here, not in the formulas."""

    busiest: float = 0.6  # of a core: above it queues grow faster than load
    memory_share: float = 0.7  # of a node's memory for the gateway's process
    node_cores: int = 1  # of a node, a gateway process on each
    node_gib: float = 8.0  # of a node
    kernel_bytes: float = 8192.0  # of an idle socket in the kernel, not in the process's memory
    session_s: float = 3600.0  # how long a user stays: each session is a login and an end
    store_commands_per_s: float = 50_000.0  # of one Redis shard, with half of it to spare
    # What a model does not know, as a real gateway of ours had it (docs/tls.md; real steps of this search).
    client_bytes: float = 9.0 * 1024
    commands_per_session: float = 11.0
    store_bytes_per_session: float = 640.0

    @property
    def _processes(self) -> str:
        one = self.node_cores == 1
        return "one process on one core" if one else f"{self.node_cores} processes on as many cores"

    def lines(self, reconnect: Reconnect, *, of_a_model: bool) -> list[str]:
        """Each of them in words, with the clients' back-off; those that real steps measure only where a model ran."""
        first_s = reconnect.back_off_s(1, np.array([0.0, 0.5, 1.0]))
        told = [
            f"a core is at most {self.busiest:.0%} busy",
            f"a node is {self._processes}, with {self.node_gib:g} GiB, of which it uses {self.memory_share:.0%} "
            "(the plan's cores and memory have this room in them)",
            f"the kernel takes {self.kernel_bytes / 1024:g} KiB a socket",
            f"a user stays for {self.session_s / 3600:g} h, and takes as much to come back as to log in",
            f"one Redis shard does {self.store_commands_per_s:,.0f} commands a second",
            f"a client that lost its node waits for {_from_to(first_s)} s before it comes back (the scenario's "
            "`reconnect`: backoff_base, jitter)",
        ]
        if of_a_model:
            told.append(
                f"a client takes {self.client_bytes / 1024:g} KiB of the gateway's memory, its session "
                f"{self.commands_per_session:g} commands and {self.store_bytes_per_session:,.0f} bytes of Redis: "
                "the model knows none of these, a real gateway had them"
            )
            told.append("a message to a client costs the model's gateway nothing")
        return told


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """What one client costs, in real seconds and at the policy's own T.

    ``core_share``: of a core, at its heartbeats and its traffic. ``rss_bytes``: of the gateway's process.
    ``login_core_s``: seconds of a core for a login and a connection. ``commands_per_session``,
    ``store_bytes_per_session``: of Redis, for a login, a connection, an end. ``refreshes_per_s``: commands of Redis for
    a connected client, by theory (records are refreshed more rarely than a step is long). ``wire_bytes_per_s``: of a
    connected client, both ways, from the IP header up; ``login_wire_bytes``: of TLS's handshake.
    """

    core_share: UnitCost
    rss_bytes: UnitCost
    login_core_s: UnitCost
    commands_per_session: UnitCost
    store_bytes_per_session: UnitCost
    refreshes_per_s: float
    wire_bytes_per_s: float
    login_wire_bytes: float
    heartbeat_interval_s: float

    def clients_per_core(self, busiest: float) -> tuple[float, float, float]:
        """(value, lo, hi); inf where the interval of the cost reaches zero."""
        costs = (self.core_share.value, self.core_share.hi, self.core_share.lo)
        value, lo, hi = (busiest / c if c > 0 else math.inf for c in costs)
        return value, lo, hi

    def clients_per_gib(self, share: float, kernel_bytes: float) -> tuple[float, float, float]:
        """(value, lo, hi); hi is inf where there are too few points."""
        costs = (self.rss_bytes.value, self.rss_bytes.hi, self.rss_bytes.lo)
        value, lo, hi = (share * _GIB / (c + kernel_bytes) for c in costs)
        return value, lo, hi if math.isfinite(self.rss_bytes.half) else math.inf


def _from_to(ends_s: Any) -> str:
    shortest, longest = float(np.min(ends_s)), float(np.max(ends_s))
    return f"{shortest:.3g}" if shortest == longest else f"{shortest:.3g} to {longest:.3g}"


def slope(x: Sequence[float], y: Sequence[float]) -> UnitCost:
    """Least squares of y over x; two points have no interval.

    From one point, or where the slope is not above zero, it is all of y by its x: too much rather than too little.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[known], ys[known]
    if not len(xs):
        return UnitCost(math.nan, math.inf, 0)
    largest = xs.argmax()
    whole = UnitCost(float(ys[largest] / xs[largest]), math.inf, len(xs))
    if len(np.unique(xs)) < 2:
        return whole
    found = stats.linregress(xs, ys)
    freedom = len(xs) - 2
    half = float(stats.t.ppf(0.975, freedom) * found.stderr) if freedom > 0 else math.inf
    return UnitCost(float(found.slope), half, len(xs)) if found.slope > 0 else whole


def _memory(steps: pd.DataFrame) -> UnitCost:
    """Of a client: what the processes held more than before any came; by the slope alone where that is not known."""
    clients = steps["clients"].astype(float)
    above = steps["rss_bytes"] - steps["idle_rss_bytes"]
    if above.notna().any():
        return slope(clients.tolist(), above.tolist())
    if clients[steps["rss_bytes"].notna()].nunique() < 2:
        return UnitCost(math.nan, math.inf, 0)
    return slope(clients.tolist(), steps["rss_bytes"].tolist())


def _mean(values: pd.Series[float]) -> UnitCost:
    known = values[np.isfinite(values)].to_numpy(dtype=float)
    if not len(known):
        return UnitCost(math.nan, math.inf, 0)
    spread = stats.t.ppf(0.975, len(known) - 1) * stats.sem(known) if len(known) > 1 else math.inf
    return UnitCost(float(known.mean()), float(spread), len(known))


def unit_costs(steps: pd.DataFrame, scenario: Scenario, given: Assumptions) -> UnitCosts:
    """Unit costs from the steps of one number of nodes.

    Args:
        steps: `clients`, `speedup`, `cpu_percent`, `rss_bytes` and `idle_rss_bytes` (of all gateways, with their
            clients and before any came: the difference is the clients'), `login_core_s`,
            `commands_per_session`, `store_bytes_per_session`; empty where they are a model's.
        scenario: whose T, traffic, TLS and records they had.
        given: what stands in for what no step has measured.
    """
    clients = steps["clients"].to_numpy(dtype=float)
    # A run with speedup S beats S times as often: as S times as many clients would, for the processor.
    paced = clients * steps["speedup"].to_numpy(dtype=float)
    tls = scenario.speaks_tls
    client_bytes = given.client_bytes + (TLS_CONNECTION_BYTES if tls else 0)
    interval_s = scenario.liveness.heartbeat_interval or math.inf
    # Where theory does not know how often: no more often than once in the time that a record is left alone.
    often, after_s = refreshes_per_s(scenario), refresh_after_s(scenario.liveness, scenario.records)

    def known(found: UnitCost, assumed: float) -> UnitCost:
        return found if found.n else UnitCost(assumed, 0.0, 0)

    sent = bytes_per_beat(_PING, _PONG, pure_acks=1, tls=tls) / interval_s
    for way, masked in ((scenario.traffic.to_gateway, True), (scenario.traffic.to_client, False)):
        if way is not None:
            sent += way.burst * bytes_per_frame(way.bytes, masked=masked, tls=tls) / way.every.mean_s
    return UnitCosts(
        core_share=slope(paced.tolist(), (steps["cpu_percent"] / 100).tolist()),
        rss_bytes=known(_memory(steps), client_bytes),
        login_core_s=_mean(steps["login_core_s"]),
        commands_per_session=known(_mean(steps["commands_per_session"]), given.commands_per_session),
        store_bytes_per_session=known(_mean(steps["store_bytes_per_session"]), given.store_bytes_per_session),
        refreshes_per_s=_RECORDS * (often if often is not None else 1 / after_s if after_s > 0 else 0.0),
        wire_bytes_per_s=sent,
        login_wire_bytes=float(tls_handshakes(1, 0).bytes) if tls else 0.0,
        heartbeat_interval_s=interval_s,
    )


def with_tls_cost(scenario: Scenario) -> Scenario:
    """A model's scenario over TLS: the CPU that TLS takes, as bench/tls.py measured it, on top of its service times."""
    gateway = scenario.gateway
    full_s = tls_handshakes(1, 0).cpu_s
    return scenario.model_copy(
        update={
            "network": scenario.network.model_copy(update={"tls": True}),
            "gateway": gateway.model_copy(
                update={
                    name: law.scaled((law.mean_s + extra_s) / law.mean_s) if law.mean_s > 0 else law
                    for name, law, extra_s in (
                        ("heartbeat_service", gateway.heartbeat_service, TLS_BEAT_CPU_S),
                        ("handshake_service", gateway.handshake_service, full_s),
                    )
                }
            ),
        }
    )


def plan(costs: UnitCosts, users: Sequence[int], given: Assumptions, reconnect: Reconnect) -> pd.DataFrame:
    """One row per number of users who are connected at once, with the interval of what was fitted.

    ``nodes`` is by the upper ends, where there are any, and one more: a plan is not to be too small, and a node may
    die. Then its clients (``storm_clients``) come back, by their back-off at most ``storm_asked_per_s`` of them in
    one second; the others can let in ``storm_taken_per_s``, all of them together, beside their heartbeats; all are
    back after ``storm_back_s``, if none is refused. ``…_lo`` and ``…_hi``: 95 %.
    """
    first_s = np.sort(np.asarray(reconnect.back_off_s(1, (np.arange(2000) + 0.5) / 2000), dtype=float))
    at_once = float((np.searchsorted(first_s, first_s + 1.0) - np.arange(len(first_s))).max()) / len(first_s)
    rows = []
    for n in users:
        ends = zip(
            costs.core_share.ends,
            costs.login_core_s.ends if costs.login_core_s.n else (0.0, 0.0, 0.0),
            costs.rss_bytes.ends,
            costs.commands_per_session.ends,
            strict=True,
        )
        each = [
            (
                n * (share + login_s / given.session_s) / given.busiest,
                n * (memory + given.kernel_bytes) / _GIB / given.memory_share,
                n * (commands / given.session_s + costs.refreshes_per_s),
            )
            for share, login_s, memory, commands in ends
        ]
        cores, gib, commands = zip(*each, strict=True)
        # By the upper end; where there is none, by the value.
        most_cores, most_gib, most_commands = (
            size[2] if math.isfinite(size[2]) else size[0] for size in (cores, gib, commands)
        )
        survivors = math.ceil(max(most_cores / given.node_cores, most_gib / given.node_gib, 1.0))
        processes = survivors * given.node_cores
        hit = math.ceil(n / (survivors + 1))
        row = {
            "users": n,
            "nodes": survivors + 1,
            **_three("cores", cores),
            **_three("gib", gib),
            **_three("store_commands_per_s", commands),
            "store_shards": math.ceil(most_commands / given.store_commands_per_s),
            "store_mbit_per_s": n * costs.store_bytes_per_session.value / given.session_s * 8 / 1e6,
            "client_mbit_per_s": n
            * (costs.wire_bytes_per_s + costs.login_wire_bytes / given.session_s)
            * 8
            / 1e6,
            "storm_clients": hit,
            "storm_asked_per_s": hit * at_once,
        }
        login = costs.login_core_s
        busy = [one * given.busiest / processes for one in cores]
        # The dearer a login and the busier the others, the fewer: value, lo, hi.
        pairs = ((login.value, busy[0]), (login.hi, busy[2]), (login.lo, busy[1]))
        taken = [
            processes * max(0.0, 1 - load) / cost_s if cost_s > 0 else math.inf for cost_s, load in pairs
        ]
        if not math.isfinite(costs.core_share.half + login.half):
            taken[1:] = 0.0, math.inf
        back = [max(float(first_s[-1]), hit / rate if rate > 0 else math.inf) for rate in taken]
        rows.append(
            row | _three("storm_taken_per_s", taken) | _three("storm_back_s", (back[0], back[2], back[1]))
        )
    return pd.DataFrame(rows)


def _three(name: str, ends: Sequence[float]) -> dict[str, float]:
    value, lo, hi = ends
    return {name: value, f"{name}_lo": lo if math.isfinite(hi) else 0.0, f"{name}_hi": hi}


def plan_rows(planned: pd.DataFrame) -> list[list[str]]:
    """A plan as people read it: one row per quantity, its name first, then each number of users."""

    def row(name: str, column: str) -> list[str]:
        has_ends = f"{column}_lo" in planned
        return [
            name,
            *(
                in_words(one[column], one[f"{column}_lo"], one[f"{column}_hi"])
                if has_ends
                else _number(one[column])
                for one in planned.to_dict("records")
            ),
        ]

    return [
        row("nodes, of which one may die", "nodes"),
        row("cores", "cores"),
        row("memory, GiB", "gib"),
        row("Redis commands a second", "store_commands_per_s"),
        row("Redis shards", "store_shards"),
        row("Redis traffic, Mbit/s", "store_mbit_per_s"),
        row("client traffic, Mbit/s", "client_mbit_per_s"),
        row("a node dies: clients that come back", "storm_clients"),
        row("… of them in one second at the most, by the back-off assumed", "storm_asked_per_s"),
        row("… a second that the others can let in", "storm_taken_per_s"),
        row("… seconds until all are back, if none is refused", "storm_back_s"),
    ]


def in_words(value: float, lo: float, hi: float) -> str:
    """A number with its 95 % interval, as far as it has one; an end that shows the same digits is left out."""
    text, low, high = _number(value), _number(lo), _number(hi)
    if not math.isfinite(hi) and math.isfinite(value):
        return f"{text} ({low} or more)" if lo > 0 else f"{text} (no interval)"
    return text if low == text == high else f"{text} ({low} to {high})"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "not known" if value != value else "no bound"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
