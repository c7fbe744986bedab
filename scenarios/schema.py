"""A scenario: one experiment, from the parts that the modules beside this one describe.

Data only: nothing here reads files, draws random numbers or runs. Times are scenario time in seconds; files
write them with a unit. `speedup` shrinks them for a real run and results are reported back in scenario time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from reference_server.durations import Duration, PositiveDuration
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import DetectorKind, Ping
from reference_server.presets import find_preset, merged
from reference_server.record_rules import RecordRules
from scenarios.client_rules import Reconnect, Sessions, Traffic
from scenarios.clock import RunClock
from scenarios.faults.base import Fault, ScenarioItem
from scenarios.faults.incidents import Incident, NodeIncident
from scenarios.faults.registry import AnyFault, AnyIncident
from scenarios.gateway import Gateway, Store
from scenarios.network import Network
from scenarios.parts import Part, Share
from scenarios.target import MODELLED, Target

__all__ = ["Agreement", "Scenario"]


def _check_names(items: Iterable[ScenarioItem]) -> None:
    count = Counter(item.label for item in items)
    if twice := sorted(label for label in count if count[label] > 1):
        raise ValueError(f"{', '.join(twice)} stands twice; give each its own `name`")


class Agreement(Part):
    """How far apart the engines may be before the report turns red, as a share of the theory's value."""

    p50: Share = 0.03
    p95: Share = 0.03
    p99: Share = 0.03


class Scenario(Part):
    """One experiment: who connects, under which policy, what fails, what must hold."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 1
    clients: Annotated[int, Field(ge=1)] = 100
    ramp: Annotated[Duration, Field(description="the clients connect evenly over this time")] = 30.0
    duration: Annotated[PositiveDuration, Field(description="time after the ramp; the run ends with it")]
    speedup: Annotated[
        float, Field(ge=1, le=1000, description="a real run divides every time but round trips by this")
    ] = 1.0
    preset: Annotated[
        str | None,
        Field(
            description="a documented system (`flatline presets`): liveness, detector, records and "
            "sessions begin with its values, keys written here replace them"
        ),
    ] = None
    target: Annotated[
        Target | None,
        Field(
            description="a server that somebody else wrote (`flatline targets`, or a file): it takes the place of "
            "the reference gateway, and its heartbeat that of `liveness` and `detector`"
        ),
    ] = None
    liveness: LivenessPolicy = LivenessPolicy()
    records: RecordRules = RecordRules()
    sessions: Sessions = Sessions()
    network: Network = Network()
    reconnect: Reconnect = Reconnect()
    traffic: Traffic = Traffic()
    detector: Annotated[DetectorKind, Field(description="how the gateway decides")] = Ping()
    gateway: Gateway = Gateway()
    store: Store = Store()
    faults: tuple[AnyFault, ...] = ()
    incidents: Annotated[
        tuple[AnyIncident, ...], Field(description="what happens to gateway nodes and the store")
    ] = ()
    thresholds: Annotated[
        tuple[str, ...],
        Field(
            description="what must hold at the end, as `false_suspicions.count == 0`; or "
            "`{threshold: ..., abort_on_fail: true}`: a real run ends early when it has failed"
        ),
    ] = ()
    abort_on_fail: Annotated[
        tuple[str, ...],
        Field(description="those of `thresholds` that end a real run early when they have failed"),
    ] = ()
    agreement: Agreement = Agreement()

    @model_validator(mode="before")
    @classmethod
    def _begins_with_its_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("preset"), str):
            return merged(find_preset(data["preset"]).scenario_keys, data)
        return data

    @model_validator(mode="before")
    @classmethod
    def _some_thresholds_end_the_run(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("thresholds"), list | tuple):
            return data
        thresholds, ends = [], list(data.get("abort_on_fail") or ())
        for one in data["thresholds"]:
            ends_it = one.get("abort_on_fail", False) if isinstance(one, dict) else None
            if isinstance(ends_it, bool) and one.keys() - {"abort_on_fail"} == {"threshold"}:
                thresholds.append(one["threshold"])
                ends += [one["threshold"]] if ends_it else []
            else:
                thresholds.append(one)
        return {**data, "thresholds": thresholds, "abort_on_fail": list(dict.fromkeys(ends))}

    @field_validator("abort_on_fail", mode="after")
    @classmethod
    def _are_thresholds(cls, ends: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if other := [one for one in ends if one not in info.data.get("thresholds", ends)]:
            raise ValueError(f"{', '.join(other)}: none of the thresholds; allowed: those of `thresholds`")
        return ends

    @model_validator(mode="before")
    @classmethod
    def _has_the_heartbeat_of_its_target(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("target") is None:
            return data
        try:
            target = Target.model_validate(data["target"])
        except ValidationError:
            return data  # the field says what is wrong
        reconnect = data.get("reconnect")
        if isinstance(reconnect, dict):  # nobody sees who is locked out
            data = {**data, "reconnect": {**reconnect, "relogin": None}}
        speedup = data.get("speedup", 1.0)
        keys = target.scenario_keys_at(speedup if isinstance(speedup, int | float) and speedup >= 1 else 1.0)
        return {**data, "target": target, **keys}

    @model_validator(mode="after")
    def _target_can_do_it(self) -> Self:
        if self.target is None:
            return self
        ours = {
            "incidents": bool(self.incidents),
            "gateway": self.gateway != Gateway(),
            "store": self.store != Store(),
            "traffic": self.traffic != Traffic(),
        }
        if asked := [key for key, is_so in ours.items() if is_so]:
            raise ValueError(
                f"{', '.join(asked)}: only the reference gateway has these; leave them out with a target"
            )
        if self.network.tls and not self.target.connect.url.startswith("wss:"):
            raise ValueError(
                f"network.tls: {self.target.target} is spoken to by its own url, {self.target.connect.url}; "
                "allowed: wss://… there"
            )
        fixed = self.target.heartbeat.fixed_at(self.speedup)
        if self.speedup > 1 and fixed and self.target.start is not None:
            raise ValueError(
                f"speedup {self.speedup:g}: {self.target.target} cannot be told {' and '.join(fixed)} "
                "(heartbeat.settable); allowed: speedup 1"
            )
        if self.speedup > 1 and self.target.start is None:
            raise ValueError(
                f"speedup {self.speedup:g}: {self.target.target} runs already, with its own times; allowed: speedup 1"
            )
        return self

    @field_validator("faults", mode="after")
    @classmethod
    def _mix_is_possible(cls, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
        total = sum(fault.share for fault in faults)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:.0%}; allowed: at most 100%")
        _check_names(faults)
        return faults

    @field_validator("incidents", mode="after")
    @classmethod
    def _nodes_exist(cls, incidents: tuple[Incident, ...], info: ValidationInfo) -> tuple[Incident, ...]:
        gateway = info.data.get("gateway")
        for incident in incidents:
            if gateway and isinstance(incident, NodeIncident) and incident.node > gateway.nodes:
                raise ValueError(f"node {incident.node}; allowed: 1 to {gateway.nodes}")
        _check_names(incidents)
        return incidents

    @property
    def simulated_only(self) -> tuple[str, ...]:
        """The keys of this scenario that only the simulation can do."""
        changed = {"store": self.store != Store(), "network.give_up_lag": self.network.give_up_lag > 0}
        return tuple(key for key, is_so in changed.items() if is_so)

    def witnessed(self, engine: str) -> frozenset[str] | None:
        """The milestones that somebody sees in an engine's run; None: all, for the gateway is ours."""
        if self.target is None:
            return None
        return self.target.milestones_at(self.clock) if engine == "real" else MODELLED

    @property
    def speaks_tls(self) -> bool:
        """Whether clients and server speak TLS."""
        return self.network.tls or (self.target is not None and self.target.connect.url.startswith("wss:"))

    @property
    def clock(self) -> RunClock:
        """The clock of a real run of this scenario."""
        return RunClock(self.speedup)

    @property
    def horizon_s(self) -> float:
        """End of the run, seconds of scenario time from its origin."""
        return self.ramp + self.duration
