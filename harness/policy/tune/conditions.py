"""What to tune for: the way between clients and gateway, its idle timer, and the rules of a sound search.

From a scenario's network or a built-in profile to `Conditions`; measured data comes by `measured_conditions.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.policy.profiles import IdleTimerProfile, middleboxes_of, network_profile
from harness.policy.tune.fit import Fit
from harness.policy.tune.units import format_number
from harness.theory.costs import bytes_per_beat
from reference_server.durations import DAY_S, format_duration
from scenarios.client_rules import Reconnect
from scenarios.distributions import Distribution
from scenarios.network import Nat, Network

__all__ = ["UNNAMED_NETWORK", "Conditions", "Rules", "conditions_of_profile"]

UNNAMED_NETWORK = "home-nat"
"""What is tuned for where only a box on the way is named."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """A network to tune for.

    Attributes:
        name: for messages.
        network: round trips, outages, retransmissions.
        nat: the shortest idle timer on the way; None where nothing forgets.
        max_age_s: a box closes a connection of this age, whatever the policy; None: none does.
        notes: where the numbers come from.
        fits: how well the laws describe what was measured.
        not_simulated: sentences on what the measured run had and the fleet does not know.
    """

    name: str
    network: Network
    nat: Nat | None = None
    max_age_s: float | None = None
    notes: tuple[str, ...] = ()
    fits: tuple[Fit, ...] = ()
    not_simulated: tuple[str, ...] = ()

    def behind(self, boxes: Iterable[IdleTimerProfile]) -> Conditions:
        """The same behind further boxes: the shortest idle timer and the shortest life of a connection count."""
        found = self
        for box in boxes:
            if box.transport != "tcp":
                continue
            if box.lifetime is not None and box.lifetime < (found.max_age_s or math.inf):
                note = (
                    f"{box.title} closes every connection at the age of {format_duration(box.lifetime)}: no policy "
                    f"prevents it, and each client loses {format_number(DAY_S / box.lifetime)} connections a day"
                )
                found = replace(found, max_age_s=box.lifetime, notes=(*found.notes, note))
            timer_s = math.inf if found.nat is None else found.nat.idle_timeout
            if box.idle_timeout is not None and box.idle_timeout < timer_s:
                nat = Nat(idle_timeout=box.idle_timeout, expiry=box.expiry, counts=box.counts, at=box.at)
                note = (
                    f"the shortest idle timer on the way: {format_duration(box.idle_timeout)} of {box.title}"
                )
                found = replace(found, nat=nat, notes=(*found.notes, note))
        return found

    def with_round_trip(self, factor: float) -> Conditions:
        """Round trips times a factor."""
        trip = self.network.round_trip.scaled(factor)
        return replace(self, network=self.network.model_copy(update={"round_trip": trip}))

    def with_outages(
        self, *, more_often: float = 1.0, longer: float = 1.0, length: Distribution | None = None
    ) -> Conditions:
        """Outages that come more often, last longer, or follow another law; without outages nothing changes."""
        law = self.network.outages
        if law is None:
            return self
        changed = law.model_copy(
            update={"every": law.every / more_often, "length": (length or law.length).scaled(longer)}
        )
        return replace(self, network=self.network.model_copy(update={"outages": changed}))

    def with_ladder(self, ladder_s: tuple[float, ...]) -> Conditions:
        """Other retransmission times of TCP."""
        return replace(self, network=self.network.model_copy(update={"rto_ladder": ladder_s}))

    def with_nat(self, factor: float) -> Conditions:
        """The idle timer times a factor; without one nothing changes."""
        if self.nat is None:
            return self
        nat = self.nat.model_copy(update={"idle_timeout": self.nat.idle_timeout * factor})
        return replace(self, nat=nat)


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a policy sound on any network, whatever is required.

    Attributes:
        nat_margin: T stays this share below the idle timer: room for a ping that TCP sends again.
        late_share: at most this share of a healthy client's answers may miss the deadline.
        lag_s: lateness of gateway and client that deadlines and patience must allow for, seconds.
        beat_bytes: one ping and its answer on the wire; by default the gateway's JSON messages and one pure ACK.
        page_load: law of a refresh, for the resume window, seconds.
        code_ttl_s: life of a verification code; no part of liveness, passed through.
    """

    nat_margin: float = 0.2
    late_share: float = 1e-3
    lag_s: float = 0.1
    beat_bytes: int = bytes_per_beat(20, 15, pure_acks=1)
    page_load: Distribution = Reconnect().page_load
    code_ttl_s: float = 300.0


def conditions_of_profile(name: str) -> Conditions:
    """A built-in network profile as conditions, with the boxes that it names.

    Raises:
        UnknownProfileError: there is none of that name.
    """
    profile = network_profile(name)
    own = Conditions(profile.name, profile.network, profile.idle_timer, notes=profile.assumptions)
    return own.behind(middleboxes_of(profile))
