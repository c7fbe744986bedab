"""From measured steps to unit costs, and from unit costs to nodes, store shards and bandwidth for N users.

Unit costs are slopes over the steps (least squares, 95 % intervals), so what a process takes anyway is left
out of them. Everything that was not measured is an `Assumptions` field, and is printed. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["Assumptions", "Slope", "UnitCosts", "plan", "slope", "unit_costs"]

_GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Slope:
    """A cost a client: value and half the width of its 95 % interval; NaN where it cannot be told."""

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


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a plan takes for granted. Change it here, not in the formulas."""

    busiest: float = 0.6  # of a core: above it queues grow faster than load
    memory_share: float = 0.7  # of a node's memory for the gateway's process
    node_gib: float = 8.0  # one gateway process on one core, with this much memory
    kernel_bytes: float = 8192.0  # of an idle socket in the kernel, not in the process's memory
    session_s: float = 3600.0  # how long a user stays: each session is a login and an end
    store_commands_per_s: float = 50_000.0  # of one Redis shard, with half of it to spare
    beat_bytes: float = 164.0  # ping and pong with a pure ACK and TLS, on the wire

    def lines(self) -> list[str]:
        """Each of them by name."""
        return [f"{name} = {value:g}" for name, value in asdict(self).items()]


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """What one client costs, in real seconds and at the policy's own T.

    ``core_share``: of a core, at its heartbeat alone. ``rss_bytes``: of the gateway's process.
    ``commands_per_session``, ``store_bytes_per_session``: a login, a connection, an end.
    ``commands_per_s``: of a connected client.
    """

    core_share: Slope
    rss_bytes: Slope
    commands_per_session: float
    store_bytes_per_session: float
    commands_per_s: float
    heartbeat_interval_s: float

    def clients_per_core(self, busiest: float) -> tuple[float, float, float]:
        """(lo, middle, hi); inf where the interval of the cost reaches zero."""
        costs = (self.core_share.hi, self.core_share.value, self.core_share.lo)
        lo, middle, hi = (busiest / c if c > 0 else math.inf for c in costs)
        return lo, middle, hi

    def clients_per_gib(self, share: float, kernel_bytes: float) -> tuple[float, float, float]:
        """(lo, middle, hi)."""
        costs = (self.rss_bytes.hi, self.rss_bytes.value, self.rss_bytes.lo)
        lo, middle, hi = (share * _GIB / (c + kernel_bytes) for c in costs)
        return lo, middle, hi


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Least squares of y over x; with fewer than three points there is no interval."""
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[known], ys[known]
    if len(np.unique(xs)) < 2:
        return Slope(math.nan, math.inf, len(xs))
    found = stats.linregress(xs, ys)
    freedom = len(xs) - 2
    half = float(stats.t.ppf(0.975, freedom) * found.stderr) if freedom > 0 else math.inf
    return Slope(float(found.slope), half, len(xs))


def unit_costs(steps: pd.DataFrame, *, heartbeat_interval_s: float) -> UnitCosts:
    """Unit costs from the steps of one number of nodes.

    Args:
        steps: `clients`, `speedup`, `cpu_percent`, `rss_bytes` (of all gateways), `commands_per_session`,
            `store_bytes_per_session`, `commands_per_client_s` (real seconds at the run's speedup).
        heartbeat_interval_s: T of the policy.
    """
    speedup = steps["speedup"].to_numpy(dtype=float)
    clients = steps["clients"].to_numpy(dtype=float)
    # A run with speedup S beats S times as often: as S times as many clients would, for the processor.
    core = slope((clients * speedup).tolist(), (steps["cpu_percent"] / 100).tolist())
    quiet = steps["commands_per_client_s"] / speedup
    return UnitCosts(
        core_share=core,
        rss_bytes=slope(clients.tolist(), steps["rss_bytes"].tolist()),
        commands_per_session=float(steps["commands_per_session"].median()),
        store_bytes_per_session=float(steps["store_bytes_per_session"].median()),
        commands_per_s=float(quiet.median()),
        heartbeat_interval_s=heartbeat_interval_s,
    )


def plan(costs: UnitCosts, users: Sequence[int], given: Assumptions) -> pd.DataFrame:
    """One row per number of users who are connected at once, with the interval of what was fitted.

    Columns: users, cores, cores_lo, cores_hi, gib, gib_lo, gib_hi, nodes, store_commands_per_s, store_shards,
    store_mbit_per_s, client_mbit_per_s. ``nodes`` is by the upper ends: a plan is not to be too small.
    """
    per_core = costs.clients_per_core(given.busiest)
    per_gib = costs.clients_per_gib(given.memory_share, given.kernel_bytes)
    rows = []
    for n in users:
        cores = [n / per_core[i] for i in (1, 2, 0)]
        gib = [n / per_gib[i] for i in (1, 2, 0)]
        commands = n * (costs.commands_per_session / given.session_s + costs.commands_per_s)
        needed = max(value for value in (cores[2], gib[2] / given.node_gib, 1.0) if math.isfinite(value))
        rows.append(
            {
                "users": n,
                "cores": cores[0],
                "cores_lo": cores[1],
                "cores_hi": cores[2],
                "gib": gib[0],
                "gib_lo": gib[1],
                "gib_hi": gib[2],
                "nodes": math.ceil(needed) if math.isfinite(cores[2] + gib[2]) else math.nan,
                "store_commands_per_s": commands,
                "store_shards": math.ceil(commands / given.store_commands_per_s)
                if math.isfinite(commands)
                else math.nan,
                "store_mbit_per_s": n * costs.store_bytes_per_session / given.session_s * 8 / 1e6,
                "client_mbit_per_s": n / costs.heartbeat_interval_s * given.beat_bytes * 8 / 1e6,
            }
        )
    return pd.DataFrame(rows)
