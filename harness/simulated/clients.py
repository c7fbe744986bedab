"""Clients in the model: log in, connect, answer, suffer what the plan says, come back.

One object a client. Connecting is a SimPy process; a connected client only reacts.

Where the scenario says so, a client sends a heartbeat every interval by itself and the gateway answers it, and the
user of a dead client tries to log in from another device: how long is that user locked out?

What a planned fault does to a client is in its own file, `scenarios/faults/`.

Every fault logs the moment at which it took effect, not the moment it was planned for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Literal

from simpy import Event

from harness.simulated.connection import Connection
from harness.simulated.gateway import Gateway
from harness.simulated.model import Model
from harness.simulated.nodes import Nodes
from harness.simulated.store import StoreDown
from reference_server.events import Cause, EventKind
from reference_server.liveness.kinds import ClientBeats
from scenarios.faults import PlannedFault
from scenarios.plan import PlannedOutage

__all__ = ["TURNS", "Client"]


# A SYN into a cut is sent again after 1, 3 and 7 s; the client gives up after 10 s.
_SYN_WAITS_S = (1.0, 2.0, 4.0, 3.0)
_HANDSHAKES = 2.0  # round trips before the first message: TCP, WebSocket upgrade
# Turns of the gateway's loop after a connection has been accepted, counted on the reference gateway: 8 to 15 of a
# login, 10 to 16 of a handshake with its authentication. What is awaited there (a frame, an answer of Redis) is taken
# in a later turn, after the others' work.
TURNS = 11

Process = Generator[Event, None, bool]


class Client:
    """One user with one device."""

    def __init__(
        self, index: int, model: Model, nodes: Nodes, first_node: int | None, fault: PlannedFault | None
    ) -> None:
        self.index = index
        self.user_id = f"user-{index}"
        self.logins = 0
        self._clock = model.clock
        self._network = model.network
        self._nodes = nodes
        self._model = model
        self._reconnect = model.scenario.reconnect
        self.traced = fault is not None and fault.traced
        self._first_node = first_node  # of its first connection, where the plan says one
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
        self._kept_end: tuple[Connection, Cause, int | None] | None = None
        self._due: list[PlannedFault] = []

    # -- connecting --------------------------------------------------------------------------------

    def come(self, *, failures: int = 0) -> None:
        """Connect, after a back-off where something failed before."""
        self._clock.env.process(self._come(failures))

    def _come(self, failures: int) -> Generator[Event, None, None]:
        while True:
            if failures:
                yield self._wait(self._reconnect.back_off_s(failures, self._model.back_offs.random()))
            if not self.session_id:
                yield from self._log_in()
            if self.session_id and (yield from self._connect()):
                return
            failures += 1

    def _wait(self, delay_s: float) -> Event:
        return self._clock.env.timeout(delay_s)

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
        session_id, _refusal = yield from self._try_login()
        if session_id is None:
            return False
        self.session_id = session_id
        self._log(EventKind.LOGGED_IN, detail={"client": self.index, "user_id": self.user_id})
        return True

    def _try_login(self) -> Generator[Event, None, tuple[str | None, str]]:
        """Log its user in once; returns the session id or None, and the code of a refusal."""
        one_way_s = self._network.round_trip_s() / 2
        yield self._wait(one_way_s)
        node = self._nodes.pick(self._first_node)
        if node is None:
            yield self._wait(one_way_s)
            return None, "no_gateway"
        if node.loop.takes_time:
            yield from self._be_served(node, "http", 0.0)  # its work is counted in the handshake
        session_id, refusal = None, "already_online"
        try:
            session_id = node.login(self)
        except StoreDown:
            refusal = "store_unavailable"
        yield self._wait(one_way_s)
        return session_id, refusal

    def _login_on_other_device(self, fault: PlannedFault, after_s: float) -> Generator[Event, None, None]:
        """Try ``after_s`` from now and after each refusal again, until a login is accepted; a SimPy process."""
        login = self._reconnect.relogin
        assert login is not None
        began_s = self.now_s
        yield self._wait(after_s)
        while True:
            detail: dict[str, Any] = {"fault_id": fault.fault_id, "user_id": self.user_id, "relogin": True}
            session_id, refusal = yield from self._try_login()
            if session_id is not None:
                detail |= {"client": self.index, "waited_s": self.now_s - began_s}
                self._model.log.write(EventKind.LOGGED_IN, session_id=session_id, detail=detail)
                return
            detail["code"] = refusal
            self._model.log.write(EventKind.LOGIN_REFUSED, detail=detail)
            yield self._wait(login.retry)

    def _connect(self) -> Process:
        if not (yield from self._reach_gateway()):
            return False
        began_s = self._clock.now_s
        round_trip_s = self._network.round_trip_s()
        node = self._nodes.pick(self._first_node)
        if node is None:
            yield self._wait(round_trip_s)  # refused: nobody listens
            return False
        yield self._wait((_HANDSHAKES + 0.5) * round_trip_s)
        if node.loop.takes_time and not (yield from self._wait_for(node)):
            return False
        if not node.accepts:
            return False
        if node.full:
            yield self._wait(round_trip_s / 2)
            return False
        try:
            accepted = node.accept(self, self.session_id)
        except StoreDown:
            yield self._wait(round_trip_s / 2)
            return False
        if accepted is not None:
            # Nothing sent from now on overtakes the answer to the authentication.
            accepted[0].arrival_s = self._clock.now_s + round_trip_s / 2
        yield self._wait(round_trip_s / 2)
        if accepted is None:
            self._log(EventKind.SESSION_UNKNOWN)
            self.session_id = ""
            self.healing = None
            return False
        self._connected(*accepted, began_s)
        return True

    def _wait_for(self, node: Gateway) -> Process:
        """Wait for the node's loop to do the handshake; False: refused, or longer than the client waits.

        The loop does it all the same: it learns too late that nobody waits any more.
        """
        patience_s = self._reconnect.connect_timeout
        served = self._clock.env.process(self._be_served(node, "ws", node.loop.handshake_s()))
        if patience_s is None:
            yield served
        else:
            yield served | self._wait(patience_s)
        return served.processed and bool(served.value)

    def _be_served(self, node: Gateway, port: Literal["ws", "http"], work_s: float) -> Process:
        """Be accepted, and wait for work of which the node's loop does a part in each of some turns; False: refused."""
        accepted = self._clock.env.event()
        node.loop.accept(port, accepted.succeed)
        yield accepted
        if port == "ws" and node.loop.overloaded:
            return False
        for _ in range(TURNS):
            done_s = node.loop.reserve(work_s / TURNS)
            if done_s > self.now_s:
                yield self._wait(done_s - self.now_s)
        return True

    def _connected(self, connection: Connection, resumed: bool, began_s: float) -> None:
        clock, scenario = self._clock, self._model.scenario
        self.connection = connection
        self._first_node = None
        self.answers_after_s = self.loses = None
        connection.packet_s = clock.now_s
        detail = {
            "client": self.index,
            "user_id": self.user_id,
            "resumed": resumed,
            "took_s": clock.now_s - began_s,
        }
        self._log(EventKind.CONNECTED, detail=detail)
        if self.watched:
            users = [f"user-{client}" for client in self.watched]
            clock.after(self._network.round_trip_s() / 2, lambda: connection.gateway.watch(connection, users))
        if self.healing is not None and resumed:
            self._recovered(self.healing)
        interval_s = scenario.liveness.heartbeat_interval
        if isinstance(scenario.detector, ClientBeats) and interval_s is not None:
            first_s = interval_s
            if scenario.liveness.first_ping == "random":
                first_s *= 1 - float(self._model.client_beats.random())
            clock.after(first_s, partial(self._beat, connection, interval_s))
        self._model.middle.begin(connection)
        if self._reconnect.idle_limit is not None:
            self._check_idle(connection, self._reconnect.idle_limit)
        if scenario.traffic.to_gateway is not None:
            burst = scenario.traffic.to_gateway.burst
            clock.after(self._model.to_gateway.next_s(), partial(self._talk, connection, burst))
        due, self._due = self._due, []
        for fault in due:
            fault.behaviour.simulated(self, fault)

    def _beat(self, connection: Connection, interval_s: float) -> None:
        """Send a beat of its own. A frozen client sends none, and goes on at its own grid."""
        if not self._is_on(connection):
            return
        if self.frozen:
            pass
        elif self.answers_after_s is None:
            self._network.beat(connection)
        else:
            self._clock.after(self.answers_after_s(), partial(self._beat_late, connection))
        self._clock.after(interval_s, partial(self._beat, connection, interval_s))

    def _talk(self, connection: Connection, burst: int) -> None:
        """Send a burst of application data."""
        if not self._is_on(connection):
            return
        if not self.frozen:
            for _ in range(burst):
                self._network.data(connection, partial(connection.gateway.on_data, connection))
        self._clock.after(self._model.to_gateway.next_s(), partial(self._talk, connection, burst))

    def _beat_late(self, connection: Connection) -> None:
        if self._is_on(connection) and not self.frozen:
            self._network.beat(connection)

    # -- connected ---------------------------------------------------------------------------------

    def _is_on(self, connection: Connection) -> bool:
        return connection is self.connection and self.alive

    def on_ping(self, connection: Connection, one_way_s: float) -> None:
        """A ping is here; its answer takes this long back."""
        if not self._is_on(connection):
            return
        if self.frozen:
            self._kept_pings.append((connection, one_way_s))
            return
        if self.answers_after_s is None:
            self._answer(connection, one_way_s)
            return
        self._clock.after(self.answers_after_s(), lambda: self._answer_late(connection, one_way_s))

    def _answer_late(self, connection: Connection, one_way_s: float) -> None:
        if self._is_on(connection):
            self._network.answer(connection, one_way_s)

    def _answer(self, connection: Connection, one_way_s: float) -> None:
        self._network.answer(connection, one_way_s)
        if self.traced:
            self._log(EventKind.HEARTBEAT_ANSWERED)
        self._heard(connection)

    def on_pong(self, connection: Connection) -> None:
        """The answer to a beat of its own is here."""
        if self._is_on(connection) and not self.frozen and self.answers_after_s is None:
            self._heard(connection)  # else its fault is still there

    def _heard(self, connection: Connection) -> None:
        """It is back, unless what it hears is of a connection that the gateway has ended: then a FIN is next."""
        fault = self.healing

        def still_stands() -> None:
            if fault is not None and self._is_on(connection) and self.healing is fault:
                self._recovered(fault)

        if fault is not None:
            self._clock.after(0.0, still_stands)

    def on_end(self, connection: Connection, cause: Cause, code: int | None = None) -> None:
        """The connection's end is here: a close frame with this code, FIN, RST, or its kernel's give-up."""
        if not self._is_on(connection):
            return
        if self.frozen:
            self._kept_end = (connection, cause, code)
            return
        self._disconnected(cause, code)

    def _disconnected(self, cause: Cause, code: int | None = None) -> None:
        self._log(EventKind.DISCONNECTED, cause=cause, detail={"code": code})
        self.connection = None
        self.come(failures=1)

    def _check_idle(self, connection: Connection, limit_s: float) -> None:
        """Leave a connection on which nothing came for the limit: it may be half-open."""
        if not self._is_on(connection):
            return
        clock = self._clock
        idle_s = connection.last_packet_s(clock.now_s) + limit_s
        if self.frozen:
            idle_s = clock.now_s + limit_s  # its timers do not run
        if clock.now_s < idle_s:
            clock.at(idle_s, lambda: self._check_idle(connection, limit_s))
            return
        self._network.cancel_predicted(connection)
        self._network.end_by_client(connection, Cause.TCP_FIN)
        self._disconnected(Cause.CLIENT_LIMIT)

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
        return self._clock.now_s

    def after(self, delay_s: float, step: Callable[[], None]) -> None:
        """Do something this much later."""
        self._clock.after(delay_s, step)

    def disturb(self) -> None:
        """Something is about to happen to the client or its way: nothing is predicted any more."""
        if self.connection is not None:
            self._network.cancel_predicted(self.connection)

    def leave(self, says: Cause | None = None) -> None:
        """The client is not on its connection any more; the gateway hears this of it, one way later."""
        connection = self.connection
        self.disturb()
        self.connection = None
        if says is not None and connection is not None:
            self._network.end_by_client(connection, says)

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
            self._network.healed(self.connection)

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
        """It reads no more, with the answers to what it has just asked before it: its request is data."""
        self.freeze()
        connection = self.connection
        if connection is not None:
            self._network.data(connection, partial(connection.gateway.on_data, connection))
            self._network.window_closes(connection)

    def forget_when_idle(self, idle_s: float, expiry: str, forgotten: Callable[[], None]) -> None:
        """A middlebox forgets its connection once that had no packet for ``idle_s``; the next one makes a mapping."""
        armed_s = self.now_s
        connection, clock = self.connection, self._clock
        assert connection is not None

        def check() -> None:
            if self.connection is not connection or not connection.open:
                return
            packet_s = connection.last_packet_s(clock.now_s)
            # Without a mapping yet, the next packet is still to come: no expiry before idle_s from now.
            expires_s = packet_s + idle_s if packet_s > armed_s else clock.now_s + idle_s
            if clock.now_s < expires_s:
                clock.at(expires_s, check)
                return
            forgotten()
            self.disturb()
            connection.forget(expiry)

        clock.after(idle_s, check)

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
        self._clock.after(outage.length_s, self._outage_ends)

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
        self._model.store_watch.watch(self.session_id, self.user_id)
        if fault.relogin_after_s is not None:
            self._clock.env.process(self._login_on_other_device(fault, fault.relogin_after_s))

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
        self._model.store_watch.forget(self.session_id)

    def _log(self, kind: EventKind, *, cause: str = "", detail: dict[str, Any] | None = None) -> None:
        if self.connection is not None:
            self._model.log.of_connection(kind, self.connection, cause, detail)
        else:
            self._model.log.write(kind, session_id=self.session_id, cause=cause, detail=detail)
