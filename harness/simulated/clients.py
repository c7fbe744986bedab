"""Clients in the model: log in, connect, answer, suffer what the plan says, come back.

One object a client. Connecting is a SimPy process; a connected client only reacts.

Clients that beat by themselves: each sends a frame every interval, the gateway answers it.

From connections to frames at the gateway and pongs back. A client that is frozen or cut off sends nothing, and
goes on at the next moment of its own grid. TCP's retransmission of what a cut swallowed is left out: a beat that
is sent into a cut that nobody has noticed yet is lost.

Logins. The user of a dead client tries one from another device: how long is that user locked out?

What a planned fault does to a client is in its own file, `scenarios/faults/`.

Every fault logs the moment at which it took effect, not the moment it was planned for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from simpy import Event

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from harness.simulated.event_writer import EventLog, StoreWatch
from harness.simulated.gateway import Gateway
from harness.simulated.network import Network, forget_when_idle
from harness.simulated.nodes import Nodes
from harness.simulated.store import StoreDown
from reference_server.events import Cause, EventKind
from scenarios.client_rules import Reconnect
from scenarios.faults import PlannedFault
from scenarios.network import Nat
from scenarios.plan import PlannedOutage

__all__ = ["Client", "ClientBeating", "Surroundings", "log_in", "log_in_elsewhere"]


class ClientBeating:
    """The beats of all clients.

    Args:
        clock: simulated time.
        network: carries them.
        interval_s: from one beat of a client to its next.
        phases: draws of the time to a connection's first beat.
    """

    def __init__(
        self, clock: Clock, network: Network, interval_s: float, phases: np.random.Generator
    ) -> None:
        self._clock = clock
        self._network = network
        self._interval_s = interval_s
        self._phases = phases

    def start(self, connection: Connection) -> None:
        """Begin on a new connection, at a uniformly random phase."""
        first_s = self._interval_s * (1 - float(self._phases.random()))
        self._clock.after(first_s, partial(self._beat, connection))

    def _beat(self, connection: Connection) -> None:
        client = connection.client
        if client.connection is not connection or not client.alive:
            return
        if not client.frozen and connection.nat_resets:
            self._network.meets_reset(connection)
        elif not client.frozen and connection.passes:
            self._network.beat(connection)
        self._clock.after(self._interval_s, partial(self._beat, connection))


# A SYN into a cut is sent again after 1, 3 and 7 s; the client gives up after 10 s.
_SYN_WAITS_S = (1.0, 2.0, 4.0, 3.0)
_HANDSHAKES = 2.0  # round trips before the first message: TCP, WebSocket upgrade

Process = Generator[Event, None, bool]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all clients share."""

    clock: Clock
    network: Network
    nodes: Nodes
    nat: Nat | None
    log: EventLog
    store_watch: StoreWatch
    reconnect: Reconnect
    back_offs: np.random.Generator
    beating: ClientBeating | None = None  # clients that beat by themselves


class Client:
    """One user with one device."""

    def __init__(self, index: int, around: Surroundings, fault: PlannedFault | None) -> None:
        self.index = index
        self.user_id = f"user-{index}"
        self.around = around
        self.fault = fault
        self.traced = fault is not None and fault.traced
        self.home: int | None = None  # the node of its first connection, where the plan says one
        self.watched: tuple[int, ...] = ()
        self.session_id = ""
        self.connection: Connection | None = None
        self.alive = True  # its process runs, or will again
        self.way_open = True
        self.frozen = False
        self.answers_after_s: Callable[[], float] | None = None  # its answers wait so long
        self.loses: Callable[[], bool] | None = None  # whether the next packet to it gets lost
        self.healing: PlannedFault | None = None  # over, but not yet known to be survived
        self._kept_pings: list[tuple[Connection, float]] = []  # by the kernel of a frozen process
        self._kept_end: tuple[Connection, int | None] | None = None
        self._due: list[PlannedFault] = []

    # -- connecting --------------------------------------------------------------------------------

    def come(self, *, failures: int = 0) -> None:
        """Connect, after a back-off where something failed before."""
        self.around.clock.env.process(self._come(failures))

    def _come(self, failures: int) -> Generator[Event, None, None]:
        while True:
            if failures:
                yield self._wait(self._back_off_s(failures))
            if not self.session_id:
                yield from self._log_in()
            if self.session_id and (yield from self._connect()):
                return
            failures += 1

    def _wait(self, delay_s: float) -> Event:
        return self.around.clock.env.timeout(delay_s)

    def _back_off_s(self, failures: int) -> float:
        ceiling_s = self.around.reconnect.back_off_ceiling_s(failures)
        return float(self.around.back_offs.uniform(0, ceiling_s))

    def _reach_gateway(self) -> Process:
        """Get through to the gateway; False if no SYN did before the client gave up."""
        for wait_s in _SYN_WAITS_S:
            if self.way_open:
                return True
            yield self._wait(wait_s)
        return False

    def _log_in(self) -> Process:
        if not (yield from self._reach_gateway()):
            return False
        session_id, _refusal = yield from log_in(self, self.around)
        if session_id is None:
            return False
        self.session_id = session_id
        self._log(EventKind.LOGGED_IN, detail={"client": self.index, "user_id": self.user_id})
        return True

    def _connect(self) -> Process:
        if not (yield from self._reach_gateway()):
            return False
        began_s = self.around.clock.now_s
        round_trip_s = self.around.network.round_trip_s()
        node = self.around.nodes.pick(self.home)
        if node is None:
            yield self._wait(round_trip_s)  # refused: nobody listens
            return False
        yield self._wait((_HANDSHAKES + 0.5) * round_trip_s)
        if node.loop.takes_time and not (yield from self._wait_for(node)):
            return False
        if not node.alive:
            return False
        try:
            accepted = node.accept(self, self.session_id)
        except StoreDown:
            yield self._wait(round_trip_s / 2)
            return False
        if accepted is not None:
            # Nothing sent from now on overtakes the answer to the authentication.
            accepted[0].arrival_s = self.around.clock.now_s + round_trip_s / 2
        yield self._wait(round_trip_s / 2)
        if accepted is None:
            self._log(EventKind.SESSION_UNKNOWN)
            self.session_id = ""
            self.healing = None
            return False
        self._connected(*accepted, began_s)
        return True

    def _wait_for(self, node: Gateway) -> Process:
        """Wait for the node's loop to do the handshake; False where that takes longer than the client waits.

        The loop does it all the same: it learns too late that nobody waits any more.
        """
        wait_s = node.loop.reserve(node.loop.handshake_s()) - self.around.clock.now_s
        patience_s = self.around.reconnect.connect_timeout
        in_time = patience_s is None or wait_s <= patience_s
        yield self._wait(wait_s if patience_s is None else min(wait_s, patience_s))
        return in_time

    def _connected(self, connection: Connection, resumed: bool, began_s: float) -> None:
        around = self.around
        self.connection = connection
        self.home = None
        self.answers_after_s = self.loses = None
        connection.packet_s = around.clock.now_s
        detail = {
            "client": self.index,
            "user_id": self.user_id,
            "resumed": resumed,
            "took_s": around.clock.now_s - began_s,
        }
        around.log.of_connection(EventKind.CONNECTED, connection, detail=detail)
        if self.watched:
            users = [f"user-{client}" for client in self.watched]
            around.clock.after(
                around.network.round_trip_s() / 2, lambda: connection.gateway.watch(connection, users)
            )
        if self.healing is not None and resumed:
            self._recovered(self.healing)
        if around.beating is not None:
            around.beating.start(connection)
        if around.nat is not None:
            nat = around.nat
            self._forget_when_idle(nat.idle_timeout, nat.expiry, lambda: None, since_s=-1.0)
        if around.reconnect.idle_limit is not None:
            self._check_idle(connection, around.reconnect.idle_limit)
        due, self._due = self._due, []
        for fault in due:
            fault.behaviour.simulated(self, fault)

    # -- connected ---------------------------------------------------------------------------------

    def on_ping(self, connection: Connection, one_way_s: float) -> None:
        """A ping is here; its answer takes this long back."""
        if connection is not self.connection or not self.alive:
            return
        if self.frozen:
            self._kept_pings.append((connection, one_way_s))
            return
        if self.answers_after_s is None:
            self._answer(connection, one_way_s)
            return
        self.around.clock.after(self.answers_after_s(), lambda: self._answer_late(connection, one_way_s))

    def _answer_late(self, connection: Connection, one_way_s: float) -> None:
        if connection is self.connection and self.alive:
            self.around.network.answer(connection, one_way_s)

    def _answer(self, connection: Connection, one_way_s: float) -> None:
        self.around.network.answer(connection, one_way_s)
        if self.traced:
            self._log(EventKind.HEARTBEAT_ANSWERED)
        self._heard(connection)

    def on_pong(self, connection: Connection) -> None:
        """The answer to a beat of its own is here."""
        if connection is self.connection and self.alive and not self.frozen:
            self._heard(connection)

    def _heard(self, connection: Connection) -> None:
        """It is back, unless what it hears is of a connection that the gateway has ended: then a FIN is next."""
        fault = self.healing
        if fault is not None:
            self.around.clock.after(0.0, lambda: self._stands(connection, fault))

    def _stands(self, connection: Connection, fault: PlannedFault) -> None:
        if connection is self.connection and self.alive and self.healing is fault:
            self._recovered(fault)

    def on_end(self, connection: Connection, code: int | None) -> None:
        """The gateway ended the connection: by a close frame with this code, or by a bare FIN."""
        if connection is not self.connection or not self.alive:
            return
        if self.frozen:
            self._kept_end = (connection, code)
            return
        self._disconnected(Cause.TCP_FIN if code is None else Cause.CLOSE_FRAME, code)

    def _disconnected(self, cause: Cause, code: int | None = None) -> None:
        self._log(EventKind.DISCONNECTED, cause=cause, detail={"code": code})
        self.connection = None
        self.come(failures=1)

    def _check_idle(self, connection: Connection, limit_s: float) -> None:
        """Leave a connection on which nothing came for the limit: it may be half-open."""
        if connection is not self.connection or not self.alive:
            return
        clock = self.around.clock
        idle_s = connection.last_packet_s(clock.now_s) + limit_s
        if self.frozen:
            idle_s = clock.now_s + limit_s  # its timers do not run
        if clock.now_s < idle_s:
            clock.at(idle_s, lambda: self._check_idle(connection, limit_s))
            return
        self.around.network.recall(connection)
        self.around.network.end_by_client(connection, Cause.TCP_FIN)
        self._disconnected(Cause.SESSION_TIMEOUT)

    # -- what injectors use ------------------------------------------------------------------------

    def suffer(self, fault: PlannedFault) -> None:
        """It is time for the planned fault; a client that is not connected suffers it when it is again."""
        if self.connection is None:
            self._due.append(fault)
        else:
            fault.behaviour.simulated(self, fault)

    @property
    def now_s(self) -> float:
        """Scenario seconds from the run's origin."""
        return self.around.clock.now_s

    def after(self, delay_s: float, step: Callable[[], None]) -> None:
        """Do something this much later."""
        self.around.clock.after(delay_s, step)

    def disturb(self) -> None:
        """Something is about to happen to the client or its way: nothing is foretold any more."""
        if self.connection is not None:
            self.around.network.recall(self.connection)

    def leave(self, says: Cause | None = None) -> None:
        """The client is not on its connection any more; the gateway hears this of it, one way later."""
        connection = self.connection
        self.disturb()
        self.connection = None
        if says is not None and connection is not None:
            self.around.network.end_by_client(connection, says)

    def die(self, says: Cause | None = None) -> None:
        """The client's process ends for good."""
        self.leave(says)
        self.alive = False

    def cut(self) -> None:
        """Its way is cut in both directions."""
        self.disturb()
        self.way_open = False

    def mend(self) -> None:
        """Its way is open again."""
        self.way_open = True
        if self.connection is not None:
            self.around.network.healed(self.connection)

    def answer_late(self, after_s: Callable[[], float], fault: PlannedFault) -> None:
        """From now on its answers wait, for as long as `after_s` says at each ping; a new connection ends that."""
        self.disturb()
        self.answers_after_s = after_s
        self.healing = fault

    def answer_at_once(self, fault: PlannedFault) -> None:
        """Its answers do not wait any more."""
        if self.answers_after_s is not None:
            self.answers_after_s = None
            self.healed(fault)

    def lose(self, loses: Callable[[], bool], fault: PlannedFault) -> None:
        """From now on packets to it get lost, as `loses` says of each; a new connection ends that."""
        self.answer_late(lambda: 0.0, fault)
        self.loses = loses

    def lose_nothing(self, fault: PlannedFault) -> None:
        """What got lost so far comes with TCP's next try."""
        if self.loses is not None:
            self.loses = None
            self.answer_at_once(fault)
            self.mend()

    def freeze(self) -> None:
        """Its process stops; its kernel goes on."""
        self.disturb()
        self.frozen = True

    def shut_window(self) -> None:
        """It reads no more, with data before it."""
        self.freeze()
        if self.connection is not None:
            self.around.network.window_closes(self.connection)

    def forget_when_idle(self, idle_s: float, expiry: str, forgotten: Callable[[], None]) -> None:
        """A middlebox forgets its connection once that had no packet for ``idle_s``."""
        self._forget_when_idle(idle_s, expiry, forgotten, since_s=self.now_s)

    def _forget_when_idle(
        self, idle_s: float, expiry: str, forgotten: Callable[[], None], since_s: float
    ) -> None:
        connection = self.connection
        assert connection is not None

        def expired() -> None:
            forgotten()
            self.disturb()
            connection.forget(expiry)

        forget_when_idle(self.around.clock, connection, idle_s, since_s, expired)

    def thaw(self) -> None:
        """Its process goes on: what its kernel has kept comes first."""
        self.frozen = False
        pings, self._kept_pings = self._kept_pings, []
        end, self._kept_end = self._kept_end, None
        if end is not None and end[0] is self.connection:
            self.on_end(*end)
            return
        for connection, one_way_s in pings:
            self.on_ping(connection, one_way_s)

    def outage(self, outage: PlannedOutage) -> None:
        """A healthy client's way is cut for a while."""
        self.cut()
        self._log(EventKind.OUTAGE_STARTED, detail={"client": self.index})
        self.around.clock.after(outage.length_s, self._outage_ends)

    def _outage_ends(self) -> None:
        self._log(EventKind.OUTAGE_ENDED, detail={"client": self.index})
        self.mend()

    def took_effect(self, fault: PlannedFault, *, scheduled_s: float | None = None) -> None:
        """Log that a fault took effect now; start the user's attempts to log in again.

        ``scheduled_s``: when it was to, where that is not the plan's moment.
        """
        detail = {
            "fault_id": fault.fault_id,
            "fault": fault.fault,
            "kind": fault.kind,
            "client": self.index,
            "user_id": self.user_id,
            "mechanism": "model",
            "scheduled_s": fault.at_s if scheduled_s is None else scheduled_s,
        }
        self._log(EventKind.FAULT_INJECTED, detail=detail)
        self.around.store_watch.watch(self.session_id, self.user_id)
        if fault.relogin_after_s is not None:
            self.around.clock.env.process(log_in_elsewhere(self, fault, fault.relogin_after_s))

    def healed(self, fault: PlannedFault) -> None:
        """Log that a fault's cause is gone; whether the session survived shows later."""
        self._log(EventKind.FAULT_HEALED, detail={"fault_id": fault.fault_id})
        self.healing = fault

    def expect_recovery(self, fault: PlannedFault) -> None:
        """The client tries to come back to its session: log the recovery when it has."""
        self.healing = fault

    def _recovered(self, fault: PlannedFault) -> None:
        self.healing = None
        self._log(EventKind.FAULT_RECOVERED, detail={"fault_id": fault.fault_id, "user_id": self.user_id})
        self.around.store_watch.forget(self.session_id)

    def _log(self, kind: EventKind, *, cause: str = "", detail: dict[str, Any] | None = None) -> None:
        if self.connection is not None:
            self.around.log.of_connection(kind, self.connection, cause, detail)
        else:
            self.around.log.write(kind, session_id=self.session_id, cause=cause, detail=detail)


def log_in(client: Client, around: Surroundings) -> Generator[Event, None, tuple[str | None, str]]:
    """Log a client's user in once; returns the session id or None, and the code of a refusal."""
    wait = around.clock.env.timeout
    one_way_s = around.network.round_trip_s() / 2
    yield wait(one_way_s)
    node = around.nodes.pick(client.home)
    if node is None:
        yield wait(one_way_s)
        return None, "no_gateway"
    if node.loop.takes_time:
        # It waits for the loop; its work there is counted in the handshake.
        yield wait(node.loop.reserve(0.0) - around.clock.now_s)
    session_id, refusal = None, "already_online"
    try:
        session_id = node.login(client)
    except StoreDown:
        refusal = "store_unavailable"
    yield wait(one_way_s)
    return session_id, refusal


def log_in_elsewhere(client: Client, fault: PlannedFault, after_s: float) -> Generator[Event, None, None]:
    """Try ``after_s`` from now and after each refusal again, until a login is accepted; a SimPy process."""
    around, relogin = client.around, client.around.reconnect.relogin
    assert relogin is not None
    wait = around.clock.env.timeout
    began_s = around.clock.now_s
    yield wait(after_s)
    while True:
        detail: dict[str, Any] = {"fault_id": fault.fault_id, "user_id": client.user_id, "relogin": True}
        session_id, refusal = yield from log_in(client, around)
        if session_id is not None:
            detail |= {"client": client.index, "waited_s": around.clock.now_s - began_s}
            around.log.write(EventKind.LOGGED_IN, session_id=session_id, detail=detail)
            return
        detail["code"] = refusal
        around.log.write(EventKind.LOGIN_REFUSED, detail=detail)
        yield wait(relogin.retry)
