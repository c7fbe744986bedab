"""What a fault is: keys in a scenario, draws from them, and what is done to a real and to a modelled client.

Each fault has two classes, in one file. The first, a `Fault`, is one item of a scenario's `faults`: its keys, and how
a plan is drawn from them. The second, a `ClientFault`, is what was drawn for one client: typed parameters, words and
flags about the kind, and what it does to a client of the generator (`real`) and of the model (`simulated`). Neither of
these waits: what is to come later goes through `after` or `at` of the client.

What happens to nodes and to the store is a `ServerFault`; the engines do it themselves (`incidents.py`).

Nothing here imports an engine: both satisfy the protocols below.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from pydantic import Field

from reference_server.events import Cause
from scenarios.client_rules import Reconnect
from scenarios.distributions import Distribution, Law
from scenarios.parts import Part, Share

__all__ = [
    "SOCKET_FILTER",
    "ClientFault",
    "ClientGone",
    "Fault",
    "ModelClient",
    "PageReloaded",
    "PlannedFault",
    "RealClient",
    "ScenarioItem",
    "ServerFault",
    "WebSocket",
    "answer_late",
]

SOCKET_FILTER = "socket filter"
"""The mechanism of silence: the kernel drops what arrives before it is acknowledged."""


class ClientGone(Exception):
    """Raised by a real half: the client has ended for good."""


class PageReloaded(Exception):
    """Raised by a real half: the page comes back with its stored session id, after so many real seconds."""

    def __init__(self, after_s: float = 0.0) -> None:
        super().__init__(after_s)
        self.after_s = after_s


class WebSocket(Protocol):
    """A real client's open connection. ``sock`` is its TCP socket; whoever closes that sends a FIN."""

    @property
    def sock(self) -> Any:
        """The socket."""

    def close(self, code: int) -> None:
        """Close in order: close frame, then FIN."""

    def reset(self) -> None:
        """Send RST instead of FIN."""

    def send_json(self, message: dict[str, Any]) -> None:
        """Send one JSON message in a text frame."""


class RealClient(Protocol):
    """A client of the generator, as far as a fault may use it. Real seconds on the run's clock, unless it says so.

    ``wire`` is its `WebSocket`, None without a connection. ``last_packet_s``: of the last packet in either direction.
    While ``reading_paused``, nothing is read, and nothing sent by itself. ``on_heartbeat`` is called instead of
    answering a heartbeat or sending one. ``hold_back`` says how long an answer, or a heartbeat of its own, waits: from
    the real time at which it is due to real seconds. A new connection begins without either.
    """

    wire: Any
    reading_paused: bool
    on_heartbeat: Callable[[], None] | None
    hold_back: Callable[[float], float] | None
    last_packet_s: float

    @property
    def behind(self) -> Any:
        """The real NAT that this client is behind (`harness/real/generator/behind_nat.py`); None: none."""

    @property
    def beats_by_itself(self) -> bool:
        """Whether it sends heartbeats, instead of answering those of the gateway."""

    @property
    def retransmits_after_s(self) -> Sequence[float]:
        """When TCP sends a lost packet again, real seconds after the first time."""

    def now_s(self) -> float:
        """Now."""

    def real_s(self, length_s: float) -> float:
        """How long a length of scenario time takes in this run."""

    def at(self, time_s: float, step: Callable[[], None]) -> None:
        """Do something at a real time of the run, once; a step may raise what `real` may."""

    def after(self, delay_s: float, step: Callable[[], None]) -> None:
        """As :meth:`at`, this much scenario time from now."""

    def took_effect(
        self,
        fault: PlannedFault,
        scheduled_s: float | None = None,
        mechanism: str | None = None,
        at_s: float | None = None,
    ) -> None:
        """Log that the fault took effect.

        Args:
            fault: the one planned for this client.
            scheduled_s: when it was to; None: at the plan's moment.
            mechanism: how it was done; None: as the fault says of itself.
            at_s: when it did; None: now.
        """

    def healed(self, fault: PlannedFault) -> None:
        """Log that the fault's cause is gone; its next answer or resumed session is the recovery."""

    def expect_recovery(self, fault: PlannedFault) -> None:
        """The client will try to come back to its session: log the recovery when it has."""

    def keep_open(self) -> None:
        """Keep the socket open until the run's end: one that is let go closes itself, which sends a FIN."""

    def lose(self, share: float) -> None:
        """Drop this share of what arrives, at random, before it is acknowledged; 0: nothing any more.

        A share below 1 ends with the connection. 1 cuts the path both ways, and no new connection can be made.

        Raises:
            OSError: the kernel refuses the filter.
        """

    def vanish(self) -> None:
        """Lose all that this connection carries from now on, both ways; a new one is not concerned.

        Raises:
            OSError: the kernel refuses the filter.
        """


class ModelClient(Protocol):
    """A connected client of the model, as far as a fault may use it. Scenario seconds."""

    @property
    def now_s(self) -> float:
        """Now."""

    def after(self, delay_s: float, step: Callable[[], None]) -> None:
        """Do something this much later."""

    def took_effect(self, fault: PlannedFault, *, scheduled_s: float | None = None) -> None:
        """Log that the fault took effect now; it was wanted at ``scheduled_s``, None: at the plan's moment."""

    def healed(self, fault: PlannedFault) -> None:
        """Log that the fault's cause is gone; its next answer or resumed session is the recovery."""

    def expect_recovery(self, fault: PlannedFault) -> None:
        """The client will try to come back to its session: log the recovery when it has."""

    def come(self) -> None:
        """Connect, with the stored session if there is one."""

    def leave(self, says: Cause | None = None) -> None:
        """Be off the connection; ``says``: what the gateway hears of it one way later, None: nothing."""

    def die(self, says: Cause | None = None) -> None:
        """End for good; ``says`` as in :meth:`leave`."""

    def cut(self) -> None:
        """Cut its way in both directions."""

    def mend(self) -> None:
        """Open its way again; TCP's next retransmission brings what was kept."""

    def freeze(self) -> None:
        """Stop its process; its kernel goes on."""

    def thaw(self) -> None:
        """Let its process go on, beginning with what its kernel has kept."""

    def shut_window(self) -> None:
        """Freeze with data before it: its receive window is closed."""

    def answer_late(self, after_s: Callable[[], float], fault: PlannedFault) -> None:
        """Hold back answers and own beats for as long as ``after_s`` says; a new connection ends that."""

    def answer_at_once(self, fault: PlannedFault) -> None:
        """Hold answers back no more: the fault has healed."""

    def lose(self, loses: Callable[[], bool], fault: PlannedFault) -> None:
        """Lose each packet to it of which ``loses`` says so; a new connection ends that."""

    def lose_nothing(self, fault: PlannedFault) -> None:
        """Lose no more packets: the fault has healed."""

    def forget_when_idle(self, idle_s: float, expiry: str, forgotten: Callable[[], None]) -> None:
        """Have a middlebox forget its connection once that had no packet for ``idle_s``.

        Args:
            idle_s: the first packet from now on makes the mapping, each later one keeps it this long.
            expiry: what packets meet from then on: ``drop`` or ``reset``.
            forgotten: called at the moment.
        """


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

    @classmethod
    def is_real(cls) -> bool:
        """Whether the real engine can do it."""
        return True

    @classmethod
    def is_simulated(cls) -> bool:
        """Whether the model can do it."""
        return True

    @classmethod
    def drawing(cls) -> str:
        """The picture and the meaning, as written in its file."""
        own = cls.__dict__.get("__doc__") or ""
        module = sys.modules[cls.__module__].__doc__ or ""
        return inspect.cleandoc(module if "|" in module or not own else own)


@dataclass(frozen=True)
class ClientFault(_Described):
    """One kind of fault, with the parameters drawn for one client. Give it `real`, `simulated`, or both.

    A subclass that has parameters is a frozen dataclass, too; they are written into the plan and read from it.
    """

    side: ClassVar[str] = "client"
    announced: ClassVar[bool] = False  # the peer is told at once: close frame, FIN or RST
    # the client lives on with its session: nobody logs in elsewhere, it makes no ghost, it is not dead at the end
    user_stays: ClassVar[bool] = False
    only_hampers: ClassVar[bool] = (
        False  # it is healthy all the while: who throws it out loses a healthy client
    )
    may_not_happen: ClassVar[bool] = False  # it waits for something that the client's traffic may prevent
    needs_socket_filter: ClassVar[bool] = False  # its real half; root only, checked beforehand

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Do it to a connected client of the generator.

        Raises:
            ClientGone: that was the end of the client.
            PageReloaded: the client comes back later.
        """
        raise NotImplementedError

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Do it to a connected client of the model."""
        raise NotImplementedError

    @property
    def silent(self) -> bool:
        """Whether nothing tells the peer, so that only a timer can notice it."""
        return False

    @property
    def drawn_mechanism(self) -> str:
        """The mechanism of this one, where its parameters decide."""
        return self.mechanism

    @property
    def behaviour(self) -> ClientFault:
        """Who does it: this one, or the user's own class that it stands for."""
        return self

    @classmethod
    def is_real(cls) -> bool:
        """Whether the real engine can do it."""
        return cls.real is not ClientFault.real

    @classmethod
    def is_simulated(cls) -> bool:
        """Whether the model can do it."""
        return cls.simulated is not ClientFault.simulated


@dataclass(frozen=True)
class ServerFault(_Described):
    """Something that happens to a gateway node, to the store, or to all connections at once, with its parameters."""

    side: ClassVar[str] = "gateway"
    cuts_connections: ClassVar[bool] = False  # every connection of its node ends with it
    stops_loop: ClassVar[bool] = False  # its node says and does nothing before it is over
    # what puts the store right: the node's lease runs out, the resume window does, the nodes renew at once or after it
    settled_by: ClassVar[Literal["", "lease", "resume_window", "renewal", "renewal_after_it"]] = ""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault of one client. Scenario seconds from the run's origin."""

    fault_id: str
    fault: str  # the label that reports use
    kind: str
    client: int
    at_s: float
    heal_after_s: float | None  # None: never
    relogin_after_s: float | None  # the user tries again from another device; None: never
    traced: bool  # its heartbeats are logged one by one, for the timeline
    params: ClientFault

    @property
    def behaviour(self) -> ClientFault:
        """What is to be done, of the catalogue or the user's own.

        Raises:
            CustomFaultError: the user's own cannot be used.
        """
        return self.params.behaviour


class ScenarioItem(Part):
    """One item of a scenario's `faults` or `incidents`."""

    drawn: ClassVar[type[Any]]  # what `draw` gives

    kind: str
    name: Annotated[
        str | None,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="its name in log and reports; default: its kind"),
    ] = None

    @property
    def label(self) -> str:
        """The name that every log, table and figure uses for it."""
        return self.name or self.kind

    def parameters(self) -> dict[str, Any]:
        """Those keys of its own that what is drawn has under the same name."""
        return {one.name: getattr(self, one.name) for one in fields(self.drawn) if hasattr(self, one.name)}

    @classmethod
    def kind_name(cls) -> str:
        """The only value that its ``kind`` may have; empty for a base class, which allows any."""
        return "".join(get_args(cls.model_fields["kind"].annotation))


class Fault(ScenarioItem):
    """One item of a scenario's `faults`. A subclass adds the keys of its kind, and says what is drawn from them."""

    drawn: ClassVar[type[ClientFault]]
    heals_by: ClassVar[str] = "heal_after"  # the key with the law of the time until its cause is gone

    share: Annotated[Share, Field(gt=0, description="fraction of the clients that it hits")]
    at: Annotated[Law, Field(description="law of its time, counted from the end of the ramp")]

    @property
    def healing(self) -> Distribution | None:
        """Law of the time until its cause is gone; None: never."""
        law: Distribution | None = getattr(self, self.heals_by, None)
        return law

    def draw(self, count: int, reconnect: Reconnect, rng: np.random.Generator) -> Sequence[ClientFault]:
        """Draw the parameters for ``count`` clients: the same for all, but a ``seed`` of its own for each.

        Args:
            count: of the clients that it hits.
            reconnect: what the scenario's clients do when their connection ends.
            rng: of faults' parameters alone; the same draws for the same seed.
        """
        same = self.parameters()
        if any(one.name == "seed" for one in fields(self.drawn)):
            return [self.drawn(**same | {"seed": seed}) for seed in rng.integers(2**31, size=count).tolist()]
        return [self.drawn(**same)] * count


def answer_late(
    client: RealClient,
    fault: PlannedFault,
    after_s: Callable[[float], float],
    over: Callable[[], None] = lambda: None,
) -> None:
    """From now on hold back answers and own heartbeats, until the fault heals or the connection ends.

    Args:
        client: connected.
        fault: logged as in effect; ``heal_after_s`` ends it.
        after_s: from the real time at which one is due to how long it waits, real seconds.
        over: called when the fault heals on the connection that it began on.
    """
    wire = client.wire

    def heal() -> None:
        if client.wire is wire:
            over()
            client.hold_back = None
            client.healed(fault)

    client.hold_back = after_s
    client.took_effect(fault)
    client.expect_recovery(fault)  # one that is thrown out comes back by itself
    if fault.heal_after_s is not None:
        client.after(fault.heal_after_s, heal)
