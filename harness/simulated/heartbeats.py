"""What a simulated node does by the clock: heartbeats, the sweep for idle sessions, the kernel's probes.

From connections and their detectors to pings, failures, suspicions and ends; whoever is called acts on them.

* `Beats`: counterpart of `reference_server/heartbeat/scheduler.py`. It drives the same `Detector` objects through
  the same verbs. On a loop that takes time a ping waits for its turn, and a judgement waits until all that lay
  in the sockets has been read, as there.
* `IdleSweep`, `MemoryPressure`: they look at a connection only when it can matter, and decide what looking at all
  of them would.
* `KernelProbes`: TCP keepalive, from a connection's last segment to `TCP_TIMEOUT`. While data is in flight nothing
  is probed (Linux `tcp_keepalive_timer`); a frozen client's kernel answers.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from harness.simulated.clock import Alarm, Clock
from harness.simulated.connection import NEVER_S, Connection
from harness.simulated.event_loop import Loop
from harness.simulated.model import Model
from reference_server.events import Cause, EventKind
from reference_server.liveness.detector import Action
from reference_server.liveness.heartbeat_policy import TcpKeepalive
from reference_server.liveness.kinds import Detectors, Ping, SendErrors, StateCheck

__all__ = ["Beats", "IdleSweep", "KernelProbes", "MemoryPressure"]

_LATENESS_EVERY_S = 1.0


class Beats:
    """All heartbeats of a node.

    Args:
        node: its name.
        model: its policy and detector, and what it shares with the other nodes.
        loop: the node's event loop.
        on_suspected: called with a connection whose detector has decided.
        on_ping: called with one that is about to be pinged; None: nobody wants to know.
    """

    def __init__(
        self,
        node: str,
        model: Model,
        loop: Loop,
        *,
        on_suspected: Callable[[Connection], None],
        on_ping: Callable[[Connection], None] | None = None,
    ) -> None:
        kind = model.scenario.detector
        self._node = node
        self._policy = model.scenario.liveness
        self._clock = model.clock
        self._network = model.network
        self._log = model.log
        self._detectors = Detectors(kind, self._policy, model.phases)
        # These ping every T whatever is answered, so an exchange can be predicted.
        self._predicts = isinstance(kind, Ping | SendErrors | StateCheck) and not loop.takes_time
        # On an idle loop such a ping is sent when its service time is over, whatever happens elsewhere.
        self._sends_ahead = isinstance(kind, Ping) and on_ping is None and loop.takes_time
        self._loop = loop
        self._on_suspected = on_suspected
        self._on_ping = on_ping
        self._runs = True
        if loop.takes_time:
            self._clock.after(_LATENESS_EVERY_S, self._report_lateness)

    def stop(self) -> None:
        """The node is gone: report nothing more. Its connections' alarms are theirs to cancel."""
        self._runs = False

    def start(self, connection: Connection) -> None:
        """Begin the heartbeat of a new connection."""
        detector = self._detectors.new(connection.client.index, self._clock.now_s)
        if detector is not None:
            connection.detector = detector
            connection.alarm = Alarm(self._clock, self._ring, connection)
            connection.alarm.set_at(detector.due_s)

    def due_earlier(self, connection: Connection) -> None:
        """The detector is due before the moment that the connection's alarm waits for."""
        if connection.queued:
            return  # it has rung already, and will be set again when its turn is over
        if connection.open and connection.detector is not None and connection.alarm is not None:
            connection.alarm.cancel()
            connection.alarm_unset = False
            connection.alarm = Alarm(self._clock, self._ring, connection)
            connection.alarm.set_at(connection.detector.due_s)

    @property
    def _ring(self) -> Callable[[Alarm[Connection]], None]:
        return self._queue if self._loop.takes_time else self._beat

    def _queue(self, alarm: Alarm[Connection]) -> None:
        """Something is due: a deadline is looked at twice, a ping waits for its turn."""
        connection = alarm.owner
        detector = connection.detector
        assert detector is not None
        now_s = self._clock.env.now
        if connection.answer_s <= now_s:
            connection.apply_due_answer(now_s)
        if now_s < detector.due_s:  # an answer has moved it on
            alarm.set_at(detector.due_s)
            return
        if (
            self._sends_ahead
            and self._loop.idle
            and not detector.awaiting_answer
            and connection.answer_s == NEVER_S
            and connection.undisturbed
        ):
            sent_s = self._loop.reserve(self._loop.frame_s())
            self._loop.lateness.add(sent_s - detector.due_s)
            detector.on_time(sent_s)
            if not self._network.exchange(connection, sent_s, detector.due_s):
                alarm.set_at(detector.due_s)
            return
        connection.queued = True
        if detector.awaiting_answer:
            self._loop.after_reading(partial(self._take_turn, alarm))
        else:
            send = partial(self._take_turn, alarm, due_s=detector.due_s)
            self._loop.submit(self._loop.frame_s(), send)

    def _take_turn(self, alarm: Alarm[Connection], due_s: float | None = None) -> None:
        """Judge a deadline, or send a ping that was due at ``due_s``."""
        connection = alarm.owner
        connection.queued = False
        if not connection.open:
            return
        detector = connection.detector
        assert detector is not None
        if detector.awaiting_answer == (due_s is not None):
            # Frames that were read meanwhile have changed what is due: it waits for a turn of its own.
            alarm.set_at(detector.due_s)
            return
        if due_s is not None:
            self._loop.lateness.add(self._clock.now_s - due_s)
        self._beat(alarm)

    def _report_lateness(self) -> None:
        if self._runs:
            late = self._loop.lateness.take()
            if late is not None:
                self._log.write(EventKind.HEARTBEAT_LATENESS, node=self._node, detail=late)
            self._clock.after(_LATENESS_EVERY_S, self._report_lateness)

    def _beat(self, alarm: Alarm[Connection]) -> None:
        """Do what the detector wants done by now."""
        connection = alarm.owner
        detector = connection.detector
        assert detector is not None
        now_s = self._clock.env.now
        connection.apply_due_answer(now_s)
        action = Action.MISSED
        while action is Action.MISSED and now_s >= detector.due_s:
            action = detector.on_time(now_s)
            if action is not Action.PING and action is not Action.NOTHING and detector.failures:
                detail = {"failures": detector.failures, "max_failures": self._policy.max_failures}
                self._log.of_connection(EventKind.HEARTBEAT_MISSED, connection, detail=detail)
        if action is Action.SUSPECT:
            self._on_suspected(connection)
            return
        due_s = detector.due_s
        if action is Action.PING or action is Action.MISSED_AND_PING:
            if connection.traced:
                self._log.of_connection(EventKind.HEARTBEAT_SENT, connection)
            if self._on_ping is not None:
                self._on_ping(connection)
            if action is Action.MISSED_AND_PING and self._loop.takes_time:
                self._loop.reserve(self._loop.frame_s())
            if not self._predicts:
                if self._network.ping_and_read(connection, due_s):
                    return
            elif self._network.ping(connection, now_s, due_s):
                # The answer comes first, so the next thing to do is the next ping; the detector is
                # told of the answer before it is asked again.
                due_s = now_s + self._policy.interval_s
        alarm.set_at(due_s)


class IdleSweep:
    """Finds, every interval, the connections on which no frame came for the limit. Scenario seconds."""

    def __init__(
        self,
        clock: Clock,
        limit_s: float,
        interval_s: float,
        phase_s: float,
        on_idle: Callable[[Connection], None],
    ) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._interval_s = interval_s
        self._phase_s = phase_s
        self._on_idle = on_idle
        self._due: dict[int, list[Connection]] = defaultdict(list)  # by sweep
        clock.at(phase_s, lambda: self._sweep(0))

    def add(self, connection: Connection) -> None:
        """Look at a connection in the first sweep by which it can have been idle for the limit."""
        self._due[self._first_sweep(connection)].append(connection)

    def _first_sweep(self, connection: Connection) -> int:
        idle_s = connection.heard_s + self._limit_s
        return math.ceil((idle_s - self._phase_s) / self._interval_s)

    def _sweep(self, number: int) -> None:
        for connection in self._due.pop(number, ()):
            if connection.open:
                connection.apply_due_answer(self._clock.now_s)
                if self._first_sweep(connection) <= number:
                    self._on_idle(connection)  # which may take it in again
                else:
                    self.add(connection)
        next_s = self._phase_s + (number + 1) * self._interval_s
        self._clock.at(next_s, lambda: self._sweep(number + 1))


class MemoryPressure:
    """Names the connection to go when there are more than `max_sessions`: the one idle for longest."""

    def __init__(self, clock: Clock, max_sessions: int, on_pressure: Callable[[Connection], None]) -> None:
        self._clock = clock
        self._max_sessions = max_sessions
        self._on_pressure = on_pressure
        # With what was known when it was put here; heard of since then, it goes back to its place.
        self._idle: list[tuple[float, int, Connection]] = []

    def add(self, connection: Connection, number: int, connections: int) -> None:
        """Take a new connection, the gateway's ``number``-th, into account; ``connections`` are open now."""
        heapq.heappush(self._idle, (connection.heard_s, number, connection))
        excess = connections - self._max_sessions
        while excess > 0:
            heard_s, number, oldest = heapq.heappop(self._idle)
            oldest.apply_due_answer(self._clock.now_s)
            if oldest.heard_s > heard_s:
                heapq.heappush(self._idle, (oldest.heard_s, number, oldest))
            elif oldest.open:
                excess -= 1
                self._on_pressure(oldest)


class KernelProbes:
    """The probes of all connections of a gateway's node. Scenario seconds."""

    def __init__(self, clock: Clock, keepalive: TcpKeepalive) -> None:
        self._clock = clock
        self._idle_s = keepalive.idle
        self._interval_s = keepalive.interval
        self._count = keepalive.count

    def start(self, connection: Connection) -> None:
        """Probe a connection whenever it is idle."""
        self._clock.after(self._idle_s, partial(self._look, connection, self._clock.now_s, 0))

    def _look(self, connection: Connection, answered_s: float, unanswered: int) -> None:
        """Probe, or wait until it is idle; ``answered_s``: when the peer's kernel was last heard of."""
        if not connection.open or connection.lost is not None:
            return
        now_s = self._clock.now_s
        connection.apply_due_answer(now_s)
        if connection.unacked_since_s is not None:  # the retransmission timer is in charge
            self._clock.after(self._idle_s, partial(self._look, connection, answered_s, 0))
            return
        heard_s = max(answered_s, connection.heard_s)
        if unanswered == 0 and now_s < heard_s + self._idle_s:
            self._clock.at(heard_s + self._idle_s, partial(self._look, connection, heard_s, 0))
        elif unanswered == self._count:
            connection.gateway.on_end(connection, Cause.TCP_TIMEOUT)
        elif connection.nat_resets and connection.client.way_open:
            connection.gateway.on_end(connection, Cause.TCP_RESET)
        elif connection.passes:
            connection.packet_s = now_s
            if connection.box is not None and connection.box.probes:
                connection.seen_s = now_s
            self._clock.after(self._idle_s, partial(self._look, connection, now_s, 0))
        else:
            again = partial(self._look, connection, answered_s, unanswered + 1)
            self._clock.after(self._interval_s, again)
