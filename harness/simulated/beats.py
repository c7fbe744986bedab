"""The heartbeats of one node in the model: asks each connection's detector what is due and does it.

The simulated counterpart of `reference_server/keepalive.py`, with the very detectors that the real gateway drives.
On a loop that takes time a ping waits for its turn, and a deadline that has passed is judged by a second look,
after all that lay in the sockets has been read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.simulated.clock import Alarm, Clock
from harness.simulated.connection import Connection
from harness.simulated.detectors import Detectors
from harness.simulated.loop import Loop
from harness.simulated.network import Network
from harness.simulated.witness import EventLog
from reference_server.events import EventKind
from reference_server.layers import SendErrorDetector, SocketDetector, StateCheckDetector
from reference_server.liveness import Action, LivenessPolicy

__all__ = ["Beats"]

_PINGS = (Action.PING, Action.MISSED_AND_PING)
_LATENESS_EVERY_S = 1.0


class Beats:
    """All heartbeats of a node.

    `on_silent` is called with a connection whose detector has decided, `on_kept` with one whose socket was looked
    at and is open.
    """

    def __init__(
        self, node: str, policy: LivenessPolicy, clock: Clock, network: Network, log: EventLog,
        detectors: Detectors, loop: Loop, on_silent: Callable[[Connection], None],
        on_kept: Callable[[Connection], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._node = node
        self._policy = policy
        self._clock = clock
        self._network = network
        self._log = log
        self._detectors = detectors
        self._foretells = detectors.foretellable and not loop.takes_time
        self._loop = loop
        self._on_silent = on_silent
        self._on_kept = on_kept
        self._runs = True
        if loop.takes_time:
            clock.after(_LATENESS_EVERY_S, self._report_lateness)

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
        connection.queued = True
        now_s = self._clock.now_s
        if now_s < detector.due_s:  # an answer has moved it on
            connection.queued = False
            alarm.set_at(detector.due_s)
        elif detector.awaiting_answer:
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
        """Ask the detector what is due and do it."""
        connection = alarm.owner
        detector = connection.detector
        assert detector is not None
        now_s = self._clock.env.now
        connection.settle(now_s)
        if isinstance(detector, SendErrorDetector | StateCheckDetector):
            self._look_at_socket(alarm, detector, now_s)
            return
        action = detector.on_time(now_s)
        due_s = detector.due_s
        if action is not Action.PING and action is not Action.NOTHING:
            detail = {"failures": detector.failures, "max_failures": self._policy.max_failures}
            self._log.of_connection(EventKind.HEARTBEAT_MISSED, connection, detail=detail)
            if action is Action.SUSPECT:
                self._on_silent(connection)
                return
        if action in _PINGS:
            if connection.traced:
                self._log.of_connection(EventKind.HEARTBEAT_SENT, connection)
            if action is Action.MISSED_AND_PING and self._loop.takes_time:
                self._loop.reserve(self._loop.frame_s())
            if not self._foretells:
                self._network.ping_and_read(connection, now_s)
            elif self._network.ping(connection, now_s, due_s):
                # The answer comes first, so the next thing to do is the next ping; the detector is
                # told of the answer before it is asked again.
                assert self._policy.heartbeat_interval is not None
                due_s = now_s + self._policy.heartbeat_interval
        alarm.set_at(due_s)

    def _look_at_socket(
        self, alarm: Alarm[Connection], detector: SocketDetector, now_s: float
    ) -> None:
        """Write the next heartbeat, or decide by what has become of the socket."""
        connection = alarm.owner
        while now_s >= detector.due_s:
            action = detector.on_time(now_s, connection.lost is None)
            if action is Action.PING:
                if connection.traced:
                    self._log.of_connection(EventKind.HEARTBEAT_SENT, connection)
                self._on_kept(connection)
                if self._foretells:
                    self._network.ping(connection, now_s, detector.due_s)
                else:
                    self._network.ping_and_read(connection, now_s)
            elif detector.failures:
                detail = {"failures": detector.failures, "max_failures": self._policy.max_failures}
                self._log.of_connection(EventKind.HEARTBEAT_MISSED, connection, detail=detail)
            if action is Action.SUSPECT:
                self._on_silent(connection)
                return
        alarm.set_at(detector.due_s)
