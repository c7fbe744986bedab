"""The life of one client: log in, connect, answer heartbeats, suffer what the plan says, come back.

It has no greenlet. While it is connected, the event loop calls it when its socket can be read or a step is due;
what has to wait runs in a greenlet of the loop's.

    start ──► come (greenlet): log in, connect ──► settled: on_readable, steps
                ▲                                     │
                └────────── back-off ◄────────────────┘ the connection ended

When a planned fault is due, its file in `scenarios/faults` does it to the client; the moment that is logged is the one
at which it took effect, not the one it was planned for. A fault waits for a client that has not come by then, and is
due as long after the client's coming as was planned: `scheduled_s` says when. `OtherDevice` is the user of a dead
client at another device.

What the clients of a process share is a `Generator` (`shared.py`).
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import gevent
import orjson
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode

from harness.real.generator.behind_nat import BehindNat
from harness.real.generator.gateway_client import LoginRefused, LoginUnavailable
from harness.real.generator.middlebox import Middlebox
from harness.real.generator.shared import Generator
from harness.real.generator.websocket import ConnectionEnded, WebSocketConnection
from harness.real.network.silence import attach, attach_lossy, detach
from reference_server.events import Cause, EventKind
from reference_server.frames import HEARTBEAT, PONG_TEXT
from scenarios.faults import ClientGone, PageReloaded, PlannedFault

__all__ = ["Client", "OtherDevice"]

_HEARTBEAT_TEXT = HEARTBEAT[2:]
_PONG = Frame(Opcode.TEXT, PONG_TEXT)
_OWN_HEARTBEAT = Frame(Opcode.TEXT, b'{"type":"heartbeat"}')
_HANDSHAKE_TIMEOUT_S = 10.0
_SYN_AGAIN_S = (
    1.0,
    2.0,
    4.0,
    3.0,
)  # a kernel sends it again after 1, 3 and 7 s; the client gives up after 10 s
_FIN_FOLLOWS_S = 0.05  # what a kernel has kept of an ended connection comes in one go, the FIN last


class SessionUnknown(Exception):
    """The gateway does not know the session any more."""


class ConnectRefused(Exception):
    """The gateway does not take the connection now, for another reason: its code."""


class Client:
    """One user with one device, from `start` until its fault has ended it, the horizon, or `leave`."""

    __slots__ = (
        "_box",
        "_failures",
        "_fault_due_s",
        "_gone",
        "_healing",
        "_heard_s",
        "_idle_watched",
        "_path_cut",
        "_postponed",
        "_reading_paused",
        "_token",
        "_vanished",
        "connection_id",
        "fault",
        "hold_back",
        "index",
        "last_packet_s",
        "on_heartbeat",
        "run",
        "session_id",
        "wire",
    )

    def __init__(self, index: int, run: Generator) -> None:
        self.index = index
        self.run = run
        self.fault = run.faults.get(index)
        self.session_id = self._token = ""  # of its login; empty: it has to log in
        self.connection_id = ""  # of the last connection; empty before the first
        self.wire: WebSocketConnection | None = None  # None: not connected
        self.last_packet_s = self._heard_s = 0.0
        self._box: Middlebox | None = None  # on the path of the connection
        self._path_cut = False  # whatever connection it may make
        self._vanished = False  # the box has dropped this connection
        self.on_heartbeat: Callable[[], None] | None = None
        self.hold_back: Callable[[float], float] | None = None
        self._reading_paused = False
        self._failures = 0
        self._fault_due_s: float | None = None  # its moment once the client has come
        self._gone = False
        self._healing: PlannedFault | None = None
        self._idle_watched = False
        # What became due without a connection: done as soon as there is one.
        self._postponed: list[Callable[[], None]] | None = None

    @property
    def behind(self) -> BehindNat | None:
        """The real NAT that it is behind, if any: only clients with a fault are."""
        return self.run.nats.get(self.index)

    @property
    def _first_node(self) -> int | None:
        """The node to try first, from 1; None once it has been connected."""
        return None if self.connection_id else self.run.plan.first_node(self.index)

    @property
    def user_id(self) -> str:
        """Whose device it is."""
        return f"user-{self.index}"

    @property
    def reading_paused(self) -> bool:
        """Its process reads and sends nothing; its kernel goes on."""
        return self._reading_paused

    @reading_paused.setter
    def reading_paused(self, paused: bool) -> None:
        self._reading_paused = paused
        self._watch_socket()
        if not (paused or self._idle_watched or self.wire is None):
            self._watch_idleness(self.wire)

    @property
    def deaf(self) -> bool:
        """Whether nothing that the gateway sends comes to its process."""
        return self._reading_paused or self._path_cut or self._vanished

    def _watch_socket(self) -> None:
        if self.wire is not None and (descriptor := self.wire.sock.fileno()) >= 0:
            if self.deaf:
                self.run.loop.ignore(descriptor)
            else:
                self.run.loop.watch(descriptor, self)

    # -- the life ------------------------------------------------------------------------------

    def start(self, *, paced: bool) -> None:
        """Begin: connect at once or (``paced``) at its moment of the plan's ramp, and let the plan happen."""
        run = self.run
        for outage in run.outages.get(self.index, ()):
            start_s = run.at_s(outage.at_s)
            run.loop.at(start_s, self._outage_starts)
            run.loop.at(start_s + run.scenario.clock.real_s(outage.length_s), self._outage_ends)
        run.loop.at(run.at_s(run.plan.connect_at_s(self.index)) if paced else run.now_s(), self._come_soon)

    def leave(self) -> None:
        """End for good and in order, as a tab that is closed; after the run the socket is closed without a word."""
        if self.wire is not None and not self.run.running:
            self.wire.sock.close()  # a later test of this process begins with users who are offline
        elif self.wire is not None and not self._gone and not self.deaf:
            with suppress(ConnectionEnded):
                self.wire.close(1000)
        self._gone = True

    def _come_soon(self) -> None:
        self.run.loop.run_in_greenlet(self._come)

    def _come(self) -> None:
        """Log in where that is needed, and connect; blocks the greenlet."""
        run = self.run
        if self._gone or run.now_s() >= run.horizon_s:
            return
        try:
            self._await_path()
            if not self.session_id:
                self._login()
            limit_s = run.scenario.reconnect.connect_timeout
            given_up = TimeoutError("the handshake takes too long")
            with gevent.Timeout(None if limit_s is None else self.real_s(limit_s), given_up):
                frames = self._connect()
        except SessionUnknown:
            self._log(EventKind.SESSION_UNKNOWN)
            self.session_id = ""
            self._healing = None
        except ConnectionEnded as end:
            self._log(EventKind.DISCONNECTED, cause=end.cause, detail={"code": end.code})
        except (LoginRefused, LoginUnavailable, ConnectRefused, InvalidHandshake, OSError) as error:
            self.run.on_request("WSC", "connect", 0.0, error)
        except Exception as error:  # a fault of ours must not make a client less
            traceback.print_exc()
            self.run.on_request("WSC", "connect", 0.0, error)
        else:
            self._failures = 0
            self._guarded(partial(self._settle, frames))
            return
        self._back_off()

    def _settle(self, frames: Iterable[Frame]) -> None:
        """Be connected: whatever comes from now on comes through the event loop."""
        assert self.wire is not None
        wire, run = self.wire, self.run
        if self._gone:  # told to leave while it came
            self.wire.close(1000)
            return
        self._reading_paused = self._vanished = False
        if self._path_cut:  # while it came
            attach(wire.sock)
        self._watch_socket()
        self._watch_idleness(wire)
        if (every_s := run.beats_every_s) is not None:
            at_random = run.scenario.liveness.first_ping == "random"
            self._beat_at(run.now_s() + every_s * (1 - float(run.rng.random()) * at_random), wire)
        if run.traffic is not None:
            self._talk_in(run.traffic.wait_s(), wire)
        if run.middle is not None:
            self._box = Middlebox(self, run.middle, self.last_packet_s)
            self._look_at_box(wire)
            if run.middle.max_age_s is not None:
                self._on_wire(self.last_packet_s + run.middle.max_age_s, wire, self._box.close)
        if self.fault is not None and self._fault_due_s is None:  # it has come for the first time
            now_s, due_s = run.now_s(), run.at_s(self.fault.at_s)
            if due_s < now_s:
                due_s = now_s + max(0.0, due_s - run.at_s(run.plan.connect_at_s(self.index)))
            self._fault_due_s = due_s
            self.at(due_s, partial(self._inject, self.fault))
        for frame in frames:
            self._on_frame(frame)
        postponed, self._postponed = self._postponed, None
        for step in postponed or ():
            self._guarded(step)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Take a step of a connected client, and what comes of it."""
        try:
            step()
        except (ClientGone, PageReloaded, ConnectionEnded) as end:
            self._over(end)

    def _over(self, end: ClientGone | PageReloaded | ConnectionEnded) -> None:
        match end:
            case ClientGone():
                self._gone = True
            case PageReloaded():
                self.run.loop.at(self.run.now_s() + end.after_s, self._come_soon)
            case ConnectionEnded():
                self._log(EventKind.DISCONNECTED, cause=end.cause, detail={"code": end.code})
                self._drop_wire()
                self._back_off()

    def _back_off(self) -> None:
        """Come again later, as the scenario's back-off says."""
        self._failures += 1
        wait_s = self.run.scenario.reconnect.back_off_s(self._failures, float(self.run.rng.random()))
        self.run.loop.at(self.run.now_s() + self.run.scenario.clock.real_s(wait_s), self._come_soon)

    def _drop_wire(self) -> None:
        """Forget the connection; a socket that still stands is closed, unless nothing of that would arrive."""
        if self.wire is not None:
            if self.wire.sock.fileno() >= 0:
                self.run.loop.ignore(self.wire.sock.fileno())
            if self._path_cut or self._vanished:
                self.keep_open()
            else:
                self.wire.sock.close()
            self.wire = None

    # -- while it is connected -------------------------------------------------------------------

    def on_readable(self) -> None:
        """Read what has come in: nearly always one heartbeat, whole and alone."""
        wire = self.wire
        if wire is None or self.deaf:
            return
        try:
            data = wire.read()
            if data == HEARTBEAT and wire.between_frames:
                self._on_heartbeat()
                return
            for frame in wire.frames(data):
                self._on_frame(frame)
        except (ClientGone, PageReloaded, ConnectionEnded) as end:
            self._over(end)

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._on_heartbeat(Frame(Opcode.PONG, frame.data))
        elif frame.data == _HEARTBEAT_TEXT:
            self._on_heartbeat()
        else:
            self.last_packet_s = self._heard_s = now_s = self.run.now_s()
            is_data = frame.opcode is not Opcode.PONG
            if (self._box is None or self._box.read(now_s, is_data=is_data)) and frame.opcode is Opcode.TEXT:
                self._on_message(orjson.loads(frame.data))

    def _on_message(self, message: dict[str, Any]) -> None:
        kind = {"offline": EventKind.PEER_NOTIFIED, "online": EventKind.PEER_ONLINE}.get(
            message.get("type", "")
        )
        if kind is not None:
            detail = {"user_id": message["user_id"], "watcher": self.index}
            # The event is about the watched user's session, not about the watcher's own.
            self.run.log(kind, session_id=message["session_id"], detail=detail)

        elif message.get("type") == "pong":
            self._heard()

    def _on_wire(self, time_s: float, wire: WebSocketConnection, step: Callable[[], None]) -> None:
        """Take a step at a real time of the run, if it still has this connection then."""

        def due() -> None:
            if self.wire is wire and not self._gone:
                self._guarded(step)

        self.run.loop.at(time_s, due)

    def _beat_at(self, due_s: float, wire: WebSocketConnection) -> None:
        """Send a heartbeat of its own then. While it is deaf it sends none, and goes on at its own grid."""

        def beat() -> None:
            assert self.run.beats_every_s is not None
            self._beat_at(due_s + self.run.beats_every_s, wire)
            late_s = 0.0 if self.hold_back is None else self.hold_back(self.run.now_s())
            if late_s > 0:
                self._on_wire(self.run.now_s() + late_s, wire, self._send_heartbeat)
            else:
                self._send_heartbeat()

        self._on_wire(due_s, wire, beat)

    def _send_heartbeat(self) -> None:
        if self.on_heartbeat is not None:  # a NAT that resets whatever passes
            self.last_packet_s = self.run.now_s()
            self.on_heartbeat()
            return
        self._send(_OWN_HEARTBEAT)

    def _talk_in(self, wait_s: float, wire: WebSocketConnection) -> None:
        """Send a burst of application frames after so long, and again and again."""

        def talk() -> None:
            assert self.run.traffic is not None
            for frame in self.run.traffic.burst():
                self._send(frame)
            self._talk_in(self.run.traffic.wait_s(), wire)

        self._on_wire(self.run.now_s() + wait_s, wire, talk)

    def _on_heartbeat(self, answer: Frame = _PONG) -> None:
        self.last_packet_s = self._heard_s = now_s = self.run.now_s()
        late_s = self.run.answer_delay_s() if self.hold_back is None else self.hold_back(now_s)
        is_data = answer.opcode is Opcode.TEXT
        if self._box is not None and not self._box.read(now_s, is_data=is_data, round_trip_s=late_s):
            return
        if self.on_heartbeat is not None:
            self.on_heartbeat()
        elif late_s > 0:
            assert self.wire is not None
            self._on_wire(now_s + late_s, self.wire, partial(self._answer, answer, now_s, late_s))
        else:
            self._answer(answer, now_s)

    def _answer(self, answer: Frame, heard_s: float, late_s: float = 0.0) -> None:
        if self._send(answer, late_s):
            self._answered(heard_s)

    def _send(self, frame: Frame, round_trip_s: float = 0.0) -> bool:
        """Send by itself, unless it or its path is dead; return whether it was sent."""
        if self._reading_paused or self._path_cut:
            return False
        assert self.wire is not None
        self.last_packet_s = now_s = self.run.now_s()
        is_data = frame.opcode is Opcode.TEXT
        if self._box is not None and not self._box.sends(now_s, is_data=is_data, round_trip_s=round_trip_s):
            return False
        if self._vanished:
            return False
        self.wire.send(frame)
        return True

    def _answered(self, heard_s: float) -> None:
        self.last_packet_s = now_s = self.run.now_s()
        if self.fault is not None:
            if self.fault.traced:
                self._log(EventKind.HEARTBEAT_ANSWERED)
            self._heard()
            if (nat := self.behind) is not None:
                nat.answered(self)
        self.run.on_request("WSR", "heartbeat", (now_s - heard_s) * 1000, None)

    def _watch_idleness(self, wire: WebSocketConnection) -> None:
        """Give a connection up on which nothing was heard for the idle limit."""
        limit = self.run.scenario.reconnect.idle_limit
        if limit is None or self.wire is not wire or self._gone:
            return
        # A stopped process looks at its clock when it goes on.
        self._idle_watched = not self._reading_paused
        if self._reading_paused:
            return
        gives_up_s = self._heard_s + self.run.scenario.clock.real_s(limit)
        if self.run.now_s() < gives_up_s:
            self.run.loop.at(gives_up_s, partial(self._watch_idleness, wire))
        else:
            self._over(ConnectionEnded(Cause.CLIENT_LIMIT))

    # -- connecting ----------------------------------------------------------------------------

    def _await_path(self) -> None:
        """Have a SYN sent again and again while the path is cut.

        Raises:
            TimeoutError: it is cut for longer than a client waits.
        """
        for wait_s in _SYN_AGAIN_S:
            if not self._path_cut:
                return
            gevent.sleep(wait_s)
        raise TimeoutError("the client's path is cut")

    def _look_at_box(self, wire: WebSocketConnection) -> None:
        """Let the box on the path do what is due; it outlives a client whose path is cut for good."""
        if self.wire is not wire or self._box is None or (self._gone and not self._path_cut):
            return
        if (again_s := self._box.look(self.run.now_s())) is not None:
            self.run.loop.at(again_s, partial(self._guarded, partial(self._look_at_box, wire)))

    def _login(self) -> None:
        self._token, self.session_id = self.run.gateways.login(self.user_id, self._first_node)
        self._log(EventKind.LOGGED_IN, detail={"client": self.index, "user_id": self.user_id})

    def _connect(self) -> Iterator[Frame]:
        """Connect and authenticate; return what has come after the gateway's consent."""
        run = self.run
        began_s = run.now_s()
        nat = self.behind
        source = nat.source if nat else None
        wire, node = run.gateways.connect(
            self.index, self._first_node, source, is_back=bool(self.connection_id)
        )
        try:
            traced = self.fault is not None and self.fault.traced
            wire.send_json({"type": "auth", "token": self._token, "trace": traced})
            ready, frames = self._await_ready(wire, began_s)
        except BaseException:
            wire.sock.close()
            raise
        self.wire = wire
        self.on_heartbeat = self.hold_back = self._box = None
        self.connection_id = ready["connection_id"]
        self.last_packet_s = self._heard_s = now_s = run.now_s()
        if nat is not None and self.fault is not None:
            nat.connected(self, self.fault)
        self._log(
            EventKind.CONNECTED,
            node=node,
            detail={
                "client": self.index,
                "user_id": self.user_id,
                "resumed": ready["resumed"],
                "took_s": now_s - began_s,
                **wire.about_tls,
            },
        )
        run.on_request("WSC", "connect", (now_s - began_s) * 1000, None)
        if watched := run.plan.watches.get(self.index):
            wire.send_json({"type": "watch", "user_ids": [f"user-{client}" for client in watched]})
        if self._healing is not None and ready["resumed"]:
            self._recovered(self._healing)
        return frames

    def _await_ready(
        self, wire: WebSocketConnection, began_s: float
    ) -> tuple[dict[str, Any], Iterator[Frame]]:
        while (left_s := began_s + _HANDSHAKE_TIMEOUT_S - self.run.now_s()) > 0:
            try:
                frames = wire.wait(left_s)
            except TimeoutError:
                break
            for frame in frames:
                message: dict[str, Any] = orjson.loads(frame.data) if frame.opcode is Opcode.TEXT else {}
                if message.get("type") == "ready":
                    return message, frames
                if message.get("type") == "error":
                    code = message.get("code", "")
                    raise (SessionUnknown(code) if code == "session_unknown" else ConnectRefused(code))
        raise ConnectionEnded(Cause.PROTOCOL_ERROR, reason="no 'ready' in time")

    # -- what faults use --------------------------------------------------------------------

    def at(self, time_s: float, step: Callable[[], None]) -> None:
        """Do something at a real time of the run; without a connection then, as soon as there is one."""
        self.run.loop.at(time_s, partial(self._due, step))

    def after(self, delay_s: float, step: Callable[[], None]) -> None:
        """Do something this much scenario time from now, as :meth:`at` does."""
        self.at(self.now_s() + self.real_s(delay_s), step)

    def now_s(self) -> float:
        """Real seconds on the run's clock."""
        return self.run.now_s()

    @property
    def beats_by_itself(self) -> bool:
        """Whether it sends heartbeats, instead of answering those of the gateway."""
        return self.run.beats_every_s is not None

    @property
    def retransmits_after_s(self) -> Sequence[float]:
        """When TCP sends a lost packet again, real seconds after the first time."""
        return self.run.scenario.network.rto_ladder

    def real_s(self, length_s: float) -> float:
        """How long a length of scenario time takes in this run."""
        return self.run.scenario.clock.real_s(length_s)

    def keep_open(self) -> None:
        """Keep the socket open until the run's end: one that is let go closes itself, which sends a FIN."""
        self.run.kept_open_sockets.append(self.wire)

    def lose(self, share: float) -> None:
        """Have the kernel drop this share of what arrives, before it is acknowledged; 0: nothing any more.

        A share below 1 ends with the connection. 1 cuts the path both ways, and no new connection can be made.

        Raises:
            OSError: the kernel refuses the filter.
        """
        self._path_cut = share == 1
        if self.wire is None or self._vanished:
            return
        if share == 1:
            attach(self.wire.sock)
            self.keep_open()
        elif share > 0:
            attach_lossy(self.wire.sock, share)
        else:
            with suppress(OSError):  # a connection that was made later
                detach(self.wire.sock)
        self._watch_socket()

    def unseen(self, at: str) -> bool:
        """Whether packets from the gateway may pass a box at this end of the path that it does not see now."""
        return at == "gateway" if self._path_cut else self._reading_paused

    def vanish(self) -> None:
        """Lose all that this connection carries from now on, both ways; a new one is not concerned.

        Raises:
            OSError: the kernel refuses the filter.
        """
        assert self.wire is not None
        attach(self.wire.sock)
        self._vanished = True
        self._watch_socket()

    def reset_gateway(self) -> None:
        """Send the gateway an RST; the client is told nothing."""
        assert self.wire is not None
        self._vanished = True
        self._watch_socket()
        self.wire.reset()

    def end(self, cause: Cause, *, beyond_cut: bool) -> None:
        """End the connection for both sides, see `Boxed.end`."""
        assert self.wire is not None
        if self._path_cut and not beyond_cut:
            if self._gone:
                return
            raise ConnectionEnded(cause)
        if self.wire.sock.fileno() >= 0:
            if self.deaf and not self._vanished:  # its process hears of it when it goes on, or never
                with suppress(OSError):  # ended meanwhile
                    self.wire.sock.shutdown(socket.SHUT_WR)
                return
            if cause is Cause.TCP_RESET:
                self.wire.reset()
            self.wire.sock.close()
        self._vanished = False
        raise ConnectionEnded(cause)

    def _due(self, step: Callable[[], None]) -> None:
        if self._gone:
            return
        if self.wire is None and not self._path_cut:
            self._postponed = [*(self._postponed or ()), step]
        else:
            self._guarded(step)

    def took_effect(
        self,
        fault: PlannedFault,
        scheduled_s: float | None = None,
        mechanism: str | None = None,
        at_s: float | None = None,
    ) -> None:
        """Log that a fault took effect; start the user's attempts to log in again.

        Args:
            fault: the one planned for this client.
            scheduled_s: when it was to; None: at the plan's moment, or later because its client came later.
            mechanism: how it was done; None: as the fault says of itself.
            at_s: when it did; None: now.
        """
        if scheduled_s is None:
            scheduled_s = self._fault_due_s
        if mechanism is None:
            mechanism = fault.behaviour.drawn_mechanism
        detail = {
            "fault_id": fault.fault_id,
            "fault": fault.fault,
            "kind": fault.kind,
            "client": self.index,
            "user_id": self.user_id,
            "scheduled_s": scheduled_s,
            "mechanism": mechanism,
        }
        at_s = self.run.now_s() if at_s is None else at_s
        self._log(EventKind.FAULT_INJECTED, detail=detail, time_s=at_s)
        if fault.relogin_after_s is not None:
            self.run.kept_open_sockets.append(OtherDevice(self.index, self.user_id, fault, at_s, self.run))

    def healed(self, fault: PlannedFault) -> None:
        """Log that a fault's cause is gone; whether the session survived shows later."""
        self._log(EventKind.FAULT_HEALED, detail={"fault_id": fault.fault_id})
        self._healing = fault

    def expect_recovery(self, fault: PlannedFault) -> None:
        """The client tries to come back to its session: log the recovery when it has."""
        self._healing = fault

    def _heard(self) -> None:
        """Take note of the first word from the gateway after a fault; while that hampers the client there is none.

        The recovery is logged only if the connection still stands after `_FIN_FOLLOWS_S`: one that the gateway has
        ended would deliver its FIN by then.
        """
        if self._healing is not None and self.hold_back is None:
            now_s = self.run.now_s()
            self.run.loop.at(now_s + _FIN_FOLLOWS_S, partial(self._stands, self.wire, self._healing, now_s))

    def _stands(self, wire: WebSocketConnection | None, fault: PlannedFault, heard_s: float) -> None:
        if self._healing is fault and wire is not None and self.wire is wire and not wire.ended():
            self._recovered(fault, heard_s)

    def _recovered(self, fault: PlannedFault, at_s: float | None = None) -> None:
        detail = {"fault_id": fault.fault_id, "user_id": self.user_id}
        self._log(EventKind.FAULT_RECOVERED, detail=detail, time_s=at_s)
        self._healing = None

    def _outage_starts(self) -> None:
        self.lose(1)
        self._log(EventKind.OUTAGE_STARTED, detail={"client": self.index})

    def _outage_ends(self) -> None:
        self.lose(0)
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
        self.run.log(
            kind,
            node=node,
            session_id=self.session_id,
            connection_id=self.connection_id,
            cause=cause,
            detail=detail,
            time_s=time_s,
        )

    def _inject(self, fault: PlannedFault) -> None:
        """Do a fault; a client that is not connected is left alone.

        Raises:
            ClientGone, PageReloaded: what became of the client, see `scenarios/faults/base.py`.
        """
        if self.wire is not None:
            fault.behaviour.real(self, fault)


class OtherDevice:
    """The user of a dead client at another device: tries to log in until it may, then stays connected.

    Its `login_refused` and `logged_in` events say how long the user was locked out. Kept until the run's end, so that
    its connection stays open.
    """

    __slots__ = ("_attempts", "_began_s", "_client", "_fault", "_run", "_user_id", "_wire")

    def __init__(
        self, client: int, user_id: str, fault: PlannedFault, began_s: float, run: Generator
    ) -> None:
        self._client, self._user_id, self._fault, self._run = client, user_id, fault, run
        self._began_s = began_s  # when the fault took effect
        self._attempts = count()
        self._wire: WebSocketConnection | None = None
        self._next()

    def _next(self) -> None:
        run, relogin = self._run, self._run.scenario.reconnect.relogin
        assert relogin is not None and self._fault.relogin_after_s is not None
        # On a fixed grid: the time that an answer takes must not add up.
        wait_s = self._fault.relogin_after_s + next(self._attempts) * relogin.retry
        run.loop.at(
            self._began_s + run.scenario.clock.real_s(wait_s), lambda: run.loop.run_in_greenlet(self._attempt)
        )

    def _attempt(self) -> None:
        """Log in; blocks the greenlet."""
        run = self._run
        if run.now_s() >= run.horizon_s:
            return
        detail: dict[str, Any] = {"fault_id": self._fault.fault_id, "user_id": self._user_id, "relogin": True}
        try:
            token, session_id = run.gateways.login(self._user_id)
        except (LoginRefused, LoginUnavailable) as error:
            code = error.code if isinstance(error, LoginRefused) else f"unavailable: {error}"
            run.log(EventKind.LOGIN_REFUSED, detail=detail | {"code": code})
            self._next()
            return
        detail |= {"client": self._client, "waited_s": run.now_s() - self._began_s}
        run.log(EventKind.LOGGED_IN, session_id=session_id, detail=detail)
        try:
            wire, _ = run.gateways.connect(self._client)
            wire.send_json({"type": "auth", "token": token})
        except (ConnectionEnded, InvalidHandshake, OSError) as error:
            run.on_request("WSC", "connect elsewhere", 0.0, error)
            return
        self._wire = wire
        run.loop.watch(wire.sock.fileno(), self)

    def on_readable(self) -> None:
        """Answer heartbeats; take the place of the dead device where that is the rule."""
        assert self._wire is not None
        try:
            for frame in self._wire.frames(self._wire.read()):
                if frame.data == _HEARTBEAT_TEXT:
                    self._wire.send(_PONG)
        except ConnectionEnded as end:
            self._run.on_request("WSC", "connect elsewhere", 0.0, end)
