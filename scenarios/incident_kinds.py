"""What may happen to gateway nodes, to the store, or to everybody at once. Data only; drawn in `harness/catalogue/`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scenarios.distributions import Law
from scenarios.parts import Part

__all__ = [
    "GatewayStall",
    "Incident",
    "NodeCrash",
    "NodeDrain",
    "NodeIncident",
    "ReconnectStorm",
    "StoreFlush",
    "StoreRestart",
]


class _Incident(Part):
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


class NodeIncident(_Incident):
    """One that happens to a node."""

    node: Annotated[int, Field(ge=1, description="which node, counted from 1")] = 1


class GatewayStall(NodeIncident):
    """A node's event loop is busy with something else for a time: it reads and sends nothing."""

    kind: Literal["gateway_stall"]
    length: Law


class NodeCrash(NodeIncident):
    """A gateway node dies: its process (the kernel sends FIN or RST) or its whole host (silence)."""

    kind: Literal["node_crash"]
    by: Annotated[
        Literal["process", "host"], Field(description="a host's clients are told nothing")
    ] = "process"
    restart_after: Annotated[
        Law | None, Field(description="law of the time until it is back, empty; null: never")
    ] = None


class NodeDrain(NodeIncident):
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
