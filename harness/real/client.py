"""The life of one client: log in, connect, answer heartbeats, suffer what the plan says, come back.

One greenlet a client; what a fault does to it is in `injectors.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import gevent
import orjson
from websockets.exceptions import InvalidHandshake
from websockets.frames import Opcode

from harness.faults import PlannedFault
from harness.real.behind_nat import BehindNat
from harness.real.blackhole import attach, detach
from harness.real.generator import Generator, LoginRefused, LoginUnavailable
from harness.real.injectors import ClientGone, PageReloaded, inject
from harness.real.wire import ConnectionEnded, Wire
from reference_server.events import Cause, EventKind

__all__ = ["Client"]

HEARTBEAT = b'{"type":"heartbeat"}'
PONG = b'{"type":"pong"}'
_HANDSHAKE_TIMEOUT_S = 10.0
_OWN_ROUND_TRIP_S = 0.002  # what loopback and two event loops take themselves; only more is added


class SessionUnknown(Exception):
    """The gateway does not know the session any more."""


class Client:
    """One user with one device. `run` returns when its part in the plan is over."""

    def __init__(self, index: int, generator: Generator, on_request: Callable[..., None]) -> None:
        self.index = index
        self.user_id = f"user-{index}"
        self.g = generator
        self.fault: PlannedFault | None = generator.faults.get(index)
        self.session_id = ""
        self.connection_id = ""
        self.wire: Wire | None = None
        self._home: int | None = generator.plan.home(index)  # None once it has been connected
        self.last_packet_s = 0.0
        self.behind: BehindNat | None = generator.nats.get(index)  # a real NAT of the run's network
        self.deaf = False  # its process reads nothing: frozen, or nothing can arrive
        self.on_heartbeat: Callable[[], None] | None = (
            None  # instead of answering: a NAT that resets
        )
        self.after_answer: Callable[[], None] | None = None  # of each heartbeat
        self._on_request = on_request
        self._steps: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()
        self._healing: PlannedFault | None = None

    # -- the life ------------------------------------------------------------------------------

    def run(self) -> None:
        """Live until the horizon, or until a fault has ended this client."""
        g = self.g
        gevent.sleep(max(0.0, g.at_s(g.plan.connect_at_s(self.index)) - g.now_s()))
        if self.fault is not None:
            fault = self.fault
            self.at(g.at_s(fault.at_s), lambda: inject(self, fault))
        for outage in g.outages.get(self.index, ()):
            start_s = g.at_s(outage.at_s)
            self.at(start_s, self._outage_starts)
            self.at(start_s + outage.length_s / g.scenario.speedup, self._outage_ends)
        failures = 0
        while g.now_s() < g.horizon_s:
            try:
                if not self.session_id:
                    self._login()
                self._connect()
                failures = 0
                self._live()
            except ClientGone:
                return
            except PageReloaded as reload:
                gevent.sleep(min(reload.after_s, max(0.0, g.horizon_s - g.now_s())))
                continue
            except ConnectionEnded as end:
                self._log(EventKind.DISCONNECTED, cause=end.cause, detail={"code": end.code})
                self.drop_wire()
            except SessionUnknown:
                self._log(EventKind.SESSION_UNKNOWN)
                self.session_id = ""
                self._healing = None
            except (LoginRefused, LoginUnavailable, InvalidHandshake, OSError) as error:
                self._on_request("WSC", "connect", 0.0, error)
            failures += 1
            self._back_off(failures)

    def _live(self) -> None:
        idle_limit = self.g.scenario.reconnect.idle_limit
        while True:
            now = self.g.now_s()
            if now >= self.g.horizon_s:
                raise ClientGone
            if self._run_due_steps(now):
                continue
            until = min(self.g.horizon_s, self._steps[0][0] if self._steps else float("inf"))
            if self.deaf or self.wire is None:
                gevent.sleep(max(0.0, until - now))
                continue
            if idle_limit is not None:
                gives_up = self.last_packet_s + idle_limit / self.g.scenario.speedup
                if now >= gives_up:
                    self.wire.sock.close()
                    raise ConnectionEnded(Cause.SESSION_TIMEOUT)
                until = min(until, gives_up)
            for frame in self.wire.receive(until - now):
                self._on_frame(frame.opcode, bytes(frame.data))

    def _on_frame(self, opcode: Opcode, data: bytes) -> None:
        self.last_packet_s = self.g.now_s()
        if opcode is Opcode.PING or data == HEARTBEAT:
            self._answer(data if opcode is Opcode.TEXT else None)
        elif opcode is Opcode.TEXT:
            message = orjson.loads(data)
            if message.get("type") in ("offline", "online"):
                kind = (
                    EventKind.PEER_NOTIFIED
                    if message["type"] == "offline"
                    else EventKind.PEER_ONLINE
                )
                detail = {"user_id": message["user_id"], "watcher": self.index}
                # The event is about the watched user's session, not about the watcher's own.
                self.g.log(kind, session_id=message["session_id"], detail=detail)

    def _answer(self, data: bytes | None) -> None:
        if self.on_heartbeat is not None:
            self.on_heartbeat()
            return
        assert self.wire is not None
        began = self.last_packet_s
        if data is not None:  # a protocol ping has been answered by the protocol
            late_s = (
                float(self.g.scenario.network.round_trip.sample(self.g.rng, 1)[0])
                - _OWN_ROUND_TRIP_S
            )
            if late_s > 0:
                gevent.sleep(late_s)
            self.wire.send_text(PONG)
            self.last_packet_s = self.g.now_s()
        if self.fault is not None and self.fault.traced:
            self._log(EventKind.HEARTBEAT_ANSWERED)
        if self._healing is not None:
            self._recovered(self._healing)
        if self.after_answer is not None:
            self.after_answer()
        self._on_request("WSR", "heartbeat", (self.g.now_s() - began) * 1000, None)

    # -- connecting ----------------------------------------------------------------------------

    def _login(self) -> None:
        self.session_id = self.g.login(self.user_id, self._home)
        self._log(EventKind.LOGGED_IN, detail={"client": self.index, "user_id": self.user_id})

    def _connect(self) -> None:
        began = self.g.now_s()
        self.wire, node = self._reach_a_node(self._home)
        traced = self.fault is not None and self.fault.traced
        self.wire.send_json({"type": "auth", "session_id": self.session_id, "trace": traced})
        ready = self._expect("ready", began)
        self.connection_id = ready["connection_id"]
        self.last_packet_s = self.g.now_s()
        self.deaf = False
        self._home = None
        if self.behind is not None:
            self.behind.connected(self)
        self._log(
            EventKind.CONNECTED,
            node=node,
            detail={"client": self.index, "user_id": self.user_id, "resumed": ready["resumed"]},
        )
        self._on_request("WSC", "connect", (self.g.now_s() - began) * 1000, None)
        if watched := self.g.plan.watches.get(self.index):
            self.wire.send_json(
                {"type": "watch", "user_ids": [f"user-{client}" for client in watched]}
            )
        if self._healing is not None and ready["resumed"]:
            self._recovered(self._healing)

    def _reach_a_node(self, home: int | None) -> tuple[Wire, str]:
        """Shake hands with the first node that is there; return the connection and the node's name.

        Raises:
            ConnectionRefusedError: none of them listens.
        """
        refused: ConnectionRefusedError | None = None
        source = self.behind.source if self.behind else None
        for n in self.g.nodes_to_try(home):
            try:
                return Wire.connect(self.g.uris[n], _HANDSHAKE_TIMEOUT_S, source), f"node-{n + 1}"
            except ConnectionRefusedError as error:
                refused = error
        assert refused is not None
        raise refused

    def _expect(self, kind: str, began_s: float) -> dict[str, Any]:
        assert self.wire is not None
        while (left := began_s + _HANDSHAKE_TIMEOUT_S - self.g.now_s()) > 0:
            for frame in self.wire.receive(left):
                message: dict[str, Any] = orjson.loads(frame.data)
                if message.get("type") == kind:
                    return message
                if message.get("type") == "error":
                    self.drop_wire()
                    raise SessionUnknown(message.get("code"))
        self.wire.sock.close()
        raise ConnectionEnded(Cause.PROTOCOL_ERROR, reason=f"no {kind!r} in time")

    def _back_off(self, failures: int) -> None:
        """Wait with full jitter: uniform between zero and the doubled, capped base."""
        reconnect = self.g.scenario.reconnect
        ceiling_s = min(reconnect.backoff_max, reconnect.backoff_base * 2 ** (failures - 1))
        wait_s = float(self.g.rng.uniform(0, ceiling_s)) / self.g.scenario.speedup
        gevent.sleep(min(wait_s, max(0.0, self.g.horizon_s - self.g.now_s())))

    def drop_wire(self) -> None:
        """Forget the connection; a socket that still stands is closed."""
        if self.wire is not None:
            self.wire.sock.close()
            self.wire = None

    # -- what injectors use --------------------------------------------------------------------

    def at(self, time_s: float, step: Callable[[], None]) -> None:
        """Do something at a real time of the run."""
        heapq.heappush(self._steps, (time_s, next(self._ties), step))

    def took_effect(
        self, fault: PlannedFault, scheduled_s: float, mechanism: str, at_s: float | None = None
    ) -> None:
        """Log that a fault took effect, now or at `at_s`; start the user's attempts to log in again."""
        detail = {
            "fault_id": fault.fault_id, "fault": fault.fault, "kind": fault.kind, "client": self.index,
            "user_id": self.user_id, "scheduled_s": scheduled_s, "mechanism": mechanism,
        }  # fmt: skip
        at_s = self.g.now_s() if at_s is None else at_s
        self._log(EventKind.FAULT_INJECTED, detail=detail, time_s=at_s)
        if fault.relogin_after_s is not None:
            self.g.graveyard.append(gevent.spawn(self._relogin, fault, at_s, fault.relogin_after_s))

    def healed(self, fault: PlannedFault) -> None:
        """Log that a fault's cause is gone; whether the session survived shows later."""
        self._log(EventKind.FAULT_HEALED, detail={"fault_id": fault.fault_id})
        self._healing = fault

    def expect_recovery(self, fault: PlannedFault) -> None:
        """The client tries to come back to its session: log the recovery when it has."""
        self._healing = fault

    def _recovered(self, fault: PlannedFault) -> None:
        self._log(
            EventKind.FAULT_RECOVERED, detail={"fault_id": fault.fault_id, "user_id": self.user_id}
        )
        self._healing = None

    def _relogin(self, fault: PlannedFault, began: float, after_s: float) -> None:
        relogin = self.g.scenario.reconnect.relogin
        assert relogin is not None
        first = began + after_s / self.g.scenario.speedup
        for attempt in count():  # on a fixed grid: the time that an answer takes must not add up
            due = first + attempt * relogin.retry / self.g.scenario.speedup
            gevent.sleep(max(0.0, due - self.g.now_s()))
            if self.g.now_s() >= self.g.horizon_s:
                return
            detail: dict[str, Any] = {
                "fault_id": fault.fault_id,
                "user_id": self.user_id,
                "relogin": True,
            }
            try:
                session_id = self.g.login(self.user_id)
            except LoginRefused as refused:
                self.g.log(EventKind.LOGIN_REFUSED, detail=detail | {"code": refused.code})
            except LoginUnavailable as later:
                self.g.log(
                    EventKind.LOGIN_REFUSED, detail=detail | {"code": f"unavailable: {later}"}
                )
            else:
                waited = self.g.now_s() - began
                detail |= {"client": self.index, "waited_s": waited}
                self.g.log(EventKind.LOGGED_IN, session_id=session_id, detail=detail)
                self._live_elsewhere(session_id)
                return

    def _live_elsewhere(self, session_id: str) -> None:
        """The user's other device: connected, answering; it takes over from the dead one where that is the rule."""
        try:
            wire, _ = self._reach_a_node(None)
            wire.send_json({"type": "auth", "session_id": session_id})
            while (left := self.g.horizon_s - self.g.now_s()) > 0:
                for frame in wire.receive(left):
                    if frame.data == HEARTBEAT:
                        wire.send_text(PONG)
        except (ConnectionEnded, InvalidHandshake, OSError) as error:
            self._on_request("WSC", "connect elsewhere", 0.0, error)
            return
        self.g.graveyard.append(wire)  # its end is not part of the run

    def _run_due_steps(self, now_s: float) -> bool:
        due = bool(self._steps) and self._steps[0][0] <= now_s
        while self._steps and self._steps[0][0] <= now_s:
            heapq.heappop(self._steps)[2]()
        return due

    def _outage_starts(self) -> None:
        if self.wire is not None and not self.deaf:
            attach(self.wire.sock)
            self.deaf = True
            self._log(EventKind.OUTAGE_STARTED, detail={"client": self.index})

    def _outage_ends(self) -> None:
        if self.wire is not None and self.deaf:
            detach(self.wire.sock)
            self.deaf = False
            self._log(EventKind.OUTAGE_ENDED, detail={"client": self.index})

    def _log(
        self,
        kind: EventKind,
        *,
        cause: str = "",
        node: str = "",
        detail: dict[str, Any] | None = None,
        time_s: float | None = None,
    ) -> None:
        self.g.log(
            kind,
            node=node,
            session_id=self.session_id,
            connection_id=self.connection_id,
            cause=cause,
            detail=detail,
            time_s=time_s,
        )
