"""What happens to whom, and when: a schedule drawn from a seed, written to JSON and read again. Pure.

From a seed and what the machine can do to a list of steps. The same seed and abilities give the same schedule. It knows
nothing of how a step is done (`nemesis.py`, `clients.py`) or what must hold afterwards (`checker.py`).

Each schedule draws from some kinds of steps alone, chosen at random (swarm testing: Groce et al., ISSTA 2012): what
happens all the time hides what happens after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from reference_server.errors import FlatlineError

__all__ = ["KINDS", "Kind", "Schedule", "ScheduleError", "Side", "Step", "draw", "read_schedule", "seed_of"]

Side = Literal["client", "node", "store", "ledger"]
Ability = Literal["silence", "hosts"]

_FAULTS_S = 6.0
_BEGIN_S = 1.0  # everybody is in by then
_WATCHED_S = 0.3  # the watchers are
_SETTLE_S = (
    7.0  # after the last fault: a client gives up a silent host after 4, a dead node's lease is over before
)
_CLIENTS, _NODES = 8, 3
_TWO_DEVICES = 4  # the first clients are two users with two devices each
_SHARE = 0.5  # of the kinds that one schedule draws from
_CLIENT_STEPS, _FAULT_STEPS = (8, 24), (0, 7)  # fewest and most
_CLOCKS_DIFFER = 0.5  # of the schedules


class ScheduleError(FlatlineError):
    """A file is no schedule, or one that this machine cannot do."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of step. Seconds are real ones.

    Attributes:
        side: what it happens to.
        meaning: in words.
        weight: how often it is drawn, against the others.
        lasts_s: shortest and longest; (0, 0): it has no length.
        needs: what the machine must be able to do; None: nothing.
        loses: whether what Redis has acknowledged may be gone after it.
    """

    side: Side
    meaning: str
    weight: float = 1.0
    lasts_s: tuple[float, float] = (0.0, 0.0)
    needs: Ability | None = None
    loses: bool = False


KINDS: dict[str, Kind] = {
    "come": Kind("client", "logs in if it has no session, and connects", 3.0),
    "log_in": Kind("client", "logs in anew, and does not connect", 2.0),
    "in_and_out": Kind("client", "logs in anew and out again, and has not connected", 1.0),
    "close": Kind("client", "closes in order, and stays away", 2.0),
    "refresh": Kind("client", "closes, and is back at another node", 3.0, (0.0, 0.5)),
    "reset": Kind("client", "its connection is reset, and it is back at another node", 1.0, (0.0, 0.5)),
    "die": Kind("client", "falls silent for good", 2.0, needs="silence"),
    "cut": Kind("client", "its network is gone for a moment", 1.0, (0.1, 0.4), needs="silence"),
    "long_cut": Kind(
        "client", "its network is gone for longer than anybody waits", 1.0, (3.0, 4.0), "silence"
    ),
    "logout": Kind("client", "logs out", 2.0),
    "kick": Kind("client", "an operator kicks its user", 1.0),
    "take_over": Kind("client", "logs in again elsewhere, the older connection stands", 2.0),
    "twice": Kind("client", "connects again with the same token, the older connection stands", 1.0),
    "pause": Kind("node", "SIGSTOP, SIGCONT", 2.0, (0.3, 3.2)),
    "crash": Kind("node", "SIGKILL, then a start", 2.0, (0.2, 4.0)),
    "drain": Kind("node", "SIGTERM, then a start", 1.0, (0.2, 3.0)),
    "host": Kind("node", "its host vanishes, then it is back", 1.5, (0.5, 4.0), "hosts"),
    "partition": Kind("node", "cut off from Redis, not from its clients", 2.0, (0.3, 4.0)),
    "disconnect": Kind("node", "its connections to Redis are reset", 1.0),
    "clock": Kind("node", "its wall clock jumps, and jumps back", 1.0, (0.5, 5.0)),
    "full": Kind("node", "it can write no file: EFBIG for each byte", 1.0, (0.3, 3.0)),
    "restart": Kind("store", "SIGKILL, then a start with its records", 1.5, (0.1, 3.0)),
    "empty_restart": Kind("store", "SIGKILL, then a start without", 0.7, (0.1, 3.0), loses=True),
    "flush": Kind("store", "FLUSHALL", 0.7, loses=True),
    "store_pause": Kind("store", "SIGSTOP, SIGCONT", 1.0, (0.3, 3.5)),
    "locked": Kind("ledger", "another process holds its lock", 1.5, (0.3, 3.0)),
}
"""Every kind of step."""

_MOST_CLOCK_S = 20.0


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """Something that happens: ``target`` is a client from 0, a node from 1; 0 for store and ledger."""

    at_s: float
    kind: str
    target: int = 0
    lasts_s: float = 0.0
    node: int = 1  # where a client goes first
    offset_s: float = 0.0  # of a clock


@dataclass(frozen=True, slots=True)
class Schedule:
    """What happens in one history, sorted by time.

    Attributes:
        clocks_s: how far each node's wall clock is ahead, from its start on; empty: they agree.
        length_s: of the steps, seconds since everything was up; all is over then.
        settle_s: and so long nothing happens, before what must be so is looked at.
    """

    seed: str
    steps: tuple[Step, ...]
    one_connection_per: Literal["user", "device"] = "user"
    survives_connection: bool = False
    clients: int = _CLIENTS
    nodes: int = _NODES
    clocks_s: tuple[float, ...] = ()
    length_s: float = _FAULTS_S + _BEGIN_S
    settle_s: float = _SETTLE_S

    def with_steps(self, steps: Iterable[Step]) -> Schedule:
        """The same, with other steps."""
        return replace(self, steps=tuple(sorted(steps)))

    def user_of(self, client: int) -> str:
        """Whose a client is."""
        return f"user-{client // 2}" if client < _TWO_DEVICES else f"user-{client}"

    def device_of(self, client: int) -> str:
        """Which of its user's devices a client is."""
        return "phone" if client < _TWO_DEVICES and client % 2 else "web"

    def clock_of(self, node: int) -> float:
        """How far a node's wall clock is ahead while no step moves it, seconds."""
        return self.clocks_s[node - 1] if self.clocks_s else 0.0

    def slot_of(self, client: int) -> str:
        """What has one connection at most."""
        user = self.user_of(client)
        return user if self.one_connection_per == "user" else f"{user}/{self.device_of(client)}"

    def write(self, path: Path) -> None:
        """Write it as JSON, to be read by `read_schedule`."""
        path.write_bytes(orjson.dumps(self, option=orjson.OPT_INDENT_2))


def seed_of(seed: int, number: int) -> str:
    """The seed of the n-th schedule of a torture."""
    return f"{seed}.{number}"


def draw(seed: str, abilities: Collection[str]) -> Schedule:
    """Draw a schedule.

    Args:
        seed: ``SEED.NUMBER``, see `seed_of`.
        abilities: what this machine can do: `silence` (socket filters), `hosts` (network namespaces).
    """
    rng = np.random.default_rng([int(part) for part in seed.split(".")])
    can = [name for name, kind in KINDS.items() if kind.needs is None or kind.needs in abilities]
    chosen = [name for name in can if rng.random() < _SHARE]
    # What clients do is what shows a fault: it is drawn for itself.
    doings = [name for name in chosen if KINDS[name].side == "client"] or ["refresh"]
    faults = [name for name in chosen if KINDS[name].side != "client"]
    names = _names(rng, doings, _CLIENT_STEPS) + (_names(rng, faults, _FAULT_STEPS) if faults else [])
    steps = [
        Step(_seconds(rng, _WATCHED_S, _BEGIN_S - _WATCHED_S), "come", client, node=_node(rng))
        for client in range(_CLIENTS)
    ]
    for name in names:
        kind = KINDS[name]
        at_s = _seconds(rng, _BEGIN_S, _BEGIN_S + _FAULTS_S)
        targets = {"client": (0, _CLIENTS), "node": (1, _NODES + 1)}.get(kind.side, (0, 1))
        # All is over by the end; what happens late is short.
        lasts_s = round(min(_seconds(rng, *kind.lasts_s), _BEGIN_S + _FAULTS_S - at_s), 3)
        offset_s = _seconds(rng, -_MOST_CLOCK_S, _MOST_CLOCK_S) if name == "clock" else 0.0
        steps.append(Step(at_s, name, int(rng.integers(*targets)), lasts_s, _node(rng), offset_s))
    per: Literal["user", "device"] = "device" if rng.random() < 0.5 else "user"
    survives = bool(rng.random() < 0.3)
    clocks_s: tuple[float, ...] = ()
    if rng.random() < _CLOCKS_DIFFER:  # real ones do, and for longer than any step lasts
        clocks_s = tuple(_seconds(rng, -_MOST_CLOCK_S, _MOST_CLOCK_S) for _ in range(_NODES))
    return Schedule(seed, tuple(sorted(steps)), per, survives, clocks_s=clocks_s)


def read_schedule(path: Path, abilities: Collection[str]) -> Schedule:
    """Read a schedule that was written.

    Raises:
        ScheduleError: it cannot be read, is no schedule, or wants what this machine cannot do.
    """
    try:
        found: Any = TypeAdapter(Schedule).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ScheduleError(f"{path}: no schedule: {error}") from error
    for step in found.steps:
        kind = KINDS.get(step.kind)
        if kind is None:
            raise ScheduleError(f"{path}: unknown step {step.kind!r}; allowed: {', '.join(KINDS)}")
        if kind.needs is not None and kind.needs not in abilities:
            raise ScheduleError(f"{path}: {step.kind} needs root or CAP_NET_ADMIN, see `flatline doctor`")
    assert isinstance(found, Schedule)
    return found


def _names(rng: np.random.Generator, of: Sequence[str], count: tuple[int, int]) -> list[str]:
    weights = np.array([KINDS[name].weight for name in of])
    return [
        str(one)
        for one in rng.choice(of, int(rng.integers(count[0], count[1] + 1)), p=weights / weights.sum())
    ]


def _seconds(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 3)


def _node(rng: np.random.Generator) -> int:
    return int(rng.integers(1, _NODES + 1))
