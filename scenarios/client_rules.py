"""What clients do when their connection ends, and what a user may have open. Data only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reference_server.durations import PositiveDuration
from scenarios.distributions import Distribution, Law, Uniform
from scenarios.parts import Part, Share

__all__ = ["LoginOnOtherDevice", "Reconnect", "Sessions"]


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
    page_load: Annotated[
        Law, Field(description="law of the time from a refresh's close to its new connection")
    ] = Distribution(uniform=Uniform(low=0.2, high=2.0))
    connect_timeout: Annotated[
        PositiveDuration | None,
        Field(description="a handshake that takes longer is given up; null: never; simulated only"),
    ] = None
    idle_limit: Annotated[
        PositiveDuration | None,
        Field(description="a client that hears nothing for this long reconnects; null: it waits for ever"),
    ] = None
    relogin: Annotated[
        LoginOnOtherDevice | None, Field(description="measure how long a dead client's user is locked out")
    ] = None

    def back_off_ceiling_s(self, failures: int) -> float:
        """The longest wait after so many failures in a row: the base, doubled each time, capped. 1 or more.

        A client waits uniformly between zero and this (full jitter).
        """
        # Beyond 2^60 the cap has long won, and a float would overflow in the end.
        return min(self.backoff_max, self.backoff_base * 2.0 ** min(failures - 1, 60))


class Sessions(Part):
    """Rules about one user's sessions."""

    second_login: Annotated[
        Literal["refuse", "take_over"],
        Field(description="a login of a user who is online: refused, or it ends the older session"),
    ] = "take_over"
    watchers_per_user: Annotated[
        int, Field(ge=0, description="clients told when a faulted user goes offline")
    ] = 1
