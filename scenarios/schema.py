"""What a scenario file may say. Data only: nothing here reads files, draws random numbers or runs.

Times are scenario time in seconds; files write them with a unit. `speedup` shrinks them for a real
run and results are reported back in scenario time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from reference_server.durations import Duration, PositiveDuration
from reference_server.layers import ClientBeats, Ping, SendErrors, StateCheck
from reference_server.liveness import LivenessPolicy
from reference_server.phi import PhiAkka, PhiCassandra
from reference_server.presets import find_preset, laid_over
from reference_server.probing import Probing
from reference_server.records import RecordRules
from scenarios.distributions import Distribution, Law, Uniform

__all__ = [
    "Agreement",
    "Custom",
    "Detector",
    "Fault",
    "Gateway",
    "Incident",
    "Lease",
    "Nat",
    "Network",
    "Outages",
    "Ping",
    "Reconnect",
    "Relogin",
    "Scenario",
    "Sessions",
    "Stalls",
    "Store",
    "fault_model",
]


def _share(value: Any) -> Any:
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


Share = Annotated[
    float,
    Field(ge=0, le=1),
    BeforeValidator(_share),
    PlainSerializer(lambda share: f"{share * 100:.10g}%", return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1},
                              {"type": "string", "pattern": r"^\d+(\.\d+)?%$"}]}),
]  # fmt: skip
"""A fraction, written as 0.03 or 3%."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Outages(_Part):
    """Short losses of a healthy client's network: a Poisson process; the network heals by itself."""

    every: Annotated[PositiveDuration, Field(description="mean time between outages of one client")]
    length: Annotated[Law, Field(description="law of an outage's length")]


class Nat(_Part):
    """A middlebox that forgets an idle connection."""

    idle_timeout: Annotated[
        PositiveDuration, Field(description="N: no packet for this long, and it forgets")
    ]
    expiry: Annotated[
        Literal["drop", "reset"],
        Field(description="what the next packet meets: silence, or an RST"),
    ] = "drop"


class Network(_Part):
    """The way between a client and the gateway."""

    round_trip: Annotated[
        Law, Field(description="law of the time from a ping to its answer; not divided by speedup")
    ] = Distribution(constant=0.001)
    outages: Outages | None = None
    nat: Annotated[
        Nat | None,
        Field(description="a middlebox before every client, for the whole run; simulated only"),
    ] = None
    rto_ladder: Annotated[
        tuple[PositiveDuration, ...],
        Field(min_length=1, description="TCP retransmissions after the first send, not scaled"),
    ] = (
        # Measured on loopback with a first RTO of 0.208 s: the tail-loss probe, which is none of the 15
        # retransmissions, and the first of those.
        *(0.208, 0.416, 0.848, 1.68, 3.34, 6.70, 13.36),
        *(26.7, 53.4, 106.8, 213.6),  # doubling
        *(333.6, 453.6, 573.6, 693.6, 813.6),  # the cap: 120 s each
    )

    give_up_lag: Annotated[
        Duration,
        Field(
            description="the kernel ends an unacknowledged connection up to this late, uniformly: its timers' "
            "grain, not scaled; simulated only"
        ),
    ] = 0.0

    def seen_at(self, speedup: float) -> Network:
        """The network as a run with a speedup sees it, in scenario time.

        Round trips and TCP's timers do not shrink with the rest, so relative to it they grow.
        """
        return self.model_copy(
            update={
                "round_trip": self.round_trip.scaled(speedup),
                "rto_ladder": tuple(step * speedup for step in self.rto_ladder),
            }
        )


class Relogin(_Part):
    """The user of a dead client tries to log in again from another device."""

    after: Annotated[Law, Field(description="law of the wait from the fault to the first try")] = (
        Distribution(constant=0.0)
    )
    retry: Annotated[PositiveDuration, Field(description="wait after a refusal")] = 1.0
    share: Annotated[
        Share, Field(gt=0, description="fraction of the faulted clients' users that try")
    ] = 1.0


class Reconnect(_Part):
    """What a client does when its connection ends."""

    backoff_base: PositiveDuration = 1.0
    backoff_max: PositiveDuration = 30.0
    page_load: Annotated[
        Law, Field(description="law of the time from a refresh's close to its new connection")
    ] = Distribution(uniform=Uniform(low=0.2, high=2.0))
    connect_timeout: Annotated[
        PositiveDuration | None,
        Field(description="a handshake that takes longer is given up; null: never; simulated only"),
    ] = None
    idle_limit: Annotated[
        PositiveDuration | None,
        Field(
            description="a client that hears nothing for this long reconnects; null: it waits for ever"
        ),
    ] = None
    relogin: Annotated[
        Relogin | None, Field(description="measure how long a dead client's user is locked out")
    ] = None


class Sessions(_Part):
    """Rules about one user's sessions."""

    second_login: Annotated[
        Literal["refuse", "take_over"],
        Field(description="a login of a user who is online: refused, or it ends the older session"),
    ] = "take_over"
    watchers_per_user: Annotated[
        int, Field(ge=0, description="clients told when a faulted user goes offline")
    ] = 1


Detector = Annotated[
    Ping | SendErrors | ClientBeats | StateCheck | PhiAkka | PhiCassandra | Probing,
    Field(discriminator="kind"),
]
_SIMULATED_DETECTORS = (PhiAkka, PhiCassandra, Probing)


class Stalls(_Part):
    """A node's event loop is kept busy now and then: a Poisson process of its own for each node."""

    every: Annotated[PositiveDuration, Field(description="mean time between two stalls of a node")]
    length: Annotated[Law, Field(description="law of a stall's length")]


class Lease(_Part):
    """How the nodes know that one of them is gone."""

    ttl: Annotated[
        PositiveDuration, Field(description="a lease not renewed for this long ends")
    ] = 15.0
    renew: Annotated[PositiveDuration, Field(description="from one renewal to the next")] = 5.0
    check: Annotated[
        PositiveDuration, Field(description="how often a node looks for leases that have ended")
    ] = 5.0

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.ttl < 2 * self.renew:
            raise ValueError(
                f"ttl {self.ttl:g}s is below twice renew {self.renew:g}s: one late renewal would end the lease"
            )
        return self


class Gateway(_Part):
    """The gateway's nodes. A real gateway has its own speed: `flatline calibrate` measures it for the model.

    Service times are real machine time, not divided by speedup, and simulated only.
    """

    nodes: Annotated[int, Field(ge=1, description="clients are spread over them at random")] = 1
    heartbeat_service: Annotated[
        Law,
        Field(description="loop time of one heartbeat: half to send it, half to read its answer"),
    ] = Distribution(constant=0.0)
    handshake_service: Annotated[
        Law, Field(description="loop time of one WebSocket handshake and its authentication")
    ] = Distribution(constant=0.0)
    stalls: Stalls | None = None
    lease: Lease = Lease()

    @property
    def takes_time(self) -> bool:
        """Whether a node's loop is ever busy."""
        instant = Distribution(constant=0.0)
        return not (
            self.heartbeat_service == self.handshake_service == instant and self.stalls is None
        )

    def seen_at(self, speedup: float) -> Gateway:
        """The nodes as a run with a speedup sees them, in scenario time: relatively slower."""
        if speedup == 1:
            return self
        return self.model_copy(
            update={
                "heartbeat_service": self.heartbeat_service.scaled(speedup),
                "handshake_service": self.handshake_service.scaled(speedup),
            }
        )


class Store(_Part):
    """Redis as the model has it. Simulated only."""

    expiry_lag: Annotated[
        Law, Field(description="from the end of a TTL to the key's deletion; readers see neither")
    ] = Distribution(constant=0.0)
    announces_expiry: Annotated[
        bool, Field(description="the deletion of an expired status tells the user's watchers")
    ] = False


class _Incident(_Part):
    kind: str
    name: Annotated[
        str | None,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="its name in the log; default: its kind"),
    ] = None
    at: Annotated[Law, Field(description="law of its time, counted from the end of the ramp")]

    @property
    def label(self) -> str:
        """The name that the log uses for this incident."""
        return self.name or self.kind


class _NodeIncident(_Incident):
    node: Annotated[int, Field(ge=1, description="which node, counted from 1")] = 1


class GatewayStall(_NodeIncident):
    """A node's event loop is busy with something else for a time: it reads and sends nothing."""

    kind: Literal["gateway_stall"]
    length: Law


class NodeCrash(_NodeIncident):
    """A gateway node dies: its process (the kernel sends FIN or RST) or its whole host (silence)."""

    kind: Literal["node_crash"]
    by: Annotated[
        Literal["process", "host"], Field(description="a host's clients are told nothing")
    ] = "process"
    restart_after: Annotated[
        Law | None, Field(description="law of the time until it is back, empty; null: never")
    ] = None


class NodeDrain(_NodeIncident):
    """A graceful deploy: the node closes its connections in order (1001) and ends; then the next one starts."""

    kind: Literal["node_drain"]
    restart_after: Annotated[
        Law | None, Field(description="law of the time until it is back; null: never")
    ] = None


class StoreFlush(_Incident):
    """Every record is gone at once, and nothing is announced."""

    kind: Literal["store_flush"]


class StoreRestart(_Incident):
    """The store does not answer for a time."""

    kind: Literal["store_restart"]
    down: Annotated[Law, Field(description="law of the time without an answer")]
    keeps: Annotated[bool, Field(description="whether its records survive")] = True


class ReconnectStorm(_Incident):
    """Every client's connection is reset at once, as by a load balancer that restarts; all come back."""

    kind: Literal["reconnect_storm"]


Incident = Annotated[
    GatewayStall | NodeCrash | NodeDrain | StoreFlush | StoreRestart | ReconnectStorm,
    Field(discriminator="kind"),
]


class _Fault(_Part):
    kind: str
    name: Annotated[
        str | None,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="its name in reports; default: its kind"),
    ] = None
    share: Annotated[Share, Field(gt=0, description="fraction of the clients that it hits")]
    at: Annotated[Law, Field(description="law of its time, counted from the end of the ramp")]

    @property
    def label(self) -> str:
        """The name that every table and figure uses for this fault."""
        return self.name or self.kind


class Noop(_Fault):
    """Nothing happens: the baseline."""

    kind: Literal["noop"]


class OrderlyClose(_Fault):
    """The tab is closed: a close frame, then FIN."""

    kind: Literal["orderly_close"]


class Refresh(_Fault):
    """The page is reloaded: an orderly close, then the same session again after `reconnect.page_load`."""

    kind: Literal["refresh"]


class ProcessCrash(_Fault):
    """The client process dies; its kernel closes the socket."""

    kind: Literal["process_crash"]
    by: Annotated[
        Literal["fin", "rst"], Field(description="what its kernel sends: RST where data was unread")
    ] = "fin"


class HostCrash(_Fault):
    """Power loss: nothing is sent, nothing is acknowledged, ever."""

    kind: Literal["host_crash"]


class NetworkCut(_Fault):
    """The way is cut in both directions; it heals after a time, or never."""

    kind: Literal["network_cut"]
    heal_after: Annotated[Law | None, Field(description="law of the cut's length; null: never")] = (
        None
    )


class NatTimeout(_Fault):
    """From `at` on the client is behind a NAT with an idle timeout; traffic keeps its mapping alive."""

    kind: Literal["nat_timeout"]
    nat: Nat
    by: Annotated[
        Literal["any", "socket_filter", "netns"],
        Field(
            description="how a real run does it; any: netns with --network netns-nat, else socket_filter"
        ),
    ] = "any"


class Frozen(_Fault):
    """The client stops answering while its kernel acknowledges (SIGSTOP, frozen tab)."""

    kind: Literal["frozen"]
    thaw_after: Annotated[
        Law | None, Field(description="law of the freeze's length; null: never")
    ] = None


class SlowReader(_Fault):
    """The client stops reading in the middle of traffic: its receive window closes, the gateway's data stays unsent."""

    kind: Literal["slow_reader"]


class ThrottledTimers(_Fault):
    """A hidden page whose timers run once a minute; its heartbeat answers wait for the next one."""

    kind: Literal["throttled_timers"]
    every: Annotated[
        PositiveDuration, Field(description="from one run of the timers to the next")
    ] = 60.0
    heal_after: Annotated[
        Law | None, Field(description="law of the time until the page is looked at; null: never")
    ] = None


class Delayed(_Fault):
    """Every answer to a heartbeat comes late: a long, uneven way, or a busy client."""

    kind: Literal["delayed"]
    by: Annotated[Law, Field(description="law of one answer's lateness; a constant is no jitter")]
    heal_after: Annotated[
        Law | None, Field(description="law of the time until it is fast again; null: never")
    ] = None


class Custom(_Fault):
    """A fault of your own: a class in a file or a module. It runs that code: use only what you trust."""

    kind: Literal["custom"]
    uses: Annotated[
        str,
        Field(
            pattern=r"^[^:]+:[A-Za-z_]\w*$",
            description="path/to/file.py:Class, seen from the scenario file, or package.module:Class",
        ),
    ]
    params: Annotated[dict[str, Any], Field(description="what the class wants to know")] = {}
    heal_after: Annotated[
        Law | None, Field(description="law of its length, for the class to use; null: never")
    ] = None

    def beside(self, folder: Path) -> Custom:
        """The same with a file's path made absolute: a run directory is read from elsewhere."""
        file, _, name = self.uses.rpartition(":")
        if not file.endswith(".py") or Path(file).is_absolute():
            return self
        return self.model_copy(update={"uses": f"{(folder / file).resolve()}:{name}"})


Fault = Annotated[
    Noop
    | OrderlyClose
    | Refresh
    | ProcessCrash
    | HostCrash
    | NetworkCut
    | NatTimeout
    | Frozen
    | SlowReader
    | ThrottledTimers
    | Delayed
    | Custom,
    Field(discriminator="kind"),
]


def fault_model(kind: str) -> type[BaseModel]:
    """The model of one kind of fault or incident: its keys, their defaults and descriptions.

    Raises:
        KeyError: no such kind.
    """
    unions = (get_args(get_args(union)[0]) for union in (Fault, Incident))
    models = {get_args(m.model_fields["kind"].annotation)[0]: m for u in unions for m in u}
    model: type[BaseModel] = models[kind]
    return model


class Agreement(_Part):
    """How far apart the engines may be before the report turns red, as a share of the theory's value."""

    p50: Share = 0.03
    p95: Share = 0.03
    p99: Share = 0.03


class Scenario(_Part):
    """One experiment: who connects, under which policy, what fails, what must hold."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 1
    clients: Annotated[int, Field(ge=1)] = 100
    ramp: Annotated[
        PositiveDuration, Field(description="the clients connect evenly over this time")
    ] = 30.0
    duration: Annotated[
        PositiveDuration, Field(description="time after the ramp; the run ends with it")
    ]
    speedup: Annotated[
        float,
        Field(ge=1, le=1000, description="a real run divides every time but round trips by this"),
    ] = 1.0
    preset: Annotated[
        str | None,
        Field(
            description="a documented system (`flatline presets`): liveness, detector, records and "
            "sessions.second_login begin with its values, keys written here replace them"
        ),
    ] = None
    liveness: LivenessPolicy = LivenessPolicy()
    records: RecordRules = RecordRules()
    sessions: Sessions = Sessions()
    network: Network = Network()
    reconnect: Reconnect = Reconnect()
    detector: Annotated[
        Detector,
        Field(
            description="how the gateway decides; phi_akka, phi_cassandra, probing: simulated only"
        ),
    ] = Ping()
    gateway: Gateway = Gateway()
    store: Store = Store()
    faults: tuple[Fault, ...] = ()
    incidents: Annotated[
        tuple[Incident, ...],
        Field(description="what happens to gateway nodes and the store"),
    ] = ()
    thresholds: Annotated[
        tuple[str, ...],
        Field(description="what must hold at the end, as `false_suspicions.count == 0`"),
    ] = ()
    agreement: Agreement = Agreement()

    @model_validator(mode="before")
    @classmethod
    def _begins_with_its_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("preset"), str):
            return laid_over(find_preset(data["preset"]).scenario_keys, data)
        return data

    @field_validator("faults", mode="after")
    @classmethod
    def _mix_is_possible(cls, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
        total = sum(fault.share for fault in faults)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:.0%}; allowed: at most 100%")
        labels = [fault.label for fault in faults]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice; give each its own `name`")
        return faults

    @field_validator("incidents", mode="after")
    @classmethod
    def _nodes_exist(
        cls, incidents: tuple[Incident, ...], info: ValidationInfo
    ) -> tuple[Incident, ...]:
        gateway = info.data.get("gateway")
        for incident in incidents:
            if gateway and isinstance(incident, _NodeIncident) and incident.node > gateway.nodes:
                raise ValueError(f"node {incident.node}; allowed: 1 to {gateway.nodes}")
        labels = [incident.label for incident in incidents]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice; give each its own `name`")
        return incidents

    @property
    def simulated_only(self) -> tuple[str, ...]:
        """The keys of this scenario that only the simulation can do."""
        changed = {
            "detector": isinstance(self.detector, _SIMULATED_DETECTORS),
            "store": self.store != Store(),
            "network.nat": self.network.nat is not None,
            "network.give_up_lag": self.network.give_up_lag > 0,
            "reconnect.connect_timeout": self.reconnect.connect_timeout is not None,
        }
        return tuple(key for key, is_so in changed.items() if is_so)

    @property
    def horizon_s(self) -> float:
        """End of the run, seconds of scenario time from its origin."""
        return self.ramp + self.duration
