"""The way between gateway and clients: delays, cuts, TCP's retransmissions, and middleboxes that forget.

From messages of a gateway to what reaches the client, and when. The cut is at the client's end, as the
real engine's socket filter is: a ping passes or not at the moment it would arrive, and its answer
leaves at that very moment.

A message into a cut is not lost. It stays unacknowledged, whatever is sent after it queues behind it, and
the first retransmission at or after the healing delivers all of it in order. The client speaks only when
spoken to, so its own direction never has anything to retransmit.

An exchange of ping and answer that nothing stands in the way of is *predicted*: kept as two times on the
connection, not as two events. Whatever may come between must call :meth:`Network.cancel_predicted` first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from harness.simulated.clock import Alarm, Clock
from harness.simulated.connection import NEVER_S, Connection, Deliver
from reference_server.events import Cause
from scenarios.distributions import Distribution
from scenarios.network import ORPHAN_TRIES, after_probe

__all__ = ["Network", "RoundTrips", "give_up_s", "kernel_patience_s", "retransmission_s"]


_RTO_MAX_S = 120.0  # Linux TCP_RTO_MAX
_BLOCK = 4096


def retransmission_s(ladder: Sequence[float], sent_s: float, healed_s: float) -> float | None:
    """When TCP first sends a segment again at or after the healing; None: it has given up by then.

    Args:
        ladder: waits from the first send to each retransmission, seconds, rising.
        sent_s: first send of the oldest unacknowledged segment.
        healed_s: when the way is open again.
    """
    n = bisect_left(ladder, healed_s - sent_s)
    return sent_s + ladder[n] if n < len(ladder) else None


def kernel_patience_s(user_timeout_s: float | None, ladder: Sequence[float]) -> float:
    """How long data stays unacknowledged until the kernel ends the connection, from the first send.

    ``TCP_USER_TIMEOUT`` counts from the first retransmission after the tail-loss probe, as the kernel does.
    """
    if user_timeout_s is None:
        return give_up_s(ladder)
    return user_timeout_s + ladder[min(1, len(ladder) - 1)]


def give_up_s(ladder: Sequence[float]) -> float:
    """How long data stays unacknowledged until TCP ends the connection: one more back-off after the ladder.

    The last wait is twice the one before, at most 120 s (Linux TCP_RTO_MAX). The textbook ladder of 15
    retransmissions from 0.2 s gives 924.6 s.
    """
    last_gap_s = ladder[-1] - (ladder[-2] if len(ladder) > 1 else 0.0)
    return ladder[-1] + min(2 * last_gap_s, _RTO_MAX_S)


class RoundTrips:
    """Draws from the round-trip law, taken from the generator in blocks. Seconds."""

    def __init__(self, law: Distribution, rng: np.random.Generator) -> None:
        self._law = law
        self._rng = rng
        self._drawn: Iterator[float] = iter(())

    def next_s(self) -> float:
        """Draw one round trip."""
        for drawn_s in self._drawn:
            return drawn_s
        self._drawn = iter(self._law.sample(self._rng, _BLOCK).tolist())
        return next(self._drawn)


class Network:
    """Carries messages on connections.

    Args:
        clock: simulated time.
        round_trips: each message takes half a draw; a ping, first or sent again, and its answer share one.
        ladder: TCP's retransmissions, seconds after the first send.
        tcp_user_timeout_s: how long data may stay unacknowledged; see
            :func:`kernel_patience_s`.
        late: draws how late the kernel gives up.
    """

    def __init__(
        self,
        clock: Clock,
        round_trips: RoundTrips,
        ladder: Sequence[float],
        tcp_user_timeout_s: float | None,
        late: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._clock = clock
        self._round_trips = round_trips
        self._ladder = sorted(ladder)
        self._patience_s = kernel_patience_s(tcp_user_timeout_s, self._ladder)
        self._late = late
        self._bounded = tcp_user_timeout_s is not None

    def round_trip_s(self) -> float:
        """Draw a round trip for what is not carried here: requests, handshakes."""
        return self._round_trips.next_s()

    def ping(self, connection: Connection, now_s: float, deadline_s: float) -> bool:
        """Send a ping now; return whether its answer is predicted to arrive before the deadline."""
        one_way_s = self._round_trips.next_s() / 2
        at_client_s = max(now_s + one_way_s, connection.arrival_s)  # TCP keeps the order
        answer_s = at_client_s + one_way_s
        if answer_s < deadline_s and answer_s < connection.refresh_due_s and connection.undisturbed:
            connection.at_client_s = connection.arrival_s = at_client_s
            connection.answer_s = answer_s
            return True
        self._send_ping(connection, one_way_s)
        return False

    def ping_and_read(self, connection: Connection, deadline_s: float) -> bool:
        """Send a ping now, to a gateway that reads each answer when it comes: predicted or not, it arrives.

        Returns:
            As `exchange`.
        """
        if connection.undisturbed:
            return self.exchange(connection, self._clock.env.now, deadline_s)
        self._send_ping(connection, self._round_trips.next_s() / 2)
        return False

    def exchange(self, connection: Connection, sent_s: float, deadline_s: float) -> bool:
        """Predict the answer to a ping on an undisturbed connection, to a gateway that reads it when it comes.

        Args:
            connection: of the client.
            sent_s: now, or so soon that nothing comes between.
            deadline_s: of the answer.

        Returns:
            Whether it arrives before that. Then nothing is due until it is here, and the alarm is set by it.
        """
        one_way_s = self._round_trips.next_s() / 2
        connection.at_client_s = connection.arrival_s = max(sent_s + one_way_s, connection.arrival_s)
        answer_s = connection.answer_s = connection.at_client_s + one_way_s
        alarm = connection.answer_alarm or Alarm(self._clock, self._answer_arrives, connection)
        connection.answer_alarm = None
        alarm.set_at(answer_s)
        connection.alarm_unset = answer_s < deadline_s
        return connection.alarm_unset

    def _answer_arrives(self, alarm: Alarm[Connection]) -> None:
        connection = alarm.owner
        connection.answer_alarm = alarm
        if connection.answer_s == alarm.at_s:  # else it was cancelled
            connection.exchanged()
            connection.gateway.on_frame(connection)
        if connection.alarm_unset and connection.open:
            assert connection.detector is not None and connection.alarm is not None
            connection.alarm_unset = False
            connection.alarm.set_at(connection.detector.due_s)

    def _send_ping(self, connection: Connection, one_way_s: float) -> None:
        counts = connection.box is None or connection.box.pings
        ping = partial(connection.client.on_ping, connection)
        self._send(connection, one_way_s, ping, counts=counts)

    def send(self, connection: Connection, deliver: Callable[[], None]) -> None:
        """Send a message to the client: `deliver` is called when and if it arrives."""
        self._send(connection, self._round_trips.next_s() / 2, lambda _one_way_s: deliver())

    def answer(self, connection: Connection, one_way_s: float) -> None:
        """Send the client's answer to a ping, now."""
        arrives = partial(connection.gateway.on_frame, connection)
        counts = connection.box is None or connection.box.pings
        if connection.client.way_open and connection.up_since_s is None:
            self._passes_up(connection, one_way_s, arrives, counts=counts)
        else:  # it has waited
            self._send_up(connection, one_way_s, arrives, counts=counts)

    def beat(self, connection: Connection) -> None:
        """Send a beat of the client's own now; the gateway answers it when it has read it."""
        arrives = partial(connection.gateway.on_client_beat, connection)
        counts = connection.box is None or connection.box.pings
        self._send_up(connection, self._round_trips.next_s() / 2, arrives, counts=counts)

    def data(self, connection: Connection, arrives: Callable[[], None]) -> None:
        """Send application data of the client's now; ``arrives`` is called when it is in the gateway's socket."""
        self._send_up(connection, self._round_trips.next_s() / 2, arrives)

    def close_between(self, connection: Connection, *, at_gateway: bool) -> None:
        """A box closes both sides: the near end hears it at once, the other one way later."""
        self.cancel_predicted(connection)
        one_way_s = self._round_trips.next_s() / 2
        connection.nat_drops = True
        self._tell_gateway(connection, Cause.TCP_FIN, 0.0 if at_gateway else one_way_s)
        self._clock.after(one_way_s if at_gateway else 0.0, partial(self._closed_between, connection))

    def _closed_between(self, connection: Connection) -> None:
        if connection.client.way_open:
            connection.client.on_end(connection, Cause.TCP_FIN)
        else:
            connection.ended_between = True

    def last_seen_s(self, connection: Connection) -> float:
        """When the box on its way saw something last that restarts its timer."""
        box, now_s = connection.box, self._clock.now_s
        assert box is not None
        connection.apply_due_answer(now_s)
        seen_s = connection.seen_s
        if connection.answer_s < NEVER_S and box.pings:  # an exchange is under way
            passed_s = connection.at_client_s
            if box.at_gateway:
                passed_s = 2 * passed_s - connection.answer_s if box.to_client else seen_s
            if passed_s <= now_s:
                seen_s = max(seen_s, passed_s)
        since_s = connection.unacked_since_s
        if since_s is not None and box.at_gateway and box.to_client:  # TCP's tries
            tries = bisect_right(self._ladder, now_s - since_s)
            seen_s = max(seen_s, since_s + self._ladder[tries - 1] if tries else since_s)
        return seen_s

    def end_by_client(self, connection: Connection, cause: Cause) -> None:
        """The client's end of the connection is over: the gateway hears it, unless that meets a cut."""
        if connection.passes:
            self._tell_gateway(connection, cause, self._round_trips.next_s() / 2)

    def _tell_gateway(self, connection: Connection, cause: Cause, after_s: float) -> None:
        self._clock.after(after_s, partial(connection.gateway.on_end, connection, cause))

    def end_by_gateway(self, connection: Connection, code: int | None) -> None:
        """The gateway dropped the connection: its FIN goes the way of all messages, behind what is unacknowledged.

        The kernel goes on sending for a socket that its process has closed, for a while (`ORPHAN_TRIES`). So a
        client whose cut heals in that time learns that it was dropped.

        Args:
            connection: its process has closed it.
            code: of a close frame sent before; None: none was.
        """
        cause = Cause.TCP_FIN if code is None else Cause.CLOSE_FRAME
        self.send(connection, partial(connection.client.on_end, connection, cause, code))

    def refuse(self, connection: Connection) -> None:
        """Answer what came for a connection that the gateway has closed with RST."""

        def arrives() -> None:
            if connection.passes:
                connection.client.on_end(connection, Cause.TCP_RESET)

        self._clock.after(self._round_trips.next_s() / 2, arrives)

    def forget(self, connection: Connection) -> None:
        """The kernel has no such connection any more: nothing is sent again."""
        connection.unacked.clear()
        connection.unacked_since_s = None

    def reset(self, connection: Connection) -> None:
        """Something in between resets a connection in both directions; a cut at the client's end is beyond it."""
        self.cancel_predicted(connection)
        one_way_s = self._round_trips.next_s() / 2
        self._tell_gateway(connection, Cause.TCP_RESET, one_way_s)
        if connection.client.way_open:
            self._clock.after(one_way_s, partial(connection.client.on_end, connection, Cause.TCP_RESET))

    def cancel_predicted(self, connection: Connection) -> None:
        """Replace the predicted ping and answer of a connection by messages on their way.

        Call it before the state of the way or the client changes: arrivals are computed from the old state.
        """
        now_s = self._clock.now_s
        connection.apply_due_answer(now_s)
        if connection.answer_s == NEVER_S:
            return
        answer_s = connection.answer_s
        one_way_s = answer_s - connection.at_client_s
        if connection.at_client_s <= now_s:
            connection.exchanged()
            self._clock.at(answer_s, partial(connection.gateway.on_frame, connection))
            if connection.alarm_unset:
                connection.gateway.due_earlier(connection)
        else:
            connection.answer_s = NEVER_S
            sent_s = connection.at_client_s - one_way_s
            counts = connection.box is None or connection.box.pings
            ping = partial(connection.client.on_ping, connection)
            deliver = self._seen_on_its_way(connection, sent_s, ping, counts=counts)
            self._clock.at(
                connection.at_client_s, partial(self._arrive, connection, sent_s, one_way_s, deliver)
            )
            connection.arrival_s = connection.at_client_s
            connection.gateway.due_earlier(connection)  # the deadline counts again

    def healed(self, connection: Connection) -> None:
        """The way is open again: what TCP kept comes with its next retransmission, either way."""
        if connection.ended_between:
            connection.client.on_end(connection, Cause.TCP_FIN)
            return
        if connection.up_since_s is not None:
            up_s = retransmission_s(self._ladder, connection.up_since_s, self._clock.now_s)
            if up_s is not None:
                self._clock.at(up_s, partial(self._send_all_up, connection, connection.up_since_s))
        since_s = connection.unacked_since_s
        if since_s is None:
            return
        ladder = self._ladder if connection.open else self._ladder[:ORPHAN_TRIES]
        again_s = retransmission_s(ladder, since_s, self._clock.now_s)
        if again_s is not None:
            self._clock.at(again_s, lambda: self._retransmit(connection, since_s))

    def window_closes(self, connection: Connection) -> None:
        """The client's receive window is shut with data before it: acknowledged probes, and no end to them.

        Only ``TCP_USER_TIMEOUT`` has the kernel give up, counted as for unacknowledged data (tcp(7)).
        """
        if self._bounded:

            def give_up() -> None:
                if connection.open:
                    connection.gateway.on_end(connection, Cause.TCP_TIMEOUT)

            self._clock.after(self._patience_s, give_up)

    def tcp_info(self, connection: Connection) -> dict[str, int]:
        """What the gateway's kernel knows: segments unacknowledged, and how often the oldest was sent again."""
        since_s = connection.unacked_since_s
        if since_s is None:
            return {"unacked": 0, "retransmits": 0}
        return {
            "unacked": len(connection.unacked),
            "retransmits": bisect_right(self._ladder, self._clock.now_s - since_s),
        }

    def _send(
        self, connection: Connection, one_way_s: float, deliver: Deliver, *, counts: bool = True
    ) -> None:
        """Send something to the client; ``counts``: for a box on the way."""
        box = connection.box
        if box is not None:
            deliver = self._seen_on_its_way(connection, self._clock.now_s, deliver, counts=counts)
            if connection.nat_resets and box.at_gateway:
                self._tell_gateway(connection, Cause.TCP_RESET, 0.0)
                return
        if connection.unacked_since_s is not None:
            connection.unacked.append(deliver)
            return
        arrive = partial(self._arrive, connection, self._clock.now_s, one_way_s, deliver)
        self._clock.at(self._arrival_s(connection, one_way_s), arrive)

    def _seen_on_its_way(
        self, connection: Connection, sent_s: float, deliver: Deliver, *, counts: bool
    ) -> Deliver:
        """Have the box see what is sent to the client: now, or where it arrives."""
        box = connection.box
        if box is None or not counts or not box.to_client:
            return deliver
        if box.at_gateway:
            connection.seen_s = max(connection.seen_s, sent_s)
            return deliver
        return partial(self._seen, connection, deliver)

    def _seen(self, connection: Connection, then: Callable[..., None], *took_s: float) -> None:
        connection.seen_s = self._clock.now_s
        then(*took_s)

    def _passes_up(
        self, connection: Connection, one_way_s: float, arrives: Callable[[], None], *, counts: bool = True
    ) -> None:
        """Something of the client's passes its end of the way now."""
        connection.packet_s = self._clock.now_s
        box = connection.box
        if box is not None and counts and box.to_gateway:
            if box.at_gateway:
                arrives = partial(self._seen, connection, arrives)
            else:
                connection.seen_s = self._clock.now_s
        self._clock.after(one_way_s, arrives)

    def _send_up(
        self, connection: Connection, one_way_s: float, arrives: Callable[[], None], *, counts: bool = True
    ) -> None:
        """Send something of the client's own: into a cut or lost it waits for TCP's next try."""
        client, now_s = connection.client, self._clock.now_s
        up = partial(self._passes_up, connection, one_way_s, arrives, counts=counts)
        if connection.up_since_s is not None:
            connection.up.append(up)
        elif connection.nat_resets and client.way_open:
            self._meets_reset(connection, one_way_s)
        elif connection.delivers():
            up()
        else:
            connection.up.append(up)
            connection.up_since_s = now_s
            if client.way_open:
                self._try_up_again(connection, now_s, 0)
            self._clock.at(now_s + give_up_s(self._ladder), partial(self._give_up_up, connection, now_s))

    def _meets_reset(self, connection: Connection, one_way_s: float) -> None:
        """A box that has forgotten the connection answers with RST, to both."""
        box, to_box_s = connection.box, 0.0
        if box is not None and box.at_gateway:
            to_box_s = one_way_s
        self._tell_gateway(connection, Cause.TCP_RESET, one_way_s)
        if box is not None:
            end = partial(connection.client.on_end, connection, Cause.TCP_RESET)
            self._clock.after(2 * to_box_s, end)

    def _try_up_again(self, connection: Connection, since_s: float, tries: int) -> None:
        """What the client sent got lost, or a box drops it: TCP's next try."""
        if tries < len(self._ladder):

            def again() -> None:
                if connection.up_since_s == since_s and connection.client.way_open:
                    self._send_all_up(connection, since_s)
                    self._try_up_again(connection, since_s, tries + 1)

            self._clock.at(since_s + self._ladder[tries], again)

    def _send_all_up(self, connection: Connection, since_s: float) -> None:
        """One try: all of it gets through, or nothing."""
        if connection.up_since_s != since_s or not connection.client.way_open:
            return
        if connection.nat_resets:
            self._meets_reset(connection, self._round_trips.next_s() / 2)
        if not connection.delivers():
            return
        waiting, connection.up = connection.up, []
        connection.up_since_s = None
        for up in waiting:
            up()

    def _give_up_up(self, connection: Connection, since_s: float) -> None:
        if connection.up_since_s == since_s:
            connection.client.on_end(connection, Cause.TCP_TIMEOUT)

    def _arrival_s(self, connection: Connection, one_way_s: float) -> float:
        """When what is sent now arrives: TCP keeps the order."""
        connection.arrival_s = max(self._clock.now_s + one_way_s, connection.arrival_s)
        return connection.arrival_s

    def _arrive(self, connection: Connection, sent_s: float, one_way_s: float, deliver: Deliver) -> None:
        box = connection.box
        if connection.nat_resets and connection.client.way_open and not (box and box.at_gateway):
            # The middlebox is at the client's end: its RST has the whole way back to go.
            self._tell_gateway(connection, Cause.TCP_RESET, self._clock.now_s - sent_s)
        elif connection.unacked_since_s is not None:
            connection.unacked.append(deliver)
        elif connection.delivers():
            connection.packet_s = self._clock.now_s
            connection.probed = False
            deliver(one_way_s)
        else:
            connection.unacked.append(deliver)
            connection.unacked_since_s = sent_s
            if connection.passes:  # one packet was lost, the next try may get through
                ladder = after_probe(self._ladder) if connection.probed else self._ladder
                self._try_again(connection, sent_s, ladder, 0)
            gives_up_s = sent_s + self._patience_s + self._late()
            self._clock.at(gives_up_s, lambda: self._give_up(connection, sent_s))

    def _give_up(self, connection: Connection, since_s: float) -> None:
        if connection.open and connection.unacked_since_s == since_s:
            connection.gateway.on_end(connection, Cause.TCP_TIMEOUT)

    def _retransmit(self, connection: Connection, since_s: float) -> None:
        waited_s = self._clock.now_s - since_s
        tries = self._ladder if connection.open else self._ladder[:ORPHAN_TRIES]
        sends = waited_s <= min(tries[-1], self._patience_s)
        if connection.unacked_since_s == since_s and sends:
            one_way_s = self._round_trips.next_s() / 2
            self._clock.after(one_way_s, partial(self._deliver_all, connection, since_s, one_way_s))

    def _try_again(self, connection: Connection, since_s: float, ladder: Sequence[float], tries: int) -> None:
        """Send what got lost again, and again, until it gets through, the loss is over or the kernel gives up."""

        def again() -> None:
            if connection.unacked_since_s == since_s and connection.client.loses is not None:
                connection.tries = tries + 1
                self._retransmit(connection, since_s)
                self._try_again(connection, since_s, ladder, tries + 1)

        if tries < len(ladder):
            self._clock.at(since_s + ladder[tries], again)

    def _deliver_all(self, connection: Connection, since_s: float, one_way_s: float) -> None:
        # Another cut may have begun meanwhile: its own healing asks for the next retransmission.
        if connection.unacked_since_s != since_s or not connection.client.way_open:
            return
        if connection.nat_resets:
            at_gateway = connection.box is not None and connection.box.at_gateway
            self._tell_gateway(connection, Cause.TCP_RESET, 0.0 if at_gateway else one_way_s)
        if not connection.delivers():
            return
        kept, connection.unacked = connection.unacked, []
        connection.unacked_since_s = None
        connection.packet_s = self._clock.now_s
        connection.probed = connection.tries == 1 and not connection.probed
        connection.tries = 0
        for deliver in kept:
            deliver(one_way_s)
