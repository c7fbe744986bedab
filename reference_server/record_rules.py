"""How a system keeps its records: when they are written, how soon again, and whether they expire at all. No I/O.

The defaults are this gateway's own. The others are what documented systems do, kept to be measured.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["RecordRules", "refresh_after_s"]


class RecordRules(BaseModel):
    """Rules about session and status records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expire: Annotated[
        bool,
        Field(
            description="false: no TTL at all; session_ttl and status_ttl say nothing then, and a "
            "record that nobody deletes stays for ever"
        ),
    ] = True
    status_written: Annotated[
        Literal["at_connect", "at_login"],
        Field(description="at_login: a login whose connection never comes counts as online"),
    ] = "at_connect"
    refreshed: Annotated[
        Literal["when_half_gone", "at_each_frame", "by_the_keepalive", "never"],
        Field(
            description="what prolongs the TTLs: a frame when half is gone, every frame, a ping of "
            "`state_check` while the socket looks open, or nothing"
        ),
    ] = "when_half_gone"
    online_set: Annotated[
        Literal["scored", "plain"],
        Field(description="plain: also a SET without expiry per member, written apart from the records"),
    ] = "scored"
    flush_at_start: Annotated[
        bool, Field(description="a gateway that starts deletes every record, others' too")
    ] = False
    user_id_handshake: Annotated[
        bool, Field(description="let in whoever says /ws?userId=…, without a login; loopback only")
    ] = False
    token_in_path: Annotated[
        bool, Field(description="let in whoever says /ws/{token}: a path is in the logs of every proxy")
    ] = False


def refresh_after_s(policy: LivenessPolicy, rules: RecordRules) -> float:
    """How long after a refresh a frame brings the next one; infinite where frames bring none.

    Half of a TTL may be gone before it is refreshed: a refresh at every beat buys nothing.
    """
    match rules.refreshed:
        case "when_half_gone" if rules.expire:
            return min(policy.session_ttl, policy.status_ttl) / 2
        case "at_each_frame":
            return 0.0
        case _:
            return float("inf")
