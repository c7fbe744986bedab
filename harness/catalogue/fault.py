"""What a fault of the catalogue is: words about it, a real half, a simulated half. Either half may be missing.

A fault of a client is injected by `real` into a client of the generator and by `simulated` into a client of
the model. Neither waits: what is to come later goes through `at` of the client, or `after` of the model's
clock. What happens to nodes and to the store is told here too (`ServerFault`); the engines do it themselves.

Nothing here imports gevent: the command line lists the catalogue.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from harness.faults import PlannedFault
from scenarios.schema import Scenario

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = [
    "AnyFault",
    "ClientFault",
    "ClientGone",
    "PageReloaded",
    "RealClient",
    "RealRun",
    "RealWire",
    "ServerFault",
]


class ClientGone(Exception):
    """Raised by a real half: the client has ended for good."""


class PageReloaded(Exception):
    """Raised by a real half: the page comes back with its stored session id, after so many real seconds."""

    def __init__(self, after_s: float = 0.0) -> None:
        super().__init__(after_s)
        self.after_s = after_s


class RealWire(Protocol):
    """A client's open WebSocket. ``sock`` is its TCP socket; whoever closes that sends a FIN."""

    @property
    def sock(self) -> Any:
        """The socket."""

    def close(self, code: int) -> None:
        """Close in order: close frame, then FIN."""

    def reset(self) -> None:
        """Send RST instead of FIN."""

    def send_json(self, message: dict[str, Any]) -> None:
        """Send one JSON message in a text frame."""


class RealRun(Protocol):
    """What all clients share. Real seconds on the run's clock, but for what a plan or scenario holds."""

    @property
    def scenario(self) -> Scenario:
        """What is to happen; its ``speedup`` divides lengths of scenario time."""

    @property
    def graveyard(self) -> list[Any]:
        """Kept until the run's end: a socket that is let go closes itself, which sends a FIN."""

    def now_s(self) -> float:
        """Now."""

    def at_s(self, scenario_s: float) -> float:
        """The real time of a moment of the plan."""


class RealClient(Protocol):
    """A client of the generator, as far as an injector may use it.

    ``wire`` is None without a connection. While ``deaf``, nothing is read. ``on_heartbeat`` is called instead of
    answering a heartbeat. ``last_packet_s``: of the last packet in either direction.
    """

    wire: Any
    deaf: bool
    on_heartbeat: Callable[[], None] | None
    last_packet_s: float

    @property
    def g(self) -> RealRun:
        """What all clients share."""

    @property
    def behind(self) -> Any:
        """The real NAT that this client is behind (`harness/real/generator/behind_nat.py`); None: none."""

    def at(self, time_s: float, step: Callable[[], None]) -> None:
        """Do something at a real time of the run, once; a step may raise what `real` may."""

    def took_effect(self, fault: PlannedFault, scheduled_s: float, mechanism: str) -> None:
        """Log that the fault took effect now, by this mechanism; it was wanted at ``scheduled_s``."""

    def healed(self, fault: PlannedFault) -> None:
        """Log that the fault's cause is gone; its next answer or resumed session is the recovery."""

    def expect_recovery(self, fault: PlannedFault) -> None:
        """The client will try to come back to its session: log the recovery when it has."""


class _Described:
    """The words. The drawing and the physical meaning are the docstring of the module or of the class."""

    kind: ClassVar[str]
    summary: ClassVar[str]
    side: ClassVar[str]
    on_the_wire: ClassVar[str] = ""  # what the peer's kernel sees
    mechanism: ClassVar[str] = ""  # how a real run does it, here and now
    cannot_show: ClassVar[str] = ""  # what that mechanism leaves out
    theory: ClassVar[str] = ""  # what its law says; empty: there is none
    example: ClassVar[str] = ""  # YAML, one item of `faults` or `incidents`

    def drawing(self) -> str:
        """The picture and the meaning, as written in its file."""
        own = type(self).__dict__.get("__doc__") or ""
        module = sys.modules[type(self).__module__].__doc__ or ""
        return inspect.cleandoc(module if "|" in module or not own else own)


class ClientFault(_Described):
    """One kind of fault of one client. Give it `real`, `simulated`, or both."""

    side = "client"
    silent: ClassVar[bool] = False  # its real half needs a socket filter

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Do it to a connected client of the generator.

        Raises:
            ClientGone: that was the end of the client.
            PageReloaded: the client comes back later.
        """
        raise NotImplementedError

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Do it to a connected client of the model."""
        raise NotImplementedError

    @property
    def is_real(self) -> bool:
        """Whether the real engine can do it."""
        return type(self).real is not ClientFault.real

    @property
    def is_simulated(self) -> bool:
        """Whether the model can do it."""
        return type(self).simulated is not ClientFault.simulated

    def mechanism_for(self, params: Mapping[str, Any]) -> str:
        """The mechanism of one planned fault, where its parameters decide."""
        return self.mechanism


class ServerFault(_Described):
    """Something that happens to a gateway node, to the store, or to all connections at once."""

    side = "gateway"
    is_simulated = True
    is_real: ClassVar[bool] = False


AnyFault = ClientFault | ServerFault
