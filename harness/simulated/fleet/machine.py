"""The state machine of a fleet's connections, in lockstep of events: every client does its own next event.

From ways, round trips and a policy to verdicts, which `record.py` keeps. `PingDetectors` are the gateway's detector for
arrays; the way's rules are those of `harness/simulated/network.py`, those of coming back of `clients.py` beside it.

    ping ──► arrives in time ──► answer ──► next ping after T        (most pings; whole quiet runs at once)
      └────► stuck before a cut ──► deadline, failures, R ──► k-th: suspected
                   └──► first retransmission after the cut ──► answers ──► quiet again
"""

from __future__ import annotations

import numpy as np

from harness.simulated.fleet.draws import FloatArray, Index, RoundTrips
from harness.simulated.fleet.outages import Flags, Harmless, OutageProcess
from harness.simulated.fleet.record import Record
from harness.simulated.network import kernel_patience_s
from reference_server.events import Cause
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.client_rules import Reconnect
from scenarios.network import ORPHAN_TRIES, Network

__all__ = ["Machine", "harmless_outages"]

# A client's clocks: when the next event of each kind comes, inf where none will.
_DUE, _ANSWER, _DELIVER, _GIVE_UP, _IDLE, _END, _LEAVE, _RECOVER = range(8)
_CLOCKS = 8


class Machine:
    """Clients of one gateway policy. Seconds from the run's origin; arrays of shape (clients,).

    Args:
        policy: with a heartbeat.
        network: round trips come drawn; of it the ladder is used.
        reconnect: when clients leave a silent connection and how they come back.
        connects_s: when each client begins to connect.
        horizon_s: the end.
        way: each client's way.
        round_trips: drawn for this policy's deadline.
        record: told of verdicts.
        one_fault: the way's spell is a fault: the run of a client ends with its outcome.
        rng: phases and back-offs.
    """

    def __init__(
        self,
        policy: LivenessPolicy,
        network: Network,
        reconnect: Reconnect,
        *,
        connects_s: FloatArray,
        horizon_s: float,
        way: OutageProcess,
        round_trips: RoundTrips,
        record: Record,
        one_fault: bool,
        rng: np.random.Generator,
    ) -> None:
        n = len(connects_s)
        self._interval_s, self._retry_s = policy.interval_s, policy.retry_s
        self._most_pings, self._verdict_s = policy.max_failures, policy.patience_s
        self._idle_s, self._sweep_s = policy.session_timeout, policy.sweep_interval
        self._window_s = policy.resume_window
        self._first_ping = policy.first_ping
        ladder = sorted(network.rto_ladder)
        self._ladder_s = np.array([*ladder, np.inf])
        self._patience_s = kernel_patience_s(policy.tcp_user_timeout, ladder)
        self._reconnect, self._leave_s = reconnect, reconnect.idle_limit
        self._horizon_s = horizon_s
        self._way, self._trips, self._record = way, round_trips, record
        self._one_fault = one_fault
        self._rng = rng
        # No limit of idle time may run out between two fast answers: then fast pings can be jumped over.
        longest_s = self._interval_s + round_trips.fast_below_s
        limits = [limit for limit in (self._idle_s, self._leave_s) if limit is not None]
        self._may_jump = all(limit >= longest_s for limit in limits)
        self._keeps_idle = bool(limits) or way.counts_packets

        self._when_s = np.full((_CLOCKS, n), np.inf)
        self._answers = Answers(n)
        self._detectors = PingDetectors(policy, n)
        self._arrival_s = np.full(n, -np.inf)  # of the last message to the client: TCP keeps the order
        self._stuck_since_s = np.full(n, np.inf)  # first send of the oldest unacknowledged ping
        self._again_half_s = np.zeros(
            n
        )  # one-way delay of its next retransmission, and of the answers to that
        self._heard_s = np.full(n, np.nan)
        self._packet_s = np.full(n, np.nan)
        self._left_s = np.full(n, np.inf)  # the client gave the connection up
        self._sweep_phase_s = rng.uniform(0.0, self._sweep_s, n)
        self._done = np.zeros(n, dtype=bool)
        self._connect(np.arange(n), connects_s, None, np.full(n, -np.inf))

    def run(self) -> None:
        """Go from event to event until every client's next one lies beyond the horizon."""
        handlers = {
            _DUE: self._on_due,
            _ANSWER: self._on_answer,
            _DELIVER: self._on_deliver,
            _GIVE_UP: self._on_give_up,
            _IDLE: self._on_idle,
            _END: self._on_end,
            _LEAVE: self._on_leave,
            _RECOVER: self._on_recover,
        }
        active = np.flatnonzero(~self._done)
        while active.size:
            when_s = self._when_s.take(active, axis=1)
            kinds = when_s.argmin(axis=0)
            now_s = when_s.min(axis=0)
            over = now_s >= self._horizon_s
            self._finish(active[over])
            kinds[over] = -1
            for kind, handler in handlers.items():
                mine = np.flatnonzero(kinds == kind)
                if mine.size:
                    handler(active[mine], now_s[mine])
            active = active[~self._done[active]]

    # -- heartbeats --------------------------------------------------------------------------------

    def _on_due(self, who: Index, now_s: FloatArray) -> None:
        overdue = self._detectors.awaiting[who]
        late, late_s = who[overdue], now_s[overdue]
        enough, retry_s = self._detectors.on_deadline(late)
        self._when_s[_DUE, late] = retry_s
        self._suspect(late[enough], late_s[enough], Cause.HEARTBEAT)
        self._beat(who[~overdue], now_s[~overdue])

    def _beat(self, who: Index, now_s: FloatArray) -> None:
        """Pings are due, or whole quiet runs of them."""
        quiet = self._detectors.trusts(who) & np.isinf(self._stuck_since_s[who])
        quiet &= np.isinf(self._when_s[_ANSWER, who]) & np.isinf(self._left_s[who])
        slow = np.zeros(len(who), dtype=bool)
        if self._may_jump and quiet.any():
            now_s = now_s.copy()
            now_s[quiet], slow[quiet] = self._jump(who[quiet], now_s[quiet])
        self._when_s[_DUE, who] = now_s  # beyond the horizon: finished next
        ping = now_s < self._horizon_s
        who, now_s, slow = who[ping], now_s[ping], slow[ping]
        trip_s = self._trips.take(len(who)).copy()
        trip_s[slow] = self._trips.slow(int(slow.sum()))
        self._ping(who, now_s, trip_s)

    def _jump(self, who: Index, now_s: FloatArray) -> tuple[FloatArray, Flags]:
        """Pass over pings that are answered in time; return when the next one is sent, and if it is late."""
        pings, late = quiet_runs(who, now_s, self._interval_s, self._horizon_s, self._way, self._trips)
        self._record.fast_beats(pings)
        sent_s = now_s + pings * self._interval_s
        passed = pings > 0
        if self._keeps_idle and passed.any():
            last_s = sent_s[passed] - self._interval_s
            trip_s = self._trips.fast(len(last_s))
            self._hear(who[passed], last_s + trip_s)
            self._packet_passed(who[passed], last_s + trip_s / 2)
        return sent_s, late

    def _ping(self, who: Index, now_s: FloatArray, trip_s: FloatArray) -> None:
        self._record.beats += len(who)
        half_s = trip_s / 2
        self._when_s[_DUE, who] = self._detectors.on_ping(who, now_s)
        behind = np.isfinite(self._stuck_since_s[who])
        self._answers.stick(who[behind])
        who, now_s, half_s = who[~behind], now_s[~behind], half_s[~behind]

        at_client_s = np.maximum(now_s + half_s, self._arrival_s[who])
        self._arrival_s[who] = at_client_s
        is_open = self._way.is_open(who, at_client_s)
        shut = ~is_open
        forgotten = self._way.forgot(who, at_client_s)
        if self._way.resets:
            # The middlebox is at the client's end: its RST has the whole way back to go.
            hit = self._way.meets_reset(who, at_client_s)
            self._reset(who[hit], (2 * at_client_s - now_s)[hit])
            shut &= ~hit
        if self._way.acknowledges:
            kept = shut & ~forgotten
            self._freeze(who[kept], at_client_s[kept], half_s[kept])
            shut &= forgotten
        self._get_stuck(who[shut], now_s[shut], at_client_s[shut])
        self._look_ahead(who[shut], now_s[shut])
        self._arrive(who[is_open], now_s[is_open], at_client_s[is_open], half_s[is_open])

    def _arrive(self, who: Index, now_s: FloatArray, at_client_s: FloatArray, half_s: FloatArray) -> None:
        """Pings that reach a client whose way is open."""
        if not who.size:
            return
        there = np.isinf(self._left_s[who])
        who, now_s, at_client_s, half_s = (a[there] for a in (who, now_s, at_client_s, half_s))
        if self._one_fault:
            back = at_client_s >= self._way.ends_s[who]
            self._when_s[_RECOVER, who[back]] = at_client_s[back]
        patient = self._when_s[_LEAVE, who] > at_client_s
        self._packet_passed(who[patient], at_client_s[patient])
        answer_s = at_client_s + half_s
        # Nothing else comes before the answer, the deadline included: it can be taken at once.
        alone = answer_s < self._when_s.take(who, axis=1).min(axis=0)
        self._take_answer(who[alone], answer_s[alone])
        late = who[~alone]
        self._answers.expect(late, answer_s[~alone])
        self._when_s[_ANSWER, late] = np.minimum(self._when_s[_ANSWER, late], answer_s[~alone])

    def _take_answer(self, who: Index, now_s: FloatArray) -> None:
        """A frame comes in: a sign of life."""
        self._record.answers += len(who)
        self._hear(who, now_s)
        heard, due_s = self._detectors.on_inbound(who, now_s)
        self._when_s[_DUE, heard] = due_s

    def _on_answer(self, who: Index, now_s: FloatArray) -> None:
        self._answers.take_next(who)
        self._when_s[_ANSWER, who] = self._answers.next_s(who)
        self._take_answer(who, now_s)

    # -- the way is shut ---------------------------------------------------------------------------

    def _freeze(self, who: Index, at_client_s: FloatArray, half_s: FloatArray) -> None:
        """The client's kernel keeps the ping; its process answers when it runs again, if ever."""
        self._packet_passed(who, at_client_s)
        thaws_s = self._way.ends_s[who]
        thaws = np.isfinite(thaws_s)
        who, thaws_s = who[thaws], thaws_s[thaws]
        self._when_s[_RECOVER, who] = thaws_s
        self._answers.expect(who, thaws_s + half_s[thaws])
        self._when_s[_ANSWER, who] = self._answers.next_s(who)

    def _get_stuck(self, who: Index, sent_s: FloatArray, at_client_s: FloatArray) -> None:
        """The ping stays unacknowledged, and what comes after it waits behind it."""
        if not who.size:
            return
        self._stuck_since_s[who] = sent_s
        self._answers.stick(who)
        self._when_s[_GIVE_UP, who] = np.maximum(sent_s + self._patience_s, at_client_s)
        self._send_again(who, at_client_s)

    def _look_ahead(self, who: Index, sent_s: FloatArray) -> None:
        """Go at once to the end of pings that have just got stuck, where all that decides it has been drawn.

        Either the heartbeat's verdict comes first, or the answers to all pings that are stuck by the healing. What
        something else may come between is left to the events one by one.
        """
        if not who.size:
            return
        fresh = self._detectors.is_first_ping(who) & np.isinf(self._when_s[_ANSWER, who])
        fresh &= np.isinf(self._left_s[who])
        who, sent_s = who[fresh], sent_s[fresh]
        clocks_s = self._when_s.take(who, axis=1)
        delivered_s = clocks_s[_DELIVER].copy()
        clocks_s[[_DUE, _DELIVER]] = np.inf
        other_s = np.minimum(clocks_s.min(axis=0), self._horizon_s)
        verdict_s = sent_s + self._verdict_s
        doomed = verdict_s < np.minimum(other_s, delivered_s)

        answered_s = delivered_s + self._again_half_s[who]
        pings = np.floor((delivered_s - sent_s) / self._retry_s)
        heals = answered_s < np.minimum(other_s, verdict_s)
        heals &= pings == np.floor((answered_s - sent_s) / self._retry_s)  # none is sent in between
        if self._one_fault or self._way.counts_packets:
            heals[:] = False
        heals[heals] = self._way.is_open(who[heals], delivered_s[heals])
        self._record.beats += int(pings[heals].sum()) + int(doomed.sum()) * (self._most_pings - 1)
        self._record.answers += int(pings[heals].sum()) + int(heals.sum())
        self._heal(
            who[heals], sent_s[heals] + pings[heals] * self._retry_s, delivered_s[heals], answered_s[heals]
        )
        self._suspect(who[doomed], verdict_s[doomed], Cause.HEARTBEAT)

    def _heal(
        self, who: Index, last_ping_s: FloatArray, delivered_s: FloatArray, answered_s: FloatArray
    ) -> None:
        """All that was stuck is delivered, and answered."""
        self._stuck_since_s[who] = np.inf
        self._answers.clear(who)
        self._detectors.reset(who)
        for clock in (_ANSWER, _DELIVER, _GIVE_UP):
            self._when_s[clock, who] = np.inf
        self._packet_passed(who, delivered_s)
        self._hear(who, answered_s)
        self._when_s[_DUE, who] = np.maximum(last_ping_s + self._interval_s, answered_s)

    def _send_again(self, who: Index, lost_s: FloatArray) -> None:
        """The first retransmission at or after the healing brings all of it, half a round trip later."""
        since_s = self._stuck_since_s[who]
        shut_for_s = self._way.heals_s(who, lost_s) - since_s
        step = np.searchsorted(self._ladder_s[:-1], shut_for_s, side="left")
        again_s = since_s + self._ladder_s[step]
        again_s[np.isfinite(self._left_s[who])] = np.inf  # nobody is there to answer
        self._again_half_s[who] = self._trips.take(len(who)) / 2
        self._when_s[_DELIVER, who] = again_s + self._again_half_s[who]

    def _on_deliver(self, who: Index, now_s: FloatArray) -> None:
        is_open = self._way.is_open(who, now_s)
        hit = self._way.meets_reset(who, now_s)
        shut = ~is_open & ~hit
        self._send_again(who[shut], now_s[shut])
        self._reset(who[hit], now_s[hit] + self._trips.take(int(hit.sum())) / 2)
        self._when_s[_DELIVER, who[hit]] = np.inf
        who, now_s = who[is_open], now_s[is_open]
        self._answers.release(who, now_s + self._again_half_s[who])
        self._stuck_since_s[who] = np.inf
        self._when_s[_ANSWER, who] = self._answers.next_s(who)
        self._when_s[_GIVE_UP, who] = np.inf
        self._when_s[_DELIVER, who] = np.inf
        self._packet_passed(who, now_s)
        if self._one_fault:
            self._recovered(who, now_s)

    def _reset(self, who: Index, at_s: FloatArray) -> None:
        """An RST arrives at the gateway then; perhaps not the first one: the first counts."""
        self._when_s[_END, who] = np.minimum(self._when_s[_END, who], at_s)

    def _on_recover(self, who: Index, now_s: FloatArray) -> None:
        self._recovered(who, now_s)

    def _recovered(self, who: Index, now_s: FloatArray) -> None:
        self._record.recovered(who, self._way.begins_s[who], now_s)
        self._done[who] = True

    # -- signs of life and idle limits ---------------------------------------------------------------

    def _hear(self, who: Index, now_s: FloatArray) -> None:
        self._heard_s[who] = now_s
        if self._idle_s is not None:
            phase_s = self._sweep_phase_s[who]
            sweeps = np.ceil((now_s + self._idle_s - phase_s) / self._sweep_s)
            self._when_s[_IDLE, who] = phase_s + sweeps * self._sweep_s

    def _packet_passed(self, who: Index, at_s: FloatArray) -> None:
        self._packet_s[who] = at_s
        self._way.passed(who, at_s)
        if self._leave_s is not None:
            self._when_s[_LEAVE, who] = at_s + self._leave_s

    # -- ends ----------------------------------------------------------------------------------------

    def _on_give_up(self, who: Index, now_s: FloatArray) -> None:
        self._suspect(who, now_s, Cause.TCP_TIMEOUT)

    def _on_idle(self, who: Index, now_s: FloatArray) -> None:
        self._suspect(who, now_s, Cause.SESSION_TIMEOUT)

    def _on_end(self, who: Index, now_s: FloatArray) -> None:
        """FIN of a client that left, or RST of a middlebox."""
        self._heard_s[who] = now_s
        self._suspect(who, now_s, Cause.TCP_RESET)

    def _on_leave(self, who: Index, now_s: FloatArray) -> None:
        """The client has heard nothing for too long and gives the connection up."""
        self._record.stop_exposure(who, now_s)
        self._left_s[who] = now_s
        self._when_s[_LEAVE, who] = np.inf
        self._when_s[_DELIVER, who] = np.inf
        told = self._way.is_open(who, now_s)
        self._when_s[_END, who[told]] = now_s[told] + self._trips.take(int(told.sum())) / 2

    def _suspect(self, who: Index, now_s: FloatArray, cause: Cause) -> None:
        """The gateway's verdict: of a fault, of a healthy client, or of one that has left already."""
        if not who.size:
            return
        if self._one_fault:
            struck = self._way.begins_s[who] <= now_s
            self._record.detected(who[struck], self._way.begins_s[who[struck]], now_s[struck], cause)
            self._record.stop_exposure(who[struck], self._way.begins_s[who[struck]])
            self._done[who[struck]] = True
            who, now_s = who[~struck], now_s[~struck]
        here = np.isinf(self._left_s[who])
        self._record.gave_up_healthy(who[here], now_s[here], cause)
        told_s = np.where(here, np.inf, self._left_s[who])
        told_s[here] = self._hears_of_it(who[here], now_s[here], cause)
        until_s = now_s
        if cause is not Cause.SESSION_TIMEOUT:  # such a session is not resumed
            until_s = np.maximum(now_s, self._heard_s[who] + self._window_s)
        self._record.clean_ups += len(who)
        self._connect(who, told_s, until_s, now_s)

    def _hears_of_it(self, who: Index, now_s: FloatArray, cause: Cause) -> FloatArray:
        """When each dropped client knows: the end of its connection arrives, or its own patience ends.

        Into a shut way the kernel sends it again, for a while: the first try after the healing brings it.
        """
        half_s = self._trips.take(len(who)) / 2
        arrives_s = np.maximum(now_s + half_s, self._arrival_s[who])
        patience_s = np.inf if self._leave_s is None else self._packet_s[who] + self._leave_s
        if cause is Cause.TCP_TIMEOUT:
            return np.asarray(np.maximum(patience_s, arrives_s))
        stuck_s = self._stuck_since_s[who]
        is_stuck = np.isfinite(stuck_s)
        is_open = self._way.is_open(who, arrives_s)
        waits = is_stuck | ~is_open
        # Behind what is stuck it comes with that; alone it meets the shut way itself.
        since_s = np.where(is_stuck, stuck_s, now_s)
        again_s = np.where(
            is_stuck, self._when_s[_DELIVER, who], self._next_try_s(who, since_s, arrives_s) + half_s
        )
        shut = waits & (again_s < patience_s)
        while shut.any():
            again = who[shut]
            shut[shut] = ~self._way.is_open(again, again_s[shut])
            again_s[shut] = self._next_try_s(who[shut], since_s[shut], again_s[shut]) + half_s[shut]
            shut &= again_s < patience_s
        beyond_s = self._ladder_s[min(ORPHAN_TRIES, len(self._ladder_s) - 1)]
        again_s[again_s - since_s >= np.minimum(beyond_s, self._patience_s + half_s)] = np.inf
        late_s = np.minimum(np.maximum(patience_s, arrives_s), again_s)
        return np.asarray(np.where(waits, late_s, arrives_s))

    def _next_try_s(self, who: Index, since_s: FloatArray, shut_s: FloatArray) -> FloatArray:
        """TCP's first try at or after the healing of a way that is shut at these times; inf: none."""
        step = np.searchsorted(self._ladder_s[:-1], self._way.heals_s(who, shut_s) - since_s, side="left")
        return np.asarray(since_s + self._ladder_s[step])

    def _connect(
        self, who: Index, from_s: FloatArray, resumable_until_s: FloatArray | None, ended_s: FloatArray
    ) -> None:
        accepted_s, connected_s = connect(
            who,
            from_s,
            resumable_until_s,
            reconnect=self._reconnect,
            way=self._way,
            round_trips=self._trips,
            horizon_s=self._horizon_s,
            rng=self._rng,
        )
        back = connected_s < self._horizon_s
        self._done[who[~back]] = True
        self._way.reconnected(who[back], ended_s[back], connected_s[back])
        self._connected(who[back], accepted_s[back], connected_s[back])

    def _connected(self, who: Index, accepted_s: FloatArray, connected_s: FloatArray) -> None:
        self._record.start_exposure(who, connected_s)
        self._answers.clear(who)
        self._when_s[:, who] = np.inf
        # In (0, T]: a burst of new connections must not become a burst of pings.
        phase_s = self._interval_s * (1.0 - self._rng.random(len(who)))
        if self._first_ping == "interval":
            phase_s[:] = self._interval_s
        self._when_s[_DUE, who] = accepted_s + phase_s
        self._detectors.reset(who)
        self._stuck_since_s[who] = np.inf
        self._left_s[who] = np.inf
        self._arrival_s[who] = connected_s
        self._hear(who, accepted_s)
        self._packet_s[who] = connected_s
        if self._leave_s is not None:
            self._when_s[_LEAVE, who] = connected_s + self._leave_s

    def _finish(self, who: Index) -> None:
        self._done[who] = True
        here = who[np.isinf(self._left_s[who])]
        until_s = np.full(len(here), self._horizon_s)
        if self._one_fault:  # an outage is no fault
            until_s = np.minimum(until_s, self._way.begins_s[here])
            self._record.censored(here, self._way.begins_s[here], self._horizon_s)
        self._record.stop_exposure(here, until_s)


def quiet_runs(
    who: Index,
    now_s: FloatArray,
    interval_s: float,
    horizon_s: float,
    way: OutageProcess,
    round_trips: RoundTrips,
) -> tuple[FloatArray, Flags]:
    """Count the pings from ``now_s`` on, one every interval, that are answered in time.

    Exact, not an approximation: a ping is passed over only where its way is drawn to be open whatever its round trip
    below the deadline, and how many come before the next late one is drawn.

    Passed over are pings that reach the client before its way matters, and outages that begin and end between
    two pings. The count ends at the horizon.

    Args:
        who: clients that await nothing, shape (m,).
        now_s: when the next ping of each is due.
        interval_s: T.
        horizon_s: pings from then on are not counted.
        way: each client's way; outages passed over are advanced.
        round_trips: says how soon the next late answer is.

    Returns:
        Two arrays of shape (m,): how many (whole numbers), and whether the ping after these is known to be late;
        where not, its round trip is still to be drawn.
    """
    until_late = round_trips.pings_until_late(len(who))
    pings = np.zeros(len(who))
    to_end = np.ceil((horizon_s - now_s) / interval_s)
    looking = np.arange(len(who))
    while looking.size:
        some = who[looking]
        closing_s = way.matters_from_s[some] - round_trips.fast_below_s / 2
        ahead = np.ceil((closing_s - now_s[looking]) / interval_s)
        pings[looking] = np.minimum(np.maximum(pings[looking], ahead), to_end[looking])
        if not way.recurs:
            break
        sent_s = now_s[looking] + pings[looking] * interval_s
        harmless = (sent_s >= way.ends_s[some]) & (sent_s < horizon_s)
        harmless &= pings[looking] <= until_late[looking]
        way.advance(some[harmless])
        looking = looking[harmless]
    return np.minimum(pings, until_late), until_late < pings


_SLOTS = 3


class Answers:
    """Outstanding pings of n clients. Seconds.

    A ping that reached its client has the time at which its answer arrives; one that is stuck has none yet.
    """

    def __init__(self, clients: int) -> None:
        self._arrives_s = np.full((clients, _SLOTS), np.inf)
        self._stuck = np.zeros((clients, _SLOTS), dtype=bool)

    def expect(self, who: Index, arrives_s: FloatArray) -> None:
        """Answers that will arrive at these times."""
        if not who.size:
            return
        slot = self._free_slot(who)  # first: it may make the matrix larger
        self._arrives_s[who, slot] = arrives_s

    def stick(self, who: Index) -> None:
        """Pings that wait for the way to open."""
        if not who.size:
            return
        slot = self._free_slot(who)
        self._stuck[who, slot] = True

    def release(self, who: Index, arrives_s: FloatArray) -> None:
        """Stuck pings reach their clients, all at once; their answers arrive together, too."""
        self._arrives_s[who] = np.where(self._stuck[who], arrives_s[:, np.newaxis], self._arrives_s[who])
        self._stuck[who] = False

    def take_next(self, who: Index) -> None:
        """The next answer of each has arrived."""
        self._arrives_s[who, self._arrives_s[who].argmin(axis=1)] = np.inf

    def next_s(self, who: Index) -> FloatArray:
        """When the next answer of each arrives, shape of ``who``; inf: none is on its way."""
        return np.asarray(self._arrives_s[who].min(axis=1))

    def clear(self, who: Index) -> None:
        """Nothing is owed on a new connection."""
        self._arrives_s[who] = np.inf
        self._stuck[who] = False

    def _free_slot(self, who: Index) -> Index:
        free = np.isinf(self._arrives_s[who]) & ~self._stuck[who]
        if not free.any(axis=1).all():
            more = np.full_like(self._arrives_s, np.inf)
            self._arrives_s = np.hstack((self._arrives_s, more))
            self._stuck = np.hstack((self._stuck, np.zeros_like(self._stuck)))
            return self._free_slot(who)
        return np.asarray(free.argmax(axis=1), dtype=np.intp)


class PingDetectors:
    """Detectors of n connections. Seconds; each verb is given clients and times, shape (m,)."""

    def __init__(self, policy: LivenessPolicy, clients: int) -> None:
        self._interval_s = policy.interval_s
        self._timeout_s = policy.heartbeat_timeout
        self._retry_s = policy.retry_s
        self._max = policy.max_failures
        self._ping_s = np.full(clients, -np.inf)
        self._failures = np.zeros(clients, dtype=np.int64)
        self.awaiting = np.zeros(clients, dtype=bool)

    def reset(self, who: Index) -> None:
        """New connections."""
        self.awaiting[who] = False
        self._failures[who] = 0

    def trusts(self, who: Index) -> Flags:
        """Which have no answer to wait for and no failure to forgive."""
        return np.asarray(~self.awaiting[who] & (self._failures[who] == 0))

    def is_first_ping(self, who: Index) -> Flags:
        """Which have missed no answer yet."""
        return np.asarray(self._failures[who] == 0)

    def on_ping(self, who: Index, now_s: FloatArray) -> FloatArray:
        """Pings are sent now; returns their deadlines."""
        self._ping_s[who] = now_s
        self.awaiting[who] = True
        return now_s + self._timeout_s

    def on_deadline(self, who: Index) -> tuple[Flags, FloatArray]:
        """Answers are overdue; returns which connections are suspected, and when the others' next ping is due."""
        self._failures[who] += 1
        self.awaiting[who] = False
        return self._failures[who] >= self._max, self._ping_s[who] + self._retry_s

    def on_inbound(self, who: Index, now_s: FloatArray) -> tuple[Index, FloatArray]:
        """Frames come in; returns for whom that changes something, and when their next ping is due.

        With R > T that may have been before: then it is due now.
        """
        waited = ~self.trusts(who)
        who, now_s = who[waited], now_s[waited]
        self.reset(who)
        return who, np.maximum(self._ping_s[who] + self._interval_s, now_s)


# A SYN into a cut is sent again after 1, 3 and 7 s; the client gives up after 10 s.
_SYN_WAITS_S = (1.0, 2.0, 4.0, 3.0)
_HANDSHAKES = 2.0  # round trips before the first message: TCP, WebSocket upgrade
_RARE = 1e-12  # so rarely is a round trip or a back-off longer than what is reckoned with


def harmless_outages(
    policy: LivenessPolicy, network: Network, reconnect: Reconnect, horizon_s: float
) -> Harmless:
    """Which outages cannot lead to a verdict, whatever the ping that they meet.

    Where R = T and no round trip misses the deadline, one changes nothing if TCP's retransmission has brought what was
    stuck, and its answers are there, before any limit runs out: the pings leave when they would have left anyway, and
    as many are answered. Its length is then at most a step of TCP's ladder that is below all limits. It must not meet
    what the outage before or the one after has left: a client that is not back yet, a retransmission under way.
    """
    trip_s = float(network.round_trip.quantile(1 - _RARE))
    ladder, interval_s = sorted(network.rto_ladder), policy.interval_s
    if policy.retry_s != interval_s or 1 - float(network.round_trip.cdf(policy.heartbeat_timeout)) > 0:
        return Harmless(-1.0, 0.0, horizon_s)
    idle_s = [limit for limit in (policy.session_timeout, reconnect.idle_limit) if limit is not None]
    longest_s = min(
        policy.patience_s,
        kernel_patience_s(policy.tcp_user_timeout, ladder),
        *(limit - interval_s - trip_s for limit in idle_s),
    )
    step_s = max((step for step in ladder if step + 2 * trip_s < longest_s), default=0.0)
    again_s = float(reconnect.back_off_s(60, np.array(1 - _RARE)))
    # What an outage leaves lasts so long at most: until its retransmission, or until its client has learnt of the
    # verdict and is back, perhaps with a new login.
    longest_gap_s = float(np.diff([0.0, *ladder]).max())
    back_s = 2 * (again_s + sum(_SYN_WAITS_S) + (_HANDSHAKES + 3) * trip_s)
    apart_s = interval_s + policy.patience_s + longest_gap_s + (reconnect.idle_limit or 0.0) + back_s
    return Harmless(step_s - trip_s if step_s else -1.0, apart_s, horizon_s)


def connect(
    who: Index,
    from_s: FloatArray,
    resumable_until_s: FloatArray | None,
    *,
    reconnect: Reconnect,
    way: OutageProcess,
    round_trips: RoundTrips,
    horizon_s: float,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """When the gateway accepts each client's next connection, and when the client knows.

    Args:
        who: clients, shape (m,).
        from_s: when each begins, or learns that its connection is over; inf: never. Shape (m,).
        resumable_until_s: until when its session record is there, shape (m,). None: they log in for the first
            time, and without a back-off.
        reconnect: its patience.
        way: each client's way, asked whether a SYN passes.
        round_trips: draws for handshakes and logins.
        horizon_s: who is not back by then is not back.
        rng: back-offs.

    Returns:
        Two arrays of shape (m,), seconds; inf: not before the horizon.
    """
    now_s = from_s.copy()
    has_session = np.full(len(who), resumable_until_s is not None)
    record_until_s = now_s.copy() if resumable_until_s is None else resumable_until_s.copy()
    accepted_s, connected_s = np.full(len(who), np.inf), np.full(len(who), np.inf)
    failures = 0 if resumable_until_s is None else 1
    trying = np.flatnonzero(now_s < horizon_s)
    while trying.size:
        if failures:
            now_s[trying] += reconnect.back_off_s(failures, rng.random(len(trying)))
        failures += 1
        outside = trying[~has_session[trying]]
        entering = outside[_reach(who, outside, now_s, way)]
        now_s[entering] += round_trips.take(len(entering))
        has_session[entering] = True
        record_until_s[entering] = np.inf

        ready = trying[has_session[trying]]
        ready = ready[_reach(who, ready, now_s, way)]
        trip_s = round_trips.take(len(ready))
        now_s[ready] += (_HANDSHAKES + 0.5) * trip_s
        known = now_s[ready] <= record_until_s[ready]
        accepted_s[ready[known]] = now_s[ready[known]]
        now_s[ready] += trip_s / 2
        connected_s[ready[known]] = now_s[ready[known]]
        has_session[ready[~known]] = False
        trying = trying[np.isinf(accepted_s[trying]) & (now_s[trying] < horizon_s)]
    return accepted_s, connected_s


def _reach(who: Index, some: Index, now_s: FloatArray, way: OutageProcess) -> Flags:
    """Let some of them try to get through; moves their time on; False: no SYN passed, shape of ``some``."""
    through = np.zeros(len(some), dtype=bool)
    for wait_s in _SYN_WAITS_S:
        waiting = np.flatnonzero(~through)
        if not waiting.size:
            break
        through[waiting] = way.lets_in(who[some[waiting]], now_s[some[waiting]])
        now_s[some[~through]] += wait_s
    return through
