"""What a scenario file may say. Data only: nothing here reads files, draws random numbers or runs.

Times are scenario time in seconds; files write them with a unit. `speedup` shrinks them for a real
run and results are reported back in scenario time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
)

from reference_server.durations import PositiveDuration
from reference_server.liveness import LivenessPolicy
from scenarios.distributions import Distribution, Law, Uniform

__all__ = [
    "Agreement",
    "Fault",
    "Nat",
    "Network",
    "Outages",
    "Reconnect",
    "Relogin",
    "Scenario",
    "Sessions",
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


class Frozen(_Fault):
    """The client stops answering while its kernel acknowledges (SIGSTOP, frozen tab)."""

    kind: Literal["frozen"]
    thaw_after: Annotated[
        Law | None, Field(description="law of the freeze's length; null: never")
    ] = None


Fault = Annotated[
    OrderlyClose | Refresh | ProcessCrash | HostCrash | NetworkCut | NatTimeout | Frozen,
    Field(discriminator="kind"),
]


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
    liveness: LivenessPolicy = LivenessPolicy()
    sessions: Sessions = Sessions()
    network: Network = Network()
    reconnect: Reconnect = Reconnect()
    faults: tuple[Fault, ...] = ()
    thresholds: Annotated[
        tuple[str, ...],
        Field(description="what must hold at the end, as `false_suspicions.count == 0`"),
    ] = ()
    agreement: Agreement = Agreement()

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

    @property
    def horizon_s(self) -> float:
        """End of the run, seconds of scenario time from its origin."""
        return self.ramp + self.duration
