"""What may happen to a client. Data only; drawn and explained in `harness/catalogue/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

from reference_server.durations import PositiveDuration
from scenarios.distributions import Law
from scenarios.incident_kinds import Incident
from scenarios.network import Nat
from scenarios.parts import Part, Share

__all__ = [
    "Custom",
    "Delayed",
    "Fault",
    "Frozen",
    "HostCrash",
    "NatTimeout",
    "NetworkCut",
    "Noop",
    "OrderlyClose",
    "PacketLoss",
    "ProcessCrash",
    "Refresh",
    "SlowReader",
    "ThrottledTimers",
    "fault_model",
]


class _Fault(Part):
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


class PacketLoss(_Fault):
    """Packets to the client get lost at random; TCP sends them again, each time after twice as long."""

    kind: Literal["packet_loss"]
    rate: Annotated[
        Share,
        Field(gt=0, lt=1, description="probability that one packet gets lost, each by itself"),
    ]
    heal_after: Annotated[
        Law | None, Field(description="law of the time until nothing is lost any more; null: never")
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
    params: Annotated[
        dict[str, Any], Field(default_factory=dict, description="what the class wants to know")
    ]
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
    | PacketLoss
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
