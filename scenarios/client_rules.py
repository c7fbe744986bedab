"""What clients do when their connection ends, and what a user may have open. Data only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from reference_server.durations import PositiveDuration
from scenarios.clock import RunClock
from scenarios.distributions import Distribution, Law, Uniform
from scenarios.parts import Part, Share

__all__ = ["LoginOnOtherDevice", "Reconnect", "Sessions", "Traffic", "TrafficOneWay"]


class LoginOnOtherDevice(Part):
    """The user of a dead client tries to log in again from another device."""

    after: Annotated[Law, Field(description="law of the wait from the fault to the first try")] = (
        Distribution(constant=0.0)
    )
    retry: Annotated[PositiveDuration, Field(description="wait after a refusal")] = 1.0
    share: Annotated[Share, Field(gt=0, description="fraction of the faulted clients' users that try")] = 1.0


class Reconnect(Part):
    """What a client does when its connection ends."""

    backoff_base: PositiveDuration = 1.0
    backoff_max: PositiveDuration = 30.0
    jitter: Annotated[
        Literal["none", "full", "equal"] | Share | Law,
        Field(
            description="of the back-off b: none: b; full: U(0, b); equal: U(b/2, b); a share f: "
            "U((1−f)b, (1+f)b); a law of times: b plus a draw of it"
        ),
    ] = "full"
    page_load: Annotated[
        Law, Field(description="law of the time from a refresh's close to its new connection")
    ] = Distribution(uniform=Uniform(low=0.2, high=2.0))
    connect_timeout: Annotated[
        PositiveDuration | None, Field(description="a handshake that takes longer is given up; null: never")
    ] = None
    idle_limit: Annotated[
        PositiveDuration | None,
        Field(description="a client that hears nothing for this long reconnects; null: it waits for ever"),
    ] = None
    relogin: Annotated[
        LoginOnOtherDevice | None, Field(description="measure how long a dead client's user is locked out")
    ] = None

    def back_off_s(self, failures: int, uniform: Any) -> Any:
        """The wait after so many failures in a row: the base, doubled each time, capped, and jittered.

        Args:
            failures: 1 or more.
            uniform: draws of U[0, 1), a number or an array; the same draw gives the same wait.

        Returns:
            Seconds of scenario time, the shape of ``uniform``.
        """
        # Beyond 2^60 the cap has long won, and a float would overflow in the end.
        wait_s = min(self.backoff_max, self.backoff_base * 2.0 ** min(failures - 1, 60))
        match self.jitter:
            case "none":
                return wait_s + 0.0 * uniform
            case "full":
                return wait_s * uniform
            case "equal":
                return wait_s * (1 + uniform) / 2
            case float() as share:
                return wait_s * (1 + share * (2 * uniform - 1))
            case law:
                return wait_s + law.quantile(uniform)[()]


class TrafficOneWay(Part):
    """Application frames in one direction of each connection, besides heartbeats and answers."""

    every: Annotated[
        Law, Field(description="law of the time from one burst to the next, for each connection")
    ]
    bytes: Annotated[int, Field(ge=1, description="payload of one frame")] = 100
    burst: Annotated[int, Field(ge=1, description="frames sent together")] = 1

    @field_validator("every", mode="after")
    @classmethod
    def _takes_time(cls, every: Distribution) -> Distribution:
        if not every.mean_s > 0:
            raise ValueError("0 s from one burst to the next; allowed: a law with a mean above 0 s")
        return every


class Traffic(Part):
    """What clients and gateway say to each other besides heartbeats."""

    to_gateway: TrafficOneWay | None = None
    to_client: TrafficOneWay | None = None
    service: Annotated[
        Law,
        Field(
            description="loop time of the gateway for one frame of a client, real seconds, never sped up; the "
            "reference gateway's own 0.2 ms a frame are not in it"
        ),
    ] = Distribution(constant=0.0)

    @property
    def takes_time(self) -> bool:
        """Whether reading a client's frame keeps the gateway's loop busy."""
        return self.to_gateway is not None and self.service != Distribution(constant=0.0)

    def seen_at(self, clock: RunClock) -> Traffic:
        """The traffic as the clock of a run sees it, in scenario time: each frame takes relatively longer."""
        return self.model_copy(update={"service": clock.seen(self.service)})


class Sessions(Part):
    """Rules about one user's sessions."""

    second_login: Annotated[
        Literal["refuse", "take_over"],
        Field(description="a login of a user who is online: refused, or it ends the older session"),
    ] = "take_over"
    survives_connection: Annotated[
        bool,
        Field(
            description="the session record outlives its connection by session_ttl, so that a client comes back "
            "without a login; status and presence go at once on a suspicion, resume_window after a close"
        ),
    ] = False
    watchers_per_user: Annotated[
        int, Field(ge=0, description="clients told when a faulted user goes offline")
    ] = 1
